"""What a raiser claims is stored sealed, and opened for its own ticket alone."""

import pytest

from exchange.control.corrections.claim_seal import Claim, ClaimSeal
from exchange.demo.people import persons
from exchange.identity.secrets import MemorySecrets
from schemas.errors import CorruptError, Reason

CLAIM = Claim(claimed=str(next(iter(persons(1)))["id_number"]), evidence="户口本原件")
SEAL = ClaimSeal(MemorySecrets(b"s" * 32))


def test_a_claim_is_read_as_it_was_sealed_and_is_not_stored_in_the_clear() -> None:
    stored = SEAL.seal(CLAIM, ticket="t", grant="g")
    assert SEAL.open(stored, ticket="t", grant="g") == CLAIM
    assert CLAIM.claimed.encode() not in stored
    assert CLAIM.evidence.encode() not in stored
    assert SEAL.seal(CLAIM, ticket="t", grant="g") != stored, "equal claims do not look equal"


def test_an_erased_claim_is_none() -> None:
    assert SEAL.open(b"", ticket="t", grant="g") is None


@pytest.mark.parametrize(("ticket", "grant"), [("u", "g"), ("t", "h")], ids=["another ticket", "another grant"])
def test_a_claim_of_another_ticket_is_refused(ticket: str, grant: str) -> None:
    with pytest.raises(CorruptError) as caught:
        SEAL.open(SEAL.seal(CLAIM, ticket="t", grant="g"), ticket=ticket, grant=grant)
    assert caught.value.reason is Reason.ROW_FORGED


def test_a_changed_claim_is_refused() -> None:
    stored = SEAL.seal(CLAIM, ticket="t", grant="g")
    for changed in (stored[:-1] + bytes([stored[-1] ^ 1]), stored[:20]):
        with pytest.raises(CorruptError):
            SEAL.open(changed, ticket="t", grant="g")
