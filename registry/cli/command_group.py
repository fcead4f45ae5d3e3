"""Help of a group of commands, for `pool-schema` and `pool`: plain text, each command with its whole first sentence."""

from typing import Any

from typer.core import TyperGroup
from typing_extensions import override

__all__ = ["CommandGroup"]


class CommandGroup(TyperGroup):
    """A group whose help shows the first sentence of each command whole, however long it is."""

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, _first_paragraph(command.help)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
