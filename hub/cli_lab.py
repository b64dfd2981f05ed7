"""``proverom up · down · logs · doctor · image build``: the lab on this machine. Needs the server's dependencies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli_output import DONE, FAILED, INTERRUPTED, WRONG_USE, AsJson, fail, show

if TYPE_CHECKING:
    from hub.doctor import Finding
    from hub.lab import Lab, Step
    from hub.settings import Settings

image = typer.Typer(no_args_is_help=True, help="The images that sandboxes and the Hub are made from.")


def up(as_json: AsJson = False) -> None:
    """Start the lab on this machine, or find it running; return when it answers. What was made in it is kept."""
    with _server_side() as settings, _steps() as tell:
        from hub.lab import up as start

        lab = start(settings, tell)
    show(asdict(lab), as_json, lambda: _say_up(lab))


def down(as_json: AsJson = False) -> None:
    """Stop the lab on this machine: the Hub, every sandbox, every network. What was made in it stays."""
    with _server_side() as settings, _steps() as tell:
        from hub.lab import down as stop

        was = stop(settings, tell)
    show({"stopped": was}, as_json, lambda: print("The lab is stopped." if was else "There was no lab to stop."))


def logs(
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Go on as more is written; Ctrl-C ends it.")
    ] = True,
) -> None:
    """Show what the Hub and its services write."""
    with _server_side() as settings:
        from hub.lab import logs as pieces

        for piece in pieces(settings, follow=follow):
            sys.stdout.write(piece if piece.endswith("\n") else piece + "\n")
            sys.stdout.flush()


def doctor(as_json: AsJson = False) -> None:
    """Look at this machine: what is there, and what each missing thing costs. Status 1 if the lab cannot start."""
    with _server_side() as settings:
        from hub.doctor import examine

        found = examine(settings)
    show([asdict(one) for one in found], as_json, lambda: _say_findings(found))
    raise typer.Exit(FAILED if any(one.needed and not one.ok for one in found) else DONE)


@image.command("build")
def build_image(as_json: AsJson = False) -> None:
    """Build what is missing of the images, or of the embedded engine's environments."""
    with _server_side() as settings, _steps() as tell:
        from hub.lab import Step, choose_backend

        backend = choose_backend(settings)
        text = "Building the sandboxes" if backend.engine == "local" else "Building the images"
        tell(Step("images", text))
        made = backend.prepare(lambda detail, share: tell(Step("images", text, "progress", detail=detail, share=share)))
        tell(Step("images", text, "done"))
    show(asdict(made), as_json, lambda: print(f"Built for the engine {backend.engine}."))


@contextlib.contextmanager
def _server_side() -> Iterator[Settings]:
    """Give the settings, and turn what can go wrong with the lab on this machine into an exit status."""
    try:
        from hub.lab import LabError
        from hub.settings import SettingsError, load_settings
        from spawner_config.engines.base import EngineError
    except ImportError as error:
        fail(
            f"This needs the server's dependencies, and {error.name} is not installed. "
            "On the lab's own machine run: make lab",
            WRONG_USE,
        )
    try:
        yield load_settings()
    except SettingsError as error:
        fail(str(error), WRONG_USE)
    except (LabError, EngineError) as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _steps() -> Iterator[Callable[[Step], None]]:
    """Show each step on stderr: a line when it is done, and on a terminal how far it has come."""
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True, highlight=False)
    with Status("", console=console) as status:

        def tell(step: Step) -> None:
            share = f" {step.share:.0%}" if step.share is not None else ""
            status.update(f"{step.text}{share}  [dim]{_plain(step.detail)}[/dim]")
            if step.state == "done":
                console.print(f"[green]✓[/green] {step.text} [dim]{step.seconds:.0f} s[/dim]")

        yield tell


def _line(step: Step) -> None:
    if step.state in ("started", "done"):
        done = f": done in {step.seconds:.0f} s" if step.state == "done" else " ..."
        print(f"{step.text}{done}", file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(" ".join(text.split())[:80])


def _say_up(lab: Lab) -> None:
    print(
        f"\nThe lab {'was running already' if lab.already_running else 'runs'}: {lab.address}   (engine: {lab.engine})"
    )
    for notice in lab.notices:
        print(f"  ! {notice}")
    if lab.logins:
        print("\nLogin        Password")
        for name, password in lab.logins.items():
            print(f"{name:<12} {password}")
    print("\nFollow it: proverom logs     Stop it: proverom down     Try it: proverom templates list --as team")


def _say_findings(found: list[Finding]) -> None:
    for one in found:
        print(f"{'ok' if one.ok else '!!' if one.needed else '--'}  {one.name}: {one.found}")
        if not one.ok:
            for said in (one.cost, one.remedy):
                if said:
                    print(f"      {said}")
