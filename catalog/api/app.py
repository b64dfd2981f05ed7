"""The catalog's service as one ASGI app: the API, the runner protocol, health and metrics, and the pages it is given.

Each part is an app of its own, so that an address under ``/api/v1`` that does not exist is a problem in JSON and
never a page.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from catalog.api import door, experiments, notices, people, runner, runs, schedules, sweeps, templates
from catalog.api.context import ApiSettings, Services
from catalog.api.guard import Counters, Guard
from catalog.api.live import Watches
from catalog.api.problems import ProblemDetails, install, problem
from catalog.bell import Bell, of_sweep
from catalog.identity import Identity
from catalog.store import Catalog

__all__ = ["ApiSettings", "create_api"]

_TAGS = [
    {"name": "me", "description": "Who the token stands for"},
    {"name": "agencies", "description": "The public agencies of the lab"},
    {"name": "members", "description": "Who has which role where, and until when"},
    {"name": "templates", "description": "What can be run: immutable versions, approved by a second person"},
    {"name": "runs", "description": "A template, its parameters, and what came of it"},
    {"name": "sweeps", "description": "Many runs of one template: a grid, a list or a sample of its parameters"},
    {"name": "schedules", "description": "Runs that the lab starts by itself, at the times of a cron expression"},
    {"name": "notices", "description": "What one is told when work ends, and what of it by e-mail"},
    {"name": "experiments", "description": "The learning records that runs hang below"},
]
_DESCRIPTION = (
    "The shared catalog of the lab. Send a Hub token as `Authorization: Bearer <token>`. Errors are problem details "
    "(RFC 9457); listings answer `{items, next}`, and `next` is the `cursor` of the next page."
)


def create_api(
    catalog: Catalog,
    *,
    identity: Identity,
    settings: ApiSettings | None = None,
    bell: Bell | None = None,
    web: ASGIApp | None = None,
) -> Starlette:
    """Return the service, all below ``settings.base_path``.

    ``web`` is the app of the pages: it gets what no other part takes, with the base path as its root path, and its
    lifespan is run. ``bell`` is shared with whoever else in this process submits runs, so that waiting runners hear
    of them at once.
    """
    settings = settings or ApiSettings(version=importlib.metadata.version("proverom"))
    bell = bell or Bell()
    watches = Watches(catalog.runs.progress, bell, seconds=settings.watch_seconds)
    sweep_watches = Watches(
        catalog.sweeps.get, bell, seconds=2 * settings.watch_seconds, topic=of_sweep, pause=settings.watch_seconds / 2
    )
    services = Services(catalog, identity, settings, bell, watches, sweep_watches)
    registry = door.make_registry(catalog)
    counters = Counters(registry)

    def guarded(app: FastAPI, part: str, cap: Callable[[str, str], int]) -> ASGIApp:
        app.state.services = services
        app.state.registry = registry
        app.state.arriving = set()
        install(app)
        return Guard(app, part=part, cap=cap, counters=counters)

    base = settings.base_path.rstrip("/")
    beside = _part("Prøverom", openapi_url=None)
    beside.include_router(door.router, prefix=base)
    beside_app = guarded(beside, "door", lambda _, __: settings.max_json_bytes)
    routes: list[BaseRoute] = [
        Mount(f"{base}/api/v1", guarded(_api(), "api", _api_cap(settings))),
        Mount(f"{base}/runner/v1", guarded(_runner(), "runner", _runner_cap(settings))),
        *(Route(f"{base}/{name}", beside_app) for name in ("health", "metrics", "oauth_callback", "logout")),
    ]
    if web is not None:
        routes += [Route(base, lambda _: RedirectResponse(f"{base}/", 308)), Mount(base, web)]
    app = Starlette(
        routes=routes,
        exception_handlers={404: _nothing_here, 405: _nothing_here},
        lifespan=_lifespan_of(web),
    )
    app.router.redirect_slashes = False  # its redirects would name the address that the proxy calls us by
    return app


def _part(title: str, *, openapi_url: str | None) -> FastAPI:
    return FastAPI(
        title=title,
        description=_DESCRIPTION,
        version=importlib.metadata.version("proverom"),
        openapi_url=openapi_url,
        openapi_tags=_TAGS,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )


def _api() -> FastAPI:
    app = _part("Prøverom", openapi_url="/openapi.json")
    for part in (people, templates, runs, sweeps, schedules, experiments, notices):
        app.include_router(part.router)
    generate = app.openapi

    def openapi() -> dict[str, object]:
        description = generate()
        schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        description["components"]["schemas"].update({**schema.pop("$defs", {}), "ProblemDetails": schema})
        for path in description["paths"].values():  # FastAPI's own form of a 422 never leaves this service
            for operation in path.values():
                operation["responses"].get("422", {}).get("content", {}).pop("application/json", None)
        for name in ("HTTPValidationError", "ValidationError"):
            description["components"]["schemas"].pop(name, None)
        return description

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _runner() -> FastAPI:
    app = _part("Prøverom runner protocol", openapi_url=None)
    app.include_router(runner.router)
    return app


def _api_cap(settings: ApiSettings) -> Callable[[str, str], int]:
    prefix = f"{settings.base_path.rstrip('/')}/api/v1/templates"
    sweeps = f"{settings.base_path.rstrip('/')}/api/v1/sweeps"
    large = (prefix, f"{prefix}/check", sweeps, f"{sweeps}/plan")  # a sweep may list all of its points
    return lambda _, path: settings.max_upload_bytes if path in large else settings.max_json_bytes


def _runner_cap(settings: ApiSettings) -> Callable[[str, str], int]:
    return lambda _, path: settings.max_result_bytes if path.endswith("/result") else settings.max_json_bytes


async def _nothing_here(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return problem(404, "not-found", "There is nothing at this address.")


def _lifespan_of(web: ASGIApp | None) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        inner = getattr(getattr(web, "router", None), "lifespan_context", None)
        if inner is None:
            yield
            return
        async with inner(web):
            yield

    return lifespan
