"""``proverom``, the command line.

Nothing heavy is imported before a command needs it: a desk has no server dependencies, and help must come at once.
"""

from __future__ import annotations

import typer

from hub import cli_catalog, cli_lab, cli_notices, cli_runs, cli_schedules, cli_sweeps

app = typer.Typer(
    name="proverom",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Prøverom, the shared experimentation lab of the public sector.",
)

for command in (
    cli_lab.up,
    cli_lab.down,
    cli_lab.logs,
    cli_lab.doctor,
    cli_runs.run,
    cli_sweeps.sweep,
    cli_runs.report,
    cli_catalog.me,
):
    app.command()(command)
for name, group in (
    ("runs", cli_runs.runs),
    ("sweeps", cli_sweeps.sweeps),
    ("schedule", cli_schedules.schedule),
    ("notices", cli_notices.notices),
    ("templates", cli_catalog.templates),
    ("experiments", cli_catalog.experiments),
    ("catalog", cli_catalog.catalog),
    ("agencies", cli_catalog.agencies),
    ("members", cli_catalog.members),
    ("image", cli_lab.image),
):
    app.add_typer(group, name=name)


def main() -> None:
    """The entry point of the ``proverom`` script. Exit status 0 done, 1 failed, 2 wrong use."""
    app()


if __name__ == "__main__":
    main()
