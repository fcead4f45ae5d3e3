"""What a search finds is compared with the signed log, or checked by its tag, and named as damaged where it differs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.entry_tags import EntryTags
from exchange.audit.postgres import PostgresEntries
from exchange.audit.search.authenticity import SignedHashes
from exchange.audit.store import EntryQuery
from schemas.merkle import leaf_hash
from tests.kit.cases.audit import LogWorld, postgres_world
from tests.kit.row_tags import ENTRY_KEYS, entry_tags

pytestmark = pytest.mark.postgres
SIGNED, WAITING = 600, 5
_COLUMNS = "at, action, decision, actor_department, resource, grant_id, purpose, case_number, actor, reason"


class Log(LogWorld):
    """A log of 600 signed entries and 5 that wait, and the one who administers its database."""

    engine: sa.Engine

    def entries(self, tags: EntryTags | None = None) -> PostgresEntries:
        return PostgresEntries(self.engine, tags or entry_tags(), SignedHashes(self.folder))

    def do(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            assert connection.execute(sa.text(statement), values).rowcount == 1, "the attack did nothing"

    def damaged(self, tags: EntryTags | None = None) -> list[int]:
        """Return the rows, counted from the oldest, that a search names as damaged."""
        found = self.entries(tags).find(EntryQuery(limit=1_000))
        return sorted(one.place.row - 1 for one in found if one.entry() is None)

    def row(self, number: int) -> tuple[bytes, bytes]:
        with self.engine.connect() as connection:
            found = connection.execute(
                sa.text("SELECT leaf, leaf_hash FROM audit_entry WHERE seq = :seq"), {"seq": number + 1}
            ).one()
        return bytes(found.leaf), bytes(found.leaf_hash)

    def put(self, number: int, leaf: bytes) -> None:
        """Put a leaf with its hash in place of an entry's."""
        self.do(
            "UPDATE audit_entry SET leaf = :leaf, leaf_hash = :hash WHERE seq = :seq",
            leaf=leaf, hash=leaf_hash(leaf), seq=number + 1,
        )  # fmt: skip

    def insert(self, leaf: bytes, tag: bytes | None) -> None:
        self.do(
            f"INSERT INTO audit_entry (id, leaf, leaf_hash, tag, {_COLUMNS}) "
            f"SELECT gen_random_uuid(), :leaf, :hash, :tag, {_COLUMNS} FROM audit_entry WHERE seq = 1",
            leaf=leaf, hash=leaf_hash(leaf), tag=tag,
        )  # fmt: skip


@pytest.fixture
def log(engine: sa.Engine, tmp_path: Path) -> Iterator[Log]:
    with postgres_world(engine) as world:
        log = Log(world, tmp_path / "log")
        log.engine = engine
        ledger = world.ledger()
        log.fill(ledger, SIGNED)
        log.sequencer().step()
        log.fill(ledger, WAITING)
        yield log


def changed(leaf: bytes, **members: Any) -> bytes:
    return json.dumps({**json.loads(leaf), **members}, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("number", [0, 255, 256, 599, 600, 604])
def test_a_leaf_that_was_changed_with_its_hash_is_damaged(log: Log, number: int) -> None:
    assert log.damaged() == []
    log.put(number, changed(log.row(number)[0], resource="another.v1"))
    assert log.damaged() == [number]


@pytest.mark.parametrize("number", [300, 602])
def test_another_entry_in_its_place_is_damaged(log: Log, number: int) -> None:
    log.put(number, log.row(7)[0])
    assert log.damaged() == [number]


@pytest.mark.parametrize("index", ["NULL", "leaf_index + 1000000", "-1 - leaf_index"])
def test_what_was_taken_out_of_the_signed_log_is_checked_by_its_tag(log: Log, index: str) -> None:
    log.do(f"UPDATE audit_entry SET leaf_index = {index} WHERE seq = 41")
    assert log.damaged() == ([40] if index.startswith("-") else []), "its tag is valid still"
    log.put(40, changed(log.row(40)[0], purpose="another"))
    assert log.damaged() == [40]


def test_what_somebody_inserted_is_damaged(log: Log) -> None:
    leaf = changed(log.row(0)[0], resource="invented.v1")
    log.insert(leaf, None)
    log.insert(changed(leaf, gateway="nobody#1"), bytes(32))
    log.insert(b"{}", bytes(32))
    assert log.damaged() == [SIGNED + WAITING, SIGNED + WAITING + 1, SIGNED + WAITING + 2]


def test_a_role_that_there_is_not_makes_no_entry_genuine(log: Log) -> None:
    log.do("INSERT INTO audit_process (process, role, tag) VALUES ('ghost', 'invented', :tag)", tag=bytes(32))
    log.insert(changed(log.row(0)[0], gateway="ghost#1"), None)
    assert log.damaged() == [SIGNED + WAITING]


def test_an_earlier_entry_with_its_tag_is_not_signed_once_more_nor_in_another_s_place(log: Log) -> None:
    with log.engine.connect() as connection:
        tag = connection.execute(sa.text("SELECT tag FROM audit_entry WHERE seq = 8")).scalar_one()
    log.insert(log.row(7)[0], bytes(tag))
    log.put(602, log.row(7)[0])
    log.do("UPDATE audit_entry SET tag = :tag WHERE seq = 603", tag=bytes(tag))
    log.sequencer().step()
    with log.engine.connect() as connection:
        refused = connection.execute(sa.text("SELECT seq FROM audit_entry WHERE refused ORDER BY seq")).scalars().all()
    assert refused == [603, SIGNED + WAITING + 1]


def test_a_process_says_nothing_of_what_it_cannot_judge(log: Log) -> None:
    others = EntryTags({"registry": ENTRY_KEYS["registry"]}, "registry")
    assert log.damaged(others) == [], "entries of gateways wait, and this process has no key of theirs"
    log.put(3, changed(log.row(3)[0], resource="another.v1"))
    log.put(601, changed(log.row(601)[0], resource="another.v1"))
    assert log.damaged(others) == [3], "the signed log is there for everybody"
    (log.folder / "tile/0/000").unlink()
    assert log.damaged() == [601], "without the tile it is as before; verification says that it is missing"
    (log.folder / "checkpoint").unlink()
    assert log.damaged() == [601]


def test_a_log_that_grows_is_read_on(log: Log) -> None:
    entries = log.entries()
    assert all(one.entry() for one in entries.find(EntryQuery(limit=1_000)))
    log.sequencer().step()
    log.fill(log.world.ledger(), 300)
    log.sequencer().step()
    assert all(one.entry() for one in entries.find(EntryQuery(limit=1_000)))
    log.put(604, changed(log.row(604)[0], resource="another.v1"))
    assert [one.index for one in entries.find(EntryQuery(limit=1_000)) if one.entry() is None] == [604]
