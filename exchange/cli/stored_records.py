"""Work of the commands `pool broker …` on stored records: verification, comparison with receipts, export, repair."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import sqlalchemy as sa
import typer

from exchange.audit.postgres import PostgresReceipts
from exchange.audit.store import ReceiptStore
from exchange.audit.verify import VerificationReport, verify_files
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.port import Appended
from exchange.cli.audit import read_key, read_text
from exchange.cli.output import print_line, print_lines, print_progress
from exchange.config import Config
from exchange.control.administration import apply_history
from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.erasure.retractions import NO_RETRACTIONS
from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import FileSecrets
from exchange.records.record_verifier import BatchOrder, PublicationCollector, RecordVerifier, Verified
from exchange.records.void_leaves import LEAF_SIZE, mask_void_leaves
from exchange.server.brokers import leave_reads_unchecked, operator_broker, schemas_on_topic
from exchange.server.clock import microseconds
from exchange.server.composition import App, open_receipts
from exchange.server.row_tags import open_row_tags
from registry.database.unit_of_work import connection_of
from registry.directory.model import EntryState
from registry.schemas_topic.records import Record, write_line
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import Lane, Topic
from schemas.record import Receipt

__all__ = ["apply", "check", "renew_generations", "verify", "write_schemas"]

_RECEIPTS_PER_READ = 50
_MAX_RETRACTIONS = 20_000_000  # of a topic: some 300 bytes each
_UNSIGNED = sa.text("SELECT leaf FROM audit_entry WHERE leaf_index IS NULL OR leaf_index >= :size")


def check(data: Path, batches: int, lane: str | None) -> None:
    """Compare the receipts of the latest batches of each lane, or of one, with what a consumer finds."""
    app = App.open(Config.load(data), own_database=False)
    try:
        broker = app.broker
        if not isinstance(broker, KafkaBroker):
            print_line("PostgreSQL keeps records and receipts in one transaction: there is nothing to compare")
            return
        result = _compare(app, broker, Lane.parse(lane) if lane else None, batches)
    finally:
        app.close()
    for receipt in result.incomplete:
        runs = ", ".join(f"{run.partition}:{run.first}-{run.last}" for run in receipt.runs)
        print_line(f"not whole: {receipt.lane} batch {receipt.sequence}, {receipt.count} records at {runs}")
    whole, lanes = (
        result.compared - len(result.incomplete),
        "1 lane" if result.lanes == 1 else f"{result.lanes:,} lanes",
    )
    print_line(f"{whole:,} of {result.compared:,} batches in {lanes} are whole")
    if result.incomplete:
        raise typer.Exit(1)


def verify(data: Path, topic: str | None, key: str | None, since: Path | None) -> None:
    """Verify the log, and compare every stored batch with the root in its entry."""
    config = Config.load(data)
    only = Topic.parse(topic) if topic else None
    report = VerificationReport()
    app = App.open(config, own_database=False)
    try:
        collector = PublicationCollector(report.add, only)
        verify_files(
            config.path("log"),
            key=read_key(key or str(config.path("log.pub"))),
            since=read_text(since) if since else None,
            invariants=collector,
            report=report,
        )
        size = report.checkpoint.size if report.checkpoint else 0
        with app.pool.database.read() as reader:
            for leaf in connection_of(reader).execute(_UNSIGNED, {"size": size}).scalars():
                collector.add(None, bytes(leaf))
        secrets = FileSecrets.open(config.path("secrets"))
        retractions = PostgresRetractions(open_row_tags(secrets))
        leave_reads_unchecked(app.broker)
        verifier = RecordVerifier(
            app.broker,
            _order_of(app, Pseudonyms(secrets), open_receipts(secrets)),
            report,
            clock=microseconds,
            progress=_print_progress if sys.stderr.isatty() else _silent,
            retractions=lambda of, keys: _positions_of(app, retractions, of, keys),
        )
        for each in collector.topics if only is None else [only]:
            _prove_retractions(app, retractions, each, report)
            verifier.verify(each, collector.batches(each))
    finally:
        app.close()
    print_lines([*report.lines(), *_summary(verifier.verified)])
    raise typer.Exit(report.exit_code)


def write_schemas(data: Path, out: Path | None) -> None:
    """Write the records of the schemas topic to a file, or to standard output."""
    records = schemas_on_topic(Config.load(data))
    if out is None:
        # UTF-8 whatever the terminal's encoding: the import reads nothing else.
        with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as file:
            number = _write(records, file)
    else:
        number = _write_file(records, out)
    print_line(f"{number:,} {'record' if number == 1 else 'records'}", err=True)


def apply(data: Path, certificate: Path, key: Path) -> None:
    """Apply kept histories and confirmed erasures to Kafka, with the operator's certificate."""
    config = Config.load(data)
    app = App.open(config, own_database=False)
    try:
        operator = operator_broker(config, certificate, key)
        try:
            with app.pool.database.read() as reader:
                entries = [one for one in app.catalogue.all(reader) if one.state is EntryState.PUBLISHED]
            differing = [entry.topic for entry in entries if not apply_history(operator, entry)]
            erased = app.pool.erasures.carry_out(operator)
            waiting = app.pool.erasures.waiting()
        finally:
            operator.close()
    finally:
        app.close()
    for topic in differing:
        print_line(f"not applied: {topic}; the certificate may not change its settings")
    print_line(f"{len(entries) - len(differing):,} of {len(entries):,} topics keep what the catalogue says")
    print_line(f"{erased:,} {'erasure' if erased == 1 else 'erasures'} carried out, {waiting:,} wait; see the warnings")
    if differing or waiting:
        raise typer.Exit(1)


def renew_generations(data: Path) -> None:
    """Raise every topic's generation."""
    app = App.open(Config.load(data))
    try:
        number = app.broker.renew_generations()
    finally:
        app.close()
    print_line(f"{number:,} {'topic has' if number == 1 else 'topics have'} a new generation")


def _order_of(app: App, pseudonymizer: Pseudonyms, store: ReceiptStore) -> Callable[[Lane, int], BatchOrder | None]:

    def order(lane: Lane, sequence: int) -> BatchOrder | None:
        with app.pool.database.read() as reader:
            found = store.order(reader, lane, sequence)
        if found is None:
            return None
        keys, masked = found
        leaves = [masked[at : at + LEAF_SIZE] for at in range(0, len(masked), LEAF_SIZE)]
        return BatchOrder(keys=keys, void_leaves=mask_void_leaves(pseudonymizer, lane, sequence, leaves))

    return order


def _prove_retractions(app: App, store: PostgresRetractions, topic: Topic, report: VerificationReport) -> None:
    """Report a topic whose stored retractions are not those that the pool stored."""
    try:
        with app.pool.database.read() as reader:
            store.newer(reader, topic, NO_RETRACTIONS, _MAX_RETRACTIONS)
    except CorruptError as error:
        report.add("retraction.forged", None, f"the retractions of {topic}: {error}")


def _positions_of(app: App, store: PostgresRetractions, topic: Topic, keys: Sequence[bytes]) -> dict[bytes, int]:
    with app.pool.database.read() as reader:
        return {one.key: one.position for one in store.of_keys(reader, topic, keys)}


def _print_progress(topic: Topic, done: int, whole: int) -> None:
    print_progress(f"{topic}: {done:,} of {whole:,} offsets", last=done >= whole)


def _silent(_topic: Topic, _done: int, _whole: int) -> None:
    """Show nothing: standard error is no terminal."""


def _summary(verified: Verified) -> Iterator[str]:
    yield f"{verified.records:,} records read"
    yield f"{verified.proven:,} of {verified.batches:,} batches have the root of their entry"
    for number, what in (
        (
            verified.unproven,
            "cannot be compared: the order of their records or the keys of their voids are not known",
        ),
        (verified.retained, "were removed by retention, whole or in part"),
        (verified.compacted, "were removed in part by compaction"),
    ):
        if number:
            yield f"{number:,} {what}"
    if verified.erased:
        yield f"{verified.erased:,} records were erased and left their leaf hash"


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
