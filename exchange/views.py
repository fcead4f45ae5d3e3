"""Schemas at work on the record path: checking what is published, viewing what is drawn.

Joins the registry's subjects with the engines. Compiled forms are kept: a schema by its text, a view by the grant's
version; neither ever changes. A batch under a schema that was registered a moment ago, on another gateway, makes the
set of versions be read anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog

from exchange.access.derive import derive_schema
from exchange.access.view import View, ViewSpec, compile_view
from exchange.release import Viewed
from exchange.submission import RowsRefusedError
from registry.codec import engine_for
from registry.engine import Checked, RowError
from registry.framing import strip_frames
from registry.parsing import ParsedSchema, parse
from registry.subjects import Subjects
from schemas.access import Grant
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["Schemas", "Views"]

_log = structlog.get_logger()
_KEPT_VIEWS = 1_000


class Schemas:
    """The writer schemas of each topic, by id."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self._known: dict[Topic, dict[int, ParsedSchema]] = {}

    def writers(self, topic: Topic, *, anew: bool = False) -> dict[int, ParsedSchema]:
        """Give every version's schema, deleted ones too: records outlive registrations.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        known = self._known.get(topic)
        if known is None or anew:
            numbers = self._subjects.versions(topic.subject, deleted=True)
            versions = [self._subjects.version(topic.subject, number, deleted=True) for number in numbers]
            known = self._known[topic] = {one.schema_id: parse(one.content.text) for one in versions}
        return known

    def writer(self, topic: Topic, schema_id: int) -> ParsedSchema:
        """Give one version's schema.

        Raises:
            InvalidError: SCHEMA_UNKNOWN, the id is none of this topic's.
        """
        schema = self.writers(topic).get(schema_id) or self.writers(topic, anew=True).get(schema_id)
        if schema is None:
            raise InvalidError(
                Reason.SCHEMA_UNKNOWN,
                f"got a value of schema {schema_id}; expected one registered under {topic.subject}",
            )
        return schema

    def latest(self, topic: Topic) -> tuple[int, str]:
        """Give id and text of the latest version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        registered = self._subjects.version(topic.subject, None)
        return registered.schema_id, registered.content.text

    def text(self, schema_id: int) -> str:
        """Give the text of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return self._subjects.by_id(schema_id).content.text

    def check_values(self, topic: Topic, values: Packed) -> tuple[Sequence[bytes], tuple[int, ...]]:
        """See `exchange.publish.BatchCheck`."""
        groups = strip_frames(values)
        faults: list[RowError] = []
        found: list[tuple[Sequence[int], Sequence[bytes]]] = []
        for group in groups:
            checked = engine_for(self.writer(topic, group.schema_id)).check(group.datums)
            if isinstance(checked, Checked):
                found.append((group.indexes.tolist(), checked.keys))
            else:
                places = group.indexes.tolist()
                faults.extend(
                    RowError(index=places[row.index], reason=row.reason, field=row.field, message=row.message)
                    for row in checked
                )
        if faults:
            raise RowsRefusedError(sorted(faults, key=lambda row: row.index))
        ids = tuple(group.schema_id for group in groups)
        if len(found) == 1:
            return found[0][1], ids
        merged = sorted((index, key) for indexes, keys in found for index, key in zip(indexes, keys, strict=True))
        return [key for _, key in merged], ids


class Views:
    """The views of grants."""

    def __init__(self, schemas: Schemas, subjects: Subjects, *, alarm: Callable[[str], None]) -> None:
        self._schemas = schemas
        self._subjects = subjects
        self._alarm = alarm
        self._kept: OrderedDict[tuple[str, int], View] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grant: Grant) -> None:
        """Check that a grant's fields, masks and filter suit every writer schema of its topic.

        Raises:
            InvalidError: FIELD_UNKNOWN, MASK_UNKNOWN, FILTER_INVALID, SCHEMA_INCOMPATIBLE.
        """
        compile_view(self._spec(grant, self._derive(grant), 0), self._schemas.writers(grant.topic, anew=True))

    def register(self, grant: Grant) -> int:
        """Derive a grant's output schema, register it under its hidden subject, and give its id."""
        return self._subjects.register_view(grant.id, grant.version, self._derive(grant))

    def __call__(self, grant: Grant, values: Sequence[bytes | None]) -> Viewed:
        """See `exchange.release.ViewOf`."""
        try:
            result = self._view(grant).apply(values)
        except InvalidError as error:
            if error.reason is not Reason.SCHEMA_UNKNOWN:
                raise
            self._schemas.writers(grant.topic, anew=True)
            with self._lock:
                self._kept.pop((grant.id, grant.version), None)
            result = self._view(grant).apply(values)
        if result.alarm:
            self._alarm(result.alarm)
        return Viewed(kept=result.kept, values=result.values)

    def _view(self, grant: Grant) -> View:
        key = (grant.id, grant.version)
        with self._lock:
            view = self._kept.get(key)
            if view is not None:
                self._kept.move_to_end(key)
                return view
        output_id = grant.view_schema_id or 0
        view = compile_view(
            self._spec(grant, self._schemas.text(output_id), output_id), self._schemas.writers(grant.topic)
        )
        with self._lock:
            self._kept[key] = view
            while len(self._kept) > _KEPT_VIEWS:
                self._kept.popitem(last=False)
        return view

    def _spec(self, grant: Grant, output: str, output_id: int) -> ViewSpec:
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
