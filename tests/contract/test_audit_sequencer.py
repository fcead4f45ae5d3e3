"""The sequencer over every store: what it signs, what it refuses to sign, and how it goes on after a crash."""

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.audit.note import FileSigner, open_note, parse_checkpoint, sign_note
from exchange.audit.sequencer import Sequencer, SequencerStep
from exchange.audit.store import CheckpointRow
from exchange.audit.tiles import TileFiles, decode_bundle
from exchange.audit.verify import verify_files
from exchange.audit.verify_database import verify_database
from schemas.access import Action
from schemas.audit import AuditEntry, Decision
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError
from schemas.merkle import EMPTY_ROOT, leaf_hash, root_of
from tests.kit.cases.audit import ORIGIN, START, LogWorld, leaves_of, memory_world, postgres_world, ticking
from tests.kit.row_tags import entry_tags


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogWorld]:
    if request.param == "memory":
        yield LogWorld(memory_world(), tmp_path / "log")
    else:
        with postgres_world(request.getfixturevalue("engine")) as world:
            yield LogWorld(world, tmp_path / "log")


def signed(log: LogWorld) -> tuple[int, bytes]:
    checkpoint = parse_checkpoint(open_note(log.note(), [log.signer.key]))
    assert checkpoint.origin == ORIGIN
    return checkpoint.size, checkpoint.root


def test_a_new_log_signs_the_empty_tree(log: LogWorld) -> None:
    assert log.sequencer().step() == SequencerStep(placed=0, size=0, published=True)
    assert signed(log) == (0, EMPTY_ROOT)
    assert verify_files(log.folder, key=log.signer.key).ok


def test_a_step_signs_the_root_of_all_leaves(log: LogWorld) -> None:
    ledger, sequencer = log.world.ledger(), log.sequencer()
    sequencer.step()
    for count in (1, 254, 1, 1, 300, 0, 211):  # up to the edge of a tile, onto it and beyond
        log.fill(ledger, count)
        step = sequencer.step()
        assert (step.placed, step.published) == (count, count > 0)
        assert signed(log) == (step.size, root_of([leaf_hash(leaf) for leaf in leaves_of(log.world)]))
        assert verify_files(log.folder, key=log.signer.key).lines()[:-1] == []
    assert step.size == 768


def test_the_files_are_those_of_tlog_tiles(log: LogWorld) -> None:
    log.fill(log.world.ledger(), 600)
    log.sequencer().step()
    files = sorted(str(path.relative_to(log.folder)) for path in log.folder.rglob("*") if path.is_file())
    assert files == [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ]
    leaves = leaves_of(log.world)
    assert decode_bundle((log.folder / "tile/entries/001").read_bytes()) == leaves[256:512]
    assert (log.folder / "tile/0/001").read_bytes() == b"".join(map(leaf_hash, leaves[256:512]))
    upper = (log.folder / "tile/1/000.p/2").read_bytes()
    assert upper == root_of([*map(leaf_hash, leaves[:256])]) + root_of([*map(leaf_hash, leaves[256:512])])


def test_partial_tiles_stay_until_the_full_one_stands(log: LogWorld) -> None:
    ledger, sequencer = log.world.ledger(), log.sequencer()
    for count in (10, 20):
        log.fill(ledger, count)
        sequencer.step()
    assert {path.name for path in (log.folder / "tile/0/000.p").iterdir()} == {"10", "30"}
    log.fill(ledger, 230)
    sequencer.step()
    assert not (log.folder / "tile/0/000.p").exists()
    assert not (log.folder / "tile/entries/000.p").exists()
    assert TileFiles(log.folder).tile(0, 0, 30) == (log.folder / "tile/0/000").read_bytes()[: 30 * 32]


class CrashError(PoolError):
    """Stands for the process dying: nothing behind it happens."""


class CrashingFiles(TileFiles):
    """Dies before the n-th write."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self.left = after

    def write(self, path: str, content: bytes) -> None:
        if self.left == 0:
            raise CrashError(Reason.INTERNAL, "killed")
        self.left -= 1
        super().write(path, content)


def test_after_a_crash_at_any_write_another_sequencer_goes_on(log: LogWorld) -> None:
    ledger = log.world.ledger()
    log.sequencer().step()
    crashes = 0
    for after in itertools.count():
        log.fill(ledger, 90)
        dying = log.sequencer()
        dying._files = CrashingFiles(log.folder, after)
        before = signed(log)
        try:
            dying.step()
        except CrashError:
            crashes += 1
            # What a reader finds now is the checkpoint of before, with every tile of it.
            assert signed(log) == before
            assert verify_files(log.folder, key=log.signer.key).ok
            continue
        break
    assert crashes >= 5
    kept = log.note()
    log.fill(ledger, 90)
    log.sequencer().step()
    assert signed(log) == (90 * (crashes + 2), root_of([*map(leaf_hash, leaves_of(log.world))]))
    assert verify_files(log.folder, key=log.signer.key, since=kept).ok


def test_a_crash_between_row_and_file_is_mended(log: LogWorld) -> None:
    ledger = log.world.ledger()
    sequencer = log.sequencer()
    sequencer.step()
    before = log.note()
    log.fill(ledger, 5)
    sequencer.step()
    after = log.note()
    (log.folder / "checkpoint").write_text(before)
    assert log.sequencer().step() == SequencerStep(placed=0, size=5, published=False)
    assert log.note() == after


@pytest.mark.parametrize("lost", ["tile/0/000", "tile/entries/001", "tile/0/002.p/88", "tile/entries/002.p/88", "tile"])
def test_tiles_that_were_lost_are_written_anew_from_the_store(log: LogWorld, lost: str) -> None:
    log.fill(log.world.ledger(), 600)
    log.sequencer().step()
    kept = log.note()
    path = log.folder / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert not verify_files(log.folder, key=log.signer.key).ok
    log.sequencer().step()
    assert log.note() == kept
    assert verify_files(log.folder, key=log.signer.key, since=kept).ok


def test_a_whole_folder_is_rebuilt(log: LogWorld, tmp_path: Path) -> None:
    log.fill(log.world.ledger(), 300)
    log.sequencer().step()
    kept = log.note()
    log.folder = tmp_path / "elsewhere"
    log.sequencer().step()
    assert log.note() == kept
    assert verify_files(log.folder, key=log.signer.key, since=kept).ok


def test_two_sequencers_in_one_folder_build_one_log(log: LogWorld) -> None:
    ledger = log.world.ledger()
    first, second = log.sequencer(), log.sequencer()
    kept = []
    for turn in range(12):
        log.fill(ledger, 50)
        (first, second, second)[turn % 3].step()
        kept.append(log.note())
    for note in kept:
        assert verify_files(log.folder, key=log.signer.key, since=note).ok
    first.step()
    assert signed(log)[0] == 600


def test_a_sequencer_that_slept_cannot_publish_an_older_checkpoint(log: LogWorld) -> None:
    """Paused after it had stored its row, it wakes when another one is further."""
    ledger = log.world.ledger()
    slow, other = log.sequencer(), log.sequencer()
    slow.step()
    store = log.world.log

    class Pausing:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def put_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
            standing = store.put_checkpoint(row)
            log.fill(ledger, 40)
            other.step()
            return standing

    log.fill(ledger, 10)
    slow._log = Pausing()
    slow.step()
    assert signed(log)[0] == 50
    assert verify_files(log.folder, key=log.signer.key).ok


def test_a_store_that_was_set_back_is_not_signed(log: LogWorld) -> None:
    """An old backup of the database under the folder of today: going on would sign a second tree."""
    log.fill(log.world.ledger(), 20)
    log.sequencer().step()
    note = log.note()
    older = LogWorld(memory_world(), log.folder, signer=log.signer)
    older.fill(older.world.ledger(), 10)
    with pytest.raises(CorruptError, match="older copy") as caught:
        older.sequencer().step()
    assert caught.value.reason is Reason.LOG_CORRUPT
    older.folder = log.folder.with_name("other")
    older.sequencer().step()
    older.folder = log.folder
    with pytest.raises(CorruptError, match="older copy"):
        older.sequencer().step()
    assert log.note() == note


def test_another_history_under_the_folder_is_not_signed(log: LogWorld, tmp_path: Path) -> None:
    log.fill(log.world.ledger(), 20)
    log.sequencer().step()
    note = log.note()
    forged = LogWorld(memory_world(), tmp_path / "aside", signer=log.signer)
    forged.fill(forged.world.ledger(), 30)
    forged.sequencer().step()
    forged.folder = log.folder
    with pytest.raises(CorruptError):
        forged.sequencer().step()
    assert log.note() == note


def test_a_stored_checkpoint_that_the_log_did_not_sign_stops_it(log: LogWorld) -> None:
    log.fill(log.world.ledger(), 3)
    log.sequencer().step()
    stranger = FileSigner(ORIGIN, Ed25519PrivateKey.generate())
    log.world.log.put_checkpoint(
        CheckpointRow(size=9, root=bytes(32), note=sign_note("x\n", [stranger]), at=START + 5_000_000)
    )
    with pytest.raises(CorruptError):
        log.sequencer().step()


def test_a_former_key_is_known_after_a_change_of_keys(log: LogWorld) -> None:
    ledger = log.world.ledger()
    log.fill(ledger, 3)
    log.sequencer().step()
    kept, former = log.note(), log.signer.key
    log.signer = FileSigner(ORIGIN, Ed25519PrivateKey.generate())
    log.fill(ledger, 3)
    with pytest.raises(CorruptError):
        log.sequencer().step()
    log.sequencer(former=[former]).step()
    assert verify_files(log.folder, key=[log.signer.key, former], since=kept).ok
    assert "since.signature" in verify_files(log.folder, key=log.signer.key, since=kept).counts


def test_nothing_is_signed_after_the_clock_went_back(log: LogWorld) -> None:
    ledger = log.world.ledger()
    times = iter([START, START - 900_000, START - 1_100_000, START - 900_000])
    sequencer = log.sequencer(clock=lambda: next(times))
    sequencer.step()
    log.fill(ledger, 1)
    sequencer.step()  # less than a second: clocks do that
    log.fill(ledger, 1)
    note = log.note()
    with pytest.raises(UnavailableError) as caught:
        sequencer.step()
    assert caught.value.reason is Reason.CLOCK_JUMPED
    assert log.note() == note
    sequencer.step()
    assert signed(log)[0] == 2


def test_a_restart_does_not_forget_the_time(log: LogWorld) -> None:
    log.fill(log.world.ledger(), 1)
    log.sequencer(clock=ticking(START + 10_000_000)).step()
    with pytest.raises(UnavailableError) as caught:
        log.sequencer(clock=ticking(START)).step()
    assert caught.value.reason is Reason.CLOCK_JUMPED


def test_a_step_that_failed_is_done_by_the_next_one(log: LogWorld) -> None:
    log.folder.write_text("a file where the folder should be")
    sequencer = log.sequencer()
    with pytest.raises(PoolError):
        sequencer.step()
    log.folder.unlink()
    sequencer.step()
    assert signed(log)[0] == 0


def test_after_any_error_the_next_step_begins_from_what_is_stored(
    log: LogWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, sequencer = log.world.ledger(), log.sequencer()
    log.fill(ledger, 3)
    sequencer.step()
    log.fill(ledger, 4)

    def breaks(_: CheckpointRow) -> CheckpointRow:
        raise ZeroDivisionError  # no error of the pool's, such as a driver's that nobody has translated

    with monkeypatch.context() as patched:
        patched.setattr(log.world.log, "put_checkpoint", breaks)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                sequencer.step()
    shutil.rmtree(log.folder)  # only a sequencer that looks again finds that the tiles are gone
    assert sequencer.step() == SequencerStep(placed=0, size=7, published=True)
    assert signed(log)[0] == 7
    assert verify_files(log.folder, key=log.signer.key).ok


@pytest.mark.postgres
def test_a_changed_row_is_not_signed(engine: sa.Engine, tmp_path: Path) -> None:
    with postgres_world(engine) as world:
        log = LogWorld(world, tmp_path / "log")
        log.fill(world.ledger(), 5)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE audit_entry SET leaf = leaf || ' ' WHERE seq = 3"))
        assert log.sequencer().step().size == 4, "the others are signed"
        found = verify_database(engine, log.folder, key=log.signer.key, entry_tags=entry_tags())
        assert set(found.counts) == {"counter.gap", "entry.refused"}
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE audit_entry SET leaf = leaf || ' ' WHERE leaf_index = 2"))
        shutil.rmtree(log.folder)  # its tiles are made again from the rows
        with pytest.raises(CorruptError) as caught:
            log.sequencer().step()
        assert caught.value.reason is Reason.LEAF_MISMATCH


@pytest.mark.postgres
def test_a_removed_row_is_not_papered_over(engine: sa.Engine, tmp_path: Path) -> None:
    with postgres_world(engine) as world:
        log = LogWorld(world, tmp_path / "log")
        ledger = world.ledger()
        log.fill(ledger, 5)
        log.sequencer().step()
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM audit_entry WHERE leaf_index = 4"))
        log.fill(ledger, 1)
        with pytest.raises(CorruptError) as caught:
            log.sequencer().step()
        assert caught.value.reason is Reason.LOG_CORRUPT
        assert signed(log)[0] == 5


@pytest.mark.postgres
def test_a_sequencer_that_is_stopped_in_its_transaction_gives_way_in_seconds(engine: sa.Engine, tmp_path: Path) -> None:
    """Its session stays open, as that of a stopped process does; PostgreSQL ends it as idle in a transaction."""
    with postgres_world(engine) as world:
        log = LogWorld(world, tmp_path / "log")
        log.fill(world.ledger(), 5)
        with engine.connect() as stopped:
            stopped.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '200ms'"))
            stopped.execute(sa.text("SELECT pg_advisory_xact_lock(7092442203119412340)"))
            sequencer = log.sequencer()
            assert sequencer.step().size == 0
            for _ in range(200):
                if sequencer.step().size == 5:
                    break
                threading.Event().wait(0.05)
            assert signed(log)[0] == 5
            stopped.invalidate()


DAYS = 20 * 86_400_000_000  # microseconds


def settlement(log: LogWorld, now: int, **fields: Any) -> AuditEntry:
    log.world.make.now = now
    return log.world.make.make(
        Action.CLOCK_SETTLE, **{"data": {"proposal": "", "from": now + DAYS, "to": now}, **fields}
    )


def behind(log: LogWorld, sequencer: Sequencer) -> None:
    """Check that nothing is signed for the sake of the clock."""
    note = log.note()
    with pytest.raises(UnavailableError) as caught:
        sequencer.step()
    assert caught.value.reason is Reason.CLOCK_JUMPED
    assert log.note() == note


def test_a_clock_that_was_ahead_for_a_second_is_settled_and_signing_goes_on(log: LogWorld) -> None:
    ledger = log.world.ledger()
    log.fill(ledger, 1)
    times = [START + DAYS]
    sequencer = log.sequencer(clock=lambda: times[0])
    sequencer.step()
    times[0] = START + 10_000_000
    log.fill(ledger, 1)
    behind(log, sequencer)
    log.world.write(ledger, settlement(log, times[0], data={"failed": "overloaded"}))
    log.world.write(ledger, settlement(log, times[0], decision=Decision.DENY, reason=Reason.SAME_PERSON))
    behind(log, sequencer)
    log.world.write(ledger, settlement(log, times[0]))
    assert sequencer.step().published
    latest = log.world.log.latest_checkpoint()
    assert latest is not None
    assert latest.at == times[0]
    assert log.sequencer(clock=lambda: times[0] + 1).step().size == 5, "a restart goes on too"


def test_what_was_settled_once_settles_nothing_more(log: LogWorld) -> None:
    ledger = log.world.ledger()
    times = [START]
    log.world.write(ledger, settlement(log, START))
    sequencer = log.sequencer(clock=lambda: times[0])
    sequencer.step()
    times[0] = START + DAYS
    log.fill(ledger, 1)
    sequencer.step()
    times[0] = START + 1_000_000
    log.fill(ledger, 1)
    behind(log, sequencer)


def test_a_settlement_of_another_time_than_the_clock_s_settles_nothing(log: LogWorld) -> None:
    ledger = log.world.ledger()
    times = [START + DAYS]
    log.fill(ledger, 1)
    sequencer = log.sequencer(clock=lambda: times[0])
    sequencer.step()
    times[0] = START
    log.world.write(ledger, settlement(log, START - 3_600_000_000))
    behind(log, sequencer)
