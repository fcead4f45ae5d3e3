"""A pool in memory as the hub draws from it: topics with partitions, views in Avro, fetches of any size, commits."""

import hashlib
import json
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
from typing_extensions import override

from exchange.hub.drawing.source import DrawnRecord, HubSource, Release
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.record import Operation, frame

PARTITIONS: Final = 2
_NULLABLE: Final = ("full_name", "mobile_phone", "sex_code", "titles", "other_type", "other_number")


def schema_text(name: str) -> str:
    """Return the schema of a resource of persons; each of its records names one, and may name another number."""
    fields = [{"name": name, "type": "string"} for name in ("id_type", "id_number")]
    fields += [{"name": name, "type": ["null", "string"], "default": None} for name in _NULLABLE]  # type: ignore[misc]
    return json.dumps({"type": "record", "name": name, "namespace": "test", "fields": fields})


@dataclass
class MemoryPool(HubSource):
    """The pool.

    Attributes:
        chance: of how much a fetch gives; None gives all.
        acknowledged: position that was committed last, by grant.
        fetches: how many there were.
    """

    chance: random.Random | None = None
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    fetches: int = 0
    clock: int = 1_000
    _topics: dict[str, list[list[DrawnRecord]]] = field(default_factory=dict)
    _schemas: dict[int, str] = field(default_factory=dict)

    def add(self, grant: str) -> None:
        """Add a resource, drawn under a grant."""
        self._topics[grant] = [[] for _ in range(PARTITIONS)]
        self._schemas[100 + len(self._schemas)] = schema_text(f"resource{len(self._schemas)}")

    def publish(
        self,
        grant: str,
        key: str,
        values: Mapping[str, Any] | None,
        operation: Operation = Operation.UPSERT,
        **times: int | None,
    ) -> DrawnRecord:
        """Append a record under its key; without values a void."""
        item = hashlib.sha256(f"{grant} {key}".encode()).digest()[:16]
        partition = item[0] % PARTITIONS
        records = self._topics[grant][partition]
        offset = records[-1].offset + (1 if item[1] % 3 else 2) if records else item[1] % 5
        self.clock += 1
        record = DrawnRecord(
            partition=partition, offset=offset, item=item, operation=Operation.VOID if values is None else operation,
            recorded_at=self.clock, value=b"" if values is None else self._encoded(grant, values), **times,
        )  # fmt: skip
        records.append(record)
        return record

    def records(self, grant: str) -> list[DrawnRecord]:
        """Return all that was published."""
        return [one for partition in self._topics[grant] for one in partition]

    @override
    def fetch(self, grant: str, position: bytes) -> Release:
        self.fetches += 1
        before = struct.unpack(f">{PARTITIONS}q", position) if position else (0,) * PARTITIONS
        found: list[DrawnRecord] = []
        after = list(before)
        caught_up = True
        for number, records in enumerate(self._topics[grant]):
            waiting = [one for one in records if one.offset >= before[number]]
            taken = len(waiting) if self.chance is None else self.chance.randint(0, len(waiting))
            caught_up &= taken == len(waiting)
            found += waiting[:taken]
            if taken:
                after[number] = waiting[taken - 1].offset + 1
        moved = struct.pack(f">{PARTITIONS}q", *after)
        return Release(
            records=found, generation=1, next_position=moved if found or position else position,
            entry=f"e{self.fetches}" if found else "", caught_up=caught_up,
        )  # fmt: skip

    @override
    def commit(self, grant: str, position: bytes) -> None:
        self.acknowledged[grant] = position

    @override
    def schema(self, schema_id: int) -> str:
        return self._schemas[schema_id]

    def damage(self, grant: str) -> None:
        """Make the value of a resource's last record one that nobody can decode."""
        for records in self._topics[grant]:
            if records:
                records[-1] = replace(records[-1], value=records[-1].value[:7])

    def _encoded(self, grant: str, values: Mapping[str, Any]) -> bytes:
        schema_id = 100 + [*self._topics].index(grant)
        engine = engine_for(parse(self._schemas[schema_id]))
        row = {name: values.get(name) for name in engine.schema.names}
        (datum,) = engine.encode(pa.RecordBatch.from_pylist([row], schema=engine.schema))
        return frame(schema_id, datum)
