"""What has ended of one's own, and what of it comes by e-mail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import NotFound
from catalog.i18n import LANGUAGE_NAMES, N_
from catalog.mail_texts import explanation, sentence
from catalog.store.records import NoticeRecord, NotificationSettings
from catalog.web.visit import CHECKED, Reader, Sent, Trouble, Visit
from experiments.notices import NoticeKind, Wish
from lab_templates.model import InvalidInput

router = APIRouter()
PAGE_SIZE = 25
_PATHS = {NoticeKind.RUN: "runs", NoticeKind.SWEEP: "sweeps", NoticeKind.SCHEDULE: "schedules"}
WISHES: dict[str, tuple[str, str]] = {
    Wish.ALL: (N_("Everything"), N_("An e-mail each time a run or a series of yours has ended.")),
    Wish.BATCHES: (
        N_("Series and schedules"),
        N_("What nobody sits and waits for: a series that has ended, and the runs that a schedule has started."),
    ),
    Wish.FAILURES: (N_("Only what goes wrong"), N_("Runs that fail, series with failed runs, schedules that stop.")),
    Wish.NONE: (N_("Nothing"), N_("You still see all notices here in the lab.")),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A notice as the list shows it. ``good`` says whether what it tells of went well."""

    record: NoticeRecord
    text: str
    more: str
    agency: str
    good: bool


@router.get("/notices")
def listing(visit: Reader, cursor: str = "") -> Response:
    page = visit.catalog.notices.list(visit.viewer, cursor=cursor or None, limit=PAGE_SIZE)
    settings = visit.catalog.notices.settings(visit.viewer)
    return visit.page(
        "notices.html",
        notices=_shown(visit, page.items),
        next=visit.url("/notices", cursor=page.next) if page.next else None,
        first=visit.url("/notices") if cursor else None,
        mailed=bool(settings.mail) and settings.wish is not Wish.NONE and visit.site.settings.sends_mail,
    )


@router.get("/notices/{id}")
def follow(id: str, visit: Reader) -> Response:
    """Go to what a notice tells of; whoever has been there has read it."""
    notice = visit.catalog.notices.get(visit.viewer, id)
    if notice.read_at is None:
        visit.catalog.notices.read(visit.viewer, [notice.id])
    return visit.go(f"/{_PATHS[notice.kind]}/{notice.subject}")


@router.post("/notices/read", dependencies=CHECKED)
def read_all(visit: Reader) -> Response:
    visit.catalog.notices.read(visit.viewer)
    return visit.go("/notices")


@router.get("/me")
def me(visit: Reader, saved: str = "") -> Response:
    return _me(visit, visit.catalog.notices.settings(visit.viewer), saved=bool(saved))


@router.post("/me")
def choose(visit: Reader, form: Sent) -> Response:
    mail, wish, language = form.get("mail"), form.get("wish"), form.get("language")
    try:
        visit.catalog.notices.choose(visit.viewer, mail=mail, wish=wish, language=language)
    except InvalidInput as error:
        t = visit.t
        labels = {
            "mail": t(N_("E-mail address")),
            "wish": t(N_("What do you want by e-mail?")),
            "language": t(N_("Language of the e-mails")),
        }
        ids = {"mail": "mail", "wish": "wish-all", "language": "language"}
        troubles = visit.troubles(error.problems, labels, ids)
        given = NotificationSettings(mail, Wish(wish) if wish in tuple(Wish) else Wish.NONE, language)
        return _me(visit, given, troubles=troubles)
    return visit.go("/me", saved=1)


def _me(
    visit: Visit, given: NotificationSettings, *, saved: bool = False, troubles: Iterable[Trouble] = ()
) -> Response:
    t, viewer = visit.t, visit.viewer
    found = tuple(troubles)
    names = {a.orgnr: t.text(a.name) for a in visit.catalog.agencies.list(viewer, active_only=False)}
    return visit.page(
        "me.html",
        422 if found else 200,
        given=given,
        # Who has chosen nothing yet reads the pages in the language that the e-mails had better have.
        tongue=given.language if given.mail or found else t.language,
        wishes=[(word, t(name), t(what)) for word, (name, what) in WISHES.items()],
        tongues=list(LANGUAGE_NAMES.items()),
        places=[(names.get(g.agency, g.agency), g.role, g.ends) for g in viewer.grants],
        sends=visit.site.settings.sends_mail,
        saved=saved,
        troubles=found,
        wrong={trouble.field: trouble.text for trouble in reversed(found)},
    )


def _shown(visit: Visit, notices: Iterable[NoticeRecord]) -> list[Shown]:
    t = visit.t
    titles: dict[tuple[str, str], str] = {}
    names = {a.orgnr: t.text(a.name) for a in visit.catalog.agencies.list(visit.viewer, active_only=False)}
    shown = []
    for notice in notices:
        key = (notice.template, notice.version)
        if key not in titles:
            titles[key] = _title(visit, *key)
        said = sentence(replace(notice, template=titles[key]), t)
        more = explanation(notice, t)
        shown.append(Shown(notice, said, more, names.get(notice.agency, notice.agency), notice.state == "succeeded"))
    return shown


def _title(visit: Visit, template: str, version: str) -> str:
    try:
        found = visit.catalog.templates.get(visit.viewer, template, version or None).version
    except NotFound:
        return template
    return f"“{visit.t.text(found.title)}”" if visit.t.language == "en" else f"«{visit.t.text(found.title)}»"
