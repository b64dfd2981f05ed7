"""Who may see and do what: the one gate in front of every query.

A person's power is the intersection of two things: the scopes of the Hub token they came with (``custom:catalog:*``) and
their memberships as the database has them now. A desk's token is confined to its agency.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


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
