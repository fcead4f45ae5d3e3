"""Command `pool-connect status`: how far each stream is, once or again and again."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.runtime.terminal_output import print_json, print_line, watch

if TYPE_CHECKING:
    from connectors.runtime.status import StreamStatus

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    file: Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for machines; with --watch one line a reading")] = False,
    again: Annotated[bool, typer.Option("--watch", help="show it again and again, until ctrl-c")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between two readings of --watch")] = 2.0,
) -> None:
    """Show how far each stream is; works while the connector runs, and without the pool."""
    from connectors.config.lint import load_config
    from connectors.runtime.status import statuses

    config = load_config(file)
    if not again:
        found = statuses(config)
        if as_json:
            print_json([asdict(each) for each in found])
            return
        for each in found:
            for line in _lines(each, file):
                print_line(line)
        return
    if as_json:
        watch(lambda: print_json([asdict(each) for each in statuses(config)]), interval)
    else:
        watch(lambda: [line for each in statuses(config) for line in _lines(each, file)], interval, heading=_now)


def _lines(each: "StreamStatus", file: Path) -> Iterator[str]:
    yield f"{each.stream}  ({each.direction})  {each.state}   last success {each.last_success or 'never'}"
    yield (
        f"   last run: {each.read:,} read = {each.published:,} published + {each.quarantined:,} quarantined + "
        f"{each.unchanged:,} unchanged; {each.voided:,} voided"
    )
    yield f"   batch {each.sequence}, {each.unacknowledged} unacknowledged, {each.keys:,} keys known"
    yield f"   last receipt {each.last_entry or 'none'}; certificate until {each.certificate_expires or 'unknown'}"
    if each.next_pass:
        yield f"   next pass due at {each.next_pass}"
    if each.grant_expires:
        yield f"   grant until {each.grant_expires}"
    if each.in_quarantine:
        yield "   in quarantine: " + ", ".join(f"{code} {count:,}" for code, count in each.in_quarantine.items())
    if each.files_set_aside:
        yield f"   {each.files_set_aside:,} files set aside: see `pool-connect quarantine list {file}`"
    yield from _cursor_lines(each)
    if each.voids_held:
        yield f"   {each.voids_held:,} voids wait for rows whose keys cannot be read"
    if each.stopped:
        yield f"   stopped: the table {each.stopped}; see `pool-connect run {file} --resnapshot {each.stream}`"
    if each.ledger_lost:
        yield f"   the ledger was lost at {each.ledger_lost}: keys that left the source before it cannot be voided"


def _cursor_lines(each: "StreamStatus") -> Iterator[str]:
    if each.way:
        yield f"   read by its cursor ({each.way}); last read whole {each.reconciled or 'never'}"
    if each.waiting:
        yield f"   waiting: {each.waiting}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
