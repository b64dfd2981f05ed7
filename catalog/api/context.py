"""What every operation of the API starts from: the services of its app, who asks, and which page of a listing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from catalog.access import Viewer
from catalog.api.problems import Refusal
from catalog.bell import Bell
from catalog.identity import Identity
from catalog.store import Catalog

MIB = 1024 * 1024
_AUTHORIZATION = re.compile(r"(?:bearer|token) +([!-~]{1,512})\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Sizes in bytes. ``engine`` is the machine word of the engine in use, shown by ``/health``."""

    base_path: str = "/services/catalog"
    version: str = ""
    engine: str = ""
    max_json_bytes: int = MIB
    max_upload_bytes: int = 16 * MIB
    max_result_bytes: int = 96 * MIB  # an executed notebook of the output limit (32 MiB), quoted inside JSON
    watch_seconds: float = 0.5  # between two looks at a run that somebody watches
    claim_seconds: float = 0.5  # between two looks at the queue for a runner that waits
    widen_seconds: float = 0.1  # the same for one at work: the dispatcher may have given it another place


@dataclass(frozen=True, slots=True)
class Services:
    catalog: Catalog
    identity: Identity
    settings: ApiSettings
    bell: Bell
    watches: Any = None  # catalog.api.live.Watches of runs, in the API's own app
    sweep_watches: Any = None  # and of sweeps


def services(request: Request) -> Services:
    """Return what ``create_api`` gave this app."""
    found: Services = request.app.state.services
    return found


def bearer(request: Request) -> str | None:
    """Return the request's bearer token, None without an Authorization header; raise Refusal (401) if that is none."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    match = _AUTHORIZATION.match(header)
    if match is None:
        raise unauthorized("The Authorization header is not of the form: Bearer <token>. Send your Hub token so.")
    return match[1]


def unauthorized(detail: str) -> Refusal:
    return Refusal(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


async def viewer(
    request: Request, _: Annotated[object, Depends(HTTPBearer(auto_error=False, description="A Hub token"))]
) -> Viewer:
    """Return who asks: by Hub token, or by the session of a browser that is on the catalog's own pages."""
    identity = services(request).identity
    token = bearer(request)
    if token is not None:
        source = "cli" if request.headers.get("x-proverom-client") == "cli" else "api"
        found = await identity.viewer(token, source=source)
        if found is None:
            raise unauthorized("The token is unknown or has ended. Get a new one from the Hub's Token page.")
        return found
    session = await identity.session(request)
    if session is None:
        raise unauthorized("Nobody is signed in. Send a Hub token as Authorization: Bearer <token>.")
    if _can_be_forged(request):
        given = request.headers.get("x-csrf-token") or request.query_params.get("csrf")
        if not identity.check_csrf(session, given):
            what = (
                "A page that uses its session here must send the session's form token (X-CSRF-Token). Reload the page."
            )
            raise Refusal(403, "csrf", what)
    return session.viewer


def _can_be_forged(request: Request) -> bool:
    """Say whether another page could have made the browser send this request, with its cookies.

    Desks live on the same host unless they have subdomains, so same-origin is no proof. A navigation or an image can
    be started by another page, but its answer cannot be read by it.
    """
    mode = request.headers.get("sec-fetch-mode", "unspecified")
    site = request.headers.get("sec-fetch-site", "unspecified")
    reads = request.method in ("GET", "HEAD")
    return not (reads and (mode in ("navigate", "unspecified") or (mode == "no-cors" and site == "same-origin")))


Who = Annotated[Viewer, Depends(viewer)]
Lab = Annotated[Services, Depends(services)]


class Paging(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=500, description="What the page before gave as next")
