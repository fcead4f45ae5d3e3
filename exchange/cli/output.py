"""Terminal output of `pool`: lists of commands, answers as JSON, errors with their exit code."""

import json
import sys
from typing import Any

from typer.core import TyperGroup
from typing_extensions import override

from schemas.errors import PoolError, UnavailableError

__all__ = ["CommandGroup", "fail", "print_json"]


class CommandGroup(TyperGroup):
    """A group whose help shows the first sentence of each command whole, however long it is."""

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, _first_paragraph(command.help)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def print_json(value: Any) -> None:
    """Print a document as indented JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def fail(error: PoolError) -> int:
    """Print an error on standard error, and return the exit code: 2 if something is unavailable, else 1."""
    print(f"{error.reason}: {error.message}", file=sys.stderr)
    for name, value in error.details.items():
        print(f"  {name}: {value}", file=sys.stderr)
    return 2 if isinstance(error, UnavailableError) else 1
