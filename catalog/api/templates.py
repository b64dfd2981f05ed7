"""Templates: what can be run, and how a new version comes in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, File, Path, UploadFile
from pydantic import BaseModel, ConfigDict

from catalog.access import Action, Forbidden, Role, Viewer
from catalog.api.answers import CheckOut, Items, MetricSpecOut, ParameterOut, TemplateDetail, TemplateOut, TextOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Who
from catalog.api.problems import responses
from lab_templates.checks import read_template
from lab_templates.model import TemplateVersion

router = APIRouter(tags=["templates"], route_class=StrictRoute)

Name = Annotated[str, Path(max_length=300)]
Version = Annotated[str, Path(max_length=300)]


class Parts(BaseModel):
    """The three files of a template, as they were sent."""

    model_config = ConfigDict(frozen=True)

    notebook: bytes
    declaration: bytes
    readme: bytes


def parts(
    notebook: Annotated[UploadFile, File(description="template.ipynb")],
    declaration: Annotated[UploadFile, File(description="template.toml")],
    readme: Annotated[UploadFile | None, File(description="README.md")] = None,
) -> Parts:
    return Parts(
        notebook=notebook.file.read(),
        declaration=declaration.file.read(),
        readme=readme.file.read() if readme is not None else b"",
    )


Files = Annotated[Parts, Depends(parts)]


@router.get("/templates", responses=responses())
def list_templates(who: Who, lab: Lab, published_only: bool = True) -> Items[TemplateOut]:
    """The newest published version of each; with ``published_only=false`` all versions, waiting and deprecated too."""
    return Items(items=[TemplateOut.of(t) for t in lab.catalog.templates.list(who, published_only=published_only)])


@router.post("/templates/check", responses=responses(413, 415))
def check_template(files: Files, who: Who) -> CheckOut:
    """The publish gate, nothing stored: 200 with what would be published, 422 with everything that is wrong."""
    _may_read_templates_in(who)
    version = _read(files)
    return CheckOut(
        name=version.name,
        version=version.version,
        digest=version.digest,
        parameters=[ParameterOut.of(p) for p in version.parameters],
        metrics=[
            MetricSpecOut(name=m.name, unit=m.unit, better=m.better, label=TextOut.of(m.label)) for m in version.metrics
        ],
    )


@router.post("/templates", status_code=201, responses=responses(409, 413, 415))
def submit_template(files: Files, who: Who, lab: Lab) -> TemplateDetail:
    """Submit a version (coordinators); it can be run when a second person has approved it."""
    _may_publish(who)
    return TemplateDetail.of(lab.catalog.templates.submit(who, _read(files)))


@router.get("/templates/{name}", responses=responses(404))
def newest_version(name: Name, who: Who, lab: Lab) -> TemplateDetail:
    """The newest published version."""
    return TemplateDetail.of(lab.catalog.templates.get(who, name))


@router.get("/templates/{name}/versions", responses=responses(404))
def list_versions(name: Name, who: Who, lab: Lab) -> Items[TemplateOut]:
    """Every version of one template that you may see."""
    return Items(items=[TemplateOut.of(t) for t in lab.catalog.templates.versions(who, name)])


@router.get("/templates/{name}/versions/{version}", responses=responses(404))
def one_version(name: Name, version: Version, who: Who, lab: Lab) -> TemplateDetail:
    return TemplateDetail.of(lab.catalog.templates.get(who, name, version))


@router.post("/templates/{name}/versions/{version}/approve", responses=responses(404))
def approve(name: Name, version: Version, who: Who, lab: Lab) -> TemplateDetail:
    """Approve a submitted version: a coordinator other than the one who submitted it."""
    return TemplateDetail.of(lab.catalog.templates.approve(who, name, version))


@router.post("/templates/{name}/versions/{version}/deprecate", responses=responses(404))
def deprecate(name: Name, version: Version, who: Who, lab: Lab) -> TemplateDetail:
    """Take a version out of use. Runs made with it keep their reports."""
    return TemplateDetail.of(lab.catalog.templates.deprecate(who, name, version))


def _read(files: Parts) -> TemplateVersion:
    return read_template(files.notebook, files.declaration, files.readme)


def _may_read_templates_in(who: Viewer) -> None:
    """Raise Forbidden for somebody without any place in the lab: reading a notebook costs time."""
    if not who.grants or Action.READ not in who.actions:
        raise Forbidden("You have no role in any agency. Ask a coordinator of your agency for one.")


def _may_publish(who: Viewer) -> None:
    """Raise Forbidden before the files are read, for those whom the store would refuse after."""
    publishes = any(g.role in (Role.COORDINATOR, Role.ADMIN) for g in who.grants)
    if Action.PUBLISH not in who.actions or not publishes:
        raise Forbidden("Only coordinators publish templates. Ask a coordinator to submit this one.")
