"""Dry run: the checks of `pool-connect check`, and the sample of `pool-connect preview`.

Nothing is published, written or recorded. Each check is a line with a verdict. A failure says what to do about it.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.config.source_models import PoolSourceConfig, SqlSourceConfig
from connectors.config.subscription_models import SubscribeConfig
from connectors.mapping.mapping import BoundMapping
from connectors.port import Pool, Reject, RejectCode, RowChunk
from connectors.runtime import assembly, change_streams, pool_streams, remedies, table_checks
from connectors.sources.cursor_checks import check_cursor
from connectors.sources.drop_folder import FolderFile
from connectors.sources.postgres.readiness import Finding, Verdict
from connectors.state.ledger import Ledger
from exchange.client import Identity
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic

__all__ = ["Check", "Preview", "preview", "publication_section", "run_checks", "subscription_section"]

_EXPIRY_WARNING = 5  # days of a certificate
_GRANT_WARNING = 14  # days of a grant: a new request takes persons
_CLOCK_TOLERANCE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `ok`, `WARN` or `FAIL`, of what, and why.

    Attributes:
        verdict, subject, message: of the line.
        statements: SQL that mends it, to be run as the role that the message names.
        remedies: commands, and lines of the configuration, that mend it.
    """

    verdict: str
    subject: str
    message: str
    statements: Sequence[str] = ()
    remedies: Sequence[str] = ()


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


def run_checks(config: ConnectorConfig, connect: Callable[[], Pool], clock: Callable[[], datetime]) -> Iterator[Check]:
    """Check everything that a run needs, in the order in which it needs it."""
    yield Check("ok", "config", f"{len(config.publish)} to publish, {len(config.subscribe)} to fetch")
    try:
        pool = connect()
        hello = pool.hello()
    except PoolError as error:
        yield Check("FAIL", "exchange", error.message, remedies=_of_identity(config, clock))
        return
    remaining = datetime.fromtimestamp(hello.certificate_expires / 1e6, UTC) - clock()
    difference = hello.server_time / 1e6 - clock().timestamp()
    yield Check(
        "WARN" if remaining.days < _EXPIRY_WARNING else "ok",
        "exchange",
        f"pool {hello.pool_id}, connector {hello.connector}; certificate valid for {remaining.days} days",
    )
    if abs(difference) > _CLOCK_TOLERANCE:
        yield Check("WARN", "clock", f"differs from the pool's by {difference:.1f} s; set it by NTP")
    if change_streams.sections(config):
        yield from _check_changes(config, pool)
    yield from _check_tables(config, pool)
    yield from _check_draws(config, pool, clock)
    for publish in config.publish:
        if publish.mode == "cdc" or publish.draw is not None:
            continue
        yield _check(publish.resource, partial(_check_publication, config, publish, pool, clock))
        if publish.mode == "incremental":
            yield from _check_cursor(config, publish)
    for subscribe in config.subscribe:
        yield _check_subscription(subscribe, pool, clock)


def _check_changes(config: ConnectorConfig, pool: Pool) -> Iterator[Check]:
    try:
        found = list(change_streams.find_problems(config, pool))
    except PoolError as error:
        yield Check("FAIL", "changes", error.message)
        return
    yield from map(_check_of, found)
    if not any(each.verdict is Verdict.FAIL for each in found):
        tables = ", ".join(each.resource for each in change_streams.sections(config))
        yield Check("ok", "changes", f"the database is ready to publish the changes of {tables}")


def _check_draws(config: ConnectorConfig, pool: Pool, clock: Callable[[], datetime]) -> Iterator[Check]:
    """Check the other pool that the records come from, and each grant there; nothing where there is none."""
    if not isinstance(config.source, PoolSourceConfig):
        return
    try:
        with pool_streams.connect(config.source, clock) as other:
            hello = other.hello()
            remaining = datetime.fromtimestamp(hello.certificate_expires / 1e6, UTC) - clock()
            yield Check(
                "WARN" if remaining.days < _EXPIRY_WARNING else "ok",
                "source",
                f"pool {hello.pool_id}, connector {hello.connector} there; certificate valid for {remaining.days} days",
            )
            for publish in config.publish:
                yield from map(_check_of, pool_streams.find_problems(publish, pool, other))
    except PoolError as error:
        yield Check("FAIL", "source", error.message)


def _check_cursor(config: ConnectorConfig, section: PublishConfig) -> Iterator[Check]:
    """Check the table of a publication by a cursor; `ok` where there is no finding."""
    if not isinstance(config.source, SqlSourceConfig):
        return
    source = assembly.sql_source(config.source, section)
    try:
        found = list(check_cursor(source, assembly.cursor_settings(section)))
    except PoolError as error:
        yield Check("FAIL", section.resource, error.message)
        return
    finally:
        source.close()
    yield from map(_check_of, found)
    if not found:
        yield Check("ok", section.resource, f"{section.cursor} has an index and no nulls, and a safe horizon")


def _check_tables(config: ConnectorConfig, pool: Pool) -> Iterator[Check]:
    try:
        yield from map(_check_of, table_checks.check_tables(config, pool))
    except PoolError:
        return  # the same is said of the publication


def _check_of(finding: Finding) -> Check:
    return Check(
        finding.verdict.value,
        finding.subject,
        finding.message,
        statements=tuple(finding.statements),
        remedies=tuple(finding.settings),
    )


def _of_identity(config: ConnectorConfig, clock: Callable[[], datetime]) -> Sequence[str]:
    """Return what gives a connector another certificate, where its own has ended by this machine's clock."""
    folder = config.exchange.identity
    try:
        own = Identity.load(folder)
    except InvalidError:
        return ()
    return (
        remedies.enrol_again(own.department, own.connector, folder)
        if remedies.has_ended(own.certificate, clock())
        else ()
    )


def publication_section(config: ConnectorConfig, resource: str) -> PublishConfig:
    """Return the publication of a resource; of the only one where it is empty.

    Raises:
        InvalidError: CONFIG_INVALID, naming those that there are.
    """
    matching = [each for each in config.publish if not resource or each.resource == resource]
    if len(matching) != 1:
        names = ", ".join(each.resource for each in config.publish) or "none"
        raise InvalidError(Reason.CONFIG_INVALID, f"expected --resource to name one publication; there are: {names}")
    return matching[0]


def subscription_section(config: ConnectorConfig, grant: str) -> SubscribeConfig:
    """Return the subscription of a grant; the only one where it is empty.

    Raises:
        InvalidError: CONFIG_INVALID, naming those that there are.
    """
    matching = [each for each in config.subscribe if grant in ("", each.grant)]
    if len(matching) != 1:
        names = ", ".join(each.grant for each in config.subscribe) or "none"
        raise InvalidError(Reason.CONFIG_INVALID, f"expected --grant to name one subscription; there are: {names}")
    return matching[0]


def preview(
    config: ConnectorConfig,
    section: PublishConfig,
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
    bound, portion_name, encoding, read_chunks = _bind_first_portion(config, section, schema, file, clock)
    names, good, bad = [], [], []
    for chunk in read_chunks():
        mapped = bound.map(chunk)
        names = mapped.batch.schema.names
        good += [["" if cell is None else str(cell) for cell in row.values()] for row in mapped.batch.to_pylist()]
        bad += [*chunk.rejects, *mapped.rejects]
        if len(good) + len(bad) >= rows:
            break
    return Preview(portion=portion_name, encoding=encoding, names=names, rows=good[:rows], rejects=bad[:rows])


def _bind_first_portion(
    config: ConnectorConfig,
    section: PublishConfig,
    schema: tuple[int, str],
    file: Path | None,
    clock: Callable[[], datetime],
) -> tuple[BoundMapping, str, str, Callable[[], Iterator[RowChunk]]]:
    mapping = assembly.column_mapping(section, schema)
    # A source needs a ledger for its history of files; it gets an empty one, which is deleted.
    with tempfile.TemporaryDirectory(prefix="pool-connect-") as scratch:
        ledger = Ledger(Path(scratch) / "preview.sqlite3", clock=clock)
        try:
            portion = assembly.first_portion(assembly.source(config, section, ledger, clock), file)
        finally:
            ledger.close()
    if portion is None:
        raise InvalidError(Reason.NOT_FOUND, "no file of the folder matches the pattern; name one with --file")
    encoding = portion.encoding if isinstance(portion, FolderFile) else ""
    return mapping.bind(portion.columns), portion.name, encoding, portion.chunks


def _check_publication(
    config: ConnectorConfig, section: PublishConfig, pool: Pool, clock: Callable[[], datetime]
) -> str:
    schema = pool.schema(Topic.parse(section.resource))
    head = pool.resume(Topic.parse(section.resource))
    try:
        bound, name, encoding, read_chunks = _bind_first_portion(config, section, schema, None, clock)
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return f"may be published; schema {schema[0]}, batch {head.sequence}; no file yet"
    suffix = f" ({encoding})" if encoding else ""
    sample = _sample(bound, name, read_chunks)
    return f"may be published; schema {schema[0]}, batch {head.sequence}; {name}{suffix} fits the contract{sample}"


def _sample(bound: BoundMapping, name: str, read_chunks: Callable[[], Iterator[RowChunk]]) -> str:
    """Return how many of the first rows would fit, with the first reasons; empty where there are no rows.

    Raises:
        InvalidError: QUARANTINE_LIMIT, none fits.
    """
    chunk = next(iter(read_chunks()), None)
    if chunk is None:
        return ""
    mapped = bound.map(chunk)
    rejects = [*chunk.rejects, *mapped.rejects]
    total = len(chunk) + len(chunk.rejects)
    first = "; ".join(format_reject(each) for each in rejects[:3])
    if not mapped.rows:
        raise InvalidError(
            Reason.QUARANTINE_LIMIT, f"none of the first {total:,} rows of {name} fits the contract: {first}"
        )
    return f"; of the first {total:,} rows {len(mapped.rows):,} fit{f': {first}' if first else ''}"


def _check_subscription(section: SubscribeConfig, pool: Pool, clock: Callable[[], datetime]) -> Check:
    try:
        subscription = pool.describe(section.grant, purpose=section.purpose, case=section.case)
        progress = _check_target(section, subscription.schema_text)
    except PoolError as error:
        return Check(
            "FAIL",
            section.grant,
            error.message,
            remedies=remedies.mend_declaration(error.reason, section.grant),
        )
    remaining = datetime.fromtimestamp(subscription.expires / 1e6, UTC) - clock()
    state = f"{subscription.topic} is granted for {remaining.days} more days ({subscription.state})"
    soon = remaining.days < _GRANT_WARNING
    return Check(
        "WARN" if soon else "ok",
        section.grant,
        f"{state}; the target is there, {progress}",
        remedies=remedies.NEW_REQUEST if soon else (),
    )


def _check_target(section: SubscribeConfig, schema_text: str) -> str:
    """Check that a target can hold a view; return how far it is."""
    sink = assembly.sink(section)
    try:
        sink.check(engine_for(parse(schema_text)).schema)
        return "begun" if sink.position() else "nothing fetched yet"
    finally:
        sink.close()


def _check(subject: str, check: Callable[[], str]) -> Check:
    try:
        return Check("ok", subject, check())
    except PoolError as error:
        return Check("FAIL", subject, error.message)


def format_reject(reject: Reject) -> str:
    """Return the line that `preview` prints for a bad row; never its values."""
    where = f"  {reject.field}" if reject.field else ""
    return f"line {reject.line}{where}  -> {RejectCode(reject.code).value}: {reject.message}"
