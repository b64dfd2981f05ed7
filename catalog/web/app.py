"""The app that serves the pages."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from catalog.access import Forbidden, NotFound
from catalog.i18n import N_
from catalog.identity import Identity, IdentityUnavailable
from catalog.reports.service import Reports
from catalog.reports.source import NotEnded, ReportUnavailable
from catalog.store import Catalog, Unavailable
from catalog.web.headers import Shell, TooLarge, is_navigation
from catalog.web.pages import (
    about,
    agencies,
    experiments,
    home,
    members,
    notices,
    publishing,
    reports,
    runs,
    schedules,
    schedules_new,
    sweep_start,
    sweeps,
    templates,
)
from catalog.web.settings import WebSettings
from catalog.web.visit import STATIC, BadForm, SignIn, Site, visit_without_session
from lab_templates.model import InvalidInput

log = logging.getLogger("proverom.web")
FORM_BYTES = 1024 * 1024

# Status: (heading, what to do). Message ids.
_ERRORS = {
    403: (
        N_("You don't have access to this"),
        N_("Ask a coordinator in your agency if you think that you should have."),
    ),
    404: (
        N_("We can't find this page"),
        N_("It may have been moved or removed, or it belongs to an agency that you are not a member of."),
    ),
    405: (N_("We can't find this page"), N_("Go to the front page and start from there.")),
    413: (N_("What you sent is too large"), N_("Make the files smaller and send them again.")),
    422: (N_("This could not be used"), N_("Go back, correct it and try again.")),
    500: (
        N_("Something went wrong on our side"),
        N_("Try again in a little while. If it goes wrong again, tell the lab's coordinator."),
    ),
    503: (N_("The lab is not answering right now"), N_("Try again in a little while.")),
}


class _Static(StaticFiles):
    """Our own files and those of the design system: public, and kept for as long as their address is theirs alone."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        forever = scope.get("query_string", b"").startswith(b"v=")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "public, max-age=3600"
        return response


def create_web(catalog: Catalog, identity: Identity, settings: WebSettings) -> FastAPI:
    """Return the app of the pages, to be mounted at ``settings.base_path`` after all more special mounts."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.site = Site(catalog, identity, settings, Reports(catalog))
    app.add_middleware(
        Shell, cap=lambda path: settings.max_upload_bytes if path.endswith("/templates/new") else FORM_BYTES
    )
    if settings.vendor_dir is not None:
        app.mount("/static/vendor", _Static(directory=settings.vendor_dir, check_dir=False), name="vendor")
    app.mount("/static", _Static(directory=STATIC), name="static")
    pages = (home, publishing, templates, runs, reports, experiments, schedules_new, schedules, notices, members, about)
    for page in (*pages, sweep_start, sweeps, agencies):
        app.include_router(page.router)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(SignIn, _sign_in)
    app.add_exception_handler(NotFound, lambda request, _: _error(request, 404))
    app.add_exception_handler(Forbidden, lambda request, _: _error(request, 403))
    app.add_exception_handler(BadForm, _bad_form)
    app.add_exception_handler(InvalidInput, _invalid)
    app.add_exception_handler(RequestValidationError, lambda request, _: _error(request, 404))
    app.add_exception_handler(IdentityUnavailable, lambda request, _: _error(request, 503))
    app.add_exception_handler(NotEnded, lambda request, _: _error(request, 404))
    app.add_exception_handler(Unavailable, lambda request, _: _error(request, 503))
    app.add_exception_handler(ReportUnavailable, _no_report)
    app.add_exception_handler(TooLarge, lambda request, _: _error(request, 413))
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, lambda request, _: _error(request, 500))


def _error(request: Request, status: int, detail: str = "") -> Response:
    if not is_navigation(request.headers):
        return PlainTextResponse(f"{status}", status_code=status)
    # Whoever was found to be signed in keeps the menu; nobody is asked for again, because that may be what failed.
    visit = visit_without_session(request, getattr(request.state, "session", None))
    heading, advice = _ERRORS.get(status, _ERRORS[500])
    return visit.page(
        "error.html", status, heading=visit.t(heading), detail=detail, advice=visit.t(advice), status=status
    )


def _sign_in(request: Request, _: Exception) -> Response:
    site: Site = request.app.state.site
    address = request.url.path if request.method == "GET" else f"{site.settings.base_path}/"
    query = f"?{request.url.query}" if request.method == "GET" and request.url.query else ""
    return site.identity.login(request, next_url=address + query)


def _bad_form(request: Request, _: Exception) -> Response:
    what = N_("The form was too old, or it came from another page. Nothing is changed. Go back and send it again.")
    return _error(request, 403, visit_without_session(request).t(what))


def _invalid(request: Request, error: Exception) -> Response:
    visit = visit_without_session(request)
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return _error(request, 422, " ".join(trouble.text for trouble in visit.troubles(problems, {}, {})))


def _no_report(request: Request, error: Exception) -> Response:
    log.warning("A report could not be made: %s", error)
    visit = visit_without_session(request)
    return _error(request, 503, visit.t(N_("This report cannot be made right now.")))


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _error(request, status if status in _ERRORS else 404 if status < 500 else 500)
