"""Experiments: the learning records that runs hang below."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from catalog.api.answers import ExperimentOut, Items
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Paging, Who
from catalog.api.models import ExperimentChange, ExperimentIn, changes
from catalog.api.problems import responses

router = APIRouter(tags=["experiments"], route_class=StrictRoute)

ExperimentId = Annotated[str, Path(max_length=64)]


class ExperimentWords(Paging):
    agency: str | None = Field(None, max_length=20, description="Organisation number or slug")
    q: str | None = Field(None, max_length=200, description="Words that must all occur in title or summary")


@router.get("/experiments", responses=responses())
def list_experiments(query: Annotated[ExperimentWords, Query()], who: Who, lab: Lab) -> Items[ExperimentOut]:
    """Experiments that you may see, newest first."""
    page = lab.catalog.experiments.list(who, agency=query.agency, q=query.q, cursor=query.cursor, limit=query.limit)
    return Items(items=[ExperimentOut.of(e) for e in page.items], next=page.next)


@router.post("/experiments", status_code=201, responses=responses(413, 415))
def create_experiment(body: ExperimentIn, who: Who, lab: Lab, response: Response) -> ExperimentOut:
    """Begin a learning record."""
    made = lab.catalog.experiments.create(
        who,
        agency=body.agency,
        title=body.title,
        summary=body.summary,
        language=body.language,
        visibility=body.visibility,
        embargo_until=body.embargo_until,
    )
    response.headers["Location"] = f"{lab.settings.base_path}/api/v1/experiments/{made.id}"
    return ExperimentOut.of(made)


@router.get("/experiments/{id}", responses=responses(404))
def one_experiment(id: ExperimentId, who: Who, lab: Lab) -> ExperimentOut:
    return ExperimentOut.of(lab.catalog.experiments.get(who, id))


@router.patch("/experiments/{id}", responses=responses(404, 413, 415))
def change_experiment(id: ExperimentId, body: ExperimentChange, who: Who, lab: Lab) -> ExperimentOut:
    """Change fields of a learning record. Those left out stay as they are."""
    fields = changes(body, nullable=frozenset({"embargo_until"}))
    return ExperimentOut.of(lab.catalog.experiments.change(who, id, **fields))
