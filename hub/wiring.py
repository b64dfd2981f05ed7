"""Joins the rooms into one JupyterHub: what ``jupyterhub_config.py`` says is decided here."""

from __future__ import annotations

import sys
from typing import Any

from catalog.access import ROLE_ACTIONS, Action, Role
from catalog.store import Catalog, RunLimits, open_catalog
from hub import login, pages
from hub.keys import Keys, load_keys
from hub.membership import Desk, Directory, Standing
from hub.passwords import PasswordFile
from hub.ports import Ports, ports_of
from hub.proxy import LabProxy
from hub.settings import PROJECT, Settings
from hub.spawning import configure_spawner

CATALOG_SCOPES = {
    Action.READ: "Read the catalog, as far as the memberships go",
    Action.SUBMIT: "Run experiments",
    Action.PUBLISH: "Publish templates",
    Action.ADMINISTER: "Administer the lab",
}
USE_CATALOG = "access:services!service=catalog"


def configure(c: Any, settings: Settings) -> None:
    """Write the whole configuration into JupyterHub's ``c``. Opens the catalog's database, which must be migrated.

    ``engine.kind`` must be decided by now: raise ValueError for ``auto``.
    """
    if settings.engine.kind == "auto":
        raise ValueError("engine.kind is not decided. Start the lab with `proverom up`, which chooses the engine.")
    keys = load_keys(settings.state)
    catalog = open_lab_catalog(settings)
    directory = Directory(catalog.agencies, catalog.members)
    _hub(c, settings, keys, ports_of(settings))
    _proxy(c, settings, keys, ports_of(settings))
    _roles(c)
    _services(c, settings, keys, ports_of(settings))
    _login(c, settings, directory)
    _pages(c, settings, directory)
    configure_spawner(c, settings, catalog, directory)


def open_lab_catalog(settings: Settings) -> Catalog:
    """Open the catalog that the settings name, with their limits on runs."""
    limits = RunLimits(
        max_attempts=settings.runs.max_attempts,
        lease_seconds=settings.runs.lease,
        max_timeout_seconds=settings.runs.max_timeout,
        memory=settings.runs.memory,
        cpus=settings.runs.cpus,
        sweep_batch=settings.runs.sweep_batch,
    )
    return open_catalog(settings.database_url, settings.blob_url, limits=limits)


def scope(action: Action) -> str:
    return f"custom:catalog:{action}"


def _hub(c: Any, settings: Settings, keys: Keys, ports: Ports) -> None:
    folder = settings.state / "hub"
    c.JupyterHub.bind_url = f"http://{ports.bind}:{ports.proxy}"
    c.JupyterHub.hub_bind_url = f"http://{ports.bind}:{ports.hub}"
    # The proxy and the services are on the Hub's own loopback; sandboxes have another way (hub.spawning).
    c.JupyterHub.hub_connect_url = f"http://127.0.0.1:{ports.hub}"
    c.JupyterHub.db_url = f"sqlite:///{folder / 'jupyterhub.sqlite'}"
    c.JupyterHub.cookie_secret = bytes.fromhex(keys.cookie_secret)
    c.JupyterHub.cookie_max_age_days = settings.hub.session_days
    c.JupyterHub.oauth_token_expires_in = round(settings.hub.session_days * 86400)
    c.JupyterHub.token_expires_in_max_seconds = settings.hub.token_days * 86400
    c.JupyterHub.oauth_require_pkce = True
    if settings.hub.public_url:
        c.JupyterHub.public_url = settings.hub.public_url + "/"
        c.JupyterHub.cookie_host_prefix_enabled = settings.hub.public_url.startswith("https://")
    if settings.hub.subdomain_host:
        c.JupyterHub.subdomain_host = settings.hub.subdomain_host
    # A desk outlives the Hub: it is found again at the next start.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.redirect_to_server = False
    c.JupyterHub.default_url = "/services/catalog/"
    c.JupyterHub.trust_user_provided_tokens = False
    c.JupyterHub.authenticate_prometheus = True
    c.JupyterHub.tornado_settings = {
        "headers": {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"},
        "slow_spawn_timeout": 1,  # a refusal is answered at once; a start goes on to the page with its progress
    }


def _proxy(c: Any, settings: Settings, keys: Keys, ports: Ports) -> None:
    folder = settings.state / "hub"
    c.JupyterHub.proxy_class = LabProxy
    c.LabProxy.static_config_file = str(folder / "traefik.toml")
    c.LabProxy.dynamic_config_file = str(folder / "rules.toml")
    c.LabProxy.traefik_api_url = f"http://127.0.0.1:{ports.proxy_api}"
    c.LabProxy.traefik_api_username = "hub"
    c.LabProxy.traefik_api_password = keys.proxy_password
    c.LabProxy.traefik_log_level = "ERROR"
    c.LabProxy.extra_static_config = {"global": {"checkNewVersion": False, "sendAnonymousUsage": False}}


def _roles(c: Any) -> None:
    """Each role of the lab is a Hub role of the group of that name; nobody is a JupyterHub admin."""
    c.JupyterHub.custom_scopes = {scope(action): {"description": text} for action, text in CATALOG_SCOPES.items()}
    c.JupyterHub.load_roles = [
        *(
            {
                "name": f"lab-{role}",
                "description": f"{role} in at least one agency" if role is not Role.ADMIN else "admin of the lab",
                "scopes": [*sorted(scope(action) for action in ROLE_ACTIONS[role]), USE_CATALOG],
                "groups": [str(role)],
            }
            for role in Role
        ),
        {
            "name": "idle-culler",
            "description": "Stops desks that are idle or whose membership has ended",
            "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
            "services": ["idle-culler"],
        },
    ]


def _services(c: Any, settings: Settings, keys: Keys, ports: Ports) -> None:
    def service(name: str, word: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "command": [sys.executable, "-m", "hub.services", word],
            "cwd": str(PROJECT),
            "environment": {"PROVEROM_CONFIG": str(settings.state / "hub" / "settings.json")},
            **more,
        }

    c.JupyterHub.services = [
        service(
            "catalog",
            "catalog",
            url=f"http://127.0.0.1:{ports.catalog}",
            api_token=keys.catalog_token,
            oauth_no_confirm=True,
            oauth_client_allowed_scopes=[*sorted(scope(action) for action in Action), USE_CATALOG],
        ),
        service("dispatcher", "dispatcher"),
        service("idle-culler", "culler", api_token=keys.culler_token),
    ]


def _login(c: Any, settings: Settings, directory: Directory) -> None:
    # traitlets copies every value deeply, functions excepted: so functions are what it gets.
    def standing_of(person: str) -> Standing:
        return directory.standing(person)

    if settings.login.kind == "demo":
        passwords = PasswordFile(settings.state / "hub" / "passwords.json")
        c.JupyterHub.authenticator_class = login.DemoAuthenticator
        c.DemoAuthenticator.check_password = lambda name, password: passwords.check(name, password)
        chosen = c.DemoAuthenticator
    else:
        c.JupyterHub.authenticator_class = login.OidcAuthenticator
        chosen = c.OidcAuthenticator
        _oidc(chosen, settings, lambda person, organisations: directory.join(person, organisations))
    chosen.standing_of = standing_of
    chosen.manage_groups = True
    chosen.allow_all = True  # who has no membership is refused by the authenticator itself
    chosen.auth_refresh_age = login.REFRESH_SECONDS
    chosen.auth_refresh_strict = True
    chosen.refresh_pre_spawn = True


def _oidc(chosen: Any, settings: Settings, join_agencies: Any) -> None:
    given = settings.login
    chosen.login_service = given.service_name
    chosen.issuer = given.issuer
    chosen.client_id = given.client_id
    chosen.client_secret = given.client_secret.get_secret_value()
    chosen.authorize_url = given.authorize_url
    chosen.token_url = given.token_url
    chosen.scope = given.scope.split()
    chosen.username_claim = given.username_claim
    chosen.userdata_from_id_token = True
    chosen.join = given.join
    chosen.join_agencies = join_agencies
    if given.resource:
        chosen.extra_authorize_params = {"authorization_details": login.ansattporten_details(given.resource)}


def _pages(c: Any, settings: Settings, directory: Directory) -> None:
    def desks(user: Any) -> tuple[Desk, ...]:
        return directory.standing(user.name).desks if user is not None else ()

    c.JupyterHub.template_paths = [str(PROJECT / "hub" / "templates")]
    c.JupyterHub.jinja_environment_options = dict(pages.environment_options())
    c.JupyterHub.template_vars = {
        "desks": desks,
        "catalog_url": "/services/catalog/",
        "lab_notice": "local" if settings.engine.kind == "local" else "",
        pages.DEFAULT: settings.lab.language,
    }
