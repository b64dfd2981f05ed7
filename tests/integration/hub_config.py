"""A real JupyterHub's configuration for test_hub_identity: the lab's scopes, a stand-in for a desk, no engine."""

import json
import os
import sys

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy

given = json.loads(os.environ["HUB_TEST"])
actions = ("read", "submit", "publish", "administer")
access = "access:services!service=catalog"
scopes = [f"custom:catalog:{action}" for action in actions]

c = get_config()  # type: ignore[name-defined] # noqa: F821
c.JupyterHub.bind_url = f"http://127.0.0.1:{given['proxy']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{given['hub']}"
c.JupyterHub.db_url = f"sqlite:///{given['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{given['folder']}/cookie"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.oauth_require_pkce = True
c.JupyterHub.custom_scopes = {scope: {"description": scope} for scope in scopes}
c.JupyterHub.services = [
    {
        "name": "catalog",
        "url": f"http://127.0.0.1:{given['catalog']}",
        "api_token": "catalog-token",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [*scopes, access],
    },
    {"name": "scraper", "api_token": "scraper-token"},
]
c.JupyterHub.load_roles = [
    {"name": "lab", "scopes": [*scopes[:2], access], "users": ["both", "kari"]},
    {"name": "scrapers", "scopes": [scopes[3], access], "services": ["scraper"]},
    {"name": "user", "scopes": ["self"]},
]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "p"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = [sys.executable, given["desk"], given["folder"]]
c.Spawner.environment = {"DESK_FOLDER": given["folder"]}
c.Spawner.server_token_scopes = [
    "users:activity!user",
    "access:servers!server",
    "custom:catalog:read!server",
    "custom:catalog:submit!server",
    access,
]
c.JupyterHub.proxy_class = TraefikFileProviderProxy
c.TraefikFileProviderProxy.static_config_file = f"{given['folder']}/traefik.toml"
c.TraefikFileProviderProxy.dynamic_config_file = f"{given['folder']}/rules.toml"
c.TraefikFileProviderProxy.traefik_api_url = f"http://127.0.0.1:{given['proxy_api']}"
c.TraefikFileProviderProxy.traefik_api_username = "hub"
c.TraefikFileProviderProxy.traefik_api_password = "proxy"
