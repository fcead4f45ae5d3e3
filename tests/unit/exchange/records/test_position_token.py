"""A position's token: read by the pool that sealed it, for its grant and generation, and by nobody else."""

import struct
from dataclasses import replace

import pytest

from exchange.identity.secrets import MemorySecrets
from exchange.records.reading.position_token import ConsumerPosition, PositionTokens, is_clear, read_clear
from schemas.errors import ConflictError, InvalidError, Reason

SECRETS = MemorySecrets(b"s" * 32)
NOW = 1_800_000_000
TOKENS = PositionTokens(SECRETS.grant_key, lambda: NOW * 1_000_000)
POSITION = ConsumerPosition(last_released=(1, 2), next=(10, 2**40), runs=7)
CLEAR = struct.pack("<B8sqH4Q", 1, b"", 3, 2, 1, 2, 10, 11)


@pytest.mark.parametrize("runs", [None, 0, 7])
def test_what_was_sealed_is_read(runs: int | None) -> None:
    opened = TOKENS.open(TOKENS.seal(replace(POSITION, runs=runs), "g-1", 3), "g-1", 3, 2)
    assert opened == replace(POSITION, runs=runs, issued=NOW)


def test_its_size_depends_on_nothing_but_the_partitions() -> None:
    sizes = [
        len(TOKENS.seal(ConsumerPosition(last_released=(at,) * n, next=(at,) * n), "g-1", 3))
        for n in (1, 4)
        for at in (0, 255, 2**40)
    ]
    assert sizes == [49 + 12] * 3 + [49 + 48] * 3


def test_one_position_has_many_tokens() -> None:
    assert len({TOKENS.seal(POSITION, "g-1", 3) for _ in range(100)}) == 100


def test_no_byte_may_be_changed() -> None:
    token = TOKENS.seal(POSITION, "g-1", 3)
    for at in range(len(token)):
        changed = token[:at] + bytes([token[at] ^ 128]) + token[at + 1 :]
        with pytest.raises(InvalidError) as refused:
            TOKENS.open(changed, "g-1", 3, 2)
        assert refused.value.reason is Reason.POSITION_INVALID
    for cut in (b"", token[:1], token[:-1], token + b"\0"):
        with pytest.raises(InvalidError):
            TOKENS.open(cut, "g-1", 3, 2)


def test_a_token_is_of_one_grant_one_pool_and_one_generation() -> None:
    token = TOKENS.seal(POSITION, "g-1", 3)
    other = PositionTokens(MemorySecrets(b"o" * 32).grant_key, lambda: 1)
    for tokens, grant_id in ((TOKENS, "g-2"), (other, "g-1")):
        with pytest.raises(InvalidError, match="was not made for this grant"):
            tokens.open(token, grant_id, 3, 2)
    with pytest.raises(ConflictError) as refused:
        TOKENS.open(token, "g-1", 4, 2)
    assert refused.value.reason is Reason.TOPIC_GENERATION_CHANGED


def test_a_token_in_clear_is_no_sealed_one() -> None:
    assert is_clear(CLEAR)
    assert not is_clear(TOKENS.seal(POSITION, "g-1", 3))
    with pytest.raises(InvalidError):
        TOKENS.open(CLEAR, "g-1", 3, 2)
    with pytest.raises(InvalidError, match="of another grant"):
        read_clear(CLEAR, "g-1", 3, 2)
