"""The words of an e-mail about a notice, in the person's language. It says where to read what was found, never what."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.i18n import N_, Translator, translator
from catalog.store.records import NoticeRecord
from experiments.notices import NoticeKind

# (kind, state) -> the sentence that is the subject and begins the text.
_SENTENCES: dict[tuple[str, str], str] = {
    ("run", "succeeded"): N_("The run of %(template)s is finished"),
    ("run", "failed"): N_("The run of %(template)s failed"),
    ("run", "timed_out"): N_("The run of %(template)s did not finish in time"),
    ("run", "cancelled"): N_("The run of %(template)s was cancelled"),
    ("sweep", "succeeded"): N_("All runs of the series of %(template)s are finished"),
    ("sweep", "partial"): N_("The series of %(template)s has ended, but some of its runs failed"),
    ("sweep", "failed"): N_("The series of %(template)s has ended without a run that succeeded"),
    ("sweep", "cancelled"): N_("The series of %(template)s was cancelled"),
    ("schedule", "stopped"): N_("The schedule for %(template)s has been stopped"),
}
_OTHER = N_("There is news about %(template)s")
_STOPPED: dict[str, str] = {
    "agency_closed": N_("The agency is closed in the lab."),
    "experiment_closed": N_("The experiment it belongs to is closed."),
    "requester_left": N_("Whoever made it can no longer start runs for the agency. A colleague can resume it."),
    "template_withdrawn": N_("Its template has been taken out of use."),
    "quota_too_small": N_("The agency's quota is smaller than a single run needs."),
    "invalid_parameters": N_("The newest version of its template does not take its values."),
    "never_again": N_("Its times will not come again."),
}
_PATHS = {NoticeKind.RUN: "runs", NoticeKind.SWEEP: "sweeps", NoticeKind.SCHEDULE: "schedules"}


@dataclass(frozen=True, slots=True)
class MailText:
    subject: str
    body: str


def sentence(notice: NoticeRecord, t: Translator) -> str:
    """Return what a notice says, without a full stop: also for the pages."""
    return t(_SENTENCES.get((notice.kind.value, notice.state), _OTHER), template=notice.template)


def explanation(notice: NoticeRecord, t: Translator) -> str:
    """Return what more there is to say of a notice, "" if nothing."""
    counts = notice.detail.get("counts")
    if isinstance(counts, dict) and notice.kind is NoticeKind.SWEEP:
        done, size = counts.get("succeeded", 0), notice.detail.get("size", 0)
        return t(N_("%(done)s of %(size)s runs succeeded."), done=t.number(done), size=t.number(int(str(size))))
    return stop_reason(str(notice.detail.get("reason", "")), t) if notice.kind is NoticeKind.SCHEDULE else ""


def stop_reason(word: str, t: Translator) -> str:
    """Return why the lab has stopped a schedule, "" for a word that is none: also for the pages."""
    return t(_STOPPED.get(word, ""))


def mail_text(notice: NoticeRecord, language: str, lab_url: str) -> MailText:
    """Return an e-mail as plain text. ``lab_url`` is the address of the catalog's pages, without a slash at the end."""
    t = translator(language)
    said = sentence(notice, t)
    parts = [
        f"{said}.",
        explanation(notice, t),
        t(N_("Read more: %(url)s"), url=f"{lab_url}/{_PATHS[notice.kind]}/{notice.subject}"),
        t(N_("You get this e-mail because you asked for the work. Choose what you get: %(url)s"), url=f"{lab_url}/me"),
    ]
    return MailText(f"Prøverom: {said}", "\n\n".join(part for part in parts if part) + "\n")
