"""Port of what the hub draws: a release with each record's place, operation and valid times. Thin over the client.

The hub is a department like another: it draws by fetch and acknowledges by commit, under grants of its own that give
places. This port is what a step needs of the client (`exchange.client.port.Pool`), so that the rules of drawing are
tested without a pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from exchange.hub.drawing.subjects import IdentifierFields
from exchange.hub.fold.claim import Instant
from schemas.names import Topic
from schemas.record import Operation

__all__ = ["DrawnRecord", "DrawnResource", "HubSource", "Release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRecord:
    """One record of a release.

    Attributes:
        partition: of its topic.
        offset: in it.
        item: its key under the hub's grant, 16 bytes.
        operation: upsert, correct, or void for a withdrawn one too.
        recorded_at: when the pool recorded it.
        valid_from: as stated; None where nothing is.
        valid_to: as stated.
        value: framed Avro of the view; empty for a void.
    """

    partition: int
    offset: int
    item: bytes
    operation: Operation
    recorded_at: Instant
    valid_from: Instant | None = None
    valid_to: Instant | None = None
    value: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one fetch gave.

    Attributes:
        records: in order of offset within each partition.
        generation: of the topic.
        next_position: of the next fetch.
        entry: id of the entry of the release; empty when nothing was released.
        caught_up: whether the end of the topic was reached.
    """

    records: Sequence[DrawnRecord]
    generation: int
    next_position: bytes
    entry: str
    caught_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnResource:
    """A resource that the hub draws into a library.

    Attributes:
        topic: resource and major version.
        grant: the hub's.
        library: whose claims they become.
        subject: fields that name the subject.
        links: fields that name the same subject otherwise.
    """

    topic: Topic
    grant: str
    library: str
    subject: IdentifierFields
    links: tuple[IdentifierFields, ...] = ()


class HubSource(Protocol):
    """A pool, drawn under the hub's own identity. Any call may raise what `exchange.client.port.Pool` names."""

    def fetch(self, grant: str, position: bytes) -> Release:
        """Return what follows a position; empty for the beginning."""
        ...

    def commit(self, grant: str, position: bytes) -> None:
        """Acknowledge everything before a position as stored permanently."""
        ...

    def schema(self, schema_id: int) -> str:
        """Return the Avro text of a schema."""
        ...
