"""Sets up the desks: which engine makes them, how big they are, who may start one, and what their token can do."""

from __future__ import annotations

import asyncio
from typing import Any

from traitlets import Any as AnyTrait

from catalog.access import Action
from catalog.i18n import translator
from catalog.store import Catalog
from hub.deployment import Deployment
from hub.engines import lab_engine
from hub.membership import Desk, Directory
from hub.settings import Settings
from hub.spawner import DeskSpawner, LocalDeskSpawner
from spawner_config.engines.base import Engine
from spawner_config.networks import HUB_PORTS
from spawner_config.sandbox import Limits

# What a desk's token may do: say that it is used, let its owner in, and the catalog for its own agency alone.
TOKEN_SCOPES = (
    "users:activity!user",
    "access:servers!server",
    "access:services!service=catalog",
    f"custom:catalog:{Action.READ}!server",
    f"custom:catalog:{Action.SUBMIT}!server",
)


def configure_spawner(c: Any, settings: Settings, catalog: Catalog, directory: Directory) -> None:
    """Write the spawner's part of the configuration. Raise EngineUnreachable, or NotDeployed before any `up`."""
    deployment = Deployment.load(settings.state)
    engine = lab_engine(settings, deployment)
    base = LocalDeskSpawner if deployment.engine == "local" else DeskSpawner
    # traitlets copies what is in ``c``; an engine is one thing and stays one, so it is the class's own.
    c.JupyterHub.spawner_class = type("LabDesk", (base,), {"engine": AnyTrait(engine)})
    desk = c.LabDesk
    desk.lab = settings.lab.name
    desk.language = settings.lab.language
    desk.image = deployment.sandbox_image
    desk.limits = Limits(memory=settings.desk.memory, cpus=settings.desk.cpus, pids=settings.desk.pids)
    desk.hub_url = f"http://hub:{HUB_PORTS[0]}"
    desk.hub_connect_url = f"http://hub:{HUB_PORTS[1]}"
    desk.server_token_scopes = list(TOKEN_SCOPES)
    desk.start_timeout = 120
    desk.http_timeout = 90
    desk.poll_interval = 15

    async def agency_of(slug: str) -> str | None:
        agency = await asyncio.to_thread(catalog.agencies.by_slug, slug)
        return agency.orgnr if agency is not None and agency.active else None

    async def may_start(person: str, slug: str) -> str | None:
        return await asyncio.to_thread(refusal, directory, engine, settings, person, slug)

    desk.agency_of = agency_of
    desk.may_start = may_start


def refusal(directory: Directory, engine: Engine, settings: Settings, person: str, slug: str) -> str | None:
    """Say why this person may not start this desk, in the lab's language, or None. Blocks. Raise EngineUnreachable."""
    t = translator(settings.lab.language)
    found = directory.standing(person).desk(slug)
    if found is None:
        return t(
            "You have no desk at “%(slug)s”, because you do not work there. Ask its coordinator to add you.", slug=slug
        )
    if _running(engine, settings.lab.name, found) >= found.max_desks:
        return t.plural(
            "The one desk of “%(slug)s” is in use. Try again when it has been stopped.",
            "All %(count)s desks of “%(slug)s” are in use. Try again when somebody has stopped theirs.",
            found.max_desks,
            slug=slug,
        )
    return None


def _running(engine: Engine, lab: str, desk: Desk) -> int:
    return sum(s.running and s.agency == desk.orgnr for s in engine.sandboxes(lab=lab, kind="desk"))
