"""Commands `pool keys …`: the keys of one role, for a host that has no other."""

from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.output import CommandGroup, print_line
from exchange.server.roles import Role

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    keys = typer.Typer(cls=CommandGroup)
    keys.callback()(_group)
    keys.command("export")(export)
    app.add_typer(keys, name="keys", help="Keys by role.", no_args_is_help=True)


def _group() -> None:
    """Keep the name of the command: a group of one would lose it."""


def export(
    data: Annotated[Path, typer.Option("--data", help="the pool's folder", envvar="POOL_DATA")],
    role: Annotated[Role, typer.Option(help="gateway, registry or sequencer")],
    out: Annotated[Path, typer.Option(help="folder to write, empty or absent")],
) -> None:
    """Write a data folder with the keys of one role and no others. The pool may be running.

    It holds secrets: carry it to the role's host over a channel that keeps them, and delete it here.
    """
    from exchange.config import Config
    from exchange.server.key_files import export_keys

    for name in export_keys(Config.load(data).folder, out, role):
        print_line(name)
    print_line(f"next, on the host of the role: pool serve --data {out} --role {role}")
