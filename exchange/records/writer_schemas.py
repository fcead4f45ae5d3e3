"""Schemas at work on the record path: checking what is published, viewing what is drawn.

Joins the registry's subjects with the engines. Compiled forms are kept: a schema by its text, a view by the grant's
version; neither ever changes. A batch under a schema that was registered a moment ago, on another gateway, makes the
set of versions be read again, at most once a second for each topic: whoever sends frames of no schema at all must not
make the registry work. Nobody is told that a schema is unknown on the word of a set that is older than the question.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from typing_extensions import override

from exchange.engines.process_pool import ProcessPool
from exchange.records.engine_tasks import check_batch
from exchange.records.ports import RecordChecker
from exchange.records.submission import Records, RowsRefusedError
from exchange.single_flight import SingleFlight
from registry.avro.parser import ParsedSchema
from registry.database.unit_of_work import Database, Reader
from registry.subjects.lookup import SchemaLookup
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["WriterSchemas"]

_T = TypeVar("_T")

_LOOKS = 1.0  # seconds between two looks for new versions of one topic


class WriterSchemas(RecordChecker):
    """The writer schemas of each topic, by id."""

    def __init__(
        self,
        database: Database,
        lookup: SchemaLookup,
        workers: ProcessPool,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._lookup = lookup
        self._workers = workers
        self._clock = clock  # seconds, rising
        self._known: dict[Topic, tuple[float, dict[int, ParsedSchema]]] = {}  # when the reading began, what it gave
        self._looked: dict[Topic, float] = {}  # when a batch last made it be read again
        self._looks = SingleFlight(self._look)

    def writers(self, topic: Topic) -> dict[int, ParsedSchema]:
        """Return every version's schema, deleted ones too: records outlive registrations. Cached.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        cached = self._known.get(topic)
        return (self._read(topic) if cached is None else cached)[1]

    def read_writers(self, reader: Reader, topic: Topic) -> dict[int, ParsedSchema]:
        """Read every version's schema, deleted ones too, past the cache.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        numbers = self._lookup.versions(reader, topic.subject, deleted=True)
        versions = [self._lookup.version(reader, topic.subject, number, deleted=True) for number in numbers]
        readable: dict[int, ParsedSchema] = {}
        for one in versions:
            # What was registered before the catalogue had the resource may be no schema that records can have. Such a
            # version is none of the topic's writers; it does not keep the others from being one.
            try:
                readable[one.schema_id] = self._lookup.parsed_by_id(reader, one.schema_id)
            except InvalidError as error:
                if error.reason not in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}:
                    raise
        return readable

    def with_writers(self, topic: Topic, use: Callable[[Mapping[int, ParsedSchema]], _T]) -> _T:
        """Return what *use* makes of the topic's writers; where it meets an unknown one, with those of this moment.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNKNOWN, the schema was none of the topic's after the call began.
            UnavailableError: OVERLOADED, the schema may be a new one, and it is too soon to look again.
        """
        began = self._clock()
        writers = self.writers(topic)
        try:
            return use(writers)
        except InvalidError as error:
            if error.reason is not Reason.SCHEMA_UNKNOWN:
                raise
            unknown = error
        # Registered a moment ago, on another gateway, perhaps.
        read_at, newer = self._looks(topic)
        if newer is not writers:
            try:
                return use(newer)
            except InvalidError as error:
                if error.reason is not Reason.SCHEMA_UNKNOWN:
                    raise
                unknown = error
        if read_at >= began:
            raise unknown
        raise UnavailableError(
            Reason.OVERLOADED,
            "got a schema that was none of the topic's when its versions were last read; they are read again at most "
            "once a second: send it again",
            retry_after=_LOOKS,
        ) from unknown

    def _look(self, topic: Topic) -> tuple[float, dict[int, ParsedSchema]]:
        now = self._clock()
        if now - self._looked.get(topic, -math.inf) < _LOOKS:
            return self._known[topic]
        known = self._read(topic)
        self._looked[topic] = now
        return known

    def _read(self, topic: Topic) -> tuple[float, dict[int, ParsedSchema]]:
        began = self._clock()
        with self._database.read() as reader:
            read = began, self.read_writers(reader, topic)
        self._known[topic] = read
        return read

    def latest(self, reader: Reader, topic: Topic) -> tuple[int, str]:
        """Return id and text of the latest version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        registered = self._lookup.version(reader, topic.subject, None)
        if registered.content.references:
            return registered.schema_id, self._lookup.whole(reader, registered.schema_id)
        return registered.schema_id, registered.content.text

    def text(self, reader: Reader, schema_id: int) -> str:
        """Return the text of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return self._lookup.whole(reader, schema_id)

    @override
    def check(self, topic: Topic, records: Records, values: Sequence[bytes]) -> tuple[Sequence[bytes], tuple[int, ...]]:
        checked = self.with_writers(topic, lambda writers: check_batch(self._workers, writers, records, values))
        if isinstance(checked, list):
            raise RowsRefusedError(checked)
        return checked
