"""Stops desks that should not run: those nobody uses, and those whose membership has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import quote

import httpx
from jupyterhub_idle_culler import cull_idle

from hub.membership import Standing

log = logging.getLogger("proverom.culler")

MEMBERSHIP_SECONDS = 20  # with a stop that takes a few seconds, a desk is gone within 60 s of its membership
PAGES = "application/jupyterhub-pagination+json"


@dataclass(frozen=True, slots=True)
class HubApi:
    """The Hub's REST API and the culler's own token for it."""

    url: str
    token: str


@dataclass(frozen=True, slots=True)
class RunningDesk:
    person: str
    slug: str


async def stop_idle_desks(hub: HubApi, *, idle_seconds: int) -> None:
    """Look again and again for desks nobody has used for so long. Never returns."""
    while True:
        try:
            await cull_idle(hub.url, hub.token, idle_seconds, log)
        except Exception:
            log.exception("Idle desks could not be looked for; trying again")
        await asyncio.sleep(max(10, min(300, idle_seconds // 4)))


async def stop_desks_without_membership(hub: HubApi, standing_of: Callable[[str], Standing]) -> None:
    """Look again and again for desks of people who are not in the agency any more. Never returns."""
    headers = {"Authorization": f"token {hub.token}", "Accept": PAGES}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:
        while True:
            try:
                for desk in await desks_without_membership(client, hub.url, standing_of):
                    await _stop(client, hub.url, desk)
            except Exception:
                log.exception("Memberships of running desks could not be checked; trying again")
            await asyncio.sleep(MEMBERSHIP_SECONDS)


async def desks_without_membership(
    client: httpx.AsyncClient, url: str, standing_of: Callable[[str], Standing]
) -> list[RunningDesk]:
    """Return the running desks whose person may not have them today. Raise httpx.HTTPError if the Hub is away."""
    found = []
    standings: dict[str, Standing] = {}
    async for desk in _running(client, url):
        if desk.person not in standings:
            standings[desk.person] = await asyncio.to_thread(standing_of, desk.person)
        if standings[desk.person].desk(desk.slug) is None:
            found.append(desk)
    return found


async def _running(client: httpx.AsyncClient, url: str) -> AsyncIterator[RunningDesk]:
    page: str | None = f"{url}/users?state=active"
    while page:
        answer = await client.get(page)
        answer.raise_for_status()
        data = answer.json()
        for user in data["items"]:
            for slug in user.get("servers") or {}:
                yield RunningDesk(user["name"], slug)
        following = data["_pagination"]["next"]
        page = f"{url}/users{following['url'][following['url'].index('?') :]}" if following else None


async def _stop(client: httpx.AsyncClient, url: str, desk: RunningDesk) -> None:
    log.warning("Stopping the desk of %s in %s: no membership there any more", desk.person, desk.slug)
    answer = await client.delete(f"{url}/users/{quote(desk.person, safe='')}/servers/{quote(desk.slug, safe='')}")
    if answer.status_code not in (202, 204, 404):
        log.error("The Hub answered %s to stopping it: %s", answer.status_code, answer.text[:500])
