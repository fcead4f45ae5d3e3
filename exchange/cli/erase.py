"""Commands `pool erase …`: destroy the values of one record key, by the decision of two persons."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.control import JsonOption, client, connect
from exchange.cli.output import CommandGroup, one_of, print_fields, print_json, print_rows
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

_COLUMNS = ("id", "topic", "state", "proposed_by", "decided_by", "destroyed", "done_at", "reason")
erase = typer.Typer(cls=CommandGroup)
erase.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.add_typer(
        erase, name="erase", help="Erasure (删除) of a record key's values, by two persons.", no_args_is_help=True
    )


@erase.command("propose")
def propose(
    context: typer.Context,
    resource: Annotated[str, typer.Option(help="topic, such as population.v1; each major is erased by itself")],
    key_file: Annotated[
        Path, typer.Option(help="file with the record key, one part a line; - reads standard input", allow_dash=True)
    ],
    reason: Annotated[str, typer.Option(help="in words, without the key; it goes into the audit log")],
) -> None:
    """Propose an erasure and print it with its id. The key is never an argument: arguments show in process lists."""
    key = _read(key_file).splitlines()
    print_json(client(context).post("/erasures", {"topic": resource, "key": key, "reason": reason}))


@erase.command("confirm")
def confirm(context: typer.Context, erasure_id: str) -> None:
    """Confirm what another person proposed. Once this has returned, nothing of the key from before is released."""
    print_json(client(context).post(f"/erasures/{erasure_id}/confirmation"))


@erase.command("reject")
def reject(
    context: typer.Context,
    erasure_id: str,
    reason: Annotated[str, typer.Option(help="in words; it goes into the audit log")],
) -> None:
    """Reject what another person proposed."""
    print_json(client(context).post(f"/erasures/{erasure_id}/rejection", {"reason": reason}))


@erase.command("list")
def list_erasures(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the erasures that the account may see; `done` means that the values are destroyed."""
    print_rows(client(context).list("/erasures"), _COLUMNS, as_json=as_json)


@erase.command("show")
def show(context: typer.Context, erasure_id: str, as_json: JsonOption = False) -> None:
    """Show an erasure: who proposed and who decided, and whether the values are destroyed."""
    print_fields(one_of(client(context).list("/erasures"), "erasure", id=erasure_id), as_json=as_json)


def _read(file: Path) -> str:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text ({type(error).__name__}); expected the key"
        ) from error
    if not text.strip():
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} is empty; expected the record key, one part a line")
    return text
