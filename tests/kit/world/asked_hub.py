"""Look-ups in a running pool: the services of a gateway on its data folder, and golden records of a few persons.

The pool serves as ever, in its own process; what a look-up needs is opened here, as a second gateway would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from exchange.access.predicates.postgres import PostgresPredicates
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.request_context import RequestContext
from exchange.config import Config
from exchange.hub.fold.claim import Position
from exchange.hub.fold.golden import NO_FLAG, Provenance, Source, pack_provenance
from exchange.hub.fold.identity import Handle, bucket_of, handle_of, identifier
from exchange.hub.fold.rules import parse as parse_rules
from exchange.hub.services.rule_changes import RulesState, RulesVersion
from exchange.hub.store.model import RESTRICTED, GoldenFlag, GoldenRow, Mark
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.sealing import golden_context, seal
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from exchange.lookups.golden_reading import GoldenReading
from exchange.lookups.lookup import LookupService
from exchange.lookups.subjects import Subject
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.process_keys import ProcessKeys
from exchange.server.assembly.records import open_records
from exchange.server.assembly.storage import open_database
from exchange.server.clock import microseconds
from exchange.server.roles import Role
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from registry.database.unit_of_work import Reader, connection_of, take_row_changes
from schemas import library
from schemas.access import Actor
from schemas.names import Topic
from schemas.record import frame
from tests.kit.cases.hub_rows import Vault
from tests.kit.world.world import World

TOPIC: Final = "hub-population.v1"
CALL: Final = RequestContext(trace="0" * 32, purpose="eligibility", case="STANDING-1")
HERE: Final = "310104"
NAME: Final = "欧阳示例"
OLD: Final = date(1940, 3, 7)


def number(person: int) -> str:
    return f"3101041940030{person:04}X"


def subjects(*persons: int) -> list[Subject]:
    return [Subject("ric18", number(one)) for one in persons]


class AskedHub:
    """A department that keeps the library, one that asks, and the services.

    Args:
        world: the running pool.
        core: of a gateway on it.
    """

    def __init__(self, world: World, core: Dependencies) -> None:
        self.world, self.core = world, core
        self.keeper, self.asker = world.department("数据局"), world.department("民政局")
        self.keeper.offer(TOPIC, library.text("population"), code="101001/000003")
        self.identity = self.asker.enrol("asker")
        self.vault = Vault.new()
        self.store, self.rules = PostgresHub(core.tags), PostgresRules(core.tags)
        self.records = open_records(core)
        self.db = core.storage.database
        with self.db.read() as reader:
            self.schema_id, text = self.records.schemas.latest(reader, Topic.parse(TOPIC))
        self.schema = parse(text)
        self.fields = sorted(field.name for field in self.schema.fields)
        made = {name: {"rule": "lead", "order": ["population.v1"]} for name in self.fields}
        version = RulesVersion(
            rules=parse_rules({"library": "population", "version": 1, "fields": made}), state=RulesState.ACTIVE,
            based_on=0, departments=(), proposed_by="a", proposed_at=datetime.now(UTC),
        )  # fmt: skip
        with self.db.begin() as work:
            self.rules.add(work, version)
            take_row_changes(work)
        self.service = LookupService(
            database=self.db,
            enforcer=core.audit.enforcer,
            ledger=core.audit.ledger,
            attributes=core.authorization.attributes,
            predicates=PostgresPredicates(core.tags),
            golden=GoldenReading(self.db, self.store, self.rules, self.vault.keys),
            keys=self.vault.keys,
            schemas=self.records.schemas,
            views=self.records.views,
            pseudonyms=AuditPseudonyms(core.keys.secrets, microseconds),
            restored=core.restored,
            serving=core.serving,
            window=core.window,
            clock=microseconds,
        )
        self.actor: Actor = core.identity.certificates.authenticate(self.identity.certificate, datetime.now(UTC))

    def handle(self, person: int) -> Handle:
        return handle_of(self.vault.keys.handle_key(), identifier("ric18", number(person)))

    def add(self, person: int, **values: Any) -> None:
        """Add a person's golden record, as a step of the hub does."""
        said: dict[str, Any] = {
            "id_type": "ric18", "id_number": number(person), "full_name": NAME, "sex_code": "1", "birth_date": OLD,
            "ethnicity_code": "01", "nationality_code": "CHN", "household_division_code": HERE,
            "household_address": "某路1号", "is_minor_under_14": False, "death_flag": False,
        } | values  # fmt: skip
        handle = self.handle(person)
        engine = engine_for(self.schema)
        rows = [{name: said.get(name) for name in engine.schema.names}]
        (datum,) = engine.encode(pa.RecordBatch.from_pylist(rows, schema=engine.schema))
        source = Source(Position(1, 1, 0, person), b"i" * 16, 0, None, microseconds(), assumed=False)
        cells = tuple((None if said.get(name) is None else 0, NO_FLAG) for name in self.fields)
        row = GoldenRow(
            handle=handle, library="population", rules=1, applied=1, flags=GoldenFlag(0), sealed=b"",
            prov=pack_provenance(Provenance(1, None, (source,), cells)),
        )  # fmt: skip
        sealed = seal(self.vault.key(handle), golden_context(row), frame(self.schema_id, datum))
        with self.db.begin() as work:
            self.store.next_batch(work, [bucket_of(handle)], microseconds(), "")
            self.store.add_keys(work, [self.vault.row(handle)])
            self.store.put_golden(work, [replace(row, sealed=sealed)])
            take_row_changes(work)

    def hide(self, erased: int, restricted: int) -> None:
        mark = Mark(
            handle=self.handle(restricted), library="population", field="", kind=RESTRICTED, from_applied=1,
            to_applied=None, ticket="T-1",
        )  # fmt: skip
        with self.db.begin() as work:
            self.store.erase_key(work, self.handle(erased), microseconds())
            self.store.add_mark(work, mark)
            take_row_changes(work)

    def granted(self, **terms: Any) -> str:
        usual: dict[str, Any] = {"access_mode": "lookup", "batch_max": 1_000}
        usual["row_filter"] = {"op": "eq", "field": "household_division_code", "value": HERE}
        usual |= {"filter_discloses": ["household_division_code"], "disclosure_reason": "本区业务"}
        fields = terms.pop("fields", ["full_name", "birth_date"])
        grant = self.asker.request(TOPIC, fields, **(usual | terms))
        self.keeper.approve(grant)
        return grant

    def lookup(self, grant: str, *persons: int) -> Any:
        return self.service.lookup(self.actor, CALL, grant, subjects(*persons))

    def verify(self, grant: str, predicate: str, *persons: int) -> Any:
        return self.service.verify(self.actor, CALL, grant, predicate, subjects(*persons))


@contextmanager
def asked_hub() -> Iterator[AskedHub]:
    """Run a pool and return look-ups in it."""
    with World.start() as world:
        config = Config.load(world.data)
        roles = frozenset({Role.GATEWAY})
        _, url = open_database(config, own=False)
        keys = ProcessKeys.read(config, roles)
        core = Dependencies.open(config, keys, roles, url, engines=0, window=RELEASE_WINDOW, now=_now)
        try:
            yield AskedHub(world, core)
        finally:
            core.workers.close()
            core.storage.engine.dispose()
            core.storage.autocommit.dispose()


def _now(reader: Reader) -> datetime:
    moment: datetime = connection_of(reader).execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    return moment
