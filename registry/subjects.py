"""Subjects and their versions: what may be registered, and what an id means, for ever.

    register   parse ── mode ── known already? ── governance ── compatibility ── id ── version
    look up    by content (an index look-up, however many versions there are), by version, by id
    delete     softly (hidden, still readable by id), then for good

An id belongs to a content, not to a subject: the same content under two subjects has one id, and after every
deletion, re-registration and restore it has the same one again. So an id in front of a record never comes to mean
another schema, and it stays readable by id even after its last version is gone: records outlive registrations.

Views. What a grant delivers is framed with a schema of its own, under the subject `view.<grant>.v<n>`. Those
subjects are not listed, have one version each, and owe nothing to one another. Only `register_view` makes them.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from registry import governance
from registry.compatibility import Incompatibility, check, refuse_incompatible
from registry.content import content_key, guid, shape_key
from registry.parsing import ParsedSchema, parse
from registry.settings import Configuration
from registry.store import Change, Content, StoredSchema, StoredVersion, SubjectStore
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["Registered", "Subjects", "is_view", "view_subject"]

_MAX_SUBJECT = 500  # characters
_VIEW = re.compile(r"view\..+\.v[1-9][0-9]*")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KNOWN_IDS = 10_000  # contents kept in memory; they never change


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a subject and what it holds.

    Attributes:
        subject, number: the version. schema_id: its id. guid: the id's content as a UUID.
        content: with the version's own text.
        deleted: softly.
    """

    subject: str
    number: int
    schema_id: int
    guid: str
    content: Content
    deleted: bool


def view_subject(grant: str, version: int) -> str:
    """Give the subject under which a grant version's output schema is registered."""
    return f"view.{grant}.v{version}"


def is_view(subject: str) -> bool:
    """Tell a view's subject from others."""
    return subject.startswith("view.") and _VIEW.fullmatch(subject) is not None


class Subjects:
    """Registers schemas and finds them again.

    Args:
        store: where they are kept.
        configuration: levels and modes.
        governed: whether every field must be classified under this subject; the catalogue says so for its resources.
        strict: also refuse logical types that change their meaning between versions.
    """

    def __init__(
        self,
        store: SubjectStore,
        configuration: Configuration,
        *,
        governed: Callable[[str], bool],
        strict: bool = False,
    ) -> None:
        self._store = store
        self.configuration = configuration
        self._governed = governed
        self._strict = strict
        self._known: dict[int, StoredSchema] = {}
        self._lock = threading.Lock()

    def register(self, subject: str, content: Content) -> Registered:
        """Register a content, or find it registered already.

        Metadata and rules that are left out are taken over from the latest version.

        Raises:
            InvalidError: SUBJECT_INVALID; SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED, naming each field.
            ConflictError: SCHEMA_INCOMPATIBLE, naming versions and JSON paths; CLASSIFICATION_LOWERED.
            RefusedError: SUBJECT_READ_ONLY.
            UnavailableError: see `SubjectStore.change`.
        """
        _refuse_name(subject)
        parsed = self._parsed(content)
        with self._store.change(subject) as change:
            self.configuration.refuse_read_only(subject, change.settings())
            versions = change.versions()
            live = [version for version in versions if not version.deleted]
            known = self._same(live, content, parsed)
            if known is not None:
                return self._own(known)
            content = self._inherit(content, live)
            if self._governed(subject):
                self._refuse_ungoverned(parsed, versions)
            self._refuse_incompatible(change, subject, content, live)
            return self._append(change, subject, content, parsed, versions)

    def register_view(self, grant: str, version: int, text: str) -> int:
        """Register what a grant version delivers; give its id.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
            ConflictError: VERSION_CONFLICT, when the grant version has another view already.
        """
        subject, content = view_subject(grant, version), Content(text=text)
        parsed = self._parsed(content)
        with self._store.change(subject, hidden=True) as change:
            versions = change.versions()
            known = self._same(versions, content, parsed)
            if known is not None:
                return known.schema_id
            if versions:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    f"version {version} of the grant {grant} has another view; a changed view is a new grant version",
                )
            return self._append(change, subject, content, parsed, versions).schema_id

    def look_up(self, subject: str, content: Content, *, deleted: bool = False) -> Registered:
        """Find a content among a subject's versions; of several, the latest.

        Args:
            subject: where to look.
            content: what to look for; without metadata and rules any will do.
            deleted: also look among softly deleted versions.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        self._versions(subject, deleted=deleted)
        parsed = self._parsed(content)
        shape = shape_key(content, parsed.json)
        candidates = [item for item in self._store.by_shape(subject, shape) if deleted or not item.deleted]
        found = self._same(candidates, content, parsed)
        if found is None:
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"the subject {subject} has no version with this schema")
        return self._own(found)

    def by_id(self, schema_id: int) -> StoredSchema:
        """Give what an id stands for, with the text first submitted for it.

        Raises:
            InvalidError: SCHEMA_UNKNOWN, for an id that was never given.
        """
        known = self._known.get(schema_id)
        if known is not None:
            return known
        schema = self._store.schema(schema_id) if 0 < schema_id < 2**31 else None
        if schema is None:
            raise InvalidError(
                Reason.SCHEMA_UNKNOWN, f"no schema has the id {schema_id}", details={"schema": str(schema_id)}
            )
        with self._lock:
            if len(self._known) >= _KNOWN_IDS:
                self._known.clear()
            self._known[schema_id] = schema
        return schema

    def parsed_by_id(self, schema_id: int) -> ParsedSchema:
        """Give the parsed schema of an id.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return parse(self.by_id(schema_id).content.text)

    def version(self, subject: str, number: int | None, *, deleted: bool = False) -> Registered:
        """Give a version with its own text.

        Args:
            subject: whose.
            number: from 1; None = the latest that is not deleted.
            deleted: also find softly deleted ones.

        Raises:
            InvalidError: SUBJECT_UNKNOWN or VERSION_UNKNOWN.
        """
        return self._own(_pick(self._versions(subject, deleted=deleted), number))

    def versions(self, subject: str, *, deleted: bool = False, deleted_only: bool = False) -> list[int]:
        """Give a subject's version numbers in ascending order.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        found = self._versions(subject, deleted=deleted or deleted_only)
        return [version.number for version in found if version.deleted or not deleted_only]

    def subjects(self, prefix: str = "", *, deleted: bool = False, deleted_only: bool = False) -> list[str]:
        """Give the names of subjects that have versions, sorted; views are never among them."""
        return [
            name
            for name, live in self._store.subjects()
            if name.startswith(prefix) and (not live if deleted_only else live or deleted)
        ]

    def uses(self, schema_id: int, *, deleted: bool = False) -> list[StoredVersion]:
        """Give the versions that have an id, by subject and number.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        self.by_id(schema_id)
        return [version for version in self._store.uses(schema_id) if deleted or not version.deleted]

    def check(self, subject: str, content: Content, number: int | None = None) -> list[Incompatibility]:
        """Test a content against a subject's live versions, without registering it.

        Args:
            subject: whose level and versions count.
            content: what would be registered.
            number: test against this version if the level is not transitive; None = the latest.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        self._parsed(content)
        live = self._versions(subject, deleted=False)
        level = self.configuration.level(subject)
        against = live if level.transitive else [_pick(live, number)]
        return check(content.text, self._texts(against), level, strict=self._strict)

    def delete(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete every version of a subject, softly, or for good once that is done.

        Returns:
            The numbers deleted.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
            ConflictError: SUBJECT_DELETED, when it is softly deleted already; SUBJECT_NOT_DELETED, when a permanent
                deletion comes first.
            RefusedError: SUBJECT_READ_ONLY.
        """
        with self._store.change(subject) as change:
            self.configuration.refuse_read_only(subject, change.settings())
            versions = change.versions()
            if not versions:
                raise _unknown(subject)
            live = [version.number for version in versions if not version.deleted]
            if permanent and live:
                raise ConflictError(
                    Reason.SUBJECT_NOT_DELETED,
                    f"the subject {subject} is to be deleted softly first",
                    details={"subject": subject},
                )
            if not permanent and not live:
                raise ConflictError(
                    Reason.SUBJECT_DELETED, f"the subject {subject} is deleted already", details={"subject": subject}
                )
            numbers = live or [version.number for version in versions]
            self._remove(change, numbers, permanent=permanent, last=True)
            return numbers

    def delete_version(self, subject: str, number: int | None, *, permanent: bool = False) -> int:
        """Delete one version, softly, or for good once that is done; give its number.

        Raises:
            InvalidError: SUBJECT_UNKNOWN or VERSION_UNKNOWN.
            ConflictError: VERSION_DELETED, when it is softly deleted already; VERSION_NOT_DELETED, when a permanent
                deletion comes first.
            RefusedError: SUBJECT_READ_ONLY.
        """
        with self._store.change(subject) as change:
            self.configuration.refuse_read_only(subject, change.settings())
            versions = change.versions()
            if not versions:
                raise _unknown(subject)
            latest = [version for version in versions if not version.deleted] if number is None else versions
            version = _pick(latest, number)
            details = {"subject": subject, "version": str(version.number)}
            if permanent and not version.deleted:
                raise ConflictError(
                    Reason.VERSION_NOT_DELETED, "the version is to be deleted softly first", details=details
                )
            if version.deleted and not permanent:
                raise ConflictError(Reason.VERSION_DELETED, "the version is deleted already", details=details)
            self._remove(change, [version.number], permanent=permanent, last=len(versions) == 1)
            return version.number

    def classification(self, subject: str, number: int | None = None) -> list[governance.Labelled]:
        """Give the classification of every field of a version; None = the latest.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_UNCLASSIFIED.
        """
        return governance.classify(parse(self.version(subject, number).content.text).json)

    def classified(self, subject: str) -> list[governance.Labelled]:
        """Give the classification of the fields of every live version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNCLASSIFIED, when one of the versions lacks something.
        """
        numbers = self.versions(subject)
        return [field for number in numbers for field in self.classification(subject, number)]

    def _parsed(self, content: Content) -> ParsedSchema:
        if content.kind != "AVRO":
            raise InvalidError(
                Reason.SCHEMA_INVALID, f"got the schema type {content.kind[:40]}; this registry checks AVRO only"
            )
        if content.references:
            raise InvalidError(
                Reason.SCHEMA_INVALID, "got a schema with references; write the types that it needs into it"
            )
        return parse(content.text)

    def _same(self, versions: Iterable[StoredVersion], content: Content, parsed: ParsedSchema) -> StoredVersion | None:
        """Find the latest version with a content; one without metadata and rules fits any."""
        bare = content.metadata is None and content.rule_set is None
        wanted = shape_key(content, parsed.json) if bare else content_key(content, parsed.json)
        found = [version for version in versions if wanted == (version.shape if bare else version.key)]
        return found[-1] if found else None

    def _inherit(self, content: Content, live: list[StoredVersion]) -> Content:
        if not live:
            return content
        last = self.by_id(live[-1].schema_id).content
        return Content(
            text=content.text,
            kind=content.kind,
            references=content.references,
            metadata=last.metadata if content.metadata is None else content.metadata,
            rule_set=last.rule_set if content.rule_set is None else content.rule_set,
        )

    def _refuse_ungoverned(self, parsed: ParsedSchema, versions: Iterable[StoredVersion]) -> None:
        fields = governance.classify(parsed.json)
        # Softly deleted versions too: deleting is no way round.
        earlier = []
        for version in versions:
            labelled, _ = governance.examine(self.parsed_by_id(version.schema_id).json)
            earlier.append((version.number, labelled))
        governance.refuse_lowered(fields, earlier)

    def _refuse_incompatible(self, change: Change, subject: str, content: Content, live: list[StoredVersion]) -> None:
        level = self.configuration.level(subject, change.settings())
        relevant = live if level.transitive else live[-1:]
        refuse_incompatible(check(content.text, self._texts(relevant), level, strict=self._strict), level)

    def _texts(self, versions: Iterable[StoredVersion]) -> list[tuple[int, str]]:
        return [(version.number, self.by_id(version.schema_id).content.text) for version in versions]

    def _append(
        self, change: Change, subject: str, content: Content, parsed: ParsedSchema, versions: list[StoredVersion]
    ) -> Registered:
        schema = change.intern(content_key(content, parsed.json), shape_key(content, parsed.json), content)
        number = versions[-1].number + 1 if versions else 1
        change.add(number, schema, content.text)
        version = StoredVersion(
            subject=subject, number=number, schema_id=schema.id, key=schema.key, shape=schema.shape, deleted=False
        )
        return self._registered(version, content)

    def _remove(self, change: Change, numbers: list[int], *, permanent: bool, last: bool) -> None:
        if not permanent:
            change.mark_deleted(numbers)
            return
        change.purge(numbers)
        if last:
            self.configuration.forget(change)

    def _versions(self, subject: str, *, deleted: bool) -> list[StoredVersion]:
        found = [version for version in self._store.versions(subject) if deleted or not version.deleted]
        if not found:
            raise _unknown(subject)
        return found

    def _own(self, version: StoredVersion) -> Registered:
        content = self.by_id(version.schema_id).content
        text = self._store.text(version.subject, version.number)
        return self._registered(version, content if text is None else _with_text(content, text))

    def _registered(self, version: StoredVersion, content: Content) -> Registered:
        return Registered(
            subject=version.subject,
            number=version.number,
            schema_id=version.schema_id,
            guid=guid(version.key),
            content=content,
            deleted=version.deleted,
        )


def _with_text(content: Content, text: str) -> Content:
    return Content(
        text=text,
        kind=content.kind,
        references=content.references,
        metadata=content.metadata,
        rule_set=content.rule_set,
    )


def _pick(versions: list[StoredVersion], number: int | None) -> StoredVersion:
    for version in reversed(versions):
        if number is None or version.number == number:
            return version
    shown = "latest" if number is None else str(number)
    raise InvalidError(Reason.VERSION_UNKNOWN, f"the subject has no version {shown}", details={"version": shown})


def _unknown(subject: str) -> InvalidError:
    return InvalidError(
        Reason.SUBJECT_UNKNOWN, f"no schema is registered under {subject}", details={"subject": subject}
    )


def _refuse_name(subject: str) -> None:
    if not subject.strip() or len(subject) > _MAX_SUBJECT or _UNUSABLE.search(subject):
        raise InvalidError(
            Reason.SUBJECT_INVALID,
            f"got a subject that is empty, longer than {_MAX_SUBJECT} characters or holds control characters",
            details={"subject": json.dumps(subject[:80])},
        )
    if subject.startswith("view.") or subject in ("__GLOBAL", "__EMPTY"):
        raise InvalidError(
            Reason.SUBJECT_INVALID,
            f"got the subject {subject[:80]}; names that begin with 'view.' are kept for what grants deliver",
            details={"subject": subject[:80]},
        )
