"""What the demonstration shows: colour on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Screen"]


class Screen:
    """Writes the story down."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def act(self, number: str, title: str, chinese: str) -> None:
        """Begin an act."""
        self._console.print(f"\n[bold]{number}  {title}[/bold]  [dim]{chinese}[/dim]")

    def say(self, text: str) -> None:
        """Tell something."""
        self._console.print(f"   {text}", markup=False)

    def right(self, text: str) -> None:
        """Return what was checked and holds."""
        self._console.print("   [green]✓[/green] ", end="")
        self._console.print(text, markup=False)

    def wrong(self, text: str) -> None:
        """Return what does not hold."""
        self._console.print("   [bold red]✗[/bold red] ", end="")
        self._console.print(text, markup=False)

    def refused(self, when: str, reason: str) -> None:
        """Tell of a refusal, or of one that should have come."""
        if reason:
            self._console.print(f"   [yellow]refused[/yellow] {when}: ", end="")
            self._console.print(reason, markup=False)
        else:
            self.wrong(f"not refused {when}")

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show some rows."""
        table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
        for row in rows:
            table.add_row(*map(str, row))
        self._console.print(table)

    def trail(self, entries: Sequence[dict[str, Any]]) -> None:
        """Show audit entries, oldest first."""
        table = Table("leaf", "action", "decision", "purpose", "records", box=None, padding=(0, 2), header_style="bold")
        for found in list(reversed(entries))[-12:]:
            entry = found["entry"]
            outcome = entry["decision"] + (f" ({entry['reason']})" if "reason" in entry else "")
            count = str(entry.get("data", {}).get("count", ""))
            table.add_row(str(found["index"] or ""), entry["action"], outcome, entry.get("purpose", ""), count)
        self._console.print(table)

    def commands(self, *commands: str) -> None:
        """Show commands to try."""
        for command in commands:
            self._console.print(f"     $ {command}", markup=False)
