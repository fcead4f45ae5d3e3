"""Commands `pool broker …`: compare receipts with stored records, export the schemas topic, renew generations.

Kafka can lose the end of a committed transaction (KAFKA-20734) without leaving a gap in the offsets. The receipts
say which records must be there; `check` compares them with what a read-committed consumer finds.

`schemas` reads the topic of schemas alone, so that a registry whose database is lost can be restored from it.

`renew-generations` is for a restore of the records: consumers' positions from before it are then refused.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer

from exchange.audit.postgres import PostgresReceipts
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.port import Appended
from exchange.cli.run import Data
from exchange.config import Config
from exchange.server.composition import App, schemas_on_topic
from registry.schemas_topic.records import Record, write_line
from schemas.errors import InvalidError, Reason
from schemas.names import Lane
from schemas.record import Receipt

__all__ = ["add_to"]

_RECEIPTS_PER_READ = 50


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    broker = typer.Typer()
    broker.command("check")(check)
    broker.command("schemas")(schemas)
    broker.command("renew-generations")(renew_generations)
    app.add_typer(broker, name="broker", help="The broker behind the pool: Kafka or PostgreSQL.")


def check(
    data: Data,
    batches: Annotated[int, typer.Option(min=1, help="number of latest batches of each lane to compare")] = 1000,
    lane: Annotated[str | None, typer.Option(help="one lane, DEPARTMENT/CONNECTOR/TOPIC")] = None,
) -> None:
    """Compare the receipts with the records that a read-committed consumer finds. The pool may be running.

    Ends with 1 and names each batch that was acknowledged and is not whole.
    """
    app = App.open(Config.load(data), own_database=False)
    try:
        broker = app.broker
        if not isinstance(broker, KafkaBroker):
            print("PostgreSQL keeps records and receipts in one transaction: there is nothing to compare")
            return
        result = _compare(app, broker, Lane.parse(lane) if lane else None, batches)
    finally:
        app.close()
    for receipt in result.incomplete:
        runs = ", ".join(f"{run.partition}:{run.first}-{run.last}" for run in receipt.runs)
        print(f"not whole: {receipt.lane} batch {receipt.sequence}, {receipt.count} records at {runs}")
    whole, lanes = (
        result.compared - len(result.incomplete),
        "1 lane" if result.lanes == 1 else f"{result.lanes:,} lanes",
    )
    print(f"{whole:,} of {result.compared:,} batches in {lanes} are whole")
    if result.incomplete:
        raise typer.Exit(1)


def schemas(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="file to write; standard output if not given")] = None,
) -> None:
    """Write the records of the schemas topic, one a line, for `pool-schema import`. Needs no database.

    A file is written whole or not at all; on standard output, an error means that lines are missing.
    """
    records = schemas_on_topic(Config.load(data))
    if out is None:
        # UTF-8 whatever the terminal's encoding: the import reads nothing else.
        with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as file:
            number = _write(records, file)
    else:
        number = _write_file(records, out)
    print(f"{number:,} {'record' if number == 1 else 'records'}", file=sys.stderr)


def renew_generations(data: Data) -> None:
    """Raise every topic's generation after a restore of its records. The pool must not be running.

    A position that a consumer was given before is then refused (`topic_generation_changed`) and its target is filled
    again. Without it, the position would be taken for one of the restored records.
    """
    app = App.open(Config.load(data))
    try:
        number = app.broker.renew_generations()
    finally:
        app.close()
    print(f"{number:,} {'topic has' if number == 1 else 'topics have'} a new generation")


def _write_file(records: Iterator[Record], out: Path) -> int:
    try:
        if out.exists() and not out.is_file():
            raise InvalidError(Reason.REQUEST_INVALID, f"got {out}, which is no file; name a file to write")
        with NamedTemporaryFile("w", encoding="utf-8", dir=out.parent, suffix=".part", delete=False) as part:
            try:
                number = _write(records, part)
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(out.resolve())
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"{out} cannot be written ({type(error).__name__}); name a file in a folder that you may write to",
        ) from error
    return number


def _write(records: Iterator[Record], file: Any) -> int:
    number = 0
    for number, record in enumerate(records, 1):  # noqa: B007 - it is counted
        file.write(write_line(record))
    return number


@dataclass(slots=True)
class _Comparison:
    lanes: int
    compared: int
    incomplete: list[Appended]


def _compare(app: App, broker: KafkaBroker, only: Lane | None, batches: int) -> _Comparison:
    store = PostgresReceipts()
    with app.pool.database.begin() as work:
        lasts = store.last_sequences(work)
    lanes = [lane for lane in sorted(lasts, key=str) if only in {None, lane}]
    result = _Comparison(lanes=len(lanes), compared=0, incomplete=[])
    for lane in lanes:
        for sequences in _chunks(max(lasts[lane] - batches, 0) + 1, lasts[lane]):
            with app.pool.database.begin() as work:
                receipts = [receipt for number in sequences if (receipt := store.get(work, lane, number)) is not None]
            result.compared += len(receipts)
            result.incomplete += broker.find_incomplete([_appended(receipt) for receipt in receipts])
    return result


def _chunks(first: int, last: int) -> Iterator[range]:
    size = _RECEIPTS_PER_READ
    return (range(start, min(start + size, last + 1)) for start in range(first, last + 1, size))


def _appended(receipt: Receipt) -> Appended:
    return Appended(
        lane=receipt.lane,
        sequence=receipt.sequence,
        digest=receipt.root,
        source_position=receipt.source_position,
        recorded_at=0,
        count=sum(run.last - run.first + 1 for run in receipt.runs),
        runs=receipt.runs,
    )
