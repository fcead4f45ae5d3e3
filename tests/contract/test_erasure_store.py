"""What every store of erasures keeps true, in memory and on PostgreSQL; and the list outside the database."""

import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.erasure.erasures import Erasure, ErasureState, ErasureStore, MemoryErasures
from exchange.erasure.postgres_erasures import PostgresErasures
from exchange.erasure.tables import metadata
from exchange.server.erasure_list import FileErasureList
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.names import Topic
from tests.kit.row_tags import row_tags

NOW = datetime(2026, 5, 4, tzinfo=UTC)
PROPOSED = Erasure(
    id="0198c0de-0000-7000-8000-0000000000a1",
    topic=Topic.parse("permits.v1"),
    key=bytes(range(16)),
    partition=3,
    reason="撤回同意",
    state=ErasureState.PROPOSED,
    proposed_by="one",
    proposed_at=NOW,
)
CONFIRMED = PROPOSED.decide(confirmed=True, by="two", at=NOW, before=77)
KEY = b"k" * 32


@dataclass
class Home:
    store: ErasureStore
    db: Database

    def change(self, changed: Erasure, expected: ErasureState) -> None:
        with self.db.begin() as work:
            self.store.change(work, changed, expected)

    def get(self) -> Erasure | None:
        with self.db.read() as reader:
            return self.store.get(reader, PROPOSED.id)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        made = Home(MemoryErasures(), MemoryDatabase())
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        made = Home(PostgresErasures(row_tags()), PostgresDatabase(engine))
    with made.db.begin() as work:
        made.store.add(work, PROPOSED)
    return made


def test_an_erasure_is_read_back_in_each_of_its_states(home: Home) -> None:
    assert home.get() == PROPOSED
    done = CONFIRMED.complete(destroyed=4, at=NOW)
    for changed, expected in ((CONFIRMED, ErasureState.PROPOSED), (done, ErasureState.CONFIRMED)):
        home.change(changed, expected)
        assert home.get() == changed
    with home.db.read() as reader:
        assert list(home.store.list(reader)) == [done]
        assert list(home.store.list(reader, ErasureState.CONFIRMED)) == []
        assert home.store.get(reader, "0198c0de-0000-7000-8000-0000000000a2") is None


def test_of_two_who_decide_one_does(home: Home) -> None:
    home.change(CONFIRMED, ErasureState.PROPOSED)
    with pytest.raises(ConflictError) as error:
        home.change(replace(CONFIRMED, state=ErasureState.REJECTED), ErasureState.PROPOSED)
    assert error.value.reason is Reason.TRANSITION_NOT_ALLOWED
    assert home.get() == CONFIRMED


def test_an_erasure_is_decided_once_and_done_after_it_is_confirmed() -> None:
    with pytest.raises(ConflictError):
        CONFIRMED.decide(confirmed=False, by="two", at=NOW, before=None)
    with pytest.raises(ConflictError):
        PROPOSED.complete(destroyed=1, at=NOW)


@pytest.mark.postgres
def test_the_database_refuses_a_decision_of_the_proposer(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    store, db = PostgresErasures(row_tags()), PostgresDatabase(engine)
    with pytest.raises(Exception, match="erasure_request_two_persons"), db.begin() as work:
        store.add(work, replace(CONFIRMED, decided_by="one"))


def test_the_list_gives_back_what_was_confirmed_whatever_a_crash_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "erasures.jsonl"
    listed = FileErasureList(file, lambda: KEY)
    assert listed.all() == []
    listed.add(CONFIRMED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open("a") as half:
        half.write('{"id": "0198')
    assert listed.all() == [CONFIRMED]
    second = replace(CONFIRMED, id="0198c0de-0000-7000-8000-0000000000a9", before=99)
    listed.add(second)
    assert listed.all() == [CONFIRMED, second]
    with file.open("a") as other:
        other.write('{"id": "a line of another form"}\n')
    with pytest.raises(CorruptError):
        listed.all()


@pytest.mark.parametrize("key", [b"o" * 32, None])
def test_a_line_that_the_pool_did_not_write_destroys_nothing(tmp_path: Path, key: bytes | None) -> None:
    file = tmp_path / "erasures.jsonl"
    FileErasureList(file, lambda: key or KEY).add(CONFIRMED)
    if key is None:
        file.write_text(file.read_text().replace('"before": ', '"before": 9'))
    with pytest.raises(CorruptError, match="no erasure that this pool wrote"):
        FileErasureList(file, lambda: KEY).all()
