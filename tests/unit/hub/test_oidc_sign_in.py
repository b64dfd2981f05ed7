"""Signing in with a real OpenID Connect provider: the code flow, the id token's issuer, and who becomes a member."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from oidc_provider_mock import run_server_in_thread

from catalog.access import Role
from hub.login import OidcAuthenticator, SignInRefused
from hub.membership import Standing

# The provider, which is the tests' own, is built on names that its library is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CALLBACK = "https://lab.example.no/hub/oauth_callback"
DIGDIR = "991825827"


class Handler:
    """The part of a request that the authenticator reads."""

    def __init__(self, code: str) -> None:
        self.code = code

    def get_argument(self, name: str, default: str = "") -> str:
        return self.code if name == "code" else default


class People:
    """A directory of memberships that can be joined."""

    def __init__(self) -> None:
        self.members: dict[str, set[str]] = {}

    def standing(self, person: str) -> Standing:
        groups = tuple(sorted(f"{orgnr}-{Role.MEMBER}" for orgnr in self.members.get(person, ())))
        return Standing(person, groups, ())

    def join(self, person: str, organisations: frozenset[str]) -> None:
        self.members.setdefault(person, set()).update(organisations & {DIGDIR})


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


def authenticator(provider: str, people: People, **more: Any) -> OidcAuthenticator:
    given = {"issuer": provider, "join": True, "username_claim": "sub", **more}
    return OidcAuthenticator(
        client_id="lab",
        client_secret="hush",
        authorize_url=f"{provider}/oauth2/authorize",
        token_url=f"{provider}/oauth2/token",
        oauth_callback_url=CALLBACK,
        scope=["openid"],
        userdata_from_id_token=True,
        enable_pkce=False,
        manage_groups=True,
        allow_all=True,
        standing_of=people.standing,
        join_agencies=people.join,
        **given,
    )


def code_for(provider: str, sub: str, **claims: Any) -> str:
    """Sign ``sub`` in at the provider and return the code that it sends to the lab."""
    with httpx.Client(base_url=provider, trust_env=False) as client:
        client.put(f"/users/{sub}", json=claims).raise_for_status()
        query = {"client_id": "lab", "redirect_uri": CALLBACK, "response_type": "code", "scope": "openid", "state": "s"}
        answer = client.post("/oauth2/authorize", params=query, data={"sub": sub})
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def digdir() -> dict[str, Any]:
    return {"authorization_details": [{"authorized_parties": [{"orgno": {"ID": f"0192:{DIGDIR}"}}]}]}


async def test_whoever_acts_for_an_agency_of_the_lab_becomes_its_member(provider: str) -> None:
    people = People()
    code = code_for(provider, "kari", **digdir())
    found = await authenticator(provider, people).get_authenticated_user(Handler(code), None)
    assert found["name"] == "kari"
    assert found["groups"] == [f"{DIGDIR}-member"]
    assert found["auth_state"] is None


async def test_without_joining_only_members_get_in(provider: str) -> None:
    people = People()
    closed = authenticator(provider, people, join=False)
    with pytest.raises(SignInRefused) as refused:
        await closed.get_authenticated_user(Handler(code_for(provider, "per", **digdir())), None)
    assert refused.value.code == "no_membership"
    assert people.members == {}
    people.members["per"] = {DIGDIR}
    assert await closed.get_authenticated_user(Handler(code_for(provider, "per")), None)


async def test_another_organisation_brings_nobody_in(provider: str) -> None:
    code = code_for(provider, "ola", authorization_details=[{"orgno": {"ID": "0192:974760673"}}])
    with pytest.raises(SignInRefused):
        await authenticator(provider, People()).get_authenticated_user(Handler(code), None)


async def test_an_id_token_of_another_issuer_is_refused(provider: str) -> None:
    code = code_for(provider, "kari", **digdir())
    with pytest.raises(SignInRefused, match="is from"):
        await authenticator(provider, People(), issuer="https://id.example.no").get_authenticated_user(
            Handler(code), None
        )


async def test_a_national_identity_number_is_no_user_name(provider: str) -> None:
    code = code_for(provider, "13097248022", **digdir())
    with pytest.raises(SignInRefused) as refused:
        await authenticator(provider, People()).get_authenticated_user(Handler(code), None)
    assert refused.value.code == "not_allowed"
