"""Engine tasks: check a batch, apply a view to records being fetched, write them as JSON, perhaps in a worker process.

Each is a task of `exchange.engines.process_pool`: a definition, compiled once in each process, with byte strings as
input and output. `apply_view`, `check_batch` and `json_values` convert both ends, so that no caller knows whether a
batch was handled in a process or in its own thread.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from exchange.access.view.filter import filter_from_text, filter_to_text
from exchange.access.view.view import View, ViewResult, ViewSpec
from exchange.engines.process_pool import Parts, ProcessPool, Task, TaskSpec
from exchange.records.submission import CheckedRecords, Records, check_root
from registry.avro.parser import ParsedSchema, parse
from registry.codec.codec import CodecEngine, RowError, engine_for
from registry.codec.framing import strip_frames
from registry.codec.json_rows import json_rows
from schemas.access import MaskRule
from schemas.errors import InvalidError, Reason
from schemas.merkle import HASH_SIZE
from schemas.record import FRAME_SIZE, Packed

__all__ = ["apply_view", "check_batch", "compile_check", "compile_json", "compile_view", "json_values"]


def apply_view(
    workers: ProcessPool, spec: ViewSpec, writers: Mapping[int, ParsedSchema], values: Packed | Sequence[bytes | None]
) -> ViewResult:
    """Apply a grant's view to framed values (`exchange.access.view.view.View.apply`), perhaps in an engine process.

    Raises:
        PoolError: what the view raises, and what `ProcessPool.run` raises.
    """
    versions = tuple(sorted(writers.items()))
    if workers.in_thread(len(values)):
        return _view(spec, versions).apply(values)
    task = _view_task(spec, versions)
    packed = values if isinstance(values, Packed) else Packed.of(values)
    offsets, data, states, report = workers.run(task, (packed.offsets, packed.values), records=len(packed))
    engine, _, alarm = report.decode().partition("\n")
    return ViewResult(values=Packed(offsets, data), states=states, engine=engine, alarm=alarm)


def json_values(workers: ProcessPool, schema: str, values: Packed) -> Packed:
    """Return framed values of a view as JSON texts (`registry.codec.json_rows`), perhaps from an engine process.

    Args:
        workers: the processes.
        schema: text of the view's schema.
        values: a withdrawal is empty, and its text is.

    Raises:
        PoolError: what `ProcessPool.run` raises.
    """
    if workers.in_thread(len(values)):
        return _json_values(_json_engine(schema), values)
    task = TaskSpec.of("exchange.records.engine_tasks:compile_json", schema.encode())
    return Packed(*workers.run(task, (values.offsets, values.values), records=len(values)))


def check_batch(
    workers: ProcessPool, writers: Mapping[int, ParsedSchema], records: Records, values: Sequence[bytes]
) -> CheckedRecords | list[RowError]:
    """Check the root and the framed values of a batch to be published, perhaps in an engine process.

    Args:
        workers: the processes.
        writers: registry id → schema, of the versions under which a record of this topic may be written.
        records: n records, whose form was checked; an empty value is a void's.
        values: their values, one by one.

    Returns:
        Their keys, schemas and leaf hashes; or the rows that do not match their schema, at most 100, in order.

    Raises:
        InvalidError: SIGNATURE_INVALID, the root is not that of the records; SCHEMA_UNKNOWN, a frame names none of the
            writers; RECORD_INVALID, a frame is missing.
        PoolError: what `ProcessPool.run` raises.
    """
    versions = tuple(sorted(writers.items()))
    if workers.in_thread(len(values)):
        return _checked(_engines(versions), records, values)
    task = _check_task(versions)
    good, first, second, leaves = workers.run(task, _to_parts(records), records=len(values))
    if good == b"rows":
        return [RowError(index=i, reason=Reason(r), field=f, message=m) for i, r, f, m in json.loads(first)]
    return CheckedRecords(
        keys=list(Packed(first, second)),
        schema_ids=tuple(json.loads(good)),
        leaves=[leaves[at : at + HASH_SIZE] for at in range(0, len(leaves), HASH_SIZE)],
    )


def compile_view(definition: bytes) -> Task:
    """Compile the task of a view: `exchange.records.engine_tasks:compile_view`."""
    read = json.loads(definition)
    spec = ViewSpec(
        output=read["output"],
        output_id=read["output_id"],
        masks=tuple((field, MaskRule(rule)) for field, rule in read["masks"]),
        row_filter=filter_from_text(read["row_filter"]) if read["row_filter"] else None,
        resource=read["resource"],
    )
    view = View(spec, _writers(read["writers"]))

    def task(parts: Parts) -> Parts:
        result = view.apply(Packed(*parts))
        report = f"{result.engine}\n{result.alarm}".encode()
        return [result.values.offsets, result.values.values, result.states, report]

    return task


def compile_json(definition: bytes) -> Task:
    """Compile the task of a view's JSON texts: `exchange.records.engine_tasks:compile_json`."""
    engine = engine_for(parse(definition.decode()))

    def task(parts: Parts) -> Parts:
        texts = _json_values(engine, Packed(*parts))
        return [texts.offsets, texts.values]

    return task


def compile_check(definition: bytes) -> Task:
    """Compile the task of a check: `exchange.records.engine_tasks:compile_check`."""
    engines = {id_: engine_for(schema) for id_, schema in _writers(json.loads(definition)).items()}

    def task(parts: Parts) -> Parts:
        records = _from_parts(parts)
        checked = _checked(engines, records, list(records.values))
        if isinstance(checked, list):
            rows = [[row.index, row.reason, row.field, row.message] for row in checked]
            return [b"rows", json.dumps(rows).encode(), b"", b""]
        packed = Packed.of(checked.keys)
        return [json.dumps(checked.schema_ids).encode(), packed.offsets, packed.values, b"".join(checked.leaves)]

    return task


def _json_values(engine: CodecEngine, values: Packed) -> Packed:
    datums = [value[FRAME_SIZE:] for value in values if value]
    rows = iter(json_rows(engine.decode(datums)) if datums else ())
    return Packed.of([next(rows).encode() if value else b"" for value in values])


@lru_cache(maxsize=256)
def _json_engine(schema: str) -> CodecEngine:
    return engine_for(parse(schema))


def _to_parts(records: Records) -> Parts:
    values, voids = records.values, records.void_keys
    return values.offsets, values.values, records.marks, voids.offsets, voids.values, records.valid, records.root


def _from_parts(parts: Parts) -> Records:
    offsets, values, marks, void_offsets, void_values, valid, root = parts
    return Records(
        marks=marks,
        values=Packed(offsets, values),
        void_keys=Packed(void_offsets, void_values),
        valid=valid,
        root=root,
    )


def _checked(
    engines: Mapping[int, CodecEngine], records: Records, values: Sequence[bytes]
) -> CheckedRecords | list[RowError]:
    """Check the root, then each schema's records with its engine; see `check_batch`."""
    leaves = check_root(records, values)
    found: dict[int, bytes] = {}
    bad: list[RowError] = []
    groups = strip_frames(records.values)
    for group in groups:
        engine = engines.get(group.schema_id)
        if engine is None:
            raise InvalidError(
                Reason.SCHEMA_UNKNOWN,
                f"got a record of schema {group.schema_id}, which is none of this topic's; expected one of "
                f"{', '.join(map(str, engines))}",
            )
        checked = engine.check(group.datums)
        if not isinstance(checked, list):
            keys = checked.keys or [b""] * len(group.datums)  # a schema that names no key
            if len(groups) == 1:
                return CheckedRecords(keys=keys, schema_ids=(group.schema_id,), leaves=leaves)
            found.update(zip(group.indexes.tolist(), keys, strict=True))
            continue
        indexes = group.indexes.tolist()
        bad += [
            RowError(index=indexes[row.index], reason=row.reason, field=row.field, message=row.message)
            for row in checked
        ]
    if bad:
        return sorted(bad, key=lambda row: row.index)
    ids = tuple(sorted({group.schema_id for group in groups}))
    return CheckedRecords(keys=[found[index] for index in sorted(found)], schema_ids=ids, leaves=leaves)


_Writers = tuple[tuple[int, ParsedSchema], ...]


@lru_cache(maxsize=256)
def _engines(writers: _Writers) -> dict[int, CodecEngine]:
    return {id_: engine_for(schema) for id_, schema in writers}


@lru_cache(maxsize=256)
def _view(spec: ViewSpec, writers: _Writers) -> View:
    return View(spec, dict(writers))


@lru_cache(maxsize=512)
def _view_task(spec: ViewSpec, writers: _Writers) -> TaskSpec:
    return TaskSpec.of(
        "exchange.records.engine_tasks:compile_view",
        json.dumps(
            {
                "output": spec.output,
                "output_id": spec.output_id,
                "masks": spec.masks,
                "row_filter": filter_to_text(spec.row_filter) if spec.row_filter is not None else "",
                "resource": spec.resource,
                "writers": _described(writers),
            }
        ).encode(),
    )


@lru_cache(maxsize=512)
def _check_task(writers: _Writers) -> TaskSpec:
    return TaskSpec.of("exchange.records.engine_tasks:compile_check", json.dumps(_described(writers)).encode())


def _described(writers: _Writers) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(id_, schema.text, schema.references) for id_, schema in writers]


def _writers(described: Sequence[tuple[int, str, Sequence[str]]]) -> dict[int, ParsedSchema]:
    return {id_: parse(text, references=tuple(references)) for id_, text, references in described}
