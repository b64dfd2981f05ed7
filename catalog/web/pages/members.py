"""Who belongs to which agency: for coordinators (their own agencies) and admins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, Forbidden, NotFound, is_admin, may_anywhere
from catalog.i18n import N_, ZONE
from catalog.store.records import MemberRecord
from catalog.web.fields import day
from catalog.web.visit import CHECKED, Reader, Sent, Trouble, Visit
from lab_templates.model import InvalidInput, Problem

router = APIRouter()
_FIELDS = ("person", "agency", "role", "kind", "starts", "ends")


def _manager(visit: Visit) -> None:
    if not (is_admin(visit.viewer) or may_anywhere(visit.viewer, Action.PUBLISH)):
        raise Forbidden("Memberships are handled by coordinators and admins.")


@router.get("/members")
def listing(visit: Reader, agency: str = "", ended: str = "", done: str = "") -> Response:
    _manager(visit)
    return _page(visit, {"agency": agency}, ended=bool(ended), done=done if done in ("added", "ended") else "")


@router.post("/members")
def add(visit: Reader, form: Sent) -> Response:
    problems: list[Problem] = []
    starts = day(problems, "starts", form.get("starts"))
    ends = day(problems, "ends", form.get("ends"))
    lab = form.get("role") == "admin"
    if not form.get("agency") and not lab:
        problems.append(Problem("choose_agency", "agency"))
    if not form.get("person"):
        problems.append(Problem("missing_value", "person"))
    if not problems:
        try:
            visit.catalog.members.add(
                visit.viewer,
                person=form.get("person"),
                agency="" if lab else form.get("agency"),
                role=form.get("role"),
                kind=form.get("kind") or "employed",
                starts=starts,
                ends=ends,
            )
        except InvalidInput as error:
            problems.extend(error.problems)
        else:
            return visit.go("/members", agency="" if lab else form.get("agency"), done="added")
    return _page(visit, form.values, troubles=_troubles(visit, problems))


@router.get("/members/{id}/end")
def ask_end(id: str, visit: Reader) -> Response:
    _manager(visit)
    member, t = _member(visit, id), visit.t
    return visit.page(
        "confirm.html",
        title=t("End the membership of %(person)s?", person=member.person),
        text=t(
            "It ends at once: desks are stopped, and access to the agency's runs is gone. The person's files are kept."
        ),
        action=visit.url(f"/members/{id}/end"),
        button=t("End the membership"),
        back=visit.url("/members"),
        danger=True,
    )


@router.post("/members/{id}/end", dependencies=CHECKED)
def end(id: str, visit: Reader) -> Response:
    # The last day counts as a whole, so an end at once is yesterday, by the store's clock (UTC).
    visit.catalog.members.end(visit.viewer, id, (datetime.now(UTC) - timedelta(days=1)).date())
    return visit.go("/members", done="ended")


def _member(visit: Visit, id: str) -> MemberRecord:
    for member in visit.catalog.members.list(visit.viewer):
        if member.id == id:
            return member
    raise NotFound("There is no such membership.")


def _page(
    visit: Visit,
    given: Mapping[str, str],
    *,
    troubles: Sequence[Trouble] = (),
    ended: bool = False,
    done: str = "",
) -> Response:
    t, today = visit.t, datetime.now(ZONE).date()
    agencies = visit.my_agencies(Action.PUBLISH)
    handled = {agency.orgnr for agency in agencies} | ({""} if is_admin(visit.viewer) else set())
    rows = [m for m in visit.catalog.members.list(visit.viewer) if m.agency in handled]
    if given.get("agency") and not troubles:
        rows = [m for m in rows if m.agency == given["agency"]]
    current = [m for m in rows if m.ends is None or m.ends >= today]
    roles = [(word, t(text)) for word, text in wording.ROLES.items() if word != "admin" or is_admin(visit.viewer)]
    return visit.page(
        "members.html",
        422 if troubles else 200,
        members=rows if ended else current,
        ended=ended,
        hidden=len(rows) - len(current),
        today=today,
        agencies=agencies,
        names={agency.orgnr: t.text(agency.name) for agency in agencies},
        roles=roles,
        kinds=[(word, t(text)) for word, text in wording.KINDS.items()],
        given={name: given.get(name, "") for name in _FIELDS},
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
        done=done,
    )


def _troubles(visit: Visit, problems: list[Problem]) -> list[Trouble]:
    t = visit.t
    labels = {
        "person": t(N_("User name")),
        "agency": t(N_("Agency")),
        "role": t(N_("Role")),
        "kind": t(N_("Kind of membership")),
        "starts": t(N_("First day")),
        "ends": t(N_("Last day")),
    }
    return visit.troubles(problems, labels, {name: name for name in _FIELDS})
