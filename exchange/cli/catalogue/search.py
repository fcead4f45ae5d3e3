"""Command `pool catalogue search`: entries by words in Chinese and English, and by facet."""

from typing import Annotated

import typer

from exchange.cli.catalogue.entries import catalogue
from exchange.cli.control import JsonOption, client
from exchange.cli.output import print_json, print_line, print_rows

__all__ = ["add_to_group"]


def add_to_group() -> None:
    """Register the command with `pool catalogue`."""
    catalogue.command("search")(catalogue_search)


def catalogue_search(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(help="all of them; of Chinese any part of a text")] = None,
    provider: Annotated[str | None, typer.Option(help="internal id of the department")] = None,
    share_type: Annotated[str | None, typer.Option(help="unconditional, conditional or none")] = None,
    level: Annotated[str | None, typer.Option(help="G1 to G4 or IMP")] = None,
    state: Annotated[str | None, typer.Option(help="draft, published, suspended or archived")] = None,
    theme: Annotated[str | None, typer.Option(help="such as health")] = None,
    facets: Annotated[bool, typer.Option("--facets", help="count the entries by facet instead")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search the catalogue: titles, abstracts, codes and data items."""
    query = {
        "q": " ".join(words or ()),
        "provider": provider,
        "share_type": share_type,
        "level": level,
        "state": state,
        "theme": theme,
    }
    if not facets:
        columns = ("topic", "title", "share_type", "level", "state", "code")
        print_rows(client(context).list("/catalogue/search", query), columns, as_json=as_json)
        return
    found = client(context).get("/catalogue/facets", query)
    if as_json:
        print_json(found)
        return
    for name, counts in found["counts"].items():
        for value, count in counts.items():
            print_line(name, value, f"{count:,}")
    if found["more"]:
        print_line("there are more entries than were counted")
