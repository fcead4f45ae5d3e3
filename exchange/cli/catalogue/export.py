"""Command `pool catalogue export`: the catalogue in force as DCAT 3, in a file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.catalogue.entries import catalogue
from exchange.cli.control import client
from exchange.cli.output import print_line
from schemas.errors import InvalidError, Reason

__all__ = ["add_to_group"]

_FORMS = {".ttl": "turtle", ".jsonld": "jsonld", ".json": "jsonld"}


def add_to_group() -> None:
    """Register the command with `pool catalogue`."""
    catalogue.command("export")(catalogue_export)


def catalogue_export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="a new file: .ttl (Turtle) or .jsonld")],
) -> None:
    """Export the entries with full metadata that are in force, as DCAT 3 (DCAT-AP 3.0.1)."""
    form = _FORMS.get(file.suffix.lower(), "turtle")
    parts = [*client(context).texts("/catalogue/dcat", {"form": form})]
    if form == "turtle":
        text = "\n".join(parts)  # documents of Turtle, one behind the other, are one
    else:
        nodes: list[Any] = [node for part in parts for node in json.loads(part)]
        text = json.dumps(nodes, ensure_ascii=False, indent=2) + "\n"
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {error.strerror}") from error
    print_line(f"{file}: {len(text.encode()):,} bytes")
