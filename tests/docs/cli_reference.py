"""The commands' reference, written from the programs themselves.

    python -m tests.docs.cli_reference        writes docs/reference/cli.md again

`tests/docs/test_commands.py` holds the file to what this gives, so that neither can change alone.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from connectors.cli import app as connect_app
from exchange.cli import app as pool_app
from registry.cli.main import app as schema_app

FILE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
PROGRAMS = {"pool": pool_app, "pool-connect": connect_app, "pool-schema": schema_app}
_HEAD = """# Commands

Written by `python -m tests.docs.cli_reference` from the programs' own `--help`; do not edit. A token is never an
argument: other users of the machine could read it. `pool-connect` says by its exit code who has to act
([configuration.md](configuration.md#exit-codes-of-pool-connect)); `pool audit verify` and `pool-schema` end with 1 when
they found something.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Return every command with its whole name, groups before what they hold."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for word, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {word}", inner)

    for name, app in PROGRAMS.items():
        yield from walk(name, typer.main.get_command(app))


def options(command: Any) -> set[str]:
    """Return the options of a command, as they are written."""
    return {word for each in command.params for word in (*each.opts, *each.secondary_opts)} | {"--help"}


def page() -> str:
    """Return the text of the reference."""
    return _HEAD + "".join(_section(name, command) for name, command in commands())


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    level = "##" if " " not in name else "###"
    lines = [f"\n{level} {name}\n", _text(command) + "\n", f"    {_usage(command, context)}\n"]
    records = [each.get_help_record(context) for each in command.get_params(context)]
    rows = [f"| `{_cell(words)}` | {_cell(told)} |" for words, told in filter(None, records) if words != "--help"]
    if rows:
        lines += ["| option or argument | |", "|---|---|", *rows, ""]
    inner = getattr(command, "commands", {})
    if inner:
        lines += ["Commands: " + ", ".join(f"`{word}`" for word in inner) + ".", ""]
    return "\n".join(lines)


def _text(command: Any) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")


def _usage(command: Any, context: Any) -> str:
    return " ".join(command.get_usage(context).removeprefix("Usage: ").split())


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
