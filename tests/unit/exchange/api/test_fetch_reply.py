"""An answer as it stands on the wire is what the library would have written, whatever is in it."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from exchange.api.fetch_reply import encoded_reply
from exchange.records.release import Release
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.record import Packed

SOME_BYTES = st.one_of(st.binary(max_size=300), st.integers(0, 40_000).map(bytes))  # lengths of one to three bytes
RELEASES = st.builds(
    Release,
    schema_id=st.integers(0, 2**32 - 1),
    values=st.lists(SOME_BYTES, max_size=5).map(Packed.of),
    record_keys=SOME_BYTES,
    recorded_at=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40),
    valid=SOME_BYTES,
    next_position=SOME_BYTES,
    entry_id=st.text(max_size=40),
    leaf_hash=SOME_BYTES,
    caught_up=st.booleans(),
    deadline=st.just(0.0),
    disputed=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    places=SOME_BYTES,
    marks=SOME_BYTES,
)


@given(RELEASES, st.booleans())
def test_an_encoded_answer_is_the_message_of_its_release(release: Release, places: bool) -> None:
    expected = wire.FetchReply(
        view=wire.ViewRecords(
            schema_id=release.schema_id,
            values=wire.Packed(offsets=release.values.offsets, values=release.values.values),
            record_keys=release.record_keys,
            recorded_at=struct.pack(f"<{len(release.recorded_at)}q", *release.recorded_at),
            valid=release.valid if places else b"",
            places=release.places if places else b"",
            marks=release.marks if places else b"",
            disputed=release.disputed,
        ),
        next_position=release.next_position,
        entry_id=release.entry_id,
        leaf_hash=release.leaf_hash,
        caught_up=release.caught_up,
    )
    assert wire.FetchReply.FromString(encoded_reply(release, places=places)) == expected
