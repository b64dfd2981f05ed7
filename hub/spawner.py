"""Desks: a person's JupyterLab for one agency. The named server's name is the agency's slug.

Both spawners make their sandbox from the same ``sandbox_spec``; nobody chooses an image, a size or a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from dockerspawner import DockerSpawner
from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Callable as CallableTrait
from traitlets import Unicode, default
from traitlets.config import Configurable

from catalog.i18n import N_, translator
from spawner_config import names
from spawner_config.engines.docker import container_arguments
from spawner_config.engines.local import DESK_PORT
from spawner_config.sandbox import HOME, MIB, Limits, SandboxSpec, sandbox_spec

# How far a desk has come: percent, and what is said of it.
_STAGES: Mapping[str, tuple[int, str]] = {
    "network": (10, N_("Preparing the agency's network")),
    "sandbox": (30, N_("Setting up an isolated desk with your files")),
    "jupyterlab": (60, N_("The desk is up, waiting for JupyterLab to answer")),
}

# No way out means nothing to look for outside: no news, no update check, no extension shop.
_JUPYTERLAB = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--ServerApp.terminado_settings={'shell_command': ['/bin/bash']}",
)


class DeskRefused(web.HTTPError):
    """This desk may not be started. JupyterHub shows ``jupyterhub_message`` on its page and in its API's answer."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)
        self.jupyterhub_message = message


class _Desk(Configurable):
    """What both kinds of desk have in common. ``hub.wiring`` sets the traits; none of them comes from a user."""

    # What it finds in the Spawner that it is mixed into.
    name: str
    user: Any
    image: str
    get_env: Callable[[], dict[str, str]]

    lab = Unicode(help="The lab's name.").tag(config=True)
    language = Unicode("nb", help="The language of what people read while a desk starts: nb, nn or en.").tag(
        config=True
    )
    hub_url = Unicode(
        "http://hub:8000", help="The proxy, as a sandbox reaches it; with the Hub's base URL, if any."
    ).tag(config=True)
    limits = AnyTrait(Limits(memory=2048 * MIB, cpus=2.0, pids=512), help="A ``Limits``: how big each desk is.").tag(
        config=True
    )
    agency_of = CallableTrait(
        lambda _slug: None,
        help="slug -> the agency's organisation number, None if there is no such agency. May be async.",
    ).tag(config=True)
    may_start = CallableTrait(
        lambda _person, _slug: "No rule says who may start a desk.",
        help="(person, slug) -> None if that desk may be started, else why not, in words for people. May be async.",
    ).tag(config=True)
    engine = AnyTrait(help="The ``Engine`` that desks run on.").tag(config=True)

    _agency = ""
    _stage = "network"

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        return ["/opt/desk/bin/jupyterhub-singleuser"]

    @default("args")
    def _default_args(self) -> list[str]:
        return list(_JUPYTERLAB)

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    @default("notebook_dir")
    def _default_notebook_dir(self) -> str:
        return HOME

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return []  # nothing of the Hub's own environment reaches a desk

    @property
    def desk_name(self) -> str:
        return names.desk_container(self.lab, self.name, self.user.name)

    async def admit(self) -> None:
        """Find the agency and ask whether the desk may be started. Raise DeskRefused with the reason."""
        t = translator(self.language)
        if not self.name:
            raise DeskRefused(t("A desk belongs to an agency. Choose an agency on the front page."))
        try:
            names.check_slug(self.name)
            agency = await maybe_future(self.agency_of(self.name))
        except ValueError:
            agency = None
        if agency is None:
            raise DeskRefused(
                t("The lab has no agency “%(slug)s”. Choose an agency on the front page.", slug=self.name)
            )
        refusal = await maybe_future(self.may_start(self.user.name, self.name))
        if refusal is not None:
            raise DeskRefused(str(refusal))
        self._agency = str(agency)

    async def prepare(self) -> None:
        """Do what comes before the sandbox itself."""
        self._stage = "network"
        await self.admit()
        network = names.agency_network(self.lab, self.name)
        await asyncio.to_thread(self.engine.ensure_network, network, lab=self.lab, agency=self._agency)
        self._stage = "sandbox"

    def desk_spec(self, command: list[str]) -> SandboxSpec:
        """Return what this desk's sandbox is."""
        environment = {
            **{key: str(value) for key, value in self.get_env().items()},
            "PROVEROM_URL": f"{self.hub_url.rstrip('/')}/services/catalog/",
            "PROVEROM_AGENCY": self._agency,
        }
        return sandbox_spec(
            "desk",
            lab=self.lab,
            agency=self._agency,
            slug=self.name,
            name=self.desk_name,
            image=self.image,
            command=command,
            environment=environment,
            limits=self.limits,
            person=self.user.name,
        )

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Say each stage as it comes, until JupyterHub itself says that the desk is ready."""
        t, stages = translator(self.language), list(_STAGES)
        said = -1
        while said < len(stages) - 1:
            reached = stages.index(self._stage)
            for stage in stages[said + 1 : reached + 1]:
                percent, message = _STAGES[stage]
                yield {"progress": percent, "message": t(message)}
            said = reached
            await asyncio.sleep(0.1)


class DeskSpawner(_Desk, DockerSpawner):  # type: ignore[misc]
    """Desks on a Docker Engine. ``image`` is the sandbox image's full name; it is fixed."""

    remove = True
    use_internal_ip = True
    pull_policy = "never"

    @default("object_name")
    def _object_name_default(self) -> str:
        # JupyterHub makes spawners for names that never start, too, and asks the engine about them: none is so called.
        try:
            return self.desk_name
        except ValueError:
            return f"proverom-{self.lab}-no-desk"

    async def start(self) -> tuple[str, int]:
        await self.prepare()
        self.network_name = names.agency_network(self.lab, self.name)
        ip, port = await super().start()
        self._stage = "jupyterlab"
        return ip, port

    async def poll(self) -> Any:
        # A server without a name is refused before it has a container, and then asked whether it has ended.
        return await super().poll() if self.name else 0

    async def create_object(self) -> Any:
        """Create the container from the one policy, and from nothing that DockerSpawner would add to it."""
        spec = self.desk_spec(await self.get_command())
        return await self.docker("create_container", **container_arguments(spec))


class LocalDeskSpawner(_Desk, Spawner):  # type: ignore[misc]
    """Desks on the local engine, a ``LocalEngine``. They outlive the Hub; the engine keeps their state."""

    image = Unicode("local", help="What the local environments are called in the records.").tag(config=True)
    engine = AnyTrait(help="The ``LocalEngine`` that desks run on.").tag(config=True)

    @default("ip")
    def _default_ip(self) -> str:
        return "127.0.0.1"

    @default("port")
    def _default_port(self) -> int:
        return DESK_PORT

    async def start(self) -> tuple[str, int]:
        await self.prepare()
        spec = self.desk_spec([*self.cmd, *self.get_args()])
        # One of that name that has ended, or that an earlier Hub lost sight of, has another token.
        await asyncio.to_thread(self.engine.remove, spec.name)
        await asyncio.to_thread(self.engine.start, spec)
        self._stage = "jupyterlab"
        return await asyncio.to_thread(self.engine.address, spec.name)

    async def poll(self) -> int | None:
        try:
            name = self.desk_name
        except ValueError:  # no agency can be called so: it was refused
            return 0
        status = await asyncio.to_thread(self.engine.status, name)
        if status is None:
            return 0
        if status.running:
            return None
        return 1 if status.exit_code is None else status.exit_code

    async def stop(self, now: bool = False) -> None:
        try:
            name = self.desk_name
        except ValueError:
            return
        await asyncio.to_thread(self.engine.stop, name, grace_seconds=0.0 if now else 5.0)
        await asyncio.to_thread(self.engine.remove, name)
