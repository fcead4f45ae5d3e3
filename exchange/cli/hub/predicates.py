"""Commands `pool hub predicates`: what may be asked about a subject, proposed by one person, confirmed by another."""

import json
from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.grant_text import describe_filter
from exchange.cli.hub.rules import hub
from exchange.cli.output import CommandGroup, print_fields, print_line, print_rows
from exchange.cli.rules.files import read_text
from schemas.errors import InvalidError, Reason

__all__ = ["add_to_group"]

predicates = typer.Typer(cls=CommandGroup)
predicates.callback()(connect)

_Id = Annotated[str, typer.Argument(help="id of the proposal")]


def add_to_group() -> None:
    """Register the commands with the group of the hub."""
    text = "Registered predicates (核验条件): what grants verify, and lists are made by."
    hub.add_typer(predicates, name="predicates", help=text, no_args_is_help=True)


@predicates.command("add")
def predicates_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="such as alive-80; a name that is there gets its next version")],
    file: Annotated[Path, typer.Argument(help="JSON: a row filter, also over age, valid_now and days_to:FIELD")],
    library: Annotated[str, typer.Option(help="about whose golden records it is, such as population")],
    answers: Annotated[str, typer.Option(help="the question in words")],
    replaces: Annotated[
        list[str] | None, typer.Option(help="code of a certificate in whose place it is answered; may be repeated")
    ] = None,
) -> None:
    """Propose a predicate; another person of the data authority confirms it."""
    try:
        expression = json.loads(read_text(file))
    except ValueError as error:
        raise InvalidError(Reason.FILTER_INVALID, f"{file} is not JSON; expected a row filter") from error
    body = {"name": name, "library": library, "expression": expression, "answers": answers}
    answer = client(context).post("/hub/predicates", body | {"replaces": replaces or []})
    print_line(f"proposed: {answer['predicate']}, of {', '.join(answer['fields'])}")
    print_line(f"another person of the data authority confirms it: pool hub predicates confirm {answer['id']}")


@predicates.command("list")
def predicates_list(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="its versions alone")] = None,
    library: Annotated[str | None, typer.Option(help="such as population")] = None,
    state: Annotated[str | None, typer.Option(help="proposed, confirmed or rejected")] = None,
    as_json: JsonOption = False,
) -> None:
    """List predicates, newest first; a request names a confirmed one as `predicate` says."""
    asked = {"name": name, "library": library, "state": state}
    rows = client(context).list("/hub/predicates", {key: one for key, one in asked.items() if one})
    print_rows(rows, ("id", "predicate", "library", "state", "answers", "proposed_by", "decided_by"), as_json=as_json)


@predicates.command("show")
def predicates_show(context: typer.Context, predicate: _Id, as_json: JsonOption = False) -> None:
    """Show a predicate as it was proposed, before you confirm it."""
    found = client(context).get(f"/hub/predicates/{predicate}")
    if as_json:
        print_fields(found, as_json=True)
        return
    said = {
        **found,
        "expression": describe_filter(found["expression"], {}),
        "fields": ", ".join(found["fields"]),
        "replaces": ", ".join(found["replaces"]),
    }
    print_fields({key: one for key, one in said.items() if one not in ("", None)}, as_json=False)


@predicates.command("confirm")
def predicates_confirm(context: typer.Context, predicate: _Id) -> None:
    """Confirm a predicate that another person has proposed; it is never changed from then on."""
    print_line(f"confirmed: {client(context).post(f'/hub/predicates/{predicate}/confirmation')['predicate']}")


@predicates.command("reject")
def predicates_reject(context: typer.Context, predicate: _Id, reason: ReasonOption) -> None:
    """Reject a predicate that was proposed, or withdraw your own."""
    answer = client(context).post(f"/hub/predicates/{predicate}/rejection", {"reason": reason})
    print_line(f"rejected: {answer['predicate']}")
