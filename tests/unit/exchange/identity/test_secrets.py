"""Secret keys, the files they are kept in, and the pseudonyms made with them."""

import hashlib
import hmac
import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.identity.keyfile import (
    create_ed25519,
    create_private,
    private_folder,
    read_ed25519,
    read_private,
)
from exchange.identity.pseudonyms import Pseudonyms, partitions
from exchange.identity.secrets import FileSecrets, MemorySecrets, Secrets
from schemas.audit import ALGORITHMS
from schemas.errors import InvalidError, Reason
from schemas.names import ResourceName, Topic

POPULATION, CREDIT = ResourceName("population"), ResourceName("credit")


@pytest.fixture(params=["memory", "files"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
    return MemorySecrets() if request.param == "memory" else FileSecrets.create(tmp_path / "secrets")


# the port


def test_every_key_is_its_own_and_stays(secrets: Secrets) -> None:
    def keys() -> list[bytes]:
        return [
            secrets.topic_key(POPULATION),
            secrets.topic_key(CREDIT),
            secrets.grant_key("population"),
            secrets.grant_key("credit"),
            secrets.named_key("population"),
            secrets.named_key("grant-seal"),
            secrets.audit_key("2026-05"),
            secrets.audit_key("2026-06"),
        ]

    for epoch in ("2026-05", "2026-06"):
        assert secrets.draw_audit_key(epoch) == secrets.audit_key(epoch)
        secrets.draw_audit_key(epoch)
    assert keys() == keys()
    assert len(set(keys())) == 8
    assert {len(key) for key in keys()} == {32}


@pytest.mark.parametrize("epoch", ["", "2026", "2026-13", "2026-5", "../../x", "2026-05\n"])
def test_an_epoch_is_a_month(secrets: Secrets, epoch: str) -> None:
    with pytest.raises(InvalidError):
        secrets.audit_key(epoch)


# the files


def test_two_gateways_with_the_same_files_compute_the_same_keys(tmp_path: Path) -> None:
    one = FileSecrets.create(tmp_path / "secrets")
    two = FileSecrets.open(tmp_path / "secrets")
    assert one.topic_key(POPULATION) == two.topic_key(POPULATION)
    assert one.grant_key("g") == two.grant_key("g")
    assert one.draw_audit_key("2026-05") == two.audit_key("2026-05") == two.draw_audit_key("2026-05")
    assert FileSecrets.create(tmp_path / "other").topic_key(POPULATION) != one.topic_key(POPULATION)


def test_every_file_is_closed_to_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        FileSecrets.create(tmp_path / "secrets").draw_audit_key("2026-05")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").rglob("*")}
    assert modes == {
        "topic.master": 0o600,
        "grant.master": 0o600,
        "named.master": 0o600,
        "audit": 0o700,
        "2026-05.key": 0o600,
    }
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    FileSecrets.create(tmp_path / "secrets").draw_audit_key("2026-05")
    (tmp_path / "secrets/grant.master").chmod(mode)
    with pytest.raises(InvalidError, match="open to others") as error:
        FileSecrets.open(tmp_path / "secrets")
    assert error.value.reason is Reason.CONFIG_INVALID


def test_an_epoch_s_key_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    secrets = FileSecrets.create(tmp_path / "secrets")
    secrets.draw_audit_key("2026-05")
    (tmp_path / "secrets/audit/2026-05.key").chmod(0o644)
    with pytest.raises(InvalidError):
        secrets.audit_key("2026-05")


@pytest.mark.parametrize("damage", ["missing", "cut", "link"])
def test_a_lost_master_is_not_made_again(tmp_path: Path, damage: str) -> None:
    FileSecrets.create(tmp_path / "secrets")
    master = tmp_path / "secrets/topic.master"
    content = master.read_bytes()
    master.unlink()
    if damage == "cut":
        create_private(master, content[:31])
    elif damage == "link":
        create_private(tmp_path / "elsewhere", content)
        master.symlink_to(tmp_path / "elsewhere")
    for again in (FileSecrets.open, FileSecrets.create):
        if again == FileSecrets.create and damage == "missing":
            continue
        with pytest.raises(InvalidError):
            again(tmp_path / "secrets")
    assert master.exists() is (damage != "missing")


def test_a_pool_s_keys_are_never_replaced(tmp_path: Path) -> None:
    key = FileSecrets.create(tmp_path / "secrets").topic_key(POPULATION)
    with pytest.raises(InvalidError) as error:
        FileSecrets.create(tmp_path / "secrets")
    assert error.value.reason is Reason.ALREADY_EXISTS
    assert FileSecrets.open(tmp_path / "secrets").topic_key(POPULATION) == key


def test_of_many_who_create_a_file_one_does_and_all_read_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create_private(tmp_path / "key", bytes([n]) * 32), range(16)))
    assert sum(made) == 1
    assert read_private(tmp_path / "key") == bytes([made.index(True)]) * 32
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir(mode=0o755)
    with pytest.raises(InvalidError, match="0700"):
        private_folder(tmp_path / "wide")


def test_a_signing_key_is_made_once_and_never_by_a_look(tmp_path: Path) -> None:
    path = tmp_path / "receipts.key"
    with pytest.raises(InvalidError, match="missing; restore it"):
        read_ed25519(path)
    assert not path.exists()
    key = create_ed25519(path)
    assert read_ed25519(path).public_key() == key.public_key()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InvalidError) as again:
        create_ed25519(path)
    assert again.value.reason is Reason.ALREADY_EXISTS
    assert read_ed25519(path).public_key() == key.public_key()
    for junk in (b"", b"-----BEGIN PRIVATE KEY-----\n"):
        path.write_bytes(junk)
        with pytest.raises(InvalidError):
            read_ed25519(path)


@pytest.mark.parametrize("files", [False, True])
def test_an_epoch_s_key_that_was_destroyed_is_not_drawn_again(tmp_path: Path, files: bool) -> None:
    secrets: Secrets = FileSecrets.create(tmp_path / "secrets") if files else MemorySecrets()
    with pytest.raises(InvalidError):
        secrets.audit_key("2026-05")
    secrets.draw_audit_key("2026-05")
    secrets.draw_audit_key("2026-06")
    if files:
        (tmp_path / "secrets/audit/2026-05.key").unlink()
        with pytest.raises(InvalidError):
            secrets.audit_key("2026-05")
    for over in ("2026-04", "2026-05")[: 1 + files]:
        with pytest.raises(InvalidError, match="not drawn"):
            secrets.draw_audit_key(over)
    assert secrets.draw_audit_key("2026-07") == secrets.audit_key("2026-07")


# pseudonyms


SECRETS = MemorySecrets(bytes(range(32)))
PSEUDONYMS = Pseudonyms(SECRETS)
V1, V2 = Topic(POPULATION, 1), Topic(POPULATION, 2)
keys = st.lists(st.binary(max_size=200), max_size=20)


@given(keys)
def test_a_pseudonym_is_an_hmac_of_the_key_cut_to_sixteen_bytes(messages: list[bytes]) -> None:
    assert ALGORITHMS["pseudonym"] == "hmac-sha256"
    expected = [hmac.digest(SECRETS.topic_key(POPULATION), message, hashlib.sha256)[:16] for message in messages]
    assert PSEUDONYMS.pseudonyms(V1, messages) == expected
    records = [hmac.digest(SECRETS.grant_key("g"), pseudonym, hashlib.sha256)[:16] for pseudonym in expected]
    assert PSEUDONYMS.record_keys("g", expected) == b"".join(records)


def test_a_person_is_the_same_in_every_major_and_another_in_every_resource_and_grant() -> None:
    person = [b"one"]
    assert PSEUDONYMS.pseudonyms(V1, person) == PSEUDONYMS.pseudonyms(V2, person)
    assert PSEUDONYMS.pseudonyms(V1, person) != PSEUDONYMS.pseudonyms(Topic(CREDIT, 1), person)
    pseudonym = PSEUDONYMS.pseudonyms(V1, person)
    assert PSEUDONYMS.record_keys("g", pseudonym) == PSEUDONYMS.record_keys("g", pseudonym)
    assert PSEUDONYMS.record_keys("g", pseudonym) != PSEUDONYMS.record_keys("h", pseudonym)


@given(keys, st.integers(1, 300))
def test_a_partition_is_the_first_eight_bytes_modulo_n(messages: list[bytes], n: int) -> None:
    pseudonyms = PSEUDONYMS.pseudonyms(V1, messages)
    assert partitions(pseudonyms, n) == [int.from_bytes(p[:8], "big") % n for p in pseudonyms]


def test_partitions_fill_evenly() -> None:
    count = Counter(partitions(PSEUDONYMS.pseudonyms(V1, (b"%d" % i for i in range(8_000))), 4))
    assert set(count) == {0, 1, 2, 3}
    assert all(1_800 < n < 2_200 for n in count.values())


def test_partitions_of_what_is_no_pseudonym_are_refused() -> None:
    for wrong, n in (([b"short"], 4), ([bytes(16)], 0), ([bytes(8), bytes(24), bytes(8)], 4)):
        with pytest.raises(InvalidError):
            partitions(wrong, n)


def test_a_pseudonym_never_changes_its_meaning() -> None:
    assert PSEUDONYMS.pseudonyms(V1, [b"golden"])[0].hex() == "636baaa0fdaa8a67991f3f767c2f2e3f"
    assert PSEUDONYMS.record_keys("grant", [bytes(16)]).hex() == "dd59384e4f0edec444ba590cb0824190"
