"""What every store of share requests keeps true, in memory and on PostgreSQL."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from exchange.requests.life_cycle import advance
from exchange.requests.model import Event, RequestState, ShareRequest
from exchange.requests.postgres import PostgresRequests, metadata
from exchange.requests.store import MemoryRequests, RequestQuery, RequestStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import ConflictError, CorruptError, Reason
from tests.kit.cases.requests import CONSUMER, NOW, PROVIDER, STRANGER, a_draft, act, in_state, terms
from tests.kit.row_tags import row_tags

S, E = RequestState, Event


@dataclass
class Home:
    store: RequestStore
    db: Database

    def put(self, *requests: ShareRequest) -> None:
        with self.db.begin() as work:
            for request in requests:
                self.store.put(work, request)

    def get(self, request_id: str) -> ShareRequest | None:
        with self.db.read() as reader:
            return self.store.get(reader, request_id)

    def page(self, **query: object) -> list[str]:
        with self.db.read() as reader:
            found = self.store.page(reader, RequestQuery(**query))  # type: ignore[arg-type]
        return [one.cursor if isinstance(one, DamagedRow) else one.id for one in found]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return Home(MemoryRequests(), MemoryDatabase())
    return on_postgres(request.getfixturevalue("engine"))


def on_postgres(engine: sa.Engine) -> Home:
    metadata.create_all(engine)
    return Home(PostgresRequests(row_tags()), PostgresDatabase(engine))


def a_history() -> ShareRequest:
    """Return a request with something in every member."""
    request = in_state(S.SUBMITTED, sensitive=True, renews="0198c0de-0000-7000-9000-00000000000f")
    for event in (E.EXTEND, E.NEED_MORE, E.RESUBMIT, E.APPROVE, E.COUNTERSIGN, E.CONCLUDE, E.PROVISION, E.SUSPEND):
        request = advance(request, act(event, at=NOW + timedelta(hours=len(request.history))), terms())
    late = NOW + timedelta(days=1)
    return replace(request, pauses=((NOW, late),), overdue=("reply",))


def test_a_request_is_read_back_with_all_that_was_decided_on_it(home: Home) -> None:
    whole = a_history()
    assert home.get(whole.id) is None
    home.put(whole)
    assert home.get(whole.id) == whole
    draft = a_draft(id="d", use_until=None, mode=None)
    home.put(replace(draft, version=1))
    assert home.get("d") == replace(draft, version=1)


def test_a_later_version_takes_the_place_of_an_earlier_one_and_no_other_does(home: Home) -> None:
    first = in_state(S.SUBMITTED)
    second = advance(first, act(E.WITHDRAW), terms())
    home.put(first)
    home.put(second)
    for old in (first, second):
        with pytest.raises(ConflictError) as caught:
            home.put(old)
        assert caught.value.reason is Reason.VERSION_CONFLICT
    assert home.get(first.id) == second


def test_a_list_is_in_the_order_of_ids_and_follows_its_query(home: Home) -> None:
    made = [in_state(S.SUBMITTED, id=f"r{number}") for number in range(3)]
    made += [in_state(S.REJECTED, id="r3"), replace(in_state(S.SUBMITTED, id="r4"), consumer=STRANGER)]
    made += [replace(in_state(S.SUBMITTED, id="r5"), provider=CONSUMER, consumer=STRANGER)]
    home.put(*reversed(made))
    assert home.page() == ["r0", "r1", "r2", "r3", "r4", "r5"]
    assert home.page(after="r1", limit=2) == ["r2", "r3"]
    assert home.page(states=frozenset({S.REJECTED})) == ["r3"]
    assert home.page(consumer=STRANGER) == ["r4", "r5"]
    assert home.page(provider=PROVIDER, states=frozenset({S.SUBMITTED}), after="r1") == ["r2", "r4"]
    assert home.page(party=CONSUMER) == ["r0", "r1", "r2", "r3", "r5"]


def test_several_are_read_together_and_those_that_are_not_stored_are_left_out(home: Home) -> None:
    made = [in_state(S.SUBMITTED, id=f"r{number}") for number in range(3)]
    home.put(*made)
    with home.db.read() as reader:
        assert home.store.some(reader, ["r0", "r2", "r9"]) == {"r0": made[0], "r2": made[2]}
        assert home.store.some(reader, []) == {}


@pytest.mark.postgres
def test_a_row_that_the_pool_did_not_write_is_refused_and_named(engine: sa.Engine) -> None:
    home = on_postgres(engine)
    home.put(in_state(S.SUBMITTED, id="r0"), in_state(S.SUBMITTED, id="r1"))
    with engine.begin() as connection:
        forge = "UPDATE share_request SET text = replace(text, 'submitted', 'approved') WHERE id = 'r0'"
        connection.execute(sa.text(forge))
    for attempt in (
        lambda: home.get("r0"),
        lambda: home.put(replace(in_state(S.REJECTED, id="r0"), version=9)),
    ):
        with pytest.raises(CorruptError) as caught:
            attempt()
        assert caught.value.reason is Reason.ROW_FORGED
    with home.db.read() as reader:
        named, whole = home.store.page(reader, RequestQuery())
        some = home.store.some(reader, ["r0", "r1"])
    assert isinstance(named, DamagedRow)
    assert isinstance(some["r0"], DamagedRow)
    assert whole == some["r1"]
