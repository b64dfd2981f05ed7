"""Who may see and do what: the one gate in front of every query.

A person's power is the intersection of two things: the scopes of the Hub token they came with (``custom:catalog:*``)
and their memberships as the database has them now. A desk's token is confined to its agency.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select, true
from sqlmodel import col

from catalog.tables import (
    Agency,
    Event,
    Experiment,
    Membership,
    NoticeRow,
    RunRow,
    ScheduleRow,
    SweepRow,
    TemplateVersionRow,
)


class Role(StrEnum):
    MEMBER = "member"
    COORDINATOR = "coordinator"
    LEADER = "leader"
    ADMIN = "admin"


class Action(StrEnum):
    """One custom Hub scope each: ``custom:catalog:<action>``."""

    READ = "read"
    SUBMIT = "submit"
    PUBLISH = "publish"
    ADMINISTER = "administer"


# What each role may do, inside the agencies where the person has it. ``hub.wiring`` makes Hub roles of the same table.
ROLE_ACTIONS: dict[Role, frozenset[Action]] = {
    Role.MEMBER: frozenset({Action.READ, Action.SUBMIT}),
    Role.COORDINATOR: frozenset({Action.READ, Action.SUBMIT, Action.PUBLISH}),
    Role.LEADER: frozenset({Action.READ}),
    Role.ADMIN: frozenset(Action),
}


class Forbidden(Exception):
    """The viewer may know that the thing exists, but not do this with it (HTTP 403)."""


class NotFound(Exception):
    """No such thing, or none that this viewer may see: the two are not told apart (HTTP 404)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One current membership. ``agency`` is "" for an admin of the whole lab."""

    agency: str
    role: Role
    ends: date | None = None


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks. ``confined_to`` is the organisation number a desk's token is bound to, or None."""

    name: str
    grants: tuple[Grant, ...] = ()
    actions: frozenset[Action] = frozenset()  # what the token's scopes allow
    confined_to: str | None = None
    source: str = "api"  # for the audit log: web | api | cli | desk:<slug>


# -- scopes --------------------------------------------------------------------------------------------------------

_SCOPE = "custom:catalog:"
_ACTIONS = frozenset(action.value for action in Action)


def scope(action: Action, *, server: str | None = None) -> str:
    """Return the Hub scope of an action; with ``server`` (``<user>/<slug>``) the one that a desk's token carries."""
    return f"{_SCOPE}{action.value}" + (f"!server={server}" if server else "")


@dataclass(frozen=True, slots=True)
class TokenPower:
    """What a token's scopes allow. ``slug`` is the agency its desk belongs to, None for a token that is no desk's."""

    actions: frozenset[Action] = frozenset()
    slug: str | None = None


def token_power(owner: str, scopes: Iterable[str]) -> TokenPower:
    """Return what the catalog's scopes among a token's expanded ones allow; all others are ignored.

    A scope without a filter, or with the owner as filter, holds wherever the owner belongs. Scopes that are all bound
    to one of the owner's servers confine to that server's agency; bound to several, or to anything else, they allow
    nothing: that is nothing the Hub makes for a desk, and guessing would open a wall.
    """
    free: set[Action] = set()
    bound: dict[str, set[Action]] = {}
    for text in scopes:
        if not text.startswith(_SCOPE):
            continue
        word, narrows, condition = text.removeprefix(_SCOPE).partition("!")
        if word not in _ACTIONS:
            continue
        kind, _, value = condition.partition("=")
        user, _, server = value.partition("/")
        if not narrows or (kind == "user" and value == owner):
            free.add(Action(word))
        elif kind == "server" and user == owner and server:
            bound.setdefault(server, set()).add(Action(word))
    if free or len(bound) != 1:
        return TokenPower(frozenset(free))
    slug, actions = bound.popitem()
    return TokenPower(frozenset(actions), slug)


def system(source: str) -> Viewer:
    """Return the lab itself, for what it does of its own accord: seeding, ending memberships. Never for a request."""
    return Viewer("system", (Grant("", Role.ADMIN),), frozenset(Action), None, source)


# -- what a viewer may do ------------------------------------------------------------------------------------------


def agencies_for(viewer: Viewer, action: Action) -> frozenset[str] | None:
    """Return the agencies (organisation numbers) where the viewer may do ``action``; None means every agency."""
    if action not in viewer.actions:
        return frozenset()
    grants = [g for g in viewer.grants if action in ROLE_ACTIONS[g.role]]
    everywhere = any(g.role is Role.ADMIN and not g.agency for g in grants)
    if viewer.confined_to is not None:
        here = everywhere or any(g.agency == viewer.confined_to for g in grants)
        return frozenset({viewer.confined_to}) if here else frozenset()
    return None if everywhere else frozenset(g.agency for g in grants if g.agency)


def may(viewer: Viewer, action: Action, agency: str) -> bool:
    """Say whether the viewer may do ``action`` in this agency (its organisation number)."""
    allowed = agencies_for(viewer, action)
    return allowed is None or agency in allowed


def may_have_desk(grants: Iterable[Grant], agency: str) -> bool:
    """Say whether somebody with these current memberships may have a desk at this agency (its organisation number).

    A desk is for people who work there: an admin of the lab has none, nor has a leader who only reads.
    """
    return any(grant.agency == agency and Action.SUBMIT in ROLE_ACTIONS[grant.role] for grant in grants)


def may_anywhere(viewer: Viewer, action: Action) -> bool:
    """Say whether the viewer may do what concerns the whole lab, such as publishing a template: never from a desk."""
    return viewer.confined_to is None and agencies_for(viewer, action) != frozenset()


def is_admin(viewer: Viewer) -> bool:
    """Say whether the viewer administers the whole lab, with a token that may and that is no desk's."""
    return viewer.confined_to is None and agencies_for(viewer, Action.ADMINISTER) is None


def require(viewer: Viewer, action: Action, agency: str) -> None:
    """Raise NotFound if the viewer may not even see the agency, Forbidden if it may be seen but not acted in."""
    if may(viewer, action, agency):
        return
    if not may(viewer, Action.READ, agency):
        raise NotFound(f"There is no agency {agency!r} that you belong to.")
    raise Forbidden(f"{viewer.name} may not {action.value} for agency {agency}. Ask one of its coordinators.")


def require_anywhere(viewer: Viewer, action: Action, what: str) -> None:
    """Raise Forbidden unless ``may_anywhere``; ``what`` completes the sentence."""
    if not may_anywhere(viewer, action):
        raise Forbidden(f"{viewer.name} may not {what}. It takes the right {scope(action)!r}, outside a desk.")


def require_admin(viewer: Viewer, what: str) -> None:
    """Raise Forbidden unless ``is_admin``; ``what`` completes the sentence."""
    if not is_admin(viewer):
        raise Forbidden(f"{viewer.name} may not {what}. Only the lab's administrators may.")


# -- conditions for queries ----------------------------------------------------------------------------------------


def _in(column: Any, agencies: frozenset[str] | None) -> ColumnElement[bool]:
    if agencies is None:
        return true()
    return col(column).in_(sorted(agencies)) if agencies else false()


def _shared_with_lab(today: date) -> ColumnElement[bool]:
    return and_(
        col(Experiment.visibility).in_(("lab", "public")),
        or_(col(Experiment.embargo_until).is_(None), col(Experiment.embargo_until) <= today),
    )


def _reads_shared(viewer: Viewer) -> bool:
    """Say whether the viewer has a place in the lab at all, and so sees what agencies share with the lab."""
    return agencies_for(viewer, Action.READ) != frozenset()


def visible_agencies(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``Agency``: those where the viewer may read."""
    return _in(Agency.orgnr, agencies_for(viewer, Action.READ))


def visible_experiments(viewer: Viewer, today: date) -> ColumnElement[bool]:
    """Return the condition on ``Experiment``: own agencies', and what others share with the lab after its embargo."""
    own = _in(Experiment.orgnr, agencies_for(viewer, Action.READ))
    return or_(own, _shared_with_lab(today)) if _reads_shared(viewer) else false()


def shared_experiments(viewer: Viewer, today: date) -> ColumnElement[bool]:
    """Return the condition on ``Experiment``: what other agencies share with the lab after its embargo."""
    agencies = agencies_for(viewer, Action.READ)
    if agencies is None or not agencies:
        return false()  # an admin sees them anyway, somebody without a place in the lab never does
    return and_(_shared_with_lab(today), col(Experiment.orgnr).not_in(sorted(agencies)))


def run_lanes(
    viewer: Viewer, today: date, agency: str | None = None, *, any_shared: bool = True
) -> tuple[ColumnElement[bool], ...]:
    """Return conditions on ``RunRow`` of which any one must hold: own agencies', then what is shared with the lab.

    Each lane can be walked along an index by itself, which the disjunction of them cannot. No lane: nothing is visible.
    Where only one ``agency`` is asked for, the lanes that cannot hold its runs are left out; so is the shared one where
    the caller knows that there is nothing in it (no ``shared_experiments``).
    """
    agencies = agencies_for(viewer, Action.READ)
    if agencies is None:
        return (true(),)
    if not agencies:
        return ()
    if agency in agencies:
        return (col(RunRow.orgnr) == agency,)
    shared = col(RunRow.experiment).in_(select(col(Experiment.id)).where(shared_experiments(viewer, today)))
    own = tuple(col(RunRow.orgnr) == orgnr for orgnr in sorted(agencies if agency is None else ()))
    return (*own, shared) if any_shared else own


def visible_runs(viewer: Viewer, today: date) -> ColumnElement[bool]:
    """Return the condition on ``RunRow``: own agencies', and those below an experiment that is shared with the lab."""
    return or_(false(), *run_lanes(viewer, today))


def visible_sweeps(viewer: Viewer, today: date) -> ColumnElement[bool]:
    """Return the condition on ``SweepRow``: own agencies', and those below an experiment shared with the lab."""
    agencies = agencies_for(viewer, Action.READ)
    if agencies is not None and not agencies:
        return false()
    own = _in(SweepRow.orgnr, agencies)
    shared = select(col(Experiment.id)).where(shared_experiments(viewer, today))
    return or_(own, col(SweepRow.experiment).in_(shared))


def visible_schedules(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``ScheduleRow``: those of the agencies where the viewer may read."""
    return _in(ScheduleRow.orgnr, agencies_for(viewer, Action.READ))


def visible_notices(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``NoticeRow``: a viewer's own, of agencies where the viewer still may read."""
    return and_(col(NoticeRow.person) == viewer.name, _in(NoticeRow.orgnr, agencies_for(viewer, Action.READ)))


def visible_members(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``Membership``: a viewer's own; for coordinators their agencies'; for admins all."""
    if is_admin(viewer):
        return true()
    managed = _in(Membership.orgnr, agencies_for(viewer, Action.PUBLISH))
    mine = and_(
        col(Membership.person) == viewer.name,
        true() if viewer.confined_to is None else col(Membership.orgnr) == viewer.confined_to,
    )
    return or_(managed, mine) if Action.READ in viewer.actions else false()


def visible_templates(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``TemplateVersionRow``: coordinators also see what still waits for approval."""
    if may_anywhere(viewer, Action.PUBLISH):
        return true()
    return col(TemplateVersionRow.state) != "submitted"


def visible_events(viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition on ``Event``: all to admins, their agencies' to coordinators, nothing to others."""
    if is_admin(viewer):
        return true()
    return _in(Event.orgnr, agencies_for(viewer, Action.PUBLISH))
