"""The configuration that JupyterHub gets: who may do what, what listens where."""

from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from catalog.access import ROLE_ACTIONS, Role
from catalog.store import migrate
from hub.deployment import Deployment, NotDeployed
from hub.keys import load_keys
from hub.ports import ports_of
from hub.settings import HubSettings, LabSettings, LoginSettings, Settings
from hub.wiring import configure

OIDC = LoginSettings(
    kind="oidc",
    issuer="https://id.example.no",
    authorize_url="https://id.example.no/authorize",
    token_url="https://id.example.no/token",
    client_id="lab",
    client_secret="hush",  # type: ignore[arg-type]  # pydantic makes the secret of it
    resource="urn:altinn:resource:lab",
)


def lab(tmp_path: Path, **sections: Any) -> Settings:
    settings = Settings(lab=LabSettings(state=tmp_path), **sections).with_engine("local")
    migrate(settings.database_url)
    return settings


def configured(settings: Settings) -> Any:
    Deployment("local", "local").save(settings.state)
    c = Config()
    configure(c, settings)
    return c


def test_an_undecided_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="proverom up"):
        configure(Config(), lab(tmp_path).with_engine("auto"))


def test_a_lab_that_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDeployed, match="proverom up"):
        configure(Config(), lab(tmp_path))


def test_each_role_may_do_what_the_catalogs_table_says_and_nobody_is_hub_admin(tmp_path: Path) -> None:
    c = configured(lab(tmp_path))
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    for role in Role:
        scopes = {s for s in roles[f"lab-{role}"]["scopes"] if s.startswith("custom:")}
        assert scopes == {f"custom:catalog:{action}" for action in ROLE_ACTIONS[role]}
        assert roles[f"lab-{role}"]["groups"] == [str(role)]
    for role in roles.values():
        assert not any(s.startswith(("admin", "tokens", "groups", "users", "servers")) for s in role["scopes"])
    assert "admin" not in roles
    assert "admin_users" not in c.Authenticator


def test_a_desks_token_is_bound_to_its_own_server(tmp_path: Path) -> None:
    scopes = configured(lab(tmp_path)).LabDesk.server_token_scopes
    assert all(scope.endswith(("!server", "!user", "!service=catalog")) for scope in scopes)
    assert all(scope.endswith("!server") for scope in scopes if scope.startswith("custom:"))
    assert not any("publish" in scope or "administer" in scope for scope in scopes)


def test_everything_but_the_proxy_is_on_loopback(tmp_path: Path) -> None:
    c = configured(lab(tmp_path, hub=HubSettings(port=9000)))
    assert c.JupyterHub.bind_url == "http://127.0.0.1:9000"
    assert c.JupyterHub.hub_bind_url == "http://127.0.0.1:9081"
    assert c.LabProxy.traefik_api_url == "http://127.0.0.1:9099"
    assert next(s for s in c.JupyterHub.services if s["name"] == "catalog")["url"] == "http://127.0.0.1:11101"


def test_in_its_container_the_hub_listens_where_sandboxes_call() -> None:
    ports = ports_of(Settings(hub=HubSettings(port=9000)).with_engine("docker"))
    assert (ports.bind, ports.proxy, ports.hub) == ("0.0.0.0", 8000, 8081)  # noqa: S104


def test_desks_outlive_the_hub_and_sessions_do_not_outlive_memberships(tmp_path: Path) -> None:
    c = configured(lab(tmp_path))
    assert c.JupyterHub.cleanup_servers is False
    assert c.DemoAuthenticator.auth_refresh_strict is True
    assert 0 < c.DemoAuthenticator.auth_refresh_age <= 60
    assert c.JupyterHub.token_expires_in_max_seconds == 90 * 86400


def test_a_public_https_address_locks_the_cookies_to_it(tmp_path: Path) -> None:
    c = configured(lab(tmp_path, hub=HubSettings(public_url="https://lab.example.no")))
    assert c.JupyterHub.public_url == "https://lab.example.no/"
    assert c.JupyterHub.cookie_host_prefix_enabled is True


def test_oidc(tmp_path: Path) -> None:
    c = configured(lab(tmp_path, login=OIDC))
    chosen = c.OidcAuthenticator
    assert chosen.issuer == "https://id.example.no"
    assert chosen.userdata_from_id_token is True
    assert "urn:altinn:resource:lab" in chosen.extra_authorize_params["authorization_details"]
    assert chosen.manage_groups is True


def test_secrets_come_from_the_labs_own_file(tmp_path: Path) -> None:
    c = configured(lab(tmp_path))
    assert c.JupyterHub.cookie_secret == bytes.fromhex(load_keys(tmp_path).cookie_secret)
