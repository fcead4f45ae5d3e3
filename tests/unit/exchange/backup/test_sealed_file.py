"""Sealed files: they open with what sealed them and nothing else, whole or not at all."""

import json
from pathlib import Path

import pytest

from exchange.backup.sealed_file import SealingKey, new_key_file, open_sealed, seal
from schemas.errors import InvalidError, Reason

FILES = {"secrets/topic.master": b"\x00" * 32, "ca/authority.key": b"key", "secrets/audit/2026-11.key": b"\xff"}
PASSPHRASE = SealingKey(passphrase="correct horse battery")
KEY = SealingKey(key=b"k" * 32)


@pytest.mark.parametrize("key", [PASSPHRASE, KEY], ids=["passphrase", "key"])
def test_what_was_sealed_opens(tmp_path: Path, key: SealingKey) -> None:
    (tmp_path / "f").write_bytes(seal(FILES, key))
    assert open_sealed(tmp_path / "f", key) == FILES
    assert not any(content in (tmp_path / "f").read_bytes() for content in (b"topic.master", b"authority.key"))


@pytest.mark.parametrize(
    "other",
    [SealingKey(passphrase="correct horse batterz"), SealingKey(key=b"l" * 32), KEY],
    ids=["passphrase", "kind", "key"],
)
def test_nothing_else_opens_it(tmp_path: Path, other: SealingKey) -> None:
    (tmp_path / "f").write_bytes(seal(FILES, PASSPHRASE))
    with pytest.raises(InvalidError) as refused:
        open_sealed(tmp_path / "f", other)
    assert refused.value.reason is Reason.CONFIG_INVALID


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path) -> None:
    whole = seal(FILES, KEY)
    for at in range(0, len(whole), 7):
        (tmp_path / "f").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(InvalidError):
            open_sealed(tmp_path / "f", KEY)
    (tmp_path / "f").write_bytes(whole[:-1])
    with pytest.raises(InvalidError):
        open_sealed(tmp_path / "f", KEY)


def test_a_header_that_asks_for_the_machine_s_memory_is_refused(tmp_path: Path) -> None:
    magic, line, rest = seal(FILES, PASSPHRASE).split(b"\n", 2)
    header = json.dumps({**json.loads(line), "n": 1 << 30}).encode()
    (tmp_path / "f").write_bytes(b"\n".join((magic, header, rest)))
    with pytest.raises(InvalidError, match="more work"):
        open_sealed(tmp_path / "f", PASSPHRASE)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "secrets/../../x", "a/./b", "secrets/a b", ""])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_bytes(seal({name: b""}, KEY))
    with pytest.raises(InvalidError):
        open_sealed(tmp_path / "f", KEY)


def test_keys_come_from_files_that_others_cannot_read(tmp_path: Path) -> None:
    new_key_file(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    SealingKey.read(passphrase_file=None, key_file=tmp_path / "key")
    with pytest.raises(InvalidError) as refused:
        new_key_file(tmp_path / "key")
    assert refused.value.reason is Reason.ALREADY_EXISTS
    (tmp_path / "words").write_text("correct horse battery\n")
    (tmp_path / "words").chmod(0o644)
    with pytest.raises(InvalidError, match="open to others"):
        SealingKey.read(passphrase_file=tmp_path / "words", key_file=None)
    (tmp_path / "words").chmod(0o600)
    SealingKey.read(passphrase_file=tmp_path / "words", key_file=None)
    with pytest.raises(InvalidError, match="and not both"):
        SealingKey.read(passphrase_file=tmp_path / "words", key_file=tmp_path / "key")


def test_a_key_file_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="is missing; `pool backup new-key` makes one for new backups"):
        SealingKey.read(passphrase_file=None, key_file=tmp_path / "key")


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(InvalidError, match="expected 12"):
        SealingKey(passphrase="short")
