"""What must hold after the storm, found out by means that share little with the pool's own.

The topic is read by a plain consumer of committed records, receipts and entries by plain SQL, the sink's table
likewise. A finding is one sentence; none is what is hoped for.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaError, TopicPartition

from exchange.audit.note import NoteKey
from exchange.audit.verify_database import verify_database
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.port import Appended
from exchange.cli.grant_rows import stored_grants
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from exchange.identity.secrets import FileSecrets
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.codec.framing import strip_frames
from schemas.access import Action
from schemas.names import Lane
from schemas.offsets import unpack_offsets
from schemas.record import OffsetRange, Packed
from tests.kit.cases.broker import KEY
from tests.torture.clerks import GRANTED, SCHEMA, Row
from tests.torture.stage import GATEWAYS, TOPIC, Stage

_SHOWN = 5  # of one kind of finding
_PARTITIONS = 4

Place = tuple[int, int]
Batch = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands on the topic; `row` is None for a void."""

    place: Place
    batch: Batch
    key: bytes
    row: tuple[str, int, str] | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of the pool's receipts. `keys` is None where the sweeper wrote it."""

    root: bytes
    runs: list[list[int]]
    keys: list[bytes] | None
    count: int

    def places(self) -> list[Place]:
        return [(run[0], offset) for run in self.runs for offset in range(run[1], run[2] + 1)]


@dataclass(frozen=True, slots=True)
class Release:
    """One release as its entry tells it."""

    grant: str
    delivered: set[Place]
    withdrawn: int
    root: str


def granted(stage: Stage) -> dict[str, Row]:
    """Return the rows that the grants let through, as the sources' tables have them now."""
    rows: dict[str, Row] = {}
    for clerk in stage.clerks.values():
        rows |= {permit: row for permit, row in clerk.rows().items() if row[2] == GRANTED}
    return rows


def sunk(stage: Stage) -> dict[str, Row]:
    """Return the valid rows of the sink's table."""
    with stage.engine("sink") as engine, engine.connect() as connection:
        if not sa.inspect(connection).has_table("permits"):
            return {}
        query = sa.text("SELECT permit_no, version, district FROM permits WHERE _deleted_at IS NULL")
        return {row[0]: tuple(row) for row in connection.execute(query)}


def received(stage: Stage) -> dict[str, Row]:
    """Return what the second consumer holds valid after all that it got."""
    latest: dict[str, Row | None] = {}
    for line in lines(stage):
        for key, *row in line["records"]:
            latest[key] = (row[0], row[1], row[2]) if row else None
    return {row[0]: row for row in latest.values() if row is not None}


def lines(stage: Stage) -> Iterator[Any]:
    if stage.second.exists():
        for line in stage.second.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def settled(stage: Stage) -> str:
    """Return what is still under way; empty when everything has arrived and the log has a place for every entry."""
    if stage.unacknowledged():
        return f"batches without a receipt: {stage.unacknowledged()}"
    expected = granted(stage)
    for what, has in (("sink", sunk(stage)), ("second consumer", received(stage))):
        if has != expected:
            return f"the {what} differs in {_differences(has, expected)} rows"
    return ""


def swept(stage: Stage) -> str:
    """Return what the sweeper has still to do: it comes every 10 s."""
    query = sa.text("SELECT lane, max(sequence) - count(*) FROM audit_receipt GROUP BY lane")
    with stage.engine() as engine, engine.connect() as connection:
        missing = {lane: left for lane, left in connection.execute(query) if left}
    return f"receipts that nobody has written yet: {missing}" if missing else ""


def sequenced(stage: Stage) -> str:
    """Return what the sequencer has still to do."""
    with stage.engine() as engine, engine.connect() as connection:
        waiting = connection.execute(sa.text("SELECT count(*) FROM audit_entry WHERE leaf_index IS NULL")).scalar_one()
    return f"{waiting} entries without a place" if waiting else ""


def findings(stage: Stage, since: str) -> Iterator[str]:
    """Return everything that is wrong, in sentences."""
    for name in stage.lanes:
        stage.remember(name)
    topic, receipts, releases = read_topic(stage), _receipts(stage), _releases(stage)
    for found in (
        _tables(stage),
        _exactly_once(topic, receipts),
        _acknowledged(stage, topic, receipts),
        _released(stage, topic, releases),
        _whole(stage, receipts),
        _log(stage, since),
    ):
        yield from found


def _tables(stage: Stage) -> Iterator[str]:
    expected = granted(stage)
    for what, has in (("the sink's table", sunk(stage)), ("the second consumer", received(stage))):
        if has != expected:
            yield f"{what} differs from the source's granted rows in {_differences(has, expected)} of {len(expected)}"


def _exactly_once(topic: list[Record], receipts: dict[Batch, Receipt]) -> Iterator[str]:
    """Each (lane, sequence, index) stands once, where its receipt says; the sequences have no gap."""
    batches: defaultdict[Batch, list[Record]] = defaultdict(list)
    for record in topic:
        batches[record.batch].append(record)
    told: Counter[str] = Counter()

    def tell(kind: str, text: str) -> Iterator[str]:
        told[kind] += 1
        if told[kind] <= _SHOWN:
            yield f"{kind}: {text}"

    for batch in sorted({*batches, *receipts}):
        records, receipt = batches.get(batch, []), receipts.get(batch)
        name = f"batch {batch[1]} of {batch[0]}"
        if receipt is None:
            yield from tell("no receipt", f"{name} stands on the topic with {len(records)} records")
            continue
        if not records:
            yield from tell("not on the topic", f"{name} has a receipt")
            continue
        # A batch holds each key once, so its keys are its indexes by another name.
        times = Counter(record.key for record in records)
        indexes = range(receipt.count) if receipt.keys is None else receipt.keys
        if max(times.values()) > 1:
            yield from tell("more than once", f"{sum(n > 1 for n in times.values())} indexes of {name}")
        if len(times) != len(indexes) or (receipt.keys is not None and set(times) != set(receipt.keys)):
            yield from tell("torn", f"{name} has {len(indexes)} indexes, {len(times)} of them stand on the topic")
        if sorted(record.place for record in records) != sorted(receipt.places()):
            yield from tell("elsewhere", f"{name} does not stand (only) where its receipt says")
    for lane, last in _last(batches).items():
        missing = [number for number in range(1, last + 1) if (lane, number) not in batches]
        if missing:
            yield from tell("gap", f"{len(missing)} sequences of {lane}, such as {missing[:3]}")
    for kind, count in told.items():
        if count > _SHOWN:
            yield f"{kind}: {count} in all"


def _acknowledged(stage: Stage, topic: list[Record], receipts: dict[Batch, Receipt]) -> Iterator[str]:
    """Whatever a source was told to be safe is where it was told that it is."""
    places = {record.place: record.batch for record in topic}
    for batch, (root, runs) in stage.acknowledged.items():
        receipt = receipts.get(batch)
        if receipt is None or receipt.root != root or receipt.runs != runs:
            yield f"acknowledged and lost: the pool has no such receipt of batch {batch[1]} of {batch[0]}"
        if any(places.get((run[0], at)) != batch for run in runs for at in range(run[1], run[2] + 1)):
            yield f"acknowledged and lost: batch {batch[1]} of {batch[0]} is not where its receipt says"


def _released(stage: Stage, topic: list[Record], releases: dict[str, Release]) -> Iterator[str]:
    """Every position found at a consumer is marked delivered in the entry that came with it."""
    places: defaultdict[tuple[str, int], set[Place]] = defaultdict(set)
    for record in topic:
        if record.row is not None:
            places[record.row[:2]].add(record.place)
    told: Counter[str] = Counter()
    for line in lines(stage):
        rows = [record[1:] for record in line["records"] if len(record) > 1]
        release = releases.get(line["entry"])
        if release is None:
            told["released without an entry"] += 1
            continue
        if release.root != line["root"] or release.grant != stage.grants["second"]:
            told["the entry's root is not that of what came"] += 1
        if len(rows) != len(release.delivered) or len(line["records"]) - len(rows) != release.withdrawn:
            told["the entry counts other records than came"] += 1
        for permit, version, district in rows:
            if not places[permit, version] & release.delivered:
                told["a position at the consumer that its entry does not mark"] += 1
            if district != GRANTED or all(
                clerk.districts.get((permit, version)) != district for clerk in stage.clerks.values()
            ):
                told["a row that no clerk wrote, or that the grant does not let through"] += 1
    marked = set().union(*(one.delivered for one in releases.values() if one.grant == stage.grants["sink"]))
    for permit, version, _ in sunk(stage).values():
        if not places[permit, version] & marked:
            told["a row in the sink's table that no entry marks as delivered"] += 1
    yield from (f"{kind}: {count}" for kind, count in told.items())


def _whole(stage: Stage, receipts: dict[Batch, Receipt]) -> Iterator[str]:
    """The pool's own check of the last receipts of each lane."""
    last = _last(receipts)
    asked = [
        Appended(
            lane=Lane.parse(lane),
            sequence=sequence,
            digest=receipt.root,
            source_position=b"",
            recorded_at=0,
            count=receipt.count,
            runs=tuple(OffsetRange(partition=run[0], first=run[1], last=run[2]) for run in receipt.runs),
        )
        for (lane, sequence), receipt in receipts.items()
        if sequence > last[lane] - 20
    ]
    with closing(KafkaBroker(stage.node.settings(), key=KEY)) as broker:
        for lost in broker.find_incomplete(asked):
            yield f"not whole: batch {lost.sequence} of {lost.lane}"


def _log(stage: Stage, since: str) -> Iterator[str]:
    key = NoteKey.parse((stage.data / "log.pub").read_text().strip())
    with stage.engine() as engine:
        report = verify_database(engine, stage.data / "log", key=key, since=since, grants=stored_grants)
    yield from (f"audit: {finding}" for finding in report.findings[: 2 * _SHOWN])


def unknown_errors(stage: Stage) -> Counter[str]:
    """Return the errors of calls that the gateways could not translate, by type and place."""
    found: Counter[str] = Counter()
    for name in GATEWAYS:
        for text in stage.children[name].log.read_text(errors="replace").splitlines():
            if '"call_failed"' in text:
                told = json.loads(text)
                found[f"{told['error']} at {told['at']}"] += 1
    return found


def checkpoint(stage: Stage) -> str:
    """Return the log's checkpoint: kept from the beginning, it must be a prefix of the end's."""
    with stage.engine() as engine, engine.connect() as connection:
        query = sa.text("SELECT note FROM audit_checkpoint ORDER BY size DESC LIMIT 1")
        return str(connection.execute(query).scalar_one())


def read_topic(stage: Stage) -> list[Record]:
    """Read the whole topic as a plain consumer of committed records, with the gateway's certificate."""
    settings = stage.node.settings().consumer(**{"auto.offset.reset": "earliest"})
    messages: list[Any] = []
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(str(TOPIC), number, 0) for number in range(_PARTITIONS)])
        ended: set[int] = set()
        while len(ended) < _PARTITIONS:
            message: Any = consumer.poll(30)
            assert message is not None, "Kafka gave neither a record nor an end"
            if message.error() is None:
                messages.append(message)
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
    rows = _decoded([message.value() or b"" for message in messages])
    return [
        Record(
            place=(message.partition(), message.offset()),
            batch=_batch_of(message.headers()),
            key=message.key()[:16],
            row=row,
        )
        for message, row in zip(messages, rows, strict=True)
    ]


def _batch_of(headers: list[tuple[str, bytes]]) -> Batch:
    found = dict(headers)
    return found["ce_source"].decode(), int(found["ce_id"])


def _decoded(values: list[bytes]) -> list[Row | None]:
    engine, rows = engine_for(parse(SCHEMA)), dict[int, Row]()
    for group in strip_frames(Packed.of(values)):
        decoded = engine.decode(group.datums).to_pylist()
        for index, row in zip(group.indexes.tolist(), decoded, strict=True):
            rows[index] = (row["permit_no"], row["version"], row["district"])
    return [rows.get(index) for index in range(len(values))]


def _receipts(stage: Stage) -> dict[Batch, Receipt]:
    query = sa.text("SELECT lane, sequence, root, runs, keys FROM audit_receipt")
    sealed = AuditPseudonyms(FileSecrets.open(stage.data / "secrets"), lambda: time.time_ns() // 1000)
    with stage.engine() as engine, engine.connect() as connection:
        found = {}
        for row in connection.execute(query):
            runs = [[*row.runs[at : at + 3]] for at in range(0, len(row.runs), 3)]
            keys = sealed.open(bytes(row.keys)) if row.keys else None
            found[row.lane, row.sequence] = Receipt(
                root=bytes(row.root),
                runs=runs,
                keys=None if keys is None else [keys[at : at + 16] for at in range(0, len(keys), 16)],
                count=sum(run[2] - run[1] + 1 for run in runs),
            )
        return found


def _releases(stage: Stage) -> dict[str, Release]:
    query = sa.text("SELECT leaf FROM audit_entry WHERE action = :action AND decision = 'allow'")
    found: dict[str, Release] = {}
    with stage.engine() as engine, engine.connect() as connection:
        for row in connection.execute(query, {"action": str(Action.FETCH)}):
            entry = json.loads(bytes(row.leaf))
            data = entry["data"]
            offsets = unpack_offsets(tuple(data["from"]), tuple(data["to"]), data["delivered"])
            found[entry["id"]] = Release(
                grant=entry["grant"]["id"],
                delivered={(number, offset) for number, some in enumerate(offsets) for offset in some},
                withdrawn=data.get("withdrawn_count", 0),
                root=data["root"],
            )
    return found


def _last(batches: Any) -> dict[str, int]:
    last: dict[str, int] = {}
    for lane, sequence in batches:
        last[lane] = max(last.get(lane, 0), sequence)
    return last


def _differences(has: dict[str, Row], expected: dict[str, Row]) -> int:
    return sum(has.get(permit) != expected.get(permit) for permit in {*has, *expected})
