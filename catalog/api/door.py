"""Health, metrics and the sign-in's own addresses: what stands beside the API under the service's base path."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse

from catalog.access import Action, Forbidden
from catalog.api.context import Lab, Who
from catalog.api.problems import Refusal
from catalog.store import Catalog

router = APIRouter()


@router.get("/health")
def health(lab: Lab) -> Response:
    """200 if the catalog's database answers, 503 if not; no sign-in."""
    try:
        lab.catalog.ping()
    except Exception:
        return JSONResponse(
            {"status": "database unavailable", "version": lab.settings.version, "engine": lab.settings.engine}, 503
        )
    return JSONResponse({"status": "ok", "version": lab.settings.version, "engine": lab.settings.engine})


@router.get("/metrics")
def metrics(request: Request, who: Who) -> Response:
    """Prometheus text, for tokens with the scope ``custom:catalog:administer``."""
    if Action.ADMINISTER not in who.actions:
        raise Forbidden(
            "Metrics are for the lab's administrators: the token needs the scope custom:catalog:administer."
        )
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/oauth_callback")
async def oauth_callback(request: Request, lab: Lab) -> Response:
    """Where the Hub sends the browser back to after signing in."""
    return await lab.identity.callback(request)


@router.post("/logout")
async def logout(request: Request, lab: Lab) -> Response:
    """End the session, here and at the Hub. The form carries its ``csrf``."""
    session = await lab.identity.session(request)
    if session is not None:
        async with request.form(max_files=0, max_fields=5) as form:
            given = form.get("csrf")
        if isinstance(given, UploadFile) or not lab.identity.check_csrf(session, given):
            raise Refusal(403, "csrf", "This form is too old. Go back, reload the page and sign out again.")
    return lab.identity.logout(request)


class QueueGauges(Collector):
    """Runs that wait and run, by agency, as the database has them at the time of asking."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def collect(self) -> Iterable[GaugeMetricFamily]:
        queued = GaugeMetricFamily("proverom_runs_queued", "Runs that wait", labels=["agency"])
        running = GaugeMetricFamily("proverom_runs_running", "Runs that run", labels=["agency"])
        for demand in self._catalog.queue.demand():
            queued.add_metric([demand.agency], demand.queued)
            running.add_metric([demand.agency], demand.running)
        runners = GaugeMetricFamily(
            "proverom_runners", "Runner sandboxes that are open", value=len(self._catalog.queue.runners())
        )
        return [queued, running, runners]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []


def make_registry(catalog: Catalog) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueGauges(catalog))
    return registry
