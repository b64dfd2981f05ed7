"""The lab's processes: ``python -m hub.services <which>``. ``front`` becomes JupyterHub, which starts the others."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hub.deployment import Deployment, NotDeployed
from hub.keeping import keep_alive
from hub.settings import PROJECT, Settings, SettingsError, load_settings
from lab_templates.model import InvalidInput
from spawner_config.engines.base import EngineError

log = logging.getLogger("proverom.services")

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the process that started this one dies, however it dies."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # One that died before that was asked for sends no signal, and this process has been given to another.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def front(settings: Settings, arguments: Sequence[str]) -> None:  # noqa: ARG001
    """Bring the catalog up to date, seed a demonstration lab, get on every agency's network, and become JupyterHub."""
    from catalog.store import migrate
    from hub.engines import lab_engine
    from hub.seed import seed
    from hub.wiring import open_lab_catalog
    from spawner_config import names

    migrate(settings.database_url)
    store = open_lab_catalog(settings)
    if settings.lab.demo and settings.login.kind == "demo":
        for added in seed(store):
            log.info("Seeded %s", added)
    # A Hub whose container is new is on no agency's network, and desks that outlived the old one wait for it there.
    engine = lab_engine(settings, Deployment.load(settings.state))
    lab = settings.lab.name
    for agency in store.agencies.all():
        if agency.active:
            engine.ensure_network(names.agency_network(lab, agency.slug), lab=lab, agency=agency.orgnr)
    store.close()
    os.chdir(settings.state / "hub")
    program = str(Path(sys.executable).parent / "jupyterhub")
    os.execv(program, [program, "--config", str(_jupyterhub_config())])  # noqa: S606


def catalog(settings: Settings, arguments: Sequence[str]) -> None:  # noqa: ARG001
    """Serve the catalog's pages and API on the Hub's loopback."""
    import uvicorn

    from hub.catalog_app import create
    from hub.ports import ports_of

    uvicorn.run(
        create(settings),
        host="127.0.0.1",
        port=ports_of(settings).catalog,
        log_level="warning",
        access_log=False,
        server_header=False,
        # traefik, on this loopback, says for whom it asks; nobody else can reach this port.
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=5,
    )


def dispatcher(settings: Settings, arguments: Sequence[str]) -> None:  # noqa: ARG001
    """Run the dispatcher's control loop until SIGINT or SIGTERM."""
    from hub.dispatching import run

    run(settings)


def culler(settings: Settings, arguments: Sequence[str]) -> None:  # noqa: ARG001
    """Stop idle desks and desks of ended memberships until SIGINT or SIGTERM."""
    from hub.culler import HubApi, stop_desks_without_membership, stop_idle_desks
    from hub.keys import load_keys
    from hub.membership import Directory
    from hub.ports import ports_of
    from hub.wiring import open_lab_catalog

    hub = HubApi(f"http://127.0.0.1:{ports_of(settings).hub}/hub/api", load_keys(settings.state).culler_token)
    store = open_lab_catalog(settings)
    directory = Directory(store.agencies, store.members)

    async def both() -> None:
        await asyncio.gather(
            stop_idle_desks(hub, idle_seconds=settings.hub.desk_idle_minutes * 60),
            stop_desks_without_membership(hub, directory.standing),
        )

    asyncio.run(both())


def traefik(settings: Settings, arguments: Sequence[str]) -> None:  # noqa: ARG001
    """Become traefik with the configuration file given (``hub.proxy``)."""
    beside = Path(sys.executable).parent / "traefik"
    program = str(beside) if beside.is_file() else shutil.which("traefik")
    if program is None:
        raise SettingsError("traefik is not installed. Install the project's requirements again.")
    os.execv(program, [program, "--configfile", *arguments])  # noqa: S606


def _jupyterhub_config() -> Path:
    """Beside the packages in a checkout; in the Hub's image, in its environment's ``etc``."""
    installed = Path(sys.prefix) / "etc" / "jupyterhub_config.py"
    return installed if installed.is_file() else PROJECT / "jupyterhub_config.py"


PROCESSES: dict[str, Callable[[Settings, Sequence[str]], None]] = {
    "front": front,
    "catalog": catalog,
    "dispatcher": dispatcher,
    "culler": culler,
    "traefik": traefik,
}

# Killed, they are replaced at once.
KEPT = frozenset({"catalog", "dispatcher", "culler"})


def main(arguments: Sequence[str]) -> int:
    """Become the process that the first argument names. Return 2 with a message if that cannot be."""
    if not arguments or arguments[0] not in PROCESSES:
        print(f"Give one of {', '.join(PROCESSES)}.", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if arguments[0] != "front":
        end_with_parent()
    if arguments[0] in KEPT:
        keep_alive(end_with_parent)
    try:
        PROCESSES[arguments[0]](load_settings(), arguments[1:])
    except KeyboardInterrupt:  # how JupyterHub asks its services to end
        return 0
    except (SettingsError, EngineError, NotDeployed, InvalidInput) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
