"""``proverom notices …``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hub.cli_output import As, AsJson, Limit, facts, lab, local, show, table

notices = typer.Typer(no_args_is_help=True, help="What has ended, and what of it you get by e-mail: list, read, mail.")


class Wish(StrEnum):
    NONE = "none"
    FAILURES = "failures"
    BATCHES = "batches"
    ALL = "all"


class Language(StrEnum):
    NB = "nb"
    NN = "nn"
    EN = "en"


@notices.command("list")
def list_notices(
    unread: Annotated[bool, typer.Option("--unread", help="Only what you have not read.")] = False,
    limit: Limit = 50,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List your notices, newest first."""
    with lab(login) as client:
        found = list(client.all("me/notices", limit=limit, unread=str(unread).lower()))
        rows = (
            (local(n["at"]), n["kind"], n["subject"], n["template"], n["state"], None if n["read_at"] else "new")
            for n in found
        )
        columns = ("WHEN", "WHAT", "ID", "TEMPLATE", "STATE", "")
        show(found, as_json, lambda: table(columns, rows, empty="No notices."))


@notices.command("read")
def read_notices(login: As = None, as_json: AsJson = False) -> None:
    """Mark all your notices as read."""
    with lab(login) as client:
        found = client.post("me/notices/read", {})
        show(found, as_json, lambda: print(f"{found['read']} read."))


@notices.command("mail")
def choose_mail(
    address: Annotated[str | None, typer.Option("--address", help='Where e-mail goes; "" for none.')] = None,
    wish: Annotated[
        Wish | None,
        typer.Option("--wish", help="Nothing; what failed; sweeps and the runs of schedules; everything."),
    ] = None,
    language: Annotated[Language | None, typer.Option("--language", help="The language of the e-mail.")] = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Show what you get by e-mail, or choose it."""
    with lab(login) as client:
        found = client.get("me/notifications")
        chosen = {"mail": address, "wish": wish, "language": language}
        if any(value is not None for value in chosen.values()):
            given = {name: value for name, value in chosen.items() if value is not None}
            found = client.put("me/notifications", {**found, **given})
        pairs = [("Address", found["mail"] or "none"), ("Wish", found["wish"]), ("Language", found["language"])]
        show(found, as_json, lambda: facts(pairs))
