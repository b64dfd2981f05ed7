"""``proverom agencies · members · templates · experiments · catalog · me``: the catalog from the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli_output import WRONG_USE, As, AsJson, Limit, facts, fail, lab, local, name_of, number, show, shown, table
from hub.cli_runs import runs_table

agencies = typer.Typer(no_args_is_help=True, help="Agencies: list, show, add, change.")
members = typer.Typer(no_args_is_help=True, help="Who has which role where: list, add, end.")
templates = typer.Typer(no_args_is_help=True, help="Templates: list, show, check, publish, approve, deprecate.")
experiments = typer.Typer(no_args_is_help=True, help="Experiments (learning records): list, create, show, change.")
catalog = typer.Typer(no_args_is_help=True, help="Search the catalog.")

NameNb = Annotated[str | None, typer.Option("--name", help="The name in bokmål.")]
NameNn = Annotated[str | None, typer.Option("--name-nn", help="The name in nynorsk.")]
NameEn = Annotated[str | None, typer.Option("--name-en", help="The name in English.")]
Weight = Annotated[int | None, typer.Option("--weight", help="The agency's share where agencies wait for each other.")]
Desks = Annotated[int | None, typer.Option("--max-desks", help="Desks that may be open at once.")]
Concurrent = Annotated[int | None, typer.Option("--max-concurrent-runs", help="Runs that may run at once.")]
SweepRuns = Annotated[int | None, typer.Option("--max-sweep-runs", help="Runs that one sweep may have.")]
Memory = Annotated[
    str | None,
    typer.Option("--max-memory", metavar="SIZE", help="Memory of all its runs together: 8G, 512M, or none."),
]
Cpus = Annotated[
    str | None, typer.Option("--max-cpus", metavar="CORES", help="Cores of all its runs together, or none.")
]
TemplateVersion = Annotated[
    str, typer.Argument(metavar="TEMPLATE@VERSION", help="One version, for example letter-ab-test@1.0.0.")
]
Folder = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, help="The folder with template.ipynb, template.toml and README.md."),
]
Experiment = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="The experiment's id.")]
Summary = Annotated[str | None, typer.Option("--summary", help="What it is about, in a few sentences.")]
Embargo = Annotated[
    str | None,
    typer.Option("--embargo-until", metavar="DATE", help="Not shown outside the agency before this day (2026-01-31)."),
]


class Role(StrEnum):
    MEMBER = "member"
    COORDINATOR = "coordinator"
    LEADER = "leader"
    ADMIN = "admin"


class Kind(StrEnum):
    EMPLOYED = "employed"
    SECONDED = "seconded"


class Language(StrEnum):
    NB = "nb"
    NN = "nn"
    EN = "en"


class Visibility(StrEnum):
    AGENCY = "agency"
    LAB = "lab"
    PUBLIC = "public"


LanguageOption = Annotated[Language | None, typer.Option("--language", help="The language it is written in.")]
VisibilityOption = Annotated[Visibility | None, typer.Option("--visibility", help="Who may read it.")]


def me(login: As = None, as_json: AsJson = False) -> None:
    """Show who you are here, and where you may do what."""
    with lab(login) as client:
        found = client.get("me")
        show(found, as_json, lambda: _me(found))


def _me(found: dict[str, Any]) -> None:
    facts(
        [
            ("Name", found["name"]),
            ("Admin", found["admin"] or None),
            ("Only for", found["confined_to"]),
            ("May", ", ".join(found["actions"])),
        ]
    )
    if found["memberships"]:
        print()
        rows = (
            (m["slug"] or "(the whole lab)", m["orgnr"], m["name"], m["role"], m["ends"]) for m in found["memberships"]
        )
        table(("AGENCY", "ORGNR", "NAME", "ROLE", "ENDS"), rows, empty="")


# -- agencies --------------------------------------------------------------------------------------------------------


@agencies.command("list")
def list_agencies(
    every: Annotated[bool, typer.Option("--all", help="Closed agencies too.")] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List agencies."""
    with lab(login) as client:
        found = client.get("agencies", active_only=str(not every).lower())["items"]
        rows = (
            (
                a["slug"],
                a["orgnr"],
                name_of(a["name"]),
                a["active"],
                a["max_concurrent_runs"],
                a["max_desks"],
                a["weight"],
            )
            for a in found
        )
        show(
            found,
            as_json,
            lambda: table(("AGENCY", "ORGNR", "NAME", "ACTIVE", "RUNS", "DESKS", "WEIGHT"), rows, empty="No agencies."),
        )


@agencies.command("show")
def show_agency(
    agency: Annotated[str, typer.Argument(help="Organisation number or short name.")],
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Show an agency's quotas, how much of them is in use now, and how many of its runs wait."""
    with lab(login) as client:
        found = client.get(f"agencies/{agency}/usage")
        show(found, as_json, lambda: _agency(found))


def _agency(found: dict[str, Any]) -> None:
    a = found["agency"]
    facts(
        [
            ("Agency", f"{a['slug']} ({a['orgnr']})"),
            ("Name", name_of(a["name"])),
            ("Active", a["active"]),
            ("Waiting runs", found["waiting"]),
            ("Full", "yes: what waits begins as other runs end" if found["full"] else "no"),
            ("One sweep", f"at most {a['max_sweep_runs']} runs"),
            ("Desks", f"at most {a['max_desks']} open at once"),
            ("Weight", a["weight"]),
        ]
    )
    print()
    kinds = (("runs at once", "runs", 1, ""), ("memory", "memory", 1024**3, " GiB"), ("cores", "cpus", 1, ""))
    rows = (
        (
            label,
            f"{found[key]['used'] / scale:g}{unit}",
            "no limit" if found[key]["allowed"] is None else f"{found[key]['allowed'] / scale:g}{unit}",
            "any number" if found[key]["more"] is None else found[key]["more"],
        )
        for label, key, scale, unit in kinds
    )
    table(("QUOTA", "IN USE", "ALLOWED", "MORE RUNS"), rows, empty="")


@agencies.command("add")
def add_agency(
    orgnr: Annotated[str, typer.Argument(help="The organisation number, nine digits.")],
    slug: Annotated[
        str, typer.Argument(help="The short name: 1-20 lowercase letters, digits, hyphens. It cannot be changed.")
    ],
    name: Annotated[str, typer.Option("--name", help="The name in bokmål.")],
    name_nn: NameNn = None,
    name_en: NameEn = None,
    weight: Weight = None,
    max_desks: Desks = None,
    max_concurrent_runs: Concurrent = None,
    max_sweep_runs: SweepRuns = None,
    max_memory: Memory = None,
    max_cpus: Cpus = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Add an agency (admin)."""
    text = {"nb": name, "nn": name_nn or "", "en": name_en or ""}
    more = _given(
        weight=weight, max_desks=max_desks, max_concurrent_runs=max_concurrent_runs, max_sweep_runs=max_sweep_runs
    )
    more |= _caps(max_memory, max_cpus)
    with lab(login) as client:
        made = client.post("agencies", {"orgnr": orgnr, "slug": slug, "name": text, **more})
        show(
            made,
            as_json,
            lambda: print(
                f"Added {made['slug']} ({made['orgnr']}). Next: proverom members add PERSON --agency {made['slug']}"
            ),
        )


@agencies.command("change")
def change_agency(
    agency: Annotated[str, typer.Argument(help="Organisation number or short name.")],
    name: NameNb = None,
    name_nn: NameNn = None,
    name_en: NameEn = None,
    active: Annotated[bool | None, typer.Option("--active/--closed", help="Open or close the agency.")] = None,
    weight: Weight = None,
    max_desks: Desks = None,
    max_concurrent_runs: Concurrent = None,
    max_sweep_runs: SweepRuns = None,
    max_memory: Memory = None,
    max_cpus: Cpus = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Change an agency (admin)."""
    fields = _given(
        active=active,
        weight=weight,
        max_desks=max_desks,
        max_concurrent_runs=max_concurrent_runs,
        max_sweep_runs=max_sweep_runs,
    )
    fields |= _caps(max_memory, max_cpus)
    with lab(login) as client:
        old = next(
            (a for a in client.get("agencies", active_only="false")["items"] if agency in (a["orgnr"], a["slug"])), None
        )
        if old is None:
            fail(f"There is no agency {agency}. See them with: proverom agencies list --all", WRONG_USE)
        names = _given(nb=name, nn=name_nn, en=name_en)
        if names:
            fields["name"] = {**old["name"], **names}
        _need(fields)
        made = client.patch(f"agencies/{old['orgnr']}", fields)
        show(made, as_json, lambda: print(f"Changed {made['slug']} ({made['orgnr']})."))


def _caps(memory: str | None, cpus: str | None) -> dict[str, Any]:
    """Return the caps that were given; ``none`` lifts one. Ends the command for what is neither."""
    caps: dict[str, Any] = {}
    if memory is not None:
        units = {"m": 1024**2, "g": 1024**3, "t": 1024**4}
        text = memory.strip().lower().removesuffix("ib").removesuffix("b")
        if text != "none" and not (text[:-1].isascii() and text[:-1].isdigit() and text[-1] in units):
            fail(f"{memory!r} is no size. Write it like 8G or 512M, or none.", WRONG_USE)
        caps["max_memory"] = None if text == "none" else int(text[:-1]) * units[text[-1]]
    if cpus is not None:
        try:
            caps["max_cpus"] = None if cpus.strip().lower() == "none" else float(cpus.replace(",", "."))
        except ValueError:
            fail(f"{cpus!r} is no number of cores. Write it like 4 or 0.5, or none.", WRONG_USE)
    return caps


# -- members ---------------------------------------------------------------------------------------------------------


@members.command("list")
def list_members(
    agency: Annotated[str | None, typer.Option("--agency", help="Organisation number or short name.")] = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List memberships, also those that have ended."""
    with lab(login) as client:
        found = client.get("members", agency=agency)["items"]
        rows = (
            (m["id"], m["person"], m["agency"] or "(the whole lab)", m["role"], m["kind"], m["starts"], m["ends"])
            for m in found
        )
        show(
            found,
            as_json,
            lambda: table(("ID", "PERSON", "AGENCY", "ROLE", "KIND", "STARTS", "ENDS"), rows, empty="No memberships."),
        )


@members.command("add")
def add_member(
    person: Annotated[str, typer.Argument(help="The person's login.")],
    agency: Annotated[
        str, typer.Option("--agency", help="Organisation number or short name; leave it out for an admin of the lab.")
    ] = "",
    role: Annotated[Role, typer.Option("--role", help="What the person may do there.")] = Role.MEMBER,
    kind: Annotated[Kind, typer.Option("--kind", help="Employed there, or lent to it.")] = Kind.EMPLOYED,
    starts: Annotated[
        str | None, typer.Option("--starts", metavar="DATE", help="The first day (2026-01-31); today, if left out.")
    ] = None,
    ends: Annotated[str | None, typer.Option("--ends", metavar="DATE", help="The last day.")] = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Give a person a role in an agency (admin; coordinators in their own)."""
    body = {"person": person, "agency": agency, "role": role, "kind": kind, **_given(starts=starts, ends=ends)}
    with lab(login) as client:
        made = client.post("members", body)
        show(
            made,
            as_json,
            lambda: print(
                f"{made['person']} is {made['role']} of {made['agency'] or 'the lab'} (membership {made['id']})."
            ),
        )


@members.command("end")
def end_member(
    id: Annotated[str, typer.Argument(metavar="ID", help="The membership's id, from: proverom members list")],
    on: Annotated[str | None, typer.Option("--on", metavar="DATE", help="The last day; at once, if left out.")] = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """End a membership. Desks, sessions and tokens that it gave end within a minute of it."""
    with lab(login) as client:
        made = client.delete(f"members/{id}", on=on)
        show(made, as_json, lambda: print(f"{made['person']}'s membership ends on {made['ends']}."))


# -- templates -------------------------------------------------------------------------------------------------------


@templates.command("list")
def list_templates(
    every: Annotated[bool, typer.Option("--all", help="Every version, waiting and deprecated ones too.")] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List the templates that can be run."""
    with lab(login) as client:
        found = client.get("templates", published_only=str(not every).lower())["items"]
        rows = (
            (t["name"], t["version"], t["state"], name_of(t["title"]), t["data_class"], t["published_by"])
            for t in found
        )
        show(
            found,
            as_json,
            lambda: table(("TEMPLATE", "VERSION", "STATE", "TITLE", "DATA", "BY"), rows, empty="No templates."),
        )


@templates.command("show")
def show_template(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE[@VERSION]", help="The template, its newest published version unless one is named."
        ),
    ],
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Show a template: what it does, its parameters and metrics."""
    name, _, version = template.partition("@")
    with lab(login) as client:
        found = client.get(f"templates/{name}/versions/{version}" if version else f"templates/{name}")
        show(found, as_json, lambda: _template(found))


def _template(t: dict[str, Any]) -> None:
    facts(
        [
            ("Template", f"{t['name']}@{t['version']}"),
            ("Title", name_of(t["title"])),
            ("Summary", name_of(t["summary"])),
            ("State", t["state"]),
            ("Data", f"{t['data_class']}: {name_of(t['data_source'])}"),
            ("Time limit", f"{t['timeout_seconds']} s"),
            ("Digest", t["digest"]),
            ("Submitted", f"{local(t['published_at'])} by {t['published_by']}"),
            ("Approved", f"{local(t['approved_at'])} by {t['approved_by']}" if t["approved_by"] else None),
        ]
    )
    print()
    rows = (
        (p["name"], p["type"], number(p["default"]), p["unit"], _range(p), name_of(p["label"])) for p in t["parameters"]
    )
    table(("PARAMETER", "TYPE", "DEFAULT", "UNIT", "RANGE", "LABEL"), rows, empty="No parameters.")
    if t["metrics"]:
        print()
        table(
            ("METRIC", "UNIT", "BETTER", "LABEL"),
            ((m["name"], m["unit"], m["better"], name_of(m["label"])) for m in t["metrics"]),
            empty="",
        )


def _range(p: dict[str, Any]) -> str:
    if p["choices"]:
        return ", ".join(p["choices"])
    if p["minimum"] is None and p["maximum"] is None:
        return ""
    return f"{number(p['minimum'])} to {number(p['maximum'])}"


@templates.command("check")
def check_template(folder: Folder, login: As = None, as_json: AsJson = False) -> None:
    """Check a template's folder as publishing would, and store nothing."""
    with lab(login) as client:
        found = client.post("templates/check", files=_parts(folder))
        show(found, as_json, lambda: print(f"{found['name']}@{found['version']} can be published ({found['digest']})."))


@templates.command("publish")
def publish_template(folder: Folder, login: As = None, as_json: AsJson = False) -> None:
    """Submit a template's folder as a new version (coordinators). A second person approves it."""
    with lab(login) as client:
        made = client.post("templates", files=_parts(folder))
        version = f"{made['name']}@{made['version']}"
        show(
            made,
            as_json,
            lambda: print(
                f"{version} is {made['state']}. Somebody else approves it with: proverom templates approve {version}"
            ),
        )


@templates.command("approve")
def approve_template(template: TemplateVersion, login: As = None, as_json: AsJson = False) -> None:
    """Approve a submitted version: a coordinator other than the one who submitted it."""
    _move(template, "approve", login, as_json)


@templates.command("deprecate")
def deprecate_template(template: TemplateVersion, login: As = None, as_json: AsJson = False) -> None:
    """Take a version out of use."""
    _move(template, "deprecate", login, as_json)


def _move(template: str, how: str, login: str | None, as_json: bool) -> None:
    name, _, version = template.partition("@")
    if not version:
        fail(
            f"Which version of {name}? Write it as {name}@1.0.0; see them with: proverom templates list --all",
            WRONG_USE,
        )
    with lab(login) as client:
        made = client.post(f"templates/{name}/versions/{version}/{how}")
        show(made, as_json, lambda: print(f"{made['name']}@{made['version']} is {made['state']}."))


def _parts(folder: Path) -> dict[str, tuple[str, bytes]]:
    parts = {}
    for part, name in (("notebook", "template.ipynb"), ("declaration", "template.toml"), ("readme", "README.md")):
        try:
            parts[part] = (name, (folder / name).read_bytes())
        except OSError as error:
            fail(
                f"{folder / name} cannot be read ({error.strerror}). "
                "A template is a folder with template.ipynb, template.toml and README.md.",
                WRONG_USE,
            )
    return parts


# -- experiments -----------------------------------------------------------------------------------------------------


@experiments.command("list")
def list_experiments(
    agency: Annotated[str | None, typer.Option("--agency", help="Organisation number or short name.")] = None,
    words: Annotated[str | None, typer.Option("--words", "-q", help="Words that must all occur.")] = None,
    limit: Limit = 50,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List experiments, newest first."""
    with lab(login) as client:
        found = list(client.all("experiments", limit=limit, agency=agency, q=words))
        show(found, as_json, lambda: _experiments_table(found))


def _experiments_table(found: list[dict[str, Any]]) -> None:
    rows = (
        (e["id"], e["agency"], e["title"], e["status"], e["visibility"], e["runs"], local(e["created_at"]))
        for e in found
    )
    table(("EXPERIMENT", "AGENCY", "TITLE", "STATUS", "VISIBILITY", "RUNS", "BEGUN"), rows, empty="No experiments.")


@experiments.command("create")
def create_experiment(
    title: Annotated[str, typer.Argument(help="Its title.")],
    agency: Annotated[str, typer.Option("--agency", envvar="PROVEROM_AGENCY", help="The agency that owns it.")],
    summary: Summary = None,
    language: LanguageOption = None,
    visibility: VisibilityOption = None,
    embargo_until: Embargo = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Begin an experiment (a learning record)."""
    body = {
        "title": title,
        "agency": agency,
        **_given(summary=summary, language=language, visibility=visibility, embargo_until=embargo_until),
    }
    with lab(login) as client:
        made = client.post("experiments", body)
        show(
            made,
            as_json,
            lambda: print(f"Experiment {made['id']}. Run with: proverom run TEMPLATE --experiment {made['id']}"),
        )


@experiments.command("show")
def show_experiment(experiment: Experiment, login: As = None, as_json: AsJson = False) -> None:
    """Show one experiment."""
    with lab(login) as client:
        found = client.get(f"experiments/{experiment}")
        names = (
            "id",
            "agency",
            "title",
            "summary",
            "language",
            "visibility",
            "embargo_until",
            "status",
            "runs",
            "created_by",
        )
        show(found, as_json, lambda: facts([(name.replace("_", " ").capitalize(), found[name]) for name in names]))


@experiments.command("change")
def change_experiment(
    experiment: Experiment,
    title: Annotated[str | None, typer.Option("--title", help="Its title.")] = None,
    summary: Summary = None,
    language: LanguageOption = None,
    visibility: VisibilityOption = None,
    embargo_until: Embargo = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Change fields of an experiment."""
    fields = _given(title=title, summary=summary, language=language, visibility=visibility, embargo_until=embargo_until)
    _need(fields)
    with lab(login) as client:
        made = client.patch(f"experiments/{experiment}", fields)
        show(made, as_json, lambda: print(f"Changed experiment {made['id']}."))


# -- the catalog -----------------------------------------------------------------------------------------------------


@catalog.command("search")
def search_catalog(
    words: Annotated[list[str], typer.Argument(help="Words that must all occur.")],
    limit: Limit = 20,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Search runs and experiments that you may see."""
    q = " ".join(words)
    with lab(login) as client:
        found = {
            "experiments": list(client.all("experiments", limit=limit, q=q)),
            "runs": list(client.all("runs", limit=limit, q=q)),
        }

        def tables() -> None:
            print("Experiments")
            _experiments_table(found["experiments"])
            print("\nRuns")
            runs_table(found["runs"])
            for r in found["runs"]:
                for finding in r["findings"][:1]:
                    print(f"  {r['id']}  {shown(finding)}")

        show(found, as_json, tables)


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _need(fields: dict[str, Any]) -> None:
    if not fields:
        fail("There is nothing to change. Give one or more options; see --help.", WRONG_USE)
