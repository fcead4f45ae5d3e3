"""Terminal output of the demonstration: colour on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Screen"]


class Screen:
    """Prints the steps of the demonstration."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def heading(self, number: str, title: str, chinese: str) -> None:
        """Print the heading of a step."""
        self._console.print(f"\n[bold]{number}  {title}[/bold]  [dim]{chinese}[/dim]")

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"   {text}", markup=False)

    def passed(self, text: str) -> None:
        """Print a check that passed."""
        self._console.print("   [green]✓[/green] ", end="")
        self._console.print(text, markup=False)

    def failed(self, text: str) -> None:
        """Print a check that failed."""
        self._console.print("   [bold red]✗[/bold red] ", end="")
        self._console.print(text, markup=False)

    def refused(self, when: str, reason: str) -> None:
        """Print a refusal; without a reason, print that the expected refusal is missing."""
        if reason:
            self._console.print(f"   [yellow]refused[/yellow] {when}: ", end="")
            self._console.print(reason, markup=False)
        else:
            self.failed(f"not refused {when}")

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows as a table."""
        table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
        for row in rows:
            table.add_row(*map(str, row))
        self._console.print(table)

    def entries(self, entries: Sequence[dict[str, Any]]) -> None:
        """Print audit entries, oldest first."""
        table = Table("leaf", "action", "decision", "purpose", "records", box=None, padding=(0, 2), header_style="bold")
        for document in list(reversed(entries))[-12:]:
            entry = document["entry"]
            outcome = entry["decision"] + (f" ({entry['reason']})" if "reason" in entry else "")
            count = str(entry.get("data", {}).get("count", ""))
            table.add_row(str(document["index"] or ""), entry["action"], outcome, entry.get("purpose", ""), count)
        self._console.print(table)

    def commands(self, *commands: str) -> None:
        """Print commands to try."""
        for command in commands:
            self._console.print(f"     $ {command}", markup=False)
