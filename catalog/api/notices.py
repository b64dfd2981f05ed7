"""What one is told when work ends, and what of it by e-mail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from catalog.api.answers import NoticeOut, NoticesOut, NotificationsOut, ReadOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Paging, Who
from catalog.api.models import NotificationsIn, ReadIn
from catalog.api.problems import responses

router = APIRouter(tags=["notices"], route_class=StrictRoute)


class NoticeWords(Paging):
    unread: bool = False


@router.get("/me/notices", responses=responses())
def list_notices(query: Annotated[NoticeWords, Query()], who: Who, lab: Lab) -> NoticesOut:
    """Your own notices, newest first, and how many you have not read."""
    page = lab.catalog.notices.list(who, unread=query.unread, cursor=query.cursor, limit=query.limit)
    return NoticesOut(
        items=[NoticeOut.of(n) for n in page.items], next=page.next, unread=lab.catalog.notices.unread(who)
    )


@router.post("/me/notices/read", responses=responses(413, 415))
def read_notices(body: ReadIn, who: Who, lab: Lab) -> ReadOut:
    """Mark some of your notices as read, or all."""
    return ReadOut(read=lab.catalog.notices.read(who, body.ids))


@router.get("/me/notifications", responses=responses())
def my_notifications(who: Who, lab: Lab) -> NotificationsOut:
    return NotificationsOut.of(lab.catalog.notices.settings(who))


@router.put("/me/notifications", responses=responses(413, 415))
def choose_notifications(body: NotificationsIn, who: Who, lab: Lab) -> NotificationsOut:
    """Choose your address, and what you get by e-mail. Not from a desk."""
    return NotificationsOut.of(lab.catalog.notices.choose(who, mail=body.mail, wish=body.wish, language=body.language))
