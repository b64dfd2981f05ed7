"""The catalog's service as the Hub starts it: the API and the pages over one store, signed in by the Hub."""

from __future__ import annotations

import importlib.metadata

from starlette.types import ASGIApp

from catalog.api.app import create_api
from catalog.api.context import ApiSettings
from catalog.web.app import create_web
from catalog.web.settings import WebSettings
from hub.assets import node_folder
from hub.identity import HubIdentity
from hub.keys import load_keys
from hub.settings import Settings
from hub.wiring import open_lab_catalog


def create(settings: Settings) -> ASGIApp:
    """Return the app; it must run where JupyterHub has put its variables for the service ``catalog``."""
    store = open_lab_catalog(settings)
    identity = HubIdentity(
        store.members,
        secret=load_keys(settings.state).catalog_secret,
        session_seconds=round(settings.hub.session_days * 86400),
        secure=settings.hub.public_url.startswith("https://"),
    )
    web = create_web(
        store,
        identity,
        WebSettings(
            language=settings.lab.language,
            engine=settings.engine.kind,
            vendor_dir=node_folder(settings.state) / "node_modules",
            max_timeout_seconds=settings.runs.max_timeout,
            max_upload_bytes=settings.catalog.max_upload,
            sends_mail=bool(settings.mail.host),
        ),
    )
    api = ApiSettings(
        version=importlib.metadata.version("proverom"),
        engine=settings.engine.kind,
        max_upload_bytes=settings.catalog.max_upload,
    )
    return create_api(store, identity=identity, settings=api, web=web)
