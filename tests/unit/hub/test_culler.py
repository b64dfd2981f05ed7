"""Desks whose membership has ended are found on every page of the Hub's answer, and stopped."""

import httpx

from catalog.access import Role
from hub.culler import RunningDesk, _stop, desks_without_membership
from hub.membership import Desk, Standing
from lab_templates.model import Text

URL = "http://127.0.0.1:8081/hub/api"
NAV = Desk("889640782", "nav", Text("NAV"), (Role.MEMBER,), 10)


def standing(person: str) -> Standing:
    return Standing(person, ("member",), (NAV,)) if person == "kari" else Standing(person, (), ())


def hub(request: httpx.Request) -> httpx.Response:
    """Answer as the Hub's listing does: two pages, of which the second is named by another address."""
    first = {"name": "kari", "servers": {"nav": {}, "bergen": {}}}
    second = {"name": "per/ola", "servers": {"nav": {}}}
    if "offset=1" in str(request.url):
        return httpx.Response(200, json={"items": [second], "_pagination": {"next": None}})
    following = {"url": "http://elsewhere:8000/hub/api/users?state=active&offset=1"}
    return httpx.Response(200, json={"items": [first], "_pagination": {"next": following}})


async def test_desks_without_a_membership_are_found() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(hub)) as client:
        found = await desks_without_membership(client, URL, standing)
    assert found == [RunningDesk("kari", "bergen"), RunningDesk("per/ola", "nav")]


async def test_a_name_stays_one_part_of_the_address() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(204)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await _stop(client, URL, RunningDesk("per/ola", "nav"))
    assert asked == ["DELETE /hub/api/users/per%2Fola/servers/nav"]
