"""Looking without touching: what `check` finds out, and what `preview` shows.

Nothing is published, written or remembered.
Each check is a line with a verdict. A failure says what to do about it.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from connectors.config.config import ConnectorConfig, PublishConfig, SubscribeConfig
from connectors.mapping.contract import contract
from connectors.mapping.mapping import Bound, Mapping
from connectors.port import Changes, Pool, Reject, RejectCode
from connectors.runtime import assembly
from connectors.sources.csv_file import CsvPortion
from connectors.state.ledger import Ledger
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import ConflictError, InvalidError, PoolError, Reason
from schemas.names import Topic

__all__ = ["Check", "Preview", "checks", "preview"]

_SOON = 5  # days of a certificate
_CLOCK = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `ok`, `WARN` or `FAIL`, of what, and why."""

    verdict: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The first rows of a portion, mapped.

    Attributes:
        portion: its name.
        encoding: of a file; empty for a table.
        names: of the record's fields.
        rows: good rows as text, by field.
        rejects: bad rows.
    """

    portion: str
    encoding: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    rejects: Sequence[Reject]


def checks(config: ConnectorConfig, connect: Callable[[], Pool], clock: Callable[[], datetime]) -> Iterator[Check]:
    """Look at everything that a run needs, in the order in which it needs it."""
    yield Check("ok", "config", f"{len(config.publish)} to publish, {len(config.subscribe)} to draw")
    try:
        pool = connect()
        hello = pool.hello()
    except PoolError as error:
        yield Check("FAIL", "exchange", error.message)
        return
    left = datetime.fromtimestamp(hello.certificate_expires / 1e6, UTC) - clock()
    apart = hello.server_time / 1e6 - clock().timestamp()
    yield Check(
        "WARN" if left.days < _SOON else "ok",
        "exchange",
        f"pool {hello.pool_id}, connector {hello.connector}; certificate valid for {left.days} days",
    )
    if abs(apart) > _CLOCK:
        yield Check("WARN", "clock", f"differs from the pool's by {apart:.1f} s; set it by NTP")
    for publish in config.publish:
        yield _judged(publish.resource, partial(_publishable, config, publish, pool, clock))
    for subscribe in config.subscribe:
        yield _judged(subscribe.grant, partial(_drawable, subscribe, pool, clock))


def preview(
    config: ConnectorConfig,
    entry: PublishConfig,
    schema: tuple[int, str],
    *,
    rows: int,
    file: Path | None,
    clock: Callable[[], datetime],
) -> Preview:
    """Map the first rows of the newest file, of a named one, or of the table.

    Raises:
        PoolError: the portion cannot be read, or breaks the contract.
    """
    bound, portion_name, encoding, read = _bound(config, entry, schema, file, clock)
    names, good, bad = [], [], []
    for changes in read():
        mapped = bound.map(changes)
        names = mapped.batch.schema.names
        good += [["" if cell is None else str(cell) for cell in row.values()] for row in mapped.batch.to_pylist()]
        bad += [*changes.rejects, *mapped.rejects]
        if len(good) + len(bad) >= rows:
            break
    return Preview(portion=portion_name, encoding=encoding, names=names, rows=good[:rows], rejects=bad[:rows])


def _bound(
    config: ConnectorConfig,
    entry: PublishConfig,
    schema: tuple[int, str],
    file: Path | None,
    clock: Callable[[], datetime],
) -> tuple[Bound, str, str, Callable[[], Iterator[Changes]]]:
    planned = assembly.publication(entry)
    mapping = Mapping(
        contract(*schema),
        engine_for(parse(schema[1])),
        planned.columns,
        null_values=planned.null_values,
        unknown_columns=planned.unknown_columns,
    )
    # A source wants a ledger for its memory of files; it gets an empty one, which is thrown away.
    with tempfile.TemporaryDirectory(prefix="pool-connect-") as scratch:
        ledger = Ledger(Path(scratch) / "look.sqlite3", clock=clock)
        try:
            portion = assembly.first_portion(assembly.source(config, entry, ledger, clock), file)
        finally:
            ledger.close()
    if portion is None:
        raise InvalidError(Reason.NOT_FOUND, "no file of the folder matches the pattern; name one with --file")
    encoding = portion.encoding if isinstance(portion, CsvPortion) else ""
    return mapping.bind(portion.columns), portion.name, encoding, portion.changes


def _publishable(config: ConnectorConfig, entry: PublishConfig, pool: Pool, clock: Callable[[], datetime]) -> str:
    schema = pool.schema(Topic.parse(entry.resource))
    standing = pool.resume(Topic.parse(entry.resource))
    try:
        _, name, encoding, _ = _bound(config, entry, schema, None, clock)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return f"may be published; schema {schema[0]}, batch {standing.sequence}; no file yet"
    told = f" ({encoding})" if encoding else ""
    return f"may be published; schema {schema[0]}, batch {standing.sequence}; {name}{told} fits the contract"


def _drawable(entry: SubscribeConfig, pool: Pool, clock: Callable[[], datetime]) -> str:
    described = pool.describe(entry.grant, purpose=entry.purpose, case=entry.case)
    left = datetime.fromtimestamp(described.expires / 1e6, UTC) - clock()
    sink = assembly.sink(entry)
    try:
        try:
            position = sink.position()
        except ConflictError:  # the table of positions is made with the first record
            position = b""
    finally:
        sink.close()
    begun = "begun" if position else "nothing drawn yet"
    return f"{described.topic} is granted for {left.days} more days ({described.state}); the target is there, {begun}"


def _judged(subject: str, judge: Callable[[], str]) -> Check:
    try:
        return Check("ok", subject, judge())
    except PoolError as error:
        return Check("FAIL", subject, error.message)


def shown(reject: Reject) -> str:
    """Return the line that `preview` prints for a bad row; never its values."""
    where = f"  {reject.field}" if reject.field else ""
    return f"line {reject.line}{where}  -> {RejectCode(reject.code).value}: {reject.message}"
