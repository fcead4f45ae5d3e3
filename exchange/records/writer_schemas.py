"""Writer schemas: a cache of each topic's schema versions, by id, for the check of batches and for views.

The versions of a topic are cached without a time limit. A batch with a schema id that is not among them (registered a
moment ago on another gateway, perhaps) refreshes the cache, at most once a second for each topic, so that a client that
sends frames of no schema causes no load on the registry. "Schema unknown" is never answered from versions that were
read before the question.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from typing_extensions import override

from exchange.engines.process_pool import ProcessPool
from exchange.records.engine_tasks import check_batch
from exchange.records.ports import RecordChecker
from exchange.records.submission import CheckedRecords, Records, RowsRefusedError
from exchange.single_flight import SingleFlight
from registry.avro.parser import ParsedSchema
from registry.database.unit_of_work import Database, Reader
from registry.subjects.lookup import SchemaLookup
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["WriterSchemas"]

_T = TypeVar("_T")

_REFRESH_PERIOD = 1.0  # seconds between two refreshes of one topic


class WriterSchemas(RecordChecker):
    """The writer schemas of each topic, by id; checks the records of batches with them."""

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
        self._clock = clock  # seconds, monotonic
        self._cached: dict[Topic, tuple[float, dict[int, ParsedSchema]]] = {}  # start of the query, its result
        self._refreshed: dict[Topic, float] = {}  # time of the last refresh
        self._refreshes = SingleFlight(self._refresh)

    def writers(self, topic: Topic) -> dict[int, ParsedSchema]:
        """Return every version's schema, deleted ones too: records outlive registrations. Cached.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        cached = self._cached.get(topic)
        return (self._read(topic) if cached is None else cached)[1]

    def read_writers(self, reader: Reader, topic: Topic) -> dict[int, ParsedSchema]:
        """Read every version's schema, deleted ones too, without the cache.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        numbers = self._lookup.version_numbers(reader, topic.subject, deleted=True)
        versions = [self._lookup.version(reader, topic.subject, number, deleted=True) for number in numbers]
        readable: dict[int, ParsedSchema] = {}
        for one in versions:
            # A version registered before the catalogue had the resource may be no schema that records can have. Such a
            # version is not a writer schema; the others still are.
            try:
                readable[one.schema_id] = self._lookup.parsed_by_id(reader, one.schema_id)
            except InvalidError as error:
                if error.reason not in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}:
                    raise
        return readable

    def with_writers(self, topic: Topic, use: Callable[[Mapping[int, ParsedSchema]], _T]) -> _T:
        """Return the result of *use* with the topic's writers; if one is unknown to it, call it with refreshed ones.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNKNOWN, the schema was none of the topic's after the call began.
            UnavailableError: OVERLOADED, the schema may be a new one, and it is too soon for a refresh.
        """
        began = self._clock()
        writers = self.writers(topic)
        try:
            return use(writers)
        except InvalidError as error:
            if error.reason is not Reason.SCHEMA_UNKNOWN:
                raise
            unknown = error
        read_at, newer = self._refreshes(topic)
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
            retry_after=_REFRESH_PERIOD,
        ) from unknown

    def _refresh(self, topic: Topic) -> tuple[float, dict[int, ParsedSchema]]:
        now = self._clock()
        if now - self._refreshed.get(topic, -math.inf) < _REFRESH_PERIOD:
            return self._cached[topic]
        versions = self._read(topic)
        self._refreshed[topic] = now
        return versions

    def _read(self, topic: Topic) -> tuple[float, dict[int, ParsedSchema]]:
        began = self._clock()
        with self._database.read() as reader:
            read = began, self.read_writers(reader, topic)
        self._cached[topic] = read
        return read

    def latest(self, reader: Reader, topic: Topic) -> tuple[int, str]:
        """Return id and text of the latest version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        registered = self._lookup.version(reader, topic.subject, None)
        if registered.content.references:
            return registered.schema_id, self._lookup.inlined_text(reader, registered.schema_id)
        return registered.schema_id, registered.content.text

    def version_ids(self, reader: Reader, topic: Topic) -> list[int]:
        """Return the schema id of every version, deleted ones too, in the order of their registration.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        return [one.schema_id for one in self._lookup.stored_versions(reader, topic.subject, deleted=True)]

    def text(self, reader: Reader, schema_id: int) -> str:
        """Return the text of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return self._lookup.inlined_text(reader, schema_id)

    def subjects_of(self, reader: Reader, schema_id: int) -> tuple[str, list[str]]:
        """Return the subject under which an id was first registered, and those that have it now.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        origin = self._lookup.by_id(reader, schema_id).origin
        return origin, [one.subject for one in self._lookup.versions_by_schema_id(reader, schema_id)]

    def referenced(self, reader: Reader, schema_id: int) -> list[str]:
        """Return the subjects that an id's schema refers to, and what those refer to in turn."""
        references = self._lookup.by_id(reader, schema_id).content.references
        return sorted(set(self._lookup.referenced_subjects(reader, references))) if references else []

    @override
    def check(self, topic: Topic, records: Records, values: Sequence[bytes]) -> CheckedRecords:
        checked = self.with_writers(topic, lambda writers: check_batch(self._workers, writers, records, values))
        if isinstance(checked, list):
            raise RowsRefusedError(checked)
        return checked
