"""Machine words to sentences: states, reasons, problems. The words are stored, the sentences are translated where they are shown."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.i18n import N_, Translator
from experiments.model import Reason, RunState
from lab_templates.model import Problem, TemplateState

STATES: dict[str, str] = {
    RunState.QUEUED: N_("Waiting"),
    RunState.RUNNING: N_("Running"),
    RunState.SUCCEEDED: N_("Finished"),
    RunState.FAILED: N_("Failed"),
    RunState.TIMED_OUT: N_("Timed out"),
    RunState.CANCELLED: N_("Cancelled"),
}

# The colour of a state's tag, among the design system's own.
STATE_COLORS: dict[str, str] = {
    RunState.QUEUED: "neutral",
    RunState.RUNNING: "info",
    RunState.SUCCEEDED: "success",
    RunState.FAILED: "danger",
    RunState.TIMED_OUT: "warning",
    RunState.CANCELLED: "neutral",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, and what to do about it. Both are message ids."""

    what: str
    next: str


REASONS: dict[str, Explanation] = {
    Reason.CELL_FAILED: Explanation(
        N_("A step in the template failed while it was running."),
        N_("Look at the error below. If the values you gave are right, tell those who made the template."),
    ),
    Reason.KERNEL_DIED: Explanation(
        N_("The program that ran the template stopped in the middle of the work."),
        N_("Try again. If it happens again, tell those who made the template."),
    ),
    Reason.OUT_OF_MEMORY: Explanation(
        N_("The run used more memory than it is allowed to."),
        N_("Try again with a smaller selection of data, or ask the lab's coordinator for a higher limit."),
    ),
    Reason.RUNNER_LOST: Explanation(
        N_("The machine that executed the run disappeared, each time it was tried."),
        N_("Try again later. The fault is in the lab, not in your values."),
    ),
    Reason.START_FAILED: Explanation(
        N_("The lab could not start a place for the run to be executed."),
        N_("Try again later. The fault is in the lab, not in your values."),
    ),
    Reason.BAD_RESULT: Explanation(
        N_("The run ended, but what it sent back could not be read."),
        N_("Tell those who made the template. Nothing from this run can be used."),
    ),
    Reason.TIME_LIMIT: Explanation(
        N_("The run did not finish within its time limit, so it was stopped."),
        N_("Start it again with a longer time limit, or with a smaller selection of data."),
    ),
    Reason.CANCELLED_BY_USER: Explanation(
        N_("The run was cancelled before it was finished."),
        N_("Start it again if you need the result."),
    ),
}

NOTICES: dict[str, str] = {
    "output_cut": N_("The run wrote more output than there is room for. The rest was cut."),
    "records_dropped": N_("Some of the results that the notebook recorded were not valid and were left out."),
}
_UNKNOWN_NOTICE = N_("The lab noted something about this run: %(code)s.")

TEMPLATE_STATES: dict[str, str] = {
    TemplateState.SUBMITTED: N_("Waits for approval"),
    TemplateState.PUBLISHED: N_("Published"),
    TemplateState.DEPRECATED: N_("Out of use"),
}
TEMPLATE_STATE_COLORS: dict[str, str] = {
    TemplateState.SUBMITTED: "warning",
    TemplateState.PUBLISHED: "success",
    TemplateState.DEPRECATED: "neutral",
}

ROLES: dict[str, str] = {
    "member": N_("Member"),
    "coordinator": N_("Coordinator"),
    "leader": N_("Leader"),
    "admin": N_("Administrator"),
}
KINDS: dict[str, str] = {"employed": N_("Employed"), "seconded": N_("Seconded")}
VISIBILITIES: dict[str, str] = {
    "agency": N_("Our agency only"),
    "lab": N_("Everybody in the lab"),
    "public": N_("Everybody, also outside the lab"),
}
EXPERIMENT_STATES: dict[str, str] = {
    "draft": N_("Draft"),
    "registered": N_("Registered"),
    "running": N_("Under way"),
    "analysed": N_("Analysed"),
    "published": N_("Published"),
    "stopped": N_("Stopped"),
}
DATA_CLASSES: dict[str, str] = {
    "synthetic": N_("Made-up data"),
    "open": N_("Open data"),
    "anonymised": N_("Anonymised data"),
    "pseudonymised": N_("Pseudonymised personal data"),
    "personal": N_("Personal data"),
}

# ``%(field)s`` is the field's label where it has one, ``%(value)s`` what was given, ``%(limit)s`` what is allowed.
PROBLEMS: dict[str, str] = {
    "unknown_template": N_("There is no template called “%(value)s”. Choose one from the list of templates."),
    "not_published": N_(
        "The template “%(value)s” is not published. Choose another version, or wait until it has been approved."
    ),
    "not_a_member": N_("You are not a member of this agency. Choose one of your own agencies."),
    "unknown_parameter": N_("The template has no field called “%(field)s”. Remove it."),
    "missing_value": N_("%(field)s is empty. Fill it in."),
    "wrong_type": N_("%(field)s cannot be “%(value)s”. Give a value of this kind: %(limit)s."),
    "below_minimum": N_("%(field)s is %(value)s. It must be at least %(limit)s."),
    "above_maximum": N_("%(field)s is %(value)s. It must be at most %(limit)s."),
    "not_a_choice": N_("%(field)s cannot be “%(value)s”. Choose one of these: %(limit)s."),
    "not_finite": N_("%(field)s must be an ordinary number, not “%(value)s”."),
    "too_long": N_("%(field)s is too long. It can be at most %(limit)s characters."),
    "not_a_date": N_("%(field)s must be a date, written like 2026-01-31, not “%(value)s”."),
    "bad_name": N_("“%(value)s” cannot be used as a name."),
    "bad_timeout": N_("The time limit cannot be “%(value)s”. Give a number of seconds, at most %(limit)s."),
    "unknown_experiment": N_("The experiment was not found in this agency. Choose another, or none."),
    "version_exists": N_("Version %(value)s exists already. Give the new one a higher version number."),
    "choose_agency": N_("Choose the agency that the run is for."),
    "file_missing": N_("%(field)s is missing. Choose a file."),
    "file_too_big": N_("%(field)s is too big. It can be at most %(limit)s."),
    "missing_title": N_("Give the experiment a title."),
}


def state(t: Translator, word: str) -> str:
    return t(STATES.get(word, word))


def reason(t: Translator, word: str | None) -> tuple[str, str] | None:
    """Return (what happened, what to do), or None where the run ended well or has not ended."""
    if word is None:
        return None
    known = REASONS.get(word)
    return (
        (t(known.what), t(known.next)) if known else (t(N_("The run ended for this reason: %(code)s."), code=word), "")
    )


def notice(t: Translator, word: str) -> str:
    return t(NOTICES[word]) if word in NOTICES else t(_UNKNOWN_NOTICE, code=word)


def problem(t: Translator, problem: Problem, label: str = "") -> str:
    """Return a problem as one sentence; the English message of the code's origin where no wording is known."""
    wording = PROBLEMS.get(problem.code)
    if wording is None:
        return problem.message or problem.code
    return t(wording, field=label or problem.field, value=problem.value, limit=problem.limit)
