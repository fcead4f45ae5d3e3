"""Terminal output of `pool-connect`: every line and document that a command prints goes through this module.

Names of files and columns, cells of a preview and messages of a pool are others' words, so control characters are
escaped here, at the one place that writes (`schemas.terminal`); no command calls `print`, which the linter refuses.
Progress and notices go to standard error.
"""

import contextlib
import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from schemas.terminal import escape_controls, escape_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from connectors.state.ledger import RunReport

__all__ = ["ProgressReporter", "print_error", "print_json", "print_line", "watch"]

_PLAIN_INTERVAL = 10.0  # seconds between lines where no terminal shows progress


def print_line(text: str) -> None:
    """Print a text as one line."""
    sys.stdout.write(escape_line(text) + "\n")


def print_error(text: str) -> None:
    """Print an error on standard error; further lines of it are indented, so that none looks like another error."""
    sys.stderr.write("\n  ".join(map(escape_line, text.split("\n"))) + "\n")


def print_json(value: Any) -> None:
    """Print a document as JSON on one line; a reader of it gets every text as it was."""
    sys.stdout.write(escape_controls(json.dumps(value, ensure_ascii=False)) + "\n")


def watch(
    read: "Callable[[], Iterable[str] | None]", interval: float, *, heading: "Callable[[], str]" = lambda: ""
) -> None:
    """Show a text again and again until the user interrupts: in place on a terminal, below one another elsewhere.

    Args:
        read: returns the lines of one reading, or prints it itself and returns None.
        interval: seconds between two readings.
        heading: of each reading; empty = none.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as opened:
        live = opened.enter_context(Live(console=console, auto_refresh=False)) if console.is_terminal else None
        while True:
            lines = read()
            if lines is not None:
                shown = [line for line in (heading(), *lines) if line]
                if live is not None:
                    live.update(Text("\n".join(map(escape_line, shown))), refresh=True)
                else:
                    for line in shown:
                        print_line(line)
            sys.stdout.flush()
            time.sleep(interval)


class ProgressReporter:
    """Progress on a terminal, plain lines elsewhere. Used by several threads."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._lock = threading.Lock()
        self._printed_at: dict[str, float] = {}
        self._status = self._console.status("") if self._console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def notify(self, text: str) -> None:
        """Print a line."""
        with self._lock:
            self._print(text)

    def close(self) -> None:
        """Remove the progress line from the terminal."""
        if self._status is not None:
            self._status.stop()

    def progress(self, state: "RunReport") -> None:
        """Show the counters of a run: at once on a terminal, every 10 s elsewhere."""
        text = (
            f"{state.portion}: {state.outcome or 'publishing'}, {state.read:,} read, {state.published:,} published, "
            f"{state.quarantined:,} quarantined, {state.unchanged:,} unchanged"
        )
        with self._lock:
            if self._status is not None:
                from rich.text import Text

                self._status.update(Text(escape_line(text)))  # a string would be read as markup
                return
            now = time.monotonic()
            if now - self._printed_at.get(state.portion, -_PLAIN_INTERVAL) < _PLAIN_INTERVAL:
                return
            self._printed_at[state.portion] = now
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(escape_line(text), highlight=False, markup=False, soft_wrap=True)
