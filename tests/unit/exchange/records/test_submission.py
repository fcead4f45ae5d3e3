"""A batch whose parts do not fit is refused before it costs anything."""

from dataclasses import replace

import pytest

from exchange.records.submission import Submission, check_form
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Packed

GOOD = Submission(
    topic=Topic.parse("permits.v1"),
    sequence=1,
    marks=bytes([1, 1, 3]),
    values=Packed.of([b"one", b"two", None]),
    void_keys=Packed.of([b"key"]),
    valid=b"",
    root=bytes(32),
    previous_root=bytes(32),
    signature=b"",
    source_position=b"",
)


def test_a_batch_that_fits_is_accepted() -> None:
    check_form(GOOD)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": Packed(bytes(4 * 3_000_000), b"")},
        {"void_keys": Packed(bytes(4 * 3_000_000), b"")},
        {"valid": bytes(16 * 3_000_000)},
        {"values": Packed(b"", b"")},
        {"values": Packed.of([b"one", b"two"])},
    ],
    ids=["offsets", "void keys", "valid times", "no offsets", "one too few"],
)
def test_buffers_that_lie_about_the_count_are_not_unpacked(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packed, "checked", lambda _: pytest.fail("the offsets were unpacked"))
    with pytest.raises(InvalidError, match="another number of records"):
        check_form(replace(GOOD, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("sequence", [0, -1, 2**53, 2**64 - 1])
def test_a_number_that_no_store_could_hold_is_refused(sequence: int) -> None:
    with pytest.raises(InvalidError) as refused:
        check_form(replace(GOOD, sequence=sequence))
    assert refused.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("values", [[b"one", None, None], [b"one", b"two", b"three"]])
def test_a_void_has_no_value_and_every_other_record_has_one(values: list[bytes | None]) -> None:
    with pytest.raises(InvalidError) as refused:
        check_form(replace(GOOD, values=Packed.of(values)))
    assert refused.value.reason is Reason.RECORD_INVALID
