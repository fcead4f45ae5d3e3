"""Pseudonyms in the trace: comparable within a month, readable while its key exists, and never without it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exchange.identity.audit_pseudonyms import AuditPseudonyms, epoch_of, fingerprint
from exchange.identity.secrets import FileSecrets, MemorySecrets, Secrets
from schemas.errors import InvalidError

KEYS = [os.urandom(16) for _ in range(50)]
PACKED = b"".join(KEYS)


def at(year: int, month: int, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture(params=["memory", "files"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
    return MemorySecrets() if request.param == "memory" else FileSecrets.create(tmp_path / "secrets")


def test_a_month_begins_in_utc() -> None:
    assert epoch_of(at(2026, 12) - 1) == "2026-11"
    assert epoch_of(at(2026, 12)) == "2026-12"


def test_what_is_sealed_holds_no_pseudonym_and_is_opened_again(secrets: Secrets) -> None:
    clock = Clock(at(2026, 11))
    trace = AuditPseudonyms(secrets, clock)
    stored = b"".join(trace.seal(KEYS))
    assert len(stored) == 24 + len(PACKED)
    assert not any(key in stored for key in KEYS)
    assert trace.open(stored) == PACKED
    assert stored == b"".join(trace.seal(KEYS)), "equal within a month"
    clock.now = at(2026, 12)
    later = b"".join(trace.seal(KEYS))
    assert later[24:] != stored[24:], "and not across months"
    assert trace.open(later) == trace.open(stored) == PACKED
    assert secrets.audit_epochs() == ["2026-11", "2026-12"]


def test_nothing_is_sealed_of_nothing(secrets: Secrets) -> None:
    assert AuditPseudonyms(secrets, Clock(at(2026, 11))).seal([]) == []
    assert secrets.audit_epochs() == []


def test_without_its_key_nothing_is_opened(secrets: Secrets) -> None:
    trace = AuditPseudonyms(secrets, Clock(at(2026, 11)))
    stored = b"".join(trace.seal(KEYS))
    secrets.draw_audit_key("2026-12")
    secrets.destroy_audit_key("2026-11")
    secrets.destroy_audit_key("2026-11")  # again, after a crash
    assert AuditPseudonyms(secrets, Clock(at(2026, 12))).open(stored) == b""
    assert secrets.audit_epochs() == ["2026-12"]
    with pytest.raises(InvalidError):
        secrets.draw_audit_key("2026-11")
    assert AuditPseudonyms(MemorySecrets(), Clock(at(2026, 11))).open(stored) == b"", "another pool's key is none"


def test_another_key_of_the_same_month_opens_nothing(secrets: Secrets) -> None:
    """As on two hosts with folders of their own."""
    stored = b"".join(AuditPseudonyms(secrets, Clock(at(2026, 11))).seal(KEYS))
    other = MemorySecrets()
    other.draw_audit_key("2026-11")
    assert AuditPseudonyms(other, Clock(at(2026, 11))).open(stored) == b""
    assert stored[8:24] == fingerprint(secrets.audit_key("2026-11"))


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_what_an_earlier_version_stored_stays_readable(secrets: Secrets, count: int) -> None:
    earlier = b"".join(KEYS[:count])
    assert AuditPseudonyms(secrets, Clock(at(2026, 11))).open(earlier) == earlier


def test_a_clock_that_was_ahead_stops_nothing(secrets: Secrets) -> None:
    clock = Clock(at(2027, 2))
    AuditPseudonyms(secrets, clock).seal(KEYS)
    clock.now = at(2026, 11)
    trace = AuditPseudonyms(secrets, clock)
    stored = b"".join(trace.seal(KEYS))
    assert stored[1:8] == b"2027-02"
    assert trace.open(stored) == PACKED


def test_two_processes_on_one_folder_draw_one_key(tmp_path: Path) -> None:
    one, other = FileSecrets.create(tmp_path / "secrets"), FileSecrets.open(tmp_path / "secrets")
    clock = Clock(at(2026, 11))
    assert AuditPseudonyms(one, clock).seal(KEYS) == AuditPseudonyms(other, clock).seal(KEYS)


def test_a_destroyed_file_is_overwritten_first(tmp_path: Path) -> None:
    secrets = FileSecrets.create(tmp_path / "secrets")
    key = secrets.draw_audit_key("2026-11")
    path = tmp_path / "secrets" / "audit" / "2026-11.key"
    held = tmp_path / "held"
    held.hardlink_to(path)  # as something else that still reads the file's blocks
    secrets.destroy_audit_key("2026-11")
    assert not path.exists()
    assert held.read_bytes() != key
    assert len(held.read_bytes()) == len(key)
