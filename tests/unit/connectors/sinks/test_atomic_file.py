"""Files of sinks: nobody else may read them, and no link that somebody has put there is followed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.port import DecodedRelease
from connectors.sinks.atomic_file import replace_file, require_private_folder
from connectors.sinks.files import FileSink
from connectors.sinks.webhook import WebhookSink, WebhookTarget
from schemas.errors import InvalidError, Reason, UnavailableError

SCHEMA = pa.schema([pa.field("id", pa.string())])


@pytest.fixture(autouse=True)
def loose_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def release() -> DecodedRelease:
    return DecodedRelease(
        keys=[bytes(16)],
        recorded_at=[1],
        withdrawn=[False],
        records=pa.RecordBatch.from_pylist([{"id": "1"}], schema=SCHEMA),
        values=[b""],
        entry_id="e",
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def private(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def test_a_link_under_the_temporary_name_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", private(tmp_path / "out")
    victim.write_text("as it was")
    (folder / ".a.part").symlink_to(victim)
    (folder / "a").symlink_to(victim)
    replace_file(folder, "a", b"new")
    assert victim.read_text() == "as it was"
    assert not (folder / "a").is_symlink()
    assert ((folder / "a").read_bytes(), mode(folder / "a")) == (b"new", 0o600)
    assert [each.name for each in folder.iterdir()] == ["a"]


def test_a_temporary_name_that_cannot_be_cleared_is_not_written_to(tmp_path: Path) -> None:
    folder = private(tmp_path / "out")
    (folder / ".a.part").mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        replace_file(folder, "a", b"new")


@pytest.mark.parametrize(("group_reads", "expected"), [(False, 0o600), (True, 0o640)])
def test_parts_and_manifests_are_the_owner_s_whatever_the_umask(
    tmp_path: Path, group_reads: bool, expected: int
) -> None:
    sink = FileSink(private(tmp_path / "out"), "g", group_reads=group_reads)
    sink.prepare(SCHEMA)
    sink.write(release(), b"", b"p", lambda _: None)
    assert {mode(each) for each in (tmp_path / "out").iterdir()} == {expected}


def test_a_folder_into_which_everybody_writes_is_refused(tmp_path: Path) -> None:
    folder = private(tmp_path / "open")
    folder.chmod(0o1777)
    with pytest.raises(InvalidError, match="every user may write into") as refused:
        FileSink(folder, "g").prepare(SCHEMA)
    assert refused.value.reason is Reason.CONFIG_INVALID
    webhook = WebhookSink(WebhookTarget(url="https://x.example/", secret="a-secret-of-more-than-24-bytes"), "g", folder)
    with pytest.raises(InvalidError, match="chmod o-w"):
        webhook.prepare(SCHEMA)
    webhook.close()
    folder.chmod(0o770)
    require_private_folder(folder)


def test_a_folder_that_a_sink_makes_itself_is_private(tmp_path: Path) -> None:
    FileSink(tmp_path / "made" / "out", "g").prepare(SCHEMA)
    assert not mode(tmp_path / "made" / "out") & 0o022


def test_a_webhook_s_position_is_the_owner_s_and_its_lock_follows_no_link(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", private(tmp_path / "positions")
    sink = WebhookSink(WebhookTarget(url="https://x.example/", secret="a-secret-of-more-than-24-bytes"), "g", folder)
    sink.prepare(SCHEMA)
    sink._store(b"p")
    assert mode(folder / "g.webhook.json") == 0o600
    (folder / "g.webhook.lock").unlink(missing_ok=True)
    (folder / "g.webhook.lock").symlink_to(victim)
    with pytest.raises(UnavailableError), sink._alone():
        pytest.fail("it was locked")
    assert not victim.exists()
    sink.close()
