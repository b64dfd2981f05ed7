"""From what somebody asks for to a request that can run: everything is checked, and said at once, before any row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Viewer
from catalog.store.experiments import agency_to_work_in, find_experiment
from catalog.store.fields import Problems, one_problem, storable
from catalog.store.limits import RunLimits
from catalog.store.records import Submission, SweepSubmission
from catalog.store.templates import find_version, newest_published, version_of
from catalog.tables import Agency, RunRow, SweepRow, TemplateVersionRow
from experiments.model import RunRequest, Scalar
from experiments.sweeps import Expansion, Range, Span, expand
from lab_templates.model import InvalidInput, TemplateState, TemplateVersion
from lab_templates.parameters import bind, bind_timeout
from lab_templates.text import clean_text, quote

_LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that can run, and the version it runs; or the run that this very submission made before."""

    request: RunRequest | None = None
    version: TemplateVersion | None = None
    existing: str | None = None


def check(session: Session, viewer: Viewer, submission: Submission, limits: RunLimits, now: datetime) -> Checked:
    """Check a submission against the catalog as it is.

    Raise Forbidden (a reader's submission), or InvalidInput with every problem: not_a_member, agency_closed,
    unknown_template, not_published, digest_differs, unknown_experiment, bad_timeout, bad_idempotency_key,
    quota_too_small, and those of ``parameters.bind``; idempotency_key_reused alone, if the key belongs to another
    request.
    """
    problems = Problems()
    key = submission_key(problems, submission.idempotency_key)
    agency = agency_to_work_in(session, problems, viewer, submission.agency)
    if key is not None and agency:
        existing = _used(session, viewer, key)
        if existing is not None:
            _refuse_reuse(session, existing, submission, agency, limits)
            return Checked(existing=existing.id)
    version = _version(session, problems, submission)
    values = _parameters(problems, version, submission)
    experiment = _experiment(session, problems, viewer, submission, agency, now)
    timeout = _timeout(problems, version, submission, limits)
    _fits(session, problems, agency, limits)
    problems.stop()
    if version is None:  # a problem was noted, so this is never reached
        raise InvalidInput(())
    request = RunRequest(
        agency=agency,
        template=version.name,
        version=version.version,
        template_digest=version.digest,
        parameters=values,
        timeout_seconds=timeout,
        requested_by=viewer.name,
        experiment=experiment,
        idempotency_key=key,
    )
    return Checked(request, version)


@dataclass(frozen=True, slots=True)
class CheckedSweep:
    """A sweep that can run: ``request`` is what its runs share, without parameters; ``kept`` is it as it is kept.

    Or the sweep that this very submission made before.
    """

    request: RunRequest | None = None
    version: TemplateVersion | None = None
    expansion: Expansion | None = None
    kept: dict[str, Any] | None = None
    existing: str | None = None


def check_sweep(
    session: Session, viewer: Viewer, submission: SweepSubmission, limits: RunLimits, now: datetime
) -> CheckedSweep:
    """Check a sweep against the catalog as it is, and make its points.

    Raise Forbidden, or InvalidInput with every problem: those of ``check``, and of ``experiments.sweeps.expand``.
    """
    problems = Problems()
    key = submission_key(problems, submission.idempotency_key)
    agency = agency_to_work_in(session, problems, viewer, submission.agency)
    kept = _kept(submission)
    if key is not None and agency:
        query = select(SweepRow).where(col(SweepRow.requested_by) == viewer.name, col(SweepRow.idempotency_key) == key)
        existing = session.scalars(query).one_or_none()
        if existing is not None:
            if (existing.orgnr, existing.request) != (agency, kept):
                what = f"This submission key belongs to sweep {existing.id}, which is another request. Use a new key."
                raise one_problem("idempotency_key_reused", "idempotency_key", key, what)
            return CheckedSweep(existing=existing.id)
    version = _version(session, problems, submission)
    experiment = _experiment(session, problems, viewer, submission, agency, now)
    timeout = _timeout(problems, version, submission, limits)
    _fits(session, problems, agency, limits)
    expansion = None
    if version is not None and agency:
        most = session.scalar(select(col(Agency.max_sweep_runs)).where(col(Agency.orgnr) == agency)) or 0
        try:
            expansion = expand(version, submission.sweep, most=most)
        except InvalidInput as error:
            problems.extend(error)
    problems.stop()
    if version is None:  # a problem was noted, so this is never reached
        raise InvalidInput(())
    request = RunRequest(
        agency=agency,
        template=version.name,
        version=version.version,
        template_digest=version.digest,
        parameters={},
        timeout_seconds=timeout,
        requested_by=viewer.name,
        experiment=experiment,
        idempotency_key=key,
    )
    return CheckedSweep(request, version, expansion, kept)


def _kept(submission: SweepSubmission) -> dict[str, Any]:
    """Return the request as it is kept and compared: plain JSON, of a long list of points only its digest."""
    sweep = submission.sweep
    whole: dict[str, Any] = {
        "template": submission.template,
        "version": submission.version,
        "experiment": submission.experiment,
        "timeout_seconds": submission.timeout_seconds,
        "fixed": dict(sweep.fixed),
    }
    if sweep.grid is not None:
        whole["grid"] = {name: _plain_axis(axis) for name, axis in sweep.grid.items()}
    if sweep.sample is not None:
        space = {name: _plain_axis(axis) for name, axis in sweep.sample.space.items()}
        whole["sample"] = {"size": sweep.sample.size, "seed": sweep.sample.seed, "space": space}
    if sweep.points is not None:
        listed = json.dumps([dict(point) for point in sweep.points], sort_keys=True, default=str)
        digest = hashlib.sha256(listed.encode("utf-8", "replace")).hexdigest()
        whole["points"] = {"count": len(sweep.points), "sha256": digest}
    # Through JSON once, so that what is kept is what will be read back, whatever strangers put in.
    text = (
        json.dumps(whole, default=str).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    )
    return dict(json.loads(storable(text)))


def _plain_axis(axis: object) -> object:
    if isinstance(axis, Range | Span):
        return asdict(axis)
    return list(axis) if isinstance(axis, Sequence) and not isinstance(axis, str | bytes) else axis


def still_published(session: Session, request: RunRequest) -> None:
    """Keep the request's template version from changing until the caller's transaction ends. Raise InvalidInput."""
    query = select(col(TemplateVersionRow.state)).where(
        col(TemplateVersionRow.name) == request.template,
        col(TemplateVersionRow.version) == request.version,
        col(TemplateVersionRow.digest) == request.template_digest,
    )
    if session.scalar(query.with_for_update(read=True)) != TemplateState.PUBLISHED.value:
        problems = Problems()
        _not_published(problems, request.template, request.version)
        problems.stop()


def submission_key(problems: Problems, key: object) -> str | None:
    """Return the key that a submission is known by, None if it has none. Notes bad_idempotency_key."""
    if key is None:
        return None
    if isinstance(key, str) and 1 <= len(key) <= _LONGEST_KEY and clean_text(key) == key and "\n" not in key:
        return key
    what = f"The submission key {quote(key)} is not 1 to {_LONGEST_KEY} plain characters. Use a UUID."
    problems.add("bad_idempotency_key", "idempotency_key", key, what, str(_LONGEST_KEY))
    return None


def _used(session: Session, viewer: Viewer, key: str) -> RunRow | None:
    query = select(RunRow).where(col(RunRow.requested_by) == viewer.name, col(RunRow.idempotency_key) == key)
    return session.scalars(query).one_or_none()


def _fits(session: Session, problems: Problems, agency: str, limits: RunLimits) -> None:
    """Note quota_too_small for an agency that could not start a single run, ever: it would wait without an end."""
    row = session.scalars(select(Agency).where(col(Agency.orgnr) == agency)).one_or_none() if agency else None
    if row is None:
        return
    own: tuple[tuple[str, float | None, float], ...] = (
        ("max_concurrent_runs", row.max_concurrent_runs, 1),
        ("max_memory", row.max_memory, limits.memory),
        ("max_cpus", row.max_cpus, limits.cpus),
    )
    for name, has, needs in own:
        if has is not None and has < needs:
            what = (
                f"The quota of agency {agency}, {name}={has}, is below what a single run takes, {needs}: no run of it "
                "can start. Ask the lab's administrators to raise it."
            )
            problems.add("quota_too_small", "agency", agency, what, str(needs))
            return


def _refuse_reuse(session: Session, run: RunRow, submission: Submission, agency: str, limits: RunLimits) -> None:
    """Raise InvalidInput unless the run is what this submission asks for."""
    row = find_version(session, run.template, run.version)
    same = (
        row is not None
        and (run.orgnr, run.template, run.experiment) == (agency, submission.template, submission.experiment or None)
        and submission.version in (None, "", run.version)
    )
    if same and row is not None:
        quiet = Problems()
        version = version_of(row)
        values = _parameters(quiet, version, submission)
        timeout = _timeout(quiet, version, submission, limits)
        same = not quiet and values == (run.parameters or {}) and timeout == run.timeout_seconds
    if not same:
        problems = Problems()
        what = f"This submission key belongs to run {run.id}, which is another request. Use a new key for a new run."
        problems.add("idempotency_key_reused", "idempotency_key", run.idempotency_key, what)
        problems.stop()


def _version(session: Session, problems: Problems, submission: Submission | SweepSubmission) -> TemplateVersion | None:
    name, wanted = submission.template, submission.version or None
    if not isinstance(name, str) or not isinstance(wanted, str | None):
        problems.add("unknown_template", "template", name, "The template's name or version is no text. Give text.")
        return None
    row = newest_published(session, name) if wanted is None else find_version(session, name, wanted)
    if row is None:
        known = select(col(TemplateVersionRow.id)).where(col(TemplateVersionRow.name) == storable(name)).limit(1)
        if wanted is None and session.scalar(known) is not None:
            _not_published(problems, name, None)
        else:
            shown = quote(name) + ("" if wanted is None else f" {quote(wanted)}")
            what = f"There is no template {shown}. See the list of templates for the names and versions there are."
            problems.add("unknown_template", "template", name, what)
        return None
    if row.state != TemplateState.PUBLISHED.value:
        _not_published(problems, name, wanted)
    try:
        return version_of(row)
    except InvalidInput as error:
        problems.extend(error)
        return None


def _not_published(problems: Problems, name: str, version: str | None) -> None:
    shown = quote(name) if version is None else f"{quote(name)} {quote(version)}"
    what = f"Template {shown} is not published: it waits for approval or was taken out of use. Choose another version."
    problems.add("not_published", "template", name, what)


def _parameters(problems: Problems, version: TemplateVersion | None, submission: Submission) -> dict[str, Scalar]:
    if version is None:
        return {}
    try:
        return dict(bind(version, submission.parameters).values)
    except InvalidInput as error:
        problems.extend(error)
        return {}


def _experiment(
    session: Session,
    problems: Problems,
    viewer: Viewer,
    submission: Submission | SweepSubmission,
    agency: str,
    now: datetime,
) -> str | None:
    wanted = submission.experiment or None
    if wanted is None:
        return None
    row = find_experiment(session, viewer, wanted, now) if isinstance(wanted, str) else None
    if row is not None and row.orgnr == agency:
        return row.id
    what = f"Agency {quote(submission.agency)} has no experiment {quote(wanted)}. Choose one of its own, or none."
    problems.add("unknown_experiment", "experiment", wanted, what)
    return None


def _timeout(
    problems: Problems, version: TemplateVersion | None, submission: Submission | SweepSubmission, limits: RunLimits
) -> int:
    longest = limits.max_timeout_seconds
    if submission.timeout_seconds is None:
        return min(version.timeout_seconds, longest) if version else longest
    try:
        return bind_timeout(submission.timeout_seconds, longest)
    except InvalidInput as error:
        problems.extend(error)
        return longest
