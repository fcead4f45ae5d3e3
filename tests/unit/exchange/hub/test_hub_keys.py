"""Keys of the hub, in memory and as files: wrapping, destruction, loss."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.hub.store.key_files import FileHubKeys
from exchange.hub.store.keys import HubKeys, MemoryHubKeys, month_of
from schemas.errors import CorruptError, InvalidError, Reason
from tests.kit.cases.hub_rows import MONTH, ONE, TWO

DATA_KEY = bytes(range(32))


@pytest.fixture(params=["memory", "files"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> HubKeys:
    return MemoryHubKeys() if request.param == "memory" else FileHubKeys.create(tmp_path / "hub")


def test_a_month_is_counted_from_january_2000() -> None:
    assert month_of(datetime(2000, 1, 31, tzinfo=UTC)) == 0
    assert MONTH == 316


def test_a_data_key_opens_for_its_subject_and_month_alone(keys: HubKeys) -> None:
    keys.draw(MONTH)
    keys.draw(MONTH + 1)
    wrapped = keys.wrap(MONTH, ONE, DATA_KEY)
    assert keys.wrap(MONTH, ONE, DATA_KEY) != wrapped
    assert len(wrapped) == 60
    keys.draw(MONTH)
    assert keys.unwrap(MONTH, ONE, wrapped) == DATA_KEY, "drawing again changes nothing"
    for month, handle, stored in (
        (MONTH, TWO, wrapped),
        (MONTH + 1, ONE, wrapped),
        (MONTH, ONE, wrapped[:-1]),
        (MONTH, ONE, b""),
    ):
        with pytest.raises(CorruptError) as caught:
            keys.unwrap(month, handle, stored)
        assert caught.value.reason is Reason.ROW_FORGED


def test_with_its_month_a_data_key_is_gone_and_the_month_is_not_drawn_again(keys: HubKeys) -> None:
    keys.draw(MONTH)
    wrapped = keys.wrap(MONTH, ONE, DATA_KEY)
    keys.destroy(MONTH)
    keys.destroy(MONTH)
    assert keys.unwrap(MONTH, ONE, wrapped) is None
    for again in (lambda: keys.draw(MONTH), lambda: keys.wrap(MONTH, ONE, DATA_KEY)):
        with pytest.raises(InvalidError, match="destroyed"):
            again()


def test_a_month_that_was_never_drawn_is_missing_and_not_gone(keys: HubKeys) -> None:
    keys.destroy(MONTH)
    with pytest.raises(InvalidError, match="missing") as caught:
        keys.unwrap(MONTH, ONE, bytes(60))
    assert caught.value.reason is Reason.CONFIG_INVALID
    with pytest.raises(ValueError, match="counted from"):
        keys.draw(-1)


def test_the_key_of_handles_is_made_once_and_never_again(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    first = FileHubKeys.create(folder).handle_key()
    assert FileHubKeys.create(folder).handle_key() == FileHubKeys(folder).handle_key() == first
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.key")} == {0o600}
    (folder / "handle.key").unlink()
    with pytest.raises(InvalidError, match="missing"):
        FileHubKeys(folder)


def test_a_file_that_is_lost_or_open_to_others_is_refused(tmp_path: Path) -> None:
    keys = FileHubKeys.create(tmp_path / "hub")
    keys.draw(MONTH)
    wrapped = keys.wrap(MONTH, ONE, DATA_KEY)
    path = tmp_path / "hub" / "kek" / f"{MONTH:04}.key"
    path.chmod(0o644)
    with pytest.raises(InvalidError, match="open to others"):
        FileHubKeys(tmp_path / "hub").unwrap(MONTH, ONE, wrapped)
    path.unlink()
    with pytest.raises(InvalidError, match="missing"):
        FileHubKeys(tmp_path / "hub").unwrap(MONTH, ONE, wrapped)


def test_another_process_that_destroys_a_month_ends_it_here_too(tmp_path: Path) -> None:
    here, there = FileHubKeys.create(tmp_path / "hub"), FileHubKeys(tmp_path / "hub")
    here.draw(MONTH)
    wrapped = here.wrap(MONTH, ONE, DATA_KEY)
    there.destroy(MONTH)
    assert here.unwrap(MONTH, ONE, wrapped) is None
    assert not (tmp_path / "hub" / "kek" / f"{MONTH:04}.key").exists()


def test_a_destruction_that_was_cut_short_is_finished_by_the_next(tmp_path: Path) -> None:
    keys = FileHubKeys.create(tmp_path / "hub")
    keys.draw(MONTH)
    (tmp_path / "hub" / "kek" / f"{MONTH:04}.gone").touch(mode=0o600)
    with pytest.raises(InvalidError, match="destroyed"):
        keys.wrap(MONTH, ONE, DATA_KEY)
    keys.destroy(MONTH)
    assert not (tmp_path / "hub" / "kek" / f"{MONTH:04}.key").exists()
