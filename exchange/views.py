"""Schemas at work on the record path: checking what is published, viewing what is drawn.

Joins the registry's subjects with the engines. Compiled forms are kept: a schema by its text, a view by the grant's
version; neither ever changes. A batch under a schema that was registered a moment ago, on another gateway, makes the
set of versions be read anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from exchange.access.derive import derive_schema
from exchange.access.view import ViewSpec, compile_view
from exchange.release import Viewed
from exchange.submission import RowsRefusedError
from exchange.tasks import apply_view, check_batch
from exchange.workers import Workers
from registry.parsing import ParsedSchema, parse
from registry.subjects import Subjects
from schemas.access import Grant
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import Packed

__all__ = ["Schemas", "Views"]

_KEPT_VIEWS = 1_000


class Schemas:
    """The writer schemas of each topic, by id."""

    def __init__(self, subjects: Subjects, workers: Workers) -> None:
        self._subjects = subjects
        self._workers = workers
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
            known = self._known[topic] = {one.schema_id: self._subjects.parsed_by_id(one.schema_id) for one in versions}
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

    def check_values(self, topic: Topic, values: Packed) -> tuple[Sequence[bytes], tuple[int, ...]]:
        """See `exchange.publish.BatchCheck`."""
        try:
            checked = check_batch(self._workers, self.writers(topic), values)
        except InvalidError as error:
            if error.reason is not Reason.SCHEMA_UNKNOWN:
                raise
            # Registered a moment ago, on another gateway, perhaps.
            checked = check_batch(self._workers, self.writers(topic, anew=True), values)
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
        try:
            result = apply_view(self._workers, self._spec(grant), self._schemas.writers(grant.topic), values)
        except InvalidError as error:
            if error.reason is not Reason.SCHEMA_UNKNOWN:
                raise
            writers = self._schemas.writers(grant.topic, anew=True)
            result = apply_view(self._workers, self._spec(grant), writers, values)
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
