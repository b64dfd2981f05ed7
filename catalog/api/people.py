"""Who one is, the agencies, and who belongs to them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from catalog.api.answers import AgencyOut, Items, MemberOut, MeOut, UsageOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Who
from catalog.api.models import AgencyChange, AgencyIn, IsoDate, MemberIn, changes
from catalog.api.problems import responses
from catalog.store.records import AgencyRecord
from lab_templates.model import Text

router = APIRouter(route_class=StrictRoute)


@router.get("/me", tags=["me"], responses=responses())
def me(who: Who, lab: Lab) -> MeOut:
    """Who the token stands for, and what it may do."""
    agencies = {a.orgnr: a for a in lab.catalog.agencies.list(who, active_only=False)}
    return MeOut.of(who, agencies)


@router.get("/agencies", tags=["agencies"], responses=responses())
def list_agencies(who: Who, lab: Lab, active_only: bool = True) -> Items[AgencyOut]:
    """The agencies of the lab that you may see."""
    return Items(items=[AgencyOut.of(a) for a in lab.catalog.agencies.list(who, active_only=active_only)])


@router.post("/agencies", tags=["agencies"], status_code=201, responses=responses(413, 415))
def add_agency(body: AgencyIn, who: Who, lab: Lab) -> AgencyOut:
    """Add an agency (admin)."""
    record = AgencyRecord(
        orgnr=body.orgnr,
        slug=body.slug,
        name=Text(body.name.nb, body.name.nn, body.name.en),
        weight=body.weight,
        max_desks=body.max_desks,
        max_concurrent_runs=body.max_concurrent_runs,
        max_sweep_runs=body.max_sweep_runs,
        max_memory=body.max_memory,
        max_cpus=body.max_cpus,
    )
    return AgencyOut.of(lab.catalog.agencies.add(who, record))


@router.patch("/agencies/{orgnr}", tags=["agencies"], responses=responses(404, 413, 415))
def change_agency(orgnr: Annotated[str, Path(max_length=20)], body: AgencyChange, who: Who, lab: Lab) -> AgencyOut:
    """Change an agency's name, quotas or whether it is active (admin). Fields left out stay as they are."""
    fields = changes(body, nullable=frozenset({"max_memory", "max_cpus"}))
    if body.name is not None:
        fields["name"] = Text(body.name.nb, body.name.nn, body.name.en)
    return AgencyOut.of(lab.catalog.agencies.change(who, orgnr, **fields))


@router.get("/agencies/{orgnr}/usage", tags=["agencies"], responses=responses(404))
def agency_usage(
    orgnr: Annotated[str, Path(max_length=20, description="Organisation number or slug")], who: Who, lab: Lab
) -> UsageOut:
    """What the agency may have at a time, how much of it is in use now, and how many of its runs wait."""
    return UsageOut.of(lab.catalog.usage.of(who, orgnr))


@router.get("/members", tags=["members"], responses=responses(404))
def list_members(who: Who, lab: Lab, agency: Annotated[str | None, Query(max_length=20)] = None) -> Items[MemberOut]:
    """Memberships, past and present: all (admin), or those of the agencies you coordinate."""
    return Items(items=[MemberOut.of(m) for m in lab.catalog.members.list(who, agency)])


@router.post("/members", tags=["members"], status_code=201, responses=responses(404, 413, 415))
def add_member(body: MemberIn, who: Who, lab: Lab) -> MemberOut:
    """Give a person a role in an agency (admin; coordinators for their own agency)."""
    record = lab.catalog.members.add(
        who, person=body.person, agency=body.agency, role=body.role, kind=body.kind, starts=body.starts, ends=body.ends
    )
    return MemberOut.of(record)


@router.delete("/members/{id}", tags=["members"], responses=responses(404))
def end_member(
    id: Annotated[str, Path(max_length=64)],
    who: Who,
    lab: Lab,
    on: Annotated[IsoDate | None, Query(description="The last day; yesterday, if left out: it ends at once")] = None,
) -> MemberOut:
    """End a membership. The row stays, as the record of who could do what when."""
    return MemberOut.of(lab.catalog.members.end(who, id, on or _yesterday()))


def _yesterday() -> date:
    """Return the last day that is over, as the store counts days (UTC)."""
    return datetime.now(UTC).date() - timedelta(days=1)
