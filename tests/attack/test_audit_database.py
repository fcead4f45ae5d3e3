"""Attacks on the database by whoever administers it. The files prove the leaves, the leaves prove the rows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.audit.note import checkpoint_text, sign_note
from exchange.audit.postgres import PostgresEntries
from exchange.audit.sequencer import Sequencer
from exchange.audit.verify import BEHIND, VerificationReport
from exchange.audit.verify_database import GrantRow, verify_database
from schemas.access import Action
from schemas.audit import Checkpoint
from schemas.errors import CorruptError
from schemas.merkle import leaf_hash
from tests.kit.cases.audit import ORIGIN, LogWorld, postgres_world

pytestmark = pytest.mark.postgres

SUBMITTED, GRANT = GrantRow("g-1", 1, "aa" * 32), GrantRow("g-1", 3, "cc" * 32)
VERSIONS = [replace(SUBMITTED, is_current=False), replace(GRANT, is_current=False)]


class Pool:
    """A pool's log in files and database: a grant, publications, releases, and some more."""

    def __init__(self, engine: sa.Engine, log: LogWorld) -> None:
        self.engine = engine
        self.log = log
        self.ledger = log.world.ledger()
        make = log.world.make
        self.sequencer = log.sequencer()
        log.world.write(self.ledger, *[make.publish(k) for k in range(1, 6)])
        log.world.write(
            self.ledger, make.grant(1, "aa" * 32, Action.GRANT_SUBMIT), make.grant(GRANT.version, GRANT.hash)
        )
        log.world.write(self.ledger, *[make.fetch(10 * k, 10 * k + 10) for k in range(3)])
        self.sequencer.step()
        self.kept = log.note()
        log.fill(self.ledger, 300)
        self.sequencer.step()

    def do(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            done = connection.execute(sa.text(statement), values)
            assert done.rowcount != 0, "the attack did nothing"

    def verify(self, *grants: GrantRow) -> VerificationReport:
        return verify_database(
            self.engine,
            self.log.folder,
            key=self.log.signer.key,
            since=self.kept,
            grants=lambda _: grants or [GRANT, *VERSIONS],
        )


@pytest.fixture
def pool(engine: sa.Engine, tmp_path: Path) -> Iterator[Pool]:
    with postgres_world(engine) as world:
        yield Pool(engine, LogWorld(world, tmp_path / "log"))


def kinds(report: VerificationReport) -> set[tuple[str, int | None]]:
    return {(finding.kind, finding.index) for finding in report.findings}


def test_what_nobody_touched_is_in_order(pool: Pool) -> None:
    report = pool.verify()
    assert report.findings == []
    assert report.entries == 310


def test_a_backlog_that_nobody_signs_is_said_and_ends_with_a_code_of_its_own(pool: Pool) -> None:
    report = pool.verify()
    assert report.signing is not None
    assert (report.signing.unsigned, report.exit_code) == (0, 0)
    assert "no entry waits to be signed" in report.lines()[-2]
    make = pool.log.world.make
    make.now = time.time_ns() // 1000 - 61_000_000
    pool.log.world.write(pool.ledger, make.publish(6))
    make.now = time.time_ns() // 1000
    pool.log.world.write(pool.ledger, make.publish(7))
    assert pool.log.world.log.assign_indexes(1) == 1  # placed, and no checkpoint covers it
    report = pool.verify()
    assert (report.ok, report.exit_code) == (True, BEHIND)
    assert report.signing is not None
    assert report.signing.unsigned == 2
    assert 61 <= (report.signing.oldest or 0) < 3_600
    assert "2 entries wait to be signed" in report.lines()[-2]
    assert report.lines()[-1].endswith("nothing is wrong in what is signed")
    assert report.document()["signing"]["behind"] is True
    assert report.document()["exit_code"] == BEHIND
    with pool.engine.begin() as connection:
        connection.execute(sa.text("UPDATE audit_entry SET leaf = '\\x7b7d' WHERE leaf_index = 8"))
    assert pool.verify().exit_code == 1, "what is wrong comes first"


def test_a_log_that_goes_on_meanwhile_is_in_order(pool: Pool) -> None:
    make = pool.log.world.make
    pool.log.world.write(pool.ledger, make.publish(6), make.grant(4, "dd" * 32, Action.GRANT_SUSPEND))
    assert (
        pool.verify(
            replace(GRANT, version=4, hash="dd" * 32), *VERSIONS, GrantRow("g-1", 4, "dd" * 32, is_current=False)
        ).findings
        == []
    )
    assert pool.log.world.log.assign_indexes(10) == 2
    assert (
        pool.verify(
            replace(GRANT, version=4, hash="dd" * 32), *VERSIONS, GrantRow("g-1", 4, "dd" * 32, is_current=False)
        ).findings
        == []
    )


ROWS = [
    (
        "bytes of a row changed",
        "UPDATE audit_entry SET leaf = set_byte(leaf, 5, 120) WHERE leaf_index = 8",
        {("row.changed", 8)},
    ),
    (
        "row changed, its hash made to fit",
        "UPDATE audit_entry SET leaf = '\\x7b7d', leaf_hash = sha256('\\x007b7d') WHERE leaf_index = 8",
        {("row.changed", 8)},
    ),
    ("a hash changed", "UPDATE audit_entry SET leaf_hash = sha256('x') WHERE leaf_index = 8", {("row.changed", 8)}),
    ("a row deleted", "DELETE FROM audit_entry WHERE leaf_index = 20", {("row.missing", 20)}),
    ("the last row deleted", "DELETE FROM audit_entry WHERE leaf_index = 309", {("row.missing", 309)}),
    (
        "a row put back in the queue",
        "UPDATE audit_entry SET leaf_index = NULL WHERE leaf_index = 9",
        {("row.missing", 9)},
    ),
    (
        "two rows swapped",
        (
            "UPDATE audit_entry SET leaf_index = -1 WHERE leaf_index = 7;"
            "UPDATE audit_entry SET leaf_index = 7 WHERE leaf_index = 8;"
            "UPDATE audit_entry SET leaf_index = 8 WHERE leaf_index = -1"
        ),
        {("row.changed", 7), ("row.changed", 8)},
    ),
    (
        "a row copied into a free place, before the first",
        (
            "INSERT INTO audit_entry (id, leaf, leaf_hash, leaf_index, at, action, decision, actor_department,"
            " resource, grant_id, purpose, case_number) SELECT gen_random_uuid(), leaf, leaf_hash, -5, at, action,"
            " decision, actor_department, resource, grant_id, purpose, case_number FROM audit_entry"
            " WHERE leaf_index = 8"
        ),
        {("row.extra", -5)},
    ),
    (
        "a search column that hides an entry",
        "UPDATE audit_entry SET actor_department = 'somebody else' WHERE leaf_index = 8",
        {("row.column", 8)},
    ),
    ("a time that hides an entry", "UPDATE audit_entry SET at = 0 WHERE leaf_index = 8", {("row.column", 8)}),
    (
        "another id",
        "UPDATE audit_entry SET id = gen_random_uuid() WHERE leaf_index = 8",
        {("row.column", 8)},
    ),
    ("a receipt changed", "UPDATE audit_receipt SET root = '\\x00' WHERE sequence = 3", {("receipt.changed", 2)}),
    ("a receipt moved", "UPDATE audit_receipt SET runs = '{0,1,2}' WHERE sequence = 3", {("receipt.changed", 2)}),
    ("a receipt deleted", "DELETE FROM audit_receipt WHERE sequence = 5", {("receipt.missing", 4)}),
    (
        "a receipt made up",
        (
            "INSERT INTO audit_receipt SELECT lane, 99, root, runs, gen_random_uuid(), leaf_hash, source_position,"
            " signature, keys FROM audit_receipt WHERE sequence = 3"
        ),
        {("receipt.extra", None)},
    ),
    (
        "a receipt given to another entry",
        "UPDATE audit_receipt SET entry_id = (SELECT id FROM audit_entry WHERE leaf_index = 8) WHERE sequence = 3",
        {("receipt.missing", 2), ("receipt.changed", 8)},
    ),
    (
        "a stored checkpoint changed",
        "UPDATE audit_checkpoint SET root = sha256('x') WHERE size = 10",
        {("checkpoint.row", None)},
    ),
    (
        "a stored checkpoint made up",
        "INSERT INTO audit_checkpoint SELECT 11, root, note, at FROM audit_checkpoint WHERE size = 10",
        {("checkpoint.row", None)},
    ),
    (
        "a checkpoint of the future made up",
        "INSERT INTO audit_checkpoint SELECT 5000, root, note, at FROM audit_checkpoint WHERE size = 10",
        {("checkpoint.row", None)},
    ),
]


@pytest.mark.parametrize(("statement", "expected"), [case[1:] for case in ROWS], ids=[case[0] for case in ROWS])
def test_a_touched_row_is_named(pool: Pool, statement: str, expected: set[tuple[str, int | None]]) -> None:
    pool.do(statement)
    report = pool.verify()
    assert kinds(report) == expected
    assert report.exit_code == 1


def test_a_second_tree_signed_with_the_real_key_is_named(pool: Pool) -> None:
    forked = Checkpoint(origin=ORIGIN, size=5, root=bytes(32))
    note = sign_note(checkpoint_text(forked), [pool.log.signer])
    pool.do("INSERT INTO audit_checkpoint VALUES (5, :root, :note, 0)", root=forked.root, note=note)
    assert kinds(pool.verify()) == {("checkpoint.row", None)}


def test_all_rows_removed_is_found_and_nothing_more_is_signed(pool: Pool) -> None:
    pool.do("TRUNCATE audit_entry, audit_checkpoint")
    report = pool.verify()
    assert report.counts["row.missing"] == 310
    # The sequencer would begin a second log in the same folder: it must not.
    pool.log.fill(pool.ledger, 1)
    with pytest.raises(CorruptError):
        pool.log.sequencer().step()


def test_an_entry_deleted_before_it_has_a_place_leaves_a_hole(pool: Pool) -> None:
    pool.log.fill(pool.ledger, 10)
    pool.do("DELETE FROM audit_entry WHERE seq = (SELECT min(seq) + 4 FROM audit_entry WHERE leaf_index IS NULL)")
    pool.sequencer.step()
    assert kinds(pool.verify()) == {("counter.gap", 314)}


def test_an_entry_changed_before_it_has_a_place_is_named(pool: Pool) -> None:
    pool.log.fill(pool.ledger, 3)
    pool.do("UPDATE audit_entry SET leaf = set_byte(leaf, 5, 120) WHERE leaf_index IS NULL")
    assert kinds(pool.verify()) == {("row.waiting", None)}
    assert pool.sequencer.step().placed == 0
    assert kinds(pool.verify()) == {("entry.refused", None)}


FORGED = [
    ("a field added to the grant", [replace(GRANT, hash="ab" * 32)], ["grant.forged"]),
    ("a row that cannot be read", [replace(GRANT, hash="")], ["grant.forged"]),
    ("a grant made up", [GRANT, GrantRow("g-2", 1, "ab" * 32)], ["grant.forged"]),
    ("a version made up", [replace(GRANT, version=4)], ["grant.forged"]),
    ("an old version put back", [SUBMITTED], ["grant.old"]),
    ("a column by which it is found", [replace(GRANT, differing=("consumer",))], ["grant.column"]),
    ("a grant removed", [], ["grant.gone"]),
]


@pytest.mark.parametrize(("rows", "expected"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_a_forged_grant_is_named(pool: Pool, rows: Sequence[GrantRow], expected: Sequence[str]) -> None:
    report = pool.verify(*rows, *VERSIONS)
    assert report.counts == dict.fromkeys(expected, 1)


def test_a_version_of_a_grant_that_was_changed_or_removed_is_named(pool: Pool) -> None:
    assert pool.verify(GRANT, replace(VERSIONS[0], hash="cc" * 32), VERSIONS[1]).counts == {"grant.forged": 1}
    assert pool.verify(GRANT, VERSIONS[1]).counts == {"grant.gone": 1}


def test_with_the_real_key_history_is_still_bound_to_the_checkpoint_outside(pool: Pool, tmp_path: Path) -> None:
    """The administrator has everything: rows, files and the signing key. What he lacks is the auditor's notebook."""
    pool.do("DELETE FROM audit_receipt WHERE sequence = 5")
    pool.do("DELETE FROM audit_entry WHERE leaf_index = 4")
    pool.do("UPDATE audit_entry SET leaf_index = leaf_index - 1001 WHERE leaf_index > 4")
    pool.do("UPDATE audit_entry SET leaf_index = leaf_index + 1000 WHERE leaf_index < 0")
    pool.do("DELETE FROM audit_checkpoint")
    pool.log.folder = tmp_path / "forged"
    forged = Sequencer(
        pool.log.world.log,
        pool.log.folder,
        signer=pool.log.signer,
        origin=ORIGIN,
        clock=pool.log.clock,
    )
    forged.step()
    found = kinds(pool.verify())
    assert {("since.fork", None), ("counter.gap", 4)} == found


def test_a_process_does_not_give_a_number_twice_though_its_sequence_was_set_back(pool: Pool) -> None:
    """It keeps the counters: what it would write is refused, and it goes on with another sequence."""
    pool.log.fill(pool.ledger, 1)
    pool.do("DELETE FROM audit_entry WHERE leaf_index IS NULL")
    pool.do("UPDATE audit_line SET counter = counter - 1")
    with pytest.raises(CorruptError, match="another program has changed its row"):
        pool.log.fill(pool.ledger, 1)
    pool.log.fill(pool.ledger, 1)
    pool.sequencer.step()
    assert pool.verify().ok
    assert isinstance(pool.log.world.entries, PostgresEntries)


def test_the_last_numbers_of_a_process_that_is_gone_can_be_taken_back(pool: Pool) -> None:
    """Nobody is left who knows them, so that nothing is missing.

    What remains is the receipt or the answer that somebody holds, with the id and the hash of an entry that is not
    in the log: the limit that the documents state.
    """
    pool.log.fill(pool.ledger, 1)
    pool.do("DELETE FROM audit_entry WHERE leaf_index IS NULL")
    pool.do("UPDATE audit_line SET counter = counter - 1")
    pool.log.fill(pool.log.world.ledger(), 1)
    pool.sequencer.step()
    assert pool.verify().ok


@pytest.mark.parametrize("gateway", ["gw9\\u0000@019a#1", "gw9\\ud800@019a#1", "\\ud800"])
def test_a_row_of_a_process_whose_name_no_text_holds_does_not_stop_the_sequencer(pool: Pool, gateway: str) -> None:
    """JSON can state what a column of text, or UTF-8, cannot."""
    leaf = f'{{"gateway":"{gateway}"}}'.encode()
    pool.do(
        "INSERT INTO audit_entry (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id,"
        " purpose, case_number, tag) SELECT gen_random_uuid(), :leaf, :hash, at, action, decision, actor_department,"
        " resource, grant_id, purpose, case_number, tag FROM audit_entry WHERE leaf_index = 4",
        leaf=leaf,
        hash=leaf_hash(leaf),
    )
    pool.log.fill(pool.ledger, 3)
    assert pool.sequencer.step().placed == 3
    assert kinds(pool.verify()) == {("entry.refused", None)}
