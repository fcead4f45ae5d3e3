"""What `check` proposes for what the pool refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.runtime import remedies
from schemas.errors import Reason
from tests.kit.certificates import self_signed

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_certificate_that_has_ended_is_told_from_one_that_has_not() -> None:
    certificate = self_signed(NOW - timedelta(days=30), NOW)
    assert remedies.has_ended(certificate, NOW + timedelta(seconds=1))
    assert not remedies.has_ended(certificate, NOW - timedelta(seconds=1))
    assert not remedies.has_ended(b"no certificate", NOW)


def test_a_connector_without_a_certificate_is_invited_confirmed_and_enrolled_under_its_name() -> None:
    invite, confirm, enrol = remedies.enrol_again("d-1", "civil-drop", Path("/etc/my identity"))
    assert invite == "pool department invite d-1 --connector civil-drop"
    assert confirm.startswith("pool connector confirm ")
    assert enrol == "pool-connect enrol - --identity '/etc/my identity' --connector civil-drop"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.PURPOSE_MISMATCH, ("pool grant show g-1", "purpose:")),
        (Reason.CASE_MISMATCH, ("pool grant show g-1", "case:")),
        (Reason.GRANT_EXPIRED, ("pool request submit", "grant:")),
    ],
)
def test_a_subscription_that_is_refused_is_mended_by_a_command_and_a_line(
    reason: Reason, words: tuple[str, ...]
) -> None:
    found = remedies.mend_declaration(reason, "g-1")
    assert [word in line for word, line in zip(words, found, strict=True)] == [True, True]


def test_nothing_is_proposed_for_what_the_message_has_said() -> None:
    assert remedies.mend_declaration(Reason.SOURCE_UNAVAILABLE, "g-1") == ()
