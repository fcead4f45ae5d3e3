"""State file: everything that a grant delivers now, in one file of CSV, JSON lines or Parquet, with a manifest.

For a consumer that wants a file and keeps no position: a report, a statistic, a program that reads tables. Each file is
drawn from the grant's beginning for the declared purpose: releases as any other, each with its entry in the log and out
of the grant's quota. Of each key the last record is written, none that is withdrawn. Nothing is acknowledged, so a
subscription under the same grant goes on where it was.

The file appears whole, by renaming, and its manifest after it; a failure, or SIGTERM, leaves neither, and nothing of
what was drawn. Both are readable by this user
alone.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from connectors.port import DecodedRelease, Pool, RejectedRecord
from connectors.sinks.field_names import require_names
from connectors.sinks.parquet_part import parquet_table, require_parquet
from connectors.sinks.text_lines import csv_lines, json_lines, release_lines
from connectors.subscribing.nanoseconds import deliverable_schema
from connectors.subscribing.reconciliation import DrawnState, decode_drawn, draw_state
from connectors.subscribing.subscriber import SubscriptionConfig
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import ConflictError, InvalidError, Reason, UnavailableError
from schemas.record import frame

__all__ = ["FORMS", "StateManifest", "TextStyle", "export_state"]

FORMS = ("csv", "jsonl", "parquet")
_OWN_COLUMNS = ("_record_key", "_recorded_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStyle:
    """How CSV is written: its encoding, and whether texts that a spreadsheet would execute get an apostrophe."""

    encoding: str = "utf-8"
    neutralise_formulas: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateManifest:
    """What is in a state file.

    Attributes:
        file, bytes, sha256: of the file.
        grant, version, topic, schema_id: under which view it was drawn.
        purpose, case: as declared.
        drawn_at: when drawing ended, ISO 8601.
        records: in the file.
        releases, last_entry: number of releases, and the audit entry of the last one that had records.
        set_aside: records that the form has no value for, by field and code.
    """

    file: str
    bytes: int
    sha256: str
    grant: str
    version: int
    topic: str
    schema_id: int
    purpose: str
    case: str
    drawn_at: str
    records: int
    releases: int
    last_entry: str
    set_aside: dict[str, int]


def export_state(
    pool: Pool,
    config: SubscriptionConfig,
    output: Path,
    *,
    style: TextStyle,
    clock: Callable[[], datetime],
    progress: Callable[[int], None] = lambda _: None,
) -> StateManifest:
    """Draw everything under a grant, and write it.

    Args:
        pool: under the identity of the grant's consumer.
        config: the grant, and what is declared with it.
        output: file to write, whose name ends with `.csv`, `.jsonl` or `.parquet`; it must not be there yet.
        style: of CSV.
        clock: of this machine.
        progress: is told the records drawn so far.

    Raises:
        InvalidError: CONFIG_INVALID, another ending, or a folder that is not there.
        ConflictError: CONFIG_INVALID, the file is there; CONTRACT_BROKEN, the form has no columns for the view.
        PoolError: the grant does not allow it, its quota is used up, or the pool is away.
    """
    form = output.suffix.removeprefix(".")
    manifest_file = output.with_name(output.name + ".manifest.json")
    _require_new(form, output, manifest_file)
    granted = pool.describe(config.grant, purpose=config.purpose, case=config.case)
    engine = engine_for(parse(granted.schema_text))
    schema = deliverable_schema(engine.schema)
    require_names(schema)
    if form == "parquet":
        require_parquet(schema)
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pool-connect-")))
        drawn = opened.enter_context(closing(DrawnState(scratch / "drawn.sqlite3")))
        totals = draw_state(pool, config, drawn, progress)
        head = frame(granted.schema_id, b"")
        set_aside: Counter[str] = Counter()
        records = 0
        digest = hashlib.sha256()
        with _new_file(output) as file:
            writer = _writer(form, file, schema, style)
            for rows in drawn.valid():
                if any(not value.startswith(head) for _, _, value in rows):
                    raise ConflictError(
                        Reason.CONTRACT_BROKEN, f"the view of {config.grant} changed while it was drawn; draw it again"
                    )
                rejected = writer.write(decode_drawn(rows, engine))
                set_aside.update(f"{each.field} {each.code.value}" for each in rejected)
                records += len(rows) - len(rejected)
            writer.close()
            size = file.tell()
            file.seek(0)
            for part in iter(lambda: file.read(1 << 20), b""):
                digest.update(part)
        manifest = StateManifest(
            file=output.name,
            bytes=size,
            sha256=digest.hexdigest(),
            grant=config.grant,
            version=granted.version,
            topic=str(granted.topic),
            schema_id=granted.schema_id,
            purpose=config.purpose,
            case=config.case,
            drawn_at=clock().isoformat(timespec="seconds"),
            records=records,
            releases=totals.releases,
            last_entry=totals.last_entry,
            set_aside=dict(set_aside),
        )
        try:
            with _new_file(manifest_file) as file:
                file.write(json.dumps(asdict(manifest), indent=2, ensure_ascii=False).encode() + b"\n")
        except BaseException:
            output.unlink(missing_ok=True)
            raise
        return manifest


def _require_new(form: str, output: Path, manifest: Path) -> None:
    if form not in FORMS:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{output.name} says no form; expected a name that ends with .csv, .jsonl or .parquet",
        )
    if not output.parent.is_dir():
        raise InvalidError(Reason.CONFIG_INVALID, f"there is no folder {output.parent}; make it first")
    for each in (output, manifest):
        if os.path.lexists(each):
            raise ConflictError(Reason.CONFIG_INVALID, f"{each} is there already; name another file, or move it away")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file under another name, of this user alone from its first byte, and give it its own at the end."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # of a process that died; a link is removed, not followed
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _name(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UnavailableError(
            Reason.TARGET_UNAVAILABLE, f"{path} cannot be written ({error.strerror}); is there room, and permission?"
        ) from error


def _name(part: Path, path: Path) -> None:
    """Rename a written file to its name; one that has got it meanwhile stays, where the file system has links."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError as error:
        raise ConflictError(
            Reason.CONFIG_INVALID, f"{path} was made meanwhile; nothing was replaced, name another file"
        ) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        part.rename(path)


class _Writer(Protocol):
    def write(self, release: DecodedRelease) -> Sequence[RejectedRecord]:
        """Write records; return those that the form has no value for."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class _TextWriter(_Writer):
    def __init__(self, file: BinaryIO, names: Sequence[str], style: TextStyle, *, as_json: bool) -> None:
        self._file = file
        self._names = [*_OWN_COLUMNS, *names]
        self._style = style
        self._as_json = as_json
        if not as_json:
            head = csv_lines([], self._names, header=True, neutralise_formulas=False)
            self._file.write(head.encode(style.encoding))

    @override
    def write(self, release: DecodedRelease) -> Sequence[RejectedRecord]:
        lines, rejected = release_lines(release, as_json=self._as_json)
        chosen = [{name: each for name, each in line.items() if name != "_operation"} for line in lines]
        if self._as_json:
            self._file.write(json_lines(chosen).encode())
            return rejected
        text = csv_lines(chosen, self._names, header=False, neutralise_formulas=self._style.neutralise_formulas)
        encoding = (
            "utf-8" if self._style.encoding == "utf-8-sig" else self._style.encoding
        )  # one mark, at the beginning
        self._file.write(text.encode(encoding))
        return rejected

    @override
    def close(self) -> None:
        """Do nothing: every line is written."""


class _ParquetWriter(_Writer):
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        empty = DecodedRelease(
            keys=[],
            recorded_at=[],
            withdrawn=[],
            records=pa.RecordBatch.from_pylist([], schema=schema),
            values=[],
            entry_id="",
        )
        self._schema = _without_operation(parquet_table(empty)).schema
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    @override
    def write(self, release: DecodedRelease) -> Sequence[RejectedRecord]:
        self._writer.write_table(_without_operation(parquet_table(release)).cast(self._schema))
        return ()

    @override
    def close(self) -> None:
        self._writer.close()


def _writer(form: str, file: BinaryIO, schema: pa.Schema, style: TextStyle) -> _Writer:
    if form == "parquet":
        return _ParquetWriter(file, schema)
    return _TextWriter(file, schema.names, style, as_json=form == "jsonl")


def _without_operation(table: pa.Table) -> pa.Table:
    return table.drop_columns(["_operation"])
