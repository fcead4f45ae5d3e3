"""Commands `pool hub rules`: which department leads each field of a shared library, set by three persons."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import CommandGroup, print_json, print_line, print_rows
from exchange.cli.rules.files import read_text
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

_COLUMNS = ("library", "version", "state", "fields", "departments", "missing", "proposed_by", "decided_by")

hub, rules = typer.Typer(cls=CommandGroup), typer.Typer(cls=CommandGroup)
rules.callback()(connect)

Library = Annotated[str, typer.Argument(help="such as population, legal-entity or address")]
Version = Annotated[int, typer.Argument(min=1)]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Rules of a library (数源规则): who leads each field, set by three persons."
    hub.add_typer(rules, name="rules", help=text, no_args_is_help=True)
    app.add_typer(hub, name="hub", help="The shared-records hub (共享库).", no_args_is_help=True)


@rules.command("list")
def rules_list(context: typer.Context, library: Library, as_json: JsonOption = False) -> None:
    """List the versions of a library's rules, and whose agreement is missing."""
    print_rows(client(context).list(f"/hub/rules/{library}"), _COLUMNS, as_json=as_json)


@rules.command("show")
def rules_show(context: typer.Context, library: Library, version: Version) -> None:
    """Show a version as JSON, with what it says."""
    print_json(client(context).get(f"/hub/rules/{library}/{version}"))


@rules.command("check")
def rules_check(file: Path) -> None:
    """Check the rules in a file (JSON); a fault is named by its place. Needs no pool."""
    from exchange.hub.fold.rules import parse, require_leads

    parsed = parse(_read(file))
    require_leads(parsed)
    print_line(f"{file}: {parsed.library}, version {parsed.version}, {len(parsed.fields)} fields; no fault")
    print_line(parsed.hash().hex())


@rules.command("propose")
def rules_propose(context: typer.Context, file: Path) -> None:
    """Propose the next version of a library's rules, from a file (JSON)."""
    answer = client(context).post("/hub/rules", {"rules": _read(file)})
    missing = ", ".join(answer["missing"])
    print_line(f"proposed: {_named(answer)}; {f'agreement is due of {missing}' if missing else 'no lead changes'}")


@rules.command("agree")
def rules_agree(context: typer.Context, library: Library, version: Version) -> None:
    """Agree for your department, whose lead of a field changes."""
    answer = client(context).post(f"/hub/rules/{library}/{version}/agreement", {})
    print_line(f"{answer['state']}: {_named(answer)}")


@rules.command("activate")
def rules_activate(context: typer.Context, library: Library, version: Version) -> None:
    """Activate a version; what the hub draws from now on is folded by it."""
    answer = client(context).post(f"/hub/rules/{library}/{version}/activation", {})
    print_line(f"{answer['state']}: {_named(answer)}")


@rules.command("reject")
def rules_reject(context: typer.Context, library: Library, version: Version, reason: ReasonOption) -> None:
    """Reject a version that is not active."""
    answer = client(context).post(f"/hub/rules/{library}/{version}/rejection", {"reason": reason})
    print_line(f"{answer['state']}: {_named(answer)}")


def _read(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InvalidError(
            Reason.RULES_INVALID, f"{file}, line {error.lineno}: got no JSON; expected an object with the rules"
        ) from error


def _named(answer: dict[str, Any]) -> str:
    return f"rules of {answer['library']}, version {answer['version']}"
