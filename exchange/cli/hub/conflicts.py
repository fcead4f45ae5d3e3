"""Command `pool hub conflicts`: where departments say different things of one subject, by place and without a value.

It reads the pool's own database, as `pool broker check` does, so it is the operator's. A place names a record as its
department knows it; values, identifiers and handles of subjects are not shown.
"""

from typing import Annotated

import typer

from exchange.cli.control import JsonOption
from exchange.cli.hub.rules import Library, hub
from exchange.cli.output import print_rows
from exchange.cli.run import Data

__all__ = ["add_to_group"]

_COLUMNS = ("library", "field", "winner", "loser")
_LIMIT = 1000


def add_to_group() -> None:
    """Register the command with the group of the hub."""
    hub.command("conflicts")(conflicts)


def conflicts(
    data: Data,
    library: Library,
    limit: Annotated[int, typer.Option(min=1, help="number of conflicts to show at most")] = _LIMIT,
    as_json: JsonOption = False,
) -> None:
    """List the open conflicts of a library: field, place of the record that leads, place of the one that differs.

    A place is RESOURCE GENERATION/PARTITION/OFFSET. The pool must be running, or its database.
    """
    from exchange.config import Config
    from exchange.hub.fold.claim import Position
    from exchange.hub.store.postgres import PostgresHub
    from exchange.identity.secrets import FileSecrets
    from exchange.server.composition import App
    from exchange.server.row_tags import open_row_tags

    config = Config.load(data)
    app = App.open(config, own_database=False)
    try:
        store = PostgresHub(open_row_tags(FileSecrets.open(config.path("secrets"))))
        with app.pool.database.read() as reader:
            names = {number: name for name, number in store.resources(reader).items()}
            found = store.conflicts_in(reader, library, limit)
    finally:
        app.close()

    def place(of: Position) -> str:
        return f"{names.get(of.resource, of.resource)} {of.generation}/{of.partition}/{of.offset}"

    rows = [
        {"library": one.library, "field": one.field, "winner": place(one.winner), "loser": place(one.loser)}
        for one in found
    ]
    print_rows(rows, _COLUMNS, as_json=as_json)
