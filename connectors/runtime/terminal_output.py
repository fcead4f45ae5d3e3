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

_BAR, _SHARE, _SHORTEST = 14, 4, 12  # characters of the bar, of its share, of a name that is cut
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
    """A progress bar for each portion on a terminal, plain lines elsewhere. Used by several threads."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.table import Column

        self._console = Console(stderr=True)
        self._lock = threading.Lock()
        self._printed_at: dict[str, float] = {}
        self._tasks: dict[str, tuple[Any, int, bool]] = {}  # portion → its bar, rows read, all of them
        self._bars: Progress | None = None
        if self._console.is_terminal:
            # On a narrow terminal a name is cut, never the bar (`_show_bar`). A name is no markup.
            self._bars = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(bar_width=_BAR, table_column=Column(min_width=_BAR, no_wrap=True)),
                TaskProgressColumn(table_column=Column(min_width=_SHARE, no_wrap=True)),
                TextColumn("{task.fields[counters]}", markup=False, table_column=Column(no_wrap=True)),
                console=self._console,
                transient=True,
            )
            self._bars.start()

    def notify(self, text: str) -> None:
        """Print a line."""
        with self._lock:
            self._print(text)

    def close(self) -> None:
        """Remove the bars from the terminal."""
        if self._bars is not None:
            self._bars.stop()

    def progress(self, state: "RunReport") -> None:
        """Show the counters of a run: at once on a terminal, every 10 s elsewhere."""
        phase = state.outcome or "publishing"
        if self._bars is not None:
            with self._lock:
                self._show_bar(state, f"{state.portion}: {phase}", _short(state))
            return
        if phase == "comparing":
            counters = f"{state.read:,} read"
        elif phase == "drawing":
            counters = f"{state.read:,} received, {state.published:,} written, {state.quarantined:,} rejected"
        else:
            counters = (
                f"{state.read:,} read, {state.published:,} published, {state.quarantined:,} quarantined, "
                f"{state.unchanged:,} unchanged"
            )
        with self._lock:
            now = time.monotonic()
            if now - self._printed_at.get(state.portion, -_PLAIN_INTERVAL) < _PLAIN_INTERVAL:
                return
            self._printed_at[state.portion] = now
            share = f"{min(state.read / state.total, 1.0):.0%}, " if state.total else ""
            self._print(f"{state.portion}: {phase}, {share}{counters}")

    def _show_bar(self, state: "RunReport", title: str, counters: str) -> None:
        assert self._bars is not None  # noqa: S101 - the caller has looked
        from rich.text import Text

        shown_title = Text(escape_line(title))
        room = self._console.width - _BAR - _SHARE - len(counters) - 4  # a blank after each column
        shown_title.truncate(max(room, _SHORTEST), overflow="ellipsis")
        description, total = shown_title.plain, state.total or None
        task, read, _ = self._tasks.get(state.portion, (None, 0, False))
        if task is None or state.read < read:  # the next reading of it: of a new bar the total is not known yet
            for name, (old, _, ended) in list(self._tasks.items()):
                if ended or name == state.portion:
                    self._bars.remove_task(old)
                    del self._tasks[name]
            task = self._bars.add_task(description, total=total, completed=state.read, counters=counters)
        else:
            self._bars.update(task, description=description, total=total, completed=state.read, counters=counters)
        self._tasks[state.portion] = (task, state.read, bool(state.total) and state.read >= state.total)

    def _print(self, text: str) -> None:
        self._console.print(escape_line(text), highlight=False, markup=False, soft_wrap=True)


def _short(state: "RunReport") -> str:
    """Return the counters of a run beside its bar: what has come to nothing is left out."""
    rows = f"{state.read:,}/{state.total:,}" if state.total else f"{state.read:,}"
    more = (
        (state.published, "written" if state.outcome == "drawing" else "published"),
        (state.quarantined, "rejected" if state.outcome == "drawing" else "quarantined"),
    )
    return ", ".join([rows, *(f"{count:,} {word}" for count, word in more if count)])
