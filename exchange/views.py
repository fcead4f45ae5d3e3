"""Schemas at work on the record path: checking what is published, viewing what is drawn.

Joins the registry's subjects with the engines. Compiled forms are kept: a schema by its text, a view by the grant's
version; neither ever changes. A batch under a schema that was registered a moment ago, on another gateway, makes the
set of versions be read anew, at most once a second for each topic: whoever sends frames of no schema at all must not
make the registry work. Nobody is told that a schema is unknown on the word of a set that is older than the question.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from exchange.access.derive import derive_schema
from exchange.access.view import ViewSpec, compile_view
from exchange.release import Viewed
from exchange.submission import Records, RowsRefusedError
from exchange.tasks import apply_view, check_batch
from exchange.waves import Waves
from exchange.workers import Workers
from registry.parsing import ParsedSchema, parse
from registry.subjects import Subjects
from schemas.access import Grant
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["Schemas", "Views"]

_T = TypeVar("_T")

_KEPT_VIEWS = 1_000
_LOOKS = 1.0  # seconds between two looks for new versions of one topic


class Schemas:
    """The writer schemas of each topic, by id."""

    def __init__(self, subjects: Subjects, workers: Workers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._subjects = subjects
        self._workers = workers
        self._clock = clock  # seconds, rising
        self._known: dict[Topic, tuple[float, dict[int, ParsedSchema]]] = {}  # when the reading began, what it gave
        self._looked: dict[Topic, float] = {}  # when a batch last made it be read anew
        self._looks = Waves(self._look)

    def writers(self, topic: Topic, *, anew: bool = False) -> dict[int, ParsedSchema]:
        """Give every version's schema, deleted ones too: records outlive registrations.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        known = self._known.get(topic)
        return (self._read(topic) if known is None or anew else known)[1]

    def with_writers(self, topic: Topic, use: Callable[[Mapping[int, ParsedSchema]], _T]) -> _T:
        """Give what *use* makes of the topic's writers; where it meets an unknown one, with those of this moment.

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
        numbers = self._subjects.versions(topic.subject, deleted=True)
        versions = [self._subjects.version(topic.subject, number, deleted=True) for number in numbers]
        readable: dict[int, ParsedSchema] = {}
        for one in versions:
            # What was registered before the catalogue had the resource may be no schema that records can have. Such a
            # version is none of the topic's writers; it does not keep the others from being one.
            try:
                readable[one.schema_id] = self._subjects.parsed_by_id(one.schema_id)
            except InvalidError as error:
                if error.reason not in {Reason.SCHEMA_INVALID, Reason.SCHEMA_UNSAFE}:
                    raise
        known = began, readable
        self._known[topic] = known
        return known

    def latest(self, topic: Topic) -> tuple[int, str]:
        """Give id and text of the latest version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        registered = self._subjects.version(topic.subject, None)
        if registered.content.references:
            return registered.schema_id, self._subjects.whole(registered.schema_id)
        return registered.schema_id, registered.content.text

    def text(self, schema_id: int) -> str:
        """Give the text of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return self._subjects.whole(schema_id)

    def check_records(
        self, topic: Topic, records: Records, values: Sequence[bytes]
    ) -> tuple[Sequence[bytes], tuple[int, ...]]:
        """See `exchange.publish.BatchCheck`."""
        checked = self.with_writers(topic, lambda writers: check_batch(self._workers, writers, records, values))
        if isinstance(checked, list):
            raise RowsRefusedError(checked)
        return checked


class Views:
    """The views of grants."""

    def __init__(self, schemas: Schemas, subjects: Subjects, workers: Workers, *, alarm: Callable[[str], None]) -> None:
        self._schemas = schemas
        self._subjects = subjects
        self._workers = workers
        self._alarm = alarm
        self._kept: OrderedDict[tuple[str, int], ViewSpec] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grant: Grant) -> None:
        """Check that a grant's fields, masks and filter suit every writer schema of its topic.

        Raises:
            InvalidError: FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID, SCHEMA_INCOMPATIBLE.
        """
        compile_view(self._made(grant, self._derive(grant), 0), self._schemas.writers(grant.topic, anew=True))

    def register(self, grant: Grant) -> int:
        """Derive a grant's output schema, register it under its hidden subject, and give its id."""
        return self._subjects.register_view(grant.id, grant.version, self._derive(grant))

    def __call__(self, grant: Grant, values: Sequence[bytes | None]) -> Viewed:
        """See `exchange.release.ViewOf`."""
        spec = self._spec(grant)
        result = self._schemas.with_writers(
            grant.topic, lambda writers: apply_view(self._workers, spec, writers, values)
        )
        if result.alarm:
            self._alarm(result.alarm)
        return Viewed(kept=result.kept, values=result.values)

    def _spec(self, grant: Grant) -> ViewSpec:
        """Give what a grant version's view is made of; it never changes."""
        key = (grant.id, grant.version)
        with self._lock:
            spec = self._kept.get(key)
            if spec is not None:
                self._kept.move_to_end(key)
                return spec
        output_id = grant.view_schema_id or 0
        spec = self._made(grant, self._schemas.text(output_id), output_id)
        with self._lock:
            self._kept[key] = spec
            while len(self._kept) > _KEPT_VIEWS:
                self._kept.popitem(last=False)
        return spec

    def _made(self, grant: Grant, output: str, output_id: int) -> ViewSpec:
        return ViewSpec(
            output=output,
            output_id=output_id,
            masks=grant.masks,
            row_filter=grant.row_filter,
            resource=self._schemas.latest(grant.topic)[1],
        )

    def _derive(self, grant: Grant) -> str:
        resource = parse(self._schemas.latest(grant.topic)[1])
        return derive_schema(resource, grant.fields, grant.masks, f"{resource.fullname}View")
