"""Files of a connector's state: for its user alone, no link that somebody put there, named where they are damaged."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connectors.sources.pool.journal import PoolJournal
from connectors.state.ledger import Ledger
from schemas.errors import InvalidError, Reason

Opening = Callable[[Path], object]


def ledger(path: Path) -> None:
    Ledger(path, clock=lambda: datetime.now(UTC)).close()


def journal(path: Path) -> None:
    PoolJournal(path).close()


both = pytest.mark.parametrize("opened", [ledger, journal])


def refused(opened: Opening, path: Path) -> str:
    with pytest.raises(InvalidError) as caught:
        opened(path)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert str(path) in caught.value.message
    return caught.value.message


@both
def test_others_rights_to_a_file_that_was_there_are_taken_back(opened: Opening, tmp_path: Path) -> None:
    path = tmp_path / "state" / "resource.sqlite3"
    opened(path)
    path.chmod(0o666)
    opened(path)
    assert [each.stat().st_mode & 0o077 for each in path.parent.iterdir()] == [0] * len([*path.parent.iterdir()])
    assert path.parent.stat().st_mode & 0o077 == 0


@both
def test_a_symbolic_link_is_not_followed(opened: Opening, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "resource.sqlite3", tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    assert "symbolic link" in refused(opened, path)
    assert not elsewhere.exists()


@both
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(opened: Opening, tmp_path: Path) -> None:
    path = tmp_path / "resource.sqlite3"
    os.mkfifo(path)
    assert "no file" in refused(opened, path)
    folder = tmp_path / "other.sqlite3"
    folder.mkdir()
    assert "no file" in refused(opened, folder)


@both
def test_a_damaged_file_is_named_and_left_as_it_is(opened: Opening, tmp_path: Path) -> None:
    path = tmp_path / "resource.sqlite3"
    path.write_bytes(b"no database" * 1_000)
    before = path.read_bytes()
    assert "move it away" in refused(opened, path)
    assert path.read_bytes() == before
    path.rename(tmp_path / "damaged")
    opened(path)
