"""The proxy that JupyterHub starts: traefik, which ends when its Hub does."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import Popen

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy


class LabProxy(TraefikFileProviderProxy):  # type: ignore[misc]
    """traefik, started through ``hub.services`` so that a Hub killed outright leaves no proxy behind on its port."""

    def _start_traefik(self) -> None:
        config = str(Path(self.static_config_file).absolute())
        command = [sys.executable, "-m", "hub.services", "traefik", config]
        self.traefik_process = Popen(command, cwd=Path(__file__).resolve().parent.parent)
