"""Machine words to sentences: states, reasons, problems. The words are stored, the sentences are translated where they
are shown.
"""

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

# What happens while a run is under way; ``static/run.js`` chooses among them as ``stage`` does.
STAGES: dict[str, str] = {
    "waiting": N_("The lab is finding room for it."),
    "again": N_("The run was interrupted. The lab is finding room for another try."),
    "starting": N_("Starting the notebook …"),
    "working": N_("The notebook is working through its steps."),
    "stopping": N_("The run is being cancelled …"),
}

# How long is left, by earlier runs, and what a run waits for; ``static/run.js`` chooses as ``left`` and ``waits`` do.
LEFT: dict[str, str] = {
    "soon": N_("Less than a minute left"),
    "minute": N_("About 1 minute left"),
    "minutes": N_("About {count} minutes left"),
    "hour": N_("About 1 hour left"),
    "hours": N_("About {count} hours left"),
}
WAITS: dict[str, str] = {
    "full": N_("The agency has {running} runs under way, as many as it may have at a time."),
    "full_one": N_("The agency has a run under way, and may have one at a time."),
    "ahead": N_("{ahead} of the agency's runs come before this one."),
    "ahead_one": N_("One of the agency's runs comes before this one."),
    "next": N_("This is the agency's next run."),
}
LONG_WAIT = 10.0  # seconds after which it is said what a run waits for

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
    Reason.ASKED_FOR_INPUT: Explanation(
        N_("A step in the template waits for somebody to type an answer, and nobody is there to do so."),
        N_("Tell those who made the template. What it needs to know must be one of its fields."),
    ),
    Reason.NO_SPACE: Explanation(
        N_("The run wrote more files than there is room for."),
        N_("Try again with a smaller selection of data, or tell those who made the template."),
    ),
    Reason.TOO_MANY_PROCESSES: Explanation(
        N_("The run started more programs at the same time than it is allowed to."),
        N_("Tell those who made the template. It asks for more of the machine than a run can have."),
    ),
    Reason.TOO_MANY_FILES: Explanation(
        N_("The run had more files open at the same time than it is allowed to."),
        N_("Tell those who made the template. It asks for more of the machine than a run can have."),
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
    "records_dropped": N_("The notebook recorded more results than there is room for. The rest was left out."),
    "bad_record": N_("Some of the results that the notebook recorded could not be read, and were left out."),
    "figure_too_big": N_("A figure was too large and was left out."),
    "table_cut": N_("A table was larger than there is room for. The rest of it was cut."),
    "outcome_corrected": N_("The run said that it had succeeded, but one of its steps had failed."),
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
    "bad_text": N_("%(field)s holds a character that cannot be used. Type it again without it."),
    "given_twice": N_("“%(field)s” is given more than once. Keep one of them."),
    "bad_pair": N_("“%(value)s” has no equals sign. Write it as name=value."),
    "bad_file": N_("The file of values could not be read. Write one name and value on each line."),
    "bad_cursor": N_("This list has changed since you opened it. Start from the top."),
    "bad_limit": N_("A list can be asked for 1 to 200 lines at a time, not “%(value)s”."),
    "bad_idempotency_key": N_("The form could not be recognised. Open it again and send it once more."),
    "idempotency_key_reused": N_(
        "This form has been sent before with other values. Open it again and send it once more."
    ),
    "schedule_removed": N_(
        "This form has made a schedule, which has been removed since. Open the form again to make a new one."
    ),
    "not_ended": N_("The run has not ended yet. Wait until it has, or cancel it first."),
    "unknown_field": N_("“%(field)s” cannot be changed."),
    "agency_closed": N_("The agency is closed. Choose another."),
    "quota_too_small": N_(
        "The agency's quota is smaller than a single run needs. Ask the lab's administrators to raise it."
    ),
    "unknown_agency": N_("There is no agency “%(value)s”. Choose one from the list."),
    "bad_orgnr": N_("“%(value)s” is not an organisation number. It has nine digits."),
    "bad_slug": N_("“%(value)s” cannot be a short name. Use 1 to 20 small letters a–z, digits and hyphens."),
    "orgnr_taken": N_("There is an agency with the organisation number %(value)s already."),
    "slug_taken": N_("There is an agency with the short name “%(value)s” already."),
    "bad_person": N_("“%(value)s” cannot be a user name. Write it without spaces and special characters."),
    "national_id": N_("This is a national identity number. Use the name that the person signs in with."),
    "ends_before_start": N_("The last day is before the first. Give a later one."),
    "admin_has_no_agency": N_("An administrator belongs to the whole lab. Choose another role for a single agency."),
    "already_member": N_("The person has this role in the agency already. End that membership first."),
    "already_ended": N_("This membership has ended already."),
    "last_admin": N_("This is the lab's last administrator. Add another one first."),
    "choose_agency": N_("Choose an agency."),
    "missing_title": N_("Give the experiment a title."),
    "bad_state": N_("This cannot be done with something that is %(value)s. Reload the page to see what can."),
    "bad_mail": N_("“%(value)s” is not an e-mail address. Write it like kari.nordmann@example.no."),
    # Sweeps and schedules.
    "too_many_runs": N_("This is %(value)s runs. At most %(limit)s are allowed at once. Give fewer values."),
    "empty_sweep": N_("The series has no runs. Give at least one value that varies."),
    "bad_sweep": N_("A series is either a grid, a list of points or a sample. Give exactly one of them."),
    "bad_space": N_("%(field)s cannot vary over “%(value)s”. Give a list of values, or a range from low to high."),
    "no_range": N_("%(field)s has no lowest and highest value in its template. Give the range to draw from."),
    "nothing_to_resume": N_("Every run of this series has succeeded or is still under way. There is nothing to redo."),
    "bad_cron": N_("“%(value)s” is not a time that comes again. Write it as five fields, for example 0 6 * * 1-5."),
    "bad_zone": N_("There is no time zone “%(value)s”. Write it like Europe/Oslo."),
    "never_again": N_("The times “%(value)s” never come again. Make a new schedule."),
    "choose_rhythm": N_("Choose how often it should run."),
    "bad_clock": N_("“%(value)s” is not a time of day. Write it like 07:30."),
    "choose_weekday": N_("Choose at least one day of the week."),
    "choose_monthday": N_("Choose a day of the month."),
    "experiment_closed": N_("The experiment is closed. Choose another, or none."),
    # The publish gate: for those who make templates.
    "missing_file": N_("%(field)s is missing. Choose it."),
    "file_too_large": N_("%(field)s is too large. It can be at most %(limit)s bytes."),
    "no_such_folder": N_("There is no folder “%(value)s”."),
    "not_a_file": N_("“%(field)s” is not an ordinary file. Put one there."),
    "digest_differs": N_("The template is not what its three files say. Send in the files again."),
    "not_waiting": N_("Version %(value)s is not in a state where that can be done. Reload the page."),
    "not_a_notebook": N_("%(field)s is not a notebook. Choose the .ipynb file."),
    "bad_json": N_("The notebook is not complete (%(value)s). Save it again from JupyterLab."),
    "too_deep": N_("The notebook is nested too deeply. Save it again from JupyterLab."),
    "bad_format": N_("The notebook has format %(value)s, which cannot be used. Save it again from a newer JupyterLab."),
    "bad_notebook": N_("The notebook breaks its own format (%(value)s). Save it again from JupyterLab."),
    "no_cells": N_("The notebook has no cells. Add the cells of the experiment."),
    "too_many_cells": N_("The notebook has %(value)s cells. It can have at most %(limit)s."),
    "duplicate_ids": N_("Several cells have the same id (%(value)s). Save the notebook again from JupyterLab."),
    "unknown_kernel": N_("The notebook wants the kernel “%(value)s”, which the lab does not have. It has: %(limit)s."),
    "no_language": N_("The notebook does not say which programming language it is in. Save it again from JupyterLab."),
    "no_parameters_cell": N_(
        "No cell has the tag “parameters”. Put the standard values in one code cell and give it that tag."
    ),
    "two_parameters_cells": N_("Cells %(value)s all have the tag “parameters”. Keep it on one of them."),
    "bad_parameters_cell": N_(
        "The cell with the tag “parameters” cannot be read (%(value)s). Let it hold name = value lines only."
    ),
    "not_declared": N_("The notebook sets “%(field)s”, which template.toml does not declare. Declare it, or move it."),
    "not_in_notebook": N_(
        "template.toml declares “%(field)s”, but the notebook does not set it. Add it to the parameters cell."
    ),
    "default_differs": N_(
        "“%(field)s” is %(value)s in the notebook and %(limit)s in template.toml. Make them the same."
    ),
    "has_outputs": N_("Cells %(value)s hold outputs. Clear all outputs and save the notebook again."),
    "bad_attachment": N_("An attachment has a name that cannot be used (%(value)s). Give it a plain file name."),
    "bad_declaration": N_("template.toml: %(field)s cannot be “%(value)s”. Correct it."),
    "unknown_key": N_("template.toml: “%(field)s” is not a known key. Take it out."),
    "bad_default": N_("template.toml: the standard value of “%(field)s” (%(value)s) is not one that the field allows."),
    "bad_range": N_("template.toml: the type, limits or choices of “%(field)s” do not fit together."),
    "nothing_recorded": N_("The notebook records no results. Use record.metric, record.figure or record.finding."),
    "metric_not_recorded": N_(
        "template.toml declares the measure “%(field)s”, but the notebook does not seem to record it."
    ),
    "needs_network": N_("The code holds “%(value)s”, but a run has no network. Use data that a package carries."),
    "no_readme": N_("README.md is empty. Say what the template answers, with which data, and what it cannot say."),
}

# What a value has to be, by its declared type.
TYPES: dict[str, str] = {
    "number": N_("a number, for instance 0.5"),
    "integer": N_("a whole number, for instance 12"),
    "boolean": N_("yes or no"),
    "text": N_("text"),
    "choice": N_("one of the choices"),
    "date": N_("a date"),
}


def state(t: Translator, word: str) -> str:
    return t(STATES.get(word, word))


def stage(state: RunState, steps: int, *, again: bool, stop: bool) -> str:
    """Return which of STAGES a run is in that has not ended. ``steps``: how many its notebook has, 0 until it says."""
    if stop:
        return "stopping"
    if state is RunState.QUEUED:
        return "again" if again else "waiting"
    return "working" if steps else "starting"


def left(t: Translator, seconds: float | None) -> str:
    """Return how long is left in words, "" where nobody knows."""
    if seconds is None or seconds <= 0:
        return ""
    minutes, hours = max(1, round(seconds / 60)), round(seconds / 3600)
    if seconds < 50:
        word, count = "soon", 0
    elif minutes < 60:
        word, count = "minute" if minutes == 1 else "minutes", minutes
    else:
        word, count = "hour" if hours == 1 else "hours", hours
    return t(LEFT[word]).format(count=count)


def waits(t: Translator, ahead: int | None, running: int, limit: int) -> str:
    """Return what a run waits for. ``ahead``: how many of its agency's runs come first, None where it has no place."""
    words = []
    if running >= limit:
        words.append("full_one" if running == 1 else "full")
    if ahead is not None:
        words.append("next" if ahead == 0 else "ahead_one" if ahead == 1 else "ahead")
    return " ".join(t(WAITS[word]).format(running=running, ahead=ahead) for word in words)


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
    limit = t(TYPES[problem.limit]) if problem.limit in TYPES else _number(t, problem.limit)
    return t(wording, field=label or problem.field, value=problem.value, limit=limit)


def _number(t: Translator, text: str) -> str:
    """Return a limit as this language writes it, if it is a number."""
    try:
        value = float(text)
    except ValueError:
        return text
    return t.exact(value)
