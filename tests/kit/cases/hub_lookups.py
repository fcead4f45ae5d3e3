"""A library with a few golden records, and look-ups under one grant, for tests; the stores of either kind."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any, Final

import pyarrow as pa

from exchange.access.decision.parties import DepartmentProfile
from exchange.access.decision.roles import Standing
from exchange.access.predicates.model import PredicateState, RegisteredPredicate
from exchange.access.view.view import ViewSpec, compile_view, derive_schema
from exchange.authorization.attributes import GrantAttributes
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.hub.fold.claim import Position
from exchange.hub.fold.golden import NO_FLAG, FieldFlag, Provenance, Source, pack_provenance
from exchange.hub.fold.identity import Handle, bucket_of, handle_of, identifier
from exchange.hub.fold.rules import parse as parse_rules
from exchange.hub.services.rule_changes import RulesState, RulesVersion
from exchange.hub.store.model import GoldenFlag, GoldenRow, Mark
from exchange.hub.store.rules_store import MemoryRules, RulesStore
from exchange.hub.store.sealing import golden_context, seal
from exchange.hub.store.store import HubStore, MemoryHub
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from exchange.identity.secrets import MemorySecrets
from exchange.lookups.golden_reading import GoldenReading
from exchange.lookups.lookup import LookupService
from exchange.lookups.subjects import Subject
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.database.unit_of_work import Database, MemoryDatabase, UnitOfWork, take_row_changes
from schemas.access import AccessMode, AllOf, Compare, Grant, Level, MaskRule, Range
from schemas.audit import AuditEntry, GrantRef, from_leaf, to_leaf
from schemas.errors import Reason, RefusedError, UnavailableError
from schemas.names import Topic
from schemas.record import frame, unframe
from tests.kit.cases.grants import CONSUMER, NOW, PROVIDER, a_connector, a_grant, a_resource
from tests.kit.cases.hub_rows import Vault

TOPIC: Final = Topic.parse("hub-population.v1")
SCHEMA_ID: Final = 7
_DATE: Final = {"type": "int", "logicalType": "date"}
_TYPES: Final[dict[str, Any]] = {
    "birth_date": _DATE,
    "death_flag": "boolean",
    "full_name": "string",
    "household_division_code": "string",
    "mobile_phone": "string",
}
STORED: Final = ("birth_date", "death_flag", "full_name", "household_division_code", "id_number", "mobile_phone")
SCHEMA: Final = json.dumps(
    {
        "type": "record",
        "name": "population",
        "namespace": "hub",
        "fields": [
            {"name": "id_number", "type": "string"},
            *({"name": name, "type": ["null", kind], "default": None} for name, kind in _TYPES.items()),
        ],
    }
)
NO_FLAGS: Final = GoldenFlag(0)
CALL: Final = RequestContext(trace="0" * 32, purpose="eligibility", case="HR-2026-0007")
MICROSECONDS: Final = int(NOW.timestamp() * 1_000_000)
ALIVE_80: Final = "alive-80/1"
AGED: Final = AllOf((Range("age", 80, None), Compare("eq", "death_flag", False)))
OLD: Final = date(1946, 5, 4)  # 80 on the day of NOW
HERE: Final = "310104"


def number(person: int) -> str:
    return f"1101051946050{person:04}X"


def subject(person: int) -> Subject:
    return Subject("ric18", number(person))


class Library:
    """A pool with golden records of persons, a grant on them, and the log.

    Args:
        db: of the hub's store.
        store: of golden records.
        rules: of the library.
    """

    def __init__(
        self, db: Database | None = None, store: HubStore | None = None, rules: RulesStore | None = None
    ) -> None:
        self.db, self.store, self.rules = db or MemoryDatabase(), store or MemoryHub(), rules or MemoryRules()
        self.vault = Vault.new()
        self.entries: list[AuditEntry] = []
        self.away = False
        self.now, self.passed = MICROSECONDS, 0.0
        self.asked = 0
        self.standing = Standing.ACTIVE
        self.grant = a_grant(
            topic=TOPIC,
            fields=("full_name", "birth_date", "mobile_phone"),
            masks=(("mobile_phone", MaskRule.KEEP_3_4),),
            row_filter=Compare("eq", "household_division_code", HERE),
            access_mode=AccessMode.LOOKUP,
            batch_max=1_000,
            quota_per_day=5_000,
        )
        self.predicates = [
            RegisteredPredicate(
                id="p1", name="alive-80", version=1, library="population", expression=AGED,
                answers="年满八十周岁且健在", replaces=("CERT-0031",), state=PredicateState.CONFIRMED, proposed_by="a",
                proposed_at=NOW,
            )
        ]  # fmt: skip
        made = parse_rules(
            {
                "library": "population",
                "version": 1,
                "fields": {name: {"rule": "lead", "order": ["population.v1"]} for name in STORED}
                | {"full_name": {"rule": "lead", "order": ["population.v1"], "fresh_days": 30}},
            }
        )
        with self.db.begin() as work:
            self.rules.add(
                work,
                RulesVersion(
                    rules=made, state=RulesState.ACTIVE, based_on=0, departments=(), proposed_by="a", proposed_at=NOW
                ),
            )
            take_row_changes(work)
        self.service = self.made()

    def made(self, **parts: Any) -> LookupService:
        made: Any = SimpleNamespace
        here: Any = self
        usual: dict[str, Any] = {
            "database": MemoryDatabase(),
            "enforcer": Enforcer(MemoryDatabase(), here, pool_id="test-pool", clock=lambda: self.now),
            "ledger": here,
            "attributes": made(
                grant=lambda _, wanted: self.attributes() if wanted == self.grant.id else None,
                standing_of=lambda *_: self.standing,
                lock_grant=lambda *_: self.attributes(),
                lock_standing=lambda *_: self.standing,
                add_released=self.add_released,
            ),
            "predicates": made(
                confirmed=lambda _, wanted: {p.reference: p for p in self.predicates if p.reference in wanted}
            ),
            "golden": GoldenReading(self.db, self.store, self.rules, self.vault.keys),
            "keys": self.vault.keys,
            "schemas": made(latest=lambda *_: (SCHEMA_ID, SCHEMA), text=lambda *_: SCHEMA),
            "views": made(apply=self.view),
            "pseudonyms": AuditPseudonyms(MemorySecrets(b"s" * 32), lambda: self.now),
            "restored": RestoreGuard(),
            "serving": ServingGuard(),
            "window": 0.5,
            "clock": lambda: self.now,
            "monotonic": lambda: self.passed,
        }
        return LookupService(**(usual | parts))

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        del work, last
        if self.away:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away")
        self.entries += [from_leaf(to_leaf(one)) for one in entries]
        return [b"leaf" for _ in entries]

    def attributes(self) -> GrantAttributes:
        grant = self.grant
        return GrantAttributes(
            grant=grant, reference=GrantRef(id=grant.id, version=grant.version, hash="sha256:" + "0" * 64),
            resource=a_resource(topic=TOPIC), consumer=DepartmentProfile(id=CONSUMER),
            provider=DepartmentProfile(id=PROVIDER), level=Level.G2, released_today=self.asked,
            now=datetime.fromtimestamp(self.now / 1_000_000, UTC),
        )  # fmt: skip

    def add_released(self, _work: object, grant: Grant, count: int) -> None:
        if grant.quota_per_day is not None and self.asked + count > grant.quota_per_day:
            raise RefusedError(Reason.QUOTA_EXHAUSTED, "over")
        self.asked += count

    def view(self, grant: Grant, values: Sequence[bytes | None]) -> Any:
        resource = parse(SCHEMA)
        output = derive_schema(resource, grant.fields, grant.masks, "hub.View")
        spec = ViewSpec(output=output, output_id=17, masks=grant.masks, row_filter=grant.row_filter, resource=SCHEMA)
        found = compile_view(spec, {SCHEMA_ID: resource}).apply(values)
        return SimpleNamespace(selected=found.kept, values=found.values)

    def shown(self, value: bytes) -> dict[str, Any]:
        """Return what a value of the grant's view says."""
        output = derive_schema(parse(SCHEMA), self.grant.fields, self.grant.masks, "hub.View")
        (row,) = engine_for(parse(output)).decode([unframe(value)[1]]).to_pylist()
        return dict(row)

    def handle(self, person: int) -> Handle:
        return handle_of(self.vault.keys.handle_key(), identifier("ric18", number(person)))

    def add(
        self,
        person: int,
        *,
        flags: GoldenFlag = NO_FLAGS,
        conflict: str = "",
        change: int | None = None,
        **values: Any,
    ) -> None:
        """Add a person's golden record, as a step does."""
        said: dict[str, Any] = {
            "id_number": number(person), "full_name": f"姓名{person}", "birth_date": OLD, "death_flag": False,
            "household_division_code": HERE, "mobile_phone": "13800138000",
        } | values  # fmt: skip
        handle = self.handle(person)
        source = Source(Position(1, 1, 0, person), b"i" * 16, 0, None, MICROSECONDS, assumed=False)
        fields = tuple(
            (None if said[name] is None else 0, FieldFlag.CONFLICT if name == conflict else NO_FLAG) for name in STORED
        )
        row = GoldenRow(
            handle=handle, library="population", rules=1, applied=1, flags=flags, sealed=b"",
            prov=pack_provenance(Provenance(1, change, (source,), fields)),
        )  # fmt: skip
        engine = engine_for(parse(SCHEMA))
        (datum,) = engine.encode(pa.RecordBatch.from_pylist([said], schema=engine.schema))
        key = self.vault.key(handle)
        sealed = replace(row, sealed=seal(key, golden_context(row), frame(SCHEMA_ID, datum)))
        with self.db.begin() as work:
            self.store.next_batch(work, [bucket_of(handle)], MICROSECONDS + person, "")
            with suppress(Exception):
                self.store.add_keys(work, [self.vault.row(handle)])
            self.store.put_golden(work, [sealed])
            take_row_changes(work)

    def mark(self, person: int, kind: str, field: str = "") -> None:
        with self.db.begin() as work:
            self.store.add_mark(
                work,
                Mark(handle=self.handle(person), library="population", field=field, kind=kind, from_applied=1,
                     to_applied=None, ticket="T-1"),
            )  # fmt: skip
            take_row_changes(work)

    def erase(self, person: int) -> None:
        with self.db.begin() as work:
            self.store.erase_key(work, self.handle(person), MICROSECONDS)
            take_row_changes(work)

    def verifies(self, *, fields: tuple[str, ...] = ("birth_date", "death_flag")) -> None:
        """Let the grant be one that answers ALIVE_80."""
        self.grant = replace(self.grant, access_mode=AccessMode.VERIFY, fields=fields, masks=(), predicates=(ALIVE_80,))

    def lookup(self, *persons: int, call: RequestContext = CALL, **terms: Any) -> Any:
        return self.service.lookup(
            a_connector(CONSUMER), call, self.grant.id, [subject(one) for one in persons], **terms
        )

    def verify(self, *persons: int, predicate: str = ALIVE_80) -> Any:
        return self.service.verify(
            a_connector(CONSUMER), CALL, self.grant.id, predicate, [subject(one) for one in persons]
        )
