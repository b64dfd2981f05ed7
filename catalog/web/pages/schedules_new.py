"""The form that makes a schedule: first filled in, then looked at with its coming times, then saved."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import Action, Forbidden
from catalog.i18n import N_
from catalog.reports.display import value_rows
from catalog.store.records import NewSchedule, ScheduleRecord, TemplateRecord
from catalog.web import run_form
from catalog.web.pages.schedules import CATCH_UPS
from catalog.web.pages.schedules_times import (
    DAYS,
    LAST_DAY,
    RHYTHMS,
    WEEKDAYS,
    cron_of,
    form_of,
    in_words,
    moments,
    zones,
)
from catalog.web.visit import Form, Reader, Sent, Trouble, Visit
from experiments.schedules import DEFAULT_PARAMETER, DEFAULT_ZONE, CatchUp, time_parameter
from lab_templates.model import InvalidInput, ParameterSpec, Problem, TemplateState, TemplateVersion
from lab_templates.parameters import bind

router = APIRouter()
# What the form begins with.
_FIRST = {"rhythm": "weekdays", "clock": "07:00", "zone": DEFAULT_ZONE, "catch_up": CatchUp.ONCE.value, "monthday": "1"}
_CHOICES = ("title", "rhythm", "clock", "monthday", "cron", "zone", "follow", "time_parameter", "catch_up")
_RUN = ("agency", "experiment", "minutes")


@router.get("/schedules/new")
def new(
    visit: Reader,
    template: str = "",
    version: str = "",
    agency: str = "",
    experiment: str = "",
    run: str = "",
    like: str = "",
) -> Response:
    if not visit.my_agencies(Action.SUBMIT):
        raise Forbidden("Schedules are made by members of an agency.")
    model = visit.catalog.schedules.get(visit.viewer, like) if like else None
    if model is not None:
        template, version = model.template, model.version or ""
    if not template:
        return _choose(visit, agency, experiment)
    record = visit.catalog.templates.get(visit.viewer, template, version or None)
    given = _like(visit, model, record.version) if model else run_form.of_run(visit, run, record.version) if run else {}
    given = {**_FIRST, "time_parameter": _usual(record.version), **given}
    if visit.t.language != "en":
        given["clock"] = given["clock"].replace(":", ".")
    given |= {"agency": agency or given.get("agency", ""), "experiment": experiment or given.get("experiment", "")}
    return _form(visit, record, given)


@router.post("/schedules/new")
def make(visit: Reader, form: Sent) -> Response:
    """Show the coming times (``do=look``), the form again (``change``), or save what was looked at (``save``)."""
    record = visit.catalog.templates.get(visit.viewer, form.get("template"), form.get("version") or None)
    if form.get("do") == "change":
        return _form(visit, record, form.values)
    wanted, problems = _read(form, record.version)
    try:
        if form.get("do") == "save" and not problems:
            wanted = replace(wanted, idempotency_key=form.get("key")[:100] or None)
            return visit.go(f"/schedules/{visit.catalog.schedules.add(visit.viewer, wanted)[0].id}", done="made")
        times = visit.catalog.schedules.plan(visit.viewer, wanted)
    except InvalidInput as error:
        problems.extend(_unsaid(error, problems))
    if problems:
        return _form(visit, record, form.values, _troubles(visit, record.version, problems))
    return visit.page(
        "schedule_check.html",
        record=record,
        wanted=wanted,
        sent=_kept(form, record.version),
        key=str(uuid.uuid4()),
        words=in_words(wanted.cron, visit.t),
        times=moments(times, wanted.zone, visit.catalog.clock(), visit.t),
        **_summary(visit, record.version, wanted, form),
    )


def _choose(visit: Visit, agency: str, experiment: str) -> Response:
    return visit.page(
        "schedule_template.html",
        templates=visit.catalog.templates.list(visit.viewer),
        more={"agency": agency, "experiment": experiment},
    )


def _read(form: Form, version: TemplateVersion) -> tuple[NewSchedule, list[Problem]]:
    """Return what the form asks for, and what is wrong with its own choices; the store checks the rest."""
    cron, problems = cron_of(form.values)
    seconds, wrong = run_form.time_limit(form)
    parameters = run_form.values(form, version)
    gets_time = form.get("time_parameter")
    if gets_time:
        parameters.pop(gets_time, None)
    if not form.get("agency"):
        problems.append(Problem("choose_agency", "agency"))
    wanted = NewSchedule(
        template=version.name,
        agency=form.get("agency"),
        cron=cron,
        zone=form.get("zone"),
        title=form.get("title"),
        parameters=parameters,
        version=version.version if form.get("follow") == "this" else None,
        experiment=form.get("experiment") or None,
        timeout_seconds=seconds,
        time_parameter=gets_time or None,
        catch_up=form.get("catch_up"),
    )
    return wanted, problems + wrong


def _unsaid(error: InvalidInput, said: list[Problem]) -> list[Problem]:
    """Return the store's problems without those that the form's own choices have been blamed for."""
    about_time = any(p.field in ("rhythm", "clock", "weekdays", "monthday") for p in said)
    fields = {p.field for p in said}
    return [p for p in error.problems if not (p.code == "bad_cron" and about_time) and p.field not in fields]


def _form(
    visit: Visit, record: TemplateRecord, given: Mapping[str, str], troubles: tuple[Trouble, ...] = ()
) -> Response:
    t, version = visit.t, record.version
    return visit.page(
        "schedule_form.html",
        422 if troubles else 200,
        record=record,
        version=version,
        given={name: given.get(name, "") for name in _CHOICES},
        rhythms=[(word, t(text)) for word, text in RHYTHMS.items()],
        weekdays=[(f"day-{day}", t(name), bool(given.get(f"day-{day}"))) for day, name in WEEKDAYS.items()],
        monthdays=[(day, t(N_("The last day of the month")) if day == LAST_DAY else day) for day in DAYS],
        zones=zones(),
        catch_ups=[(word, t(name), t(what)) for word, (name, what) in CATCH_UPS.items()],
        takers=[(spec.name, t.text(spec.label) or spec.name) for spec in _takers(version)],
        inputs=run_form.inputs(visit, version, given),
        **run_form.about(visit, version, given),
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
        usable=record.state is TemplateState.PUBLISHED,
    )


def _troubles(visit: Visit, version: TemplateVersion, problems: list[Problem]) -> tuple[Trouble, ...]:
    t = visit.t
    others = {
        "title": ("title", t(N_("Name"))),
        "rhythm": (f"rhythm-{next(iter(RHYTHMS))}", ""),
        "weekdays": (f"day-{next(iter(WEEKDAYS))}", ""),
        "monthday": ("monthday", ""),
        "cron": ("cron", t(N_("Expression"))),
        "clock": ("clock", ""),
        "zone": ("zone", t(N_("Time zone"))),
        "catch_up": (f"catch_up-{next(iter(CATCH_UPS))}", t(N_("If the lab was down at the time"))),
        "time_parameter": ("time_parameter", t(N_("Field that gets the time"))),
    }
    return run_form.troubles(visit, version, problems, others)


def _kept(form: Form, version: TemplateVersion) -> list[tuple[str, str]]:
    """Return the fields that the page between form and saving carries along."""
    names = ["template", "version", *_CHOICES, *_RUN, *(f"day-{day}" for day in WEEKDAYS)]
    names += [run_form.field_id(spec) for spec in version.parameters]
    return [(name, form.values[name]) for name in names if name in form.values]


def _summary(visit: Visit, version: TemplateVersion, wanted: NewSchedule, form: Form) -> dict[str, Any]:
    t = visit.t
    bound = bind(version, wanted.parameters)
    label = ""
    if wanted.time_parameter and (spec := version.parameter(wanted.time_parameter)):
        label = t.text(spec.label) or spec.name
    experiment = ""
    if wanted.experiment:
        experiment = visit.catalog.experiments.get(visit.viewer, wanted.experiment).title
    agency = visit.catalog.agencies.get(visit.viewer, wanted.agency)
    return {
        "values": value_rows({name: bound.values[name] for name in wanted.parameters}, version, t),
        "time_label": label,
        "catch_up": t(CATCH_UPS[wanted.catch_up][0]),
        "agency": t.text(agency.name),
        "experiment": experiment,
        "minutes": form.get("minutes"),
    }


def _takers(version: TemplateVersion) -> list[ParameterSpec]:
    """Return the parameters that can hold the scheduled time."""
    return [spec for spec in version.parameters if _takes_time(version, spec.name)]


def _takes_time(version: TemplateVersion, name: str) -> bool:
    try:
        return time_parameter(version, name) == name
    except InvalidInput:
        return False


def _usual(version: TemplateVersion) -> str:
    return DEFAULT_PARAMETER if any(spec.name == DEFAULT_PARAMETER for spec in _takers(version)) else ""


def _like(visit: Visit, model: ScheduleRecord, version: TemplateVersion) -> dict[str, str]:
    """Return the form's fields for a schedule like another; values that the template no longer takes are left out."""
    raw = {name: value for name, value in model.parameters.items() if version.parameter(name)}
    try:
        typed = bind(version, raw).values
    except InvalidInput:
        typed = {}
    given = {f"p-{name}": run_form.shown(visit, value) for name, value in typed.items()}
    if model.timeout_seconds is not None:
        given["minutes"] = visit.t.exact(model.timeout_seconds / 60)
    return {
        **given,
        **form_of(model.cron),
        "title": model.title,
        "zone": model.zone,
        "catch_up": model.catch_up.value,
        "time_parameter": model.time_parameter or "",
        "follow": "this" if model.version else "",
        "agency": model.agency.orgnr,
        "experiment": model.experiment or "",
    }
