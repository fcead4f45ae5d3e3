"""Subjects and their versions: how they are found, and what an id means, forever.

    register   see `registry.subjects.registration`
    look up    by content (an index look-up, however many versions there are), by version, by id
    delete     see `registry.subjects.deletion`: softly (hidden, still readable by id), then permanently

An id belongs to a content, not to a subject: the same content under two subjects has one id, and after every
deletion, re-registration and restore it has the same one again. So an id in front of a record never comes to mean
another schema, and it stays readable by id even after its last version is gone: records outlive registrations.

Views. What a grant delivers is framed with a schema of its own, under the subject `view.<grant>.v<n>`. Those
subjects are not listed, have one version each, and owe nothing to one another. Only `register_view` makes them.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from registry.avro.compatibility import Incompatibility
from registry.avro.fields import resolved
from registry.avro.parser import ParsedSchema
from registry.governance import classification
from registry.governance.classification import Labelled
from registry.subjects import contexts
from registry.subjects.configuration import Configuration
from registry.subjects.data_contracts import properties_of
from registry.subjects.deletion import Deletion
from registry.subjects.model import Content, Reference, StoredSchema, StoredVersion
from registry.subjects.registration import Registration
from registry.subjects.store import SubjectStore
from registry.subjects.submission import Submission, Submissions
from registry.subjects.versions import Registered, is_view, own_text, pick, registered, unknown_subject, view_subject
from schemas.errors import InvalidError, Reason

__all__ = ["Registered", "Subjects", "is_view", "view_subject"]

_KNOWN_IDS = 10_000  # contents kept in memory; they never change


def _never(subject: str, shape: bytes, findings: Sequence[str]) -> bool:
    """Approve nothing."""
    del subject, shape, findings
    return False


class Subjects:
    """Registers schemas and finds them again.

    Args:
        store: where they are kept.
        configuration: levels and modes.
        governed: whether every field must be classified under this subject; the catalogue says so for its resources.
        strict: also refuse logical types that change their meaning between versions.
        validate: also refuse names and defaults that Avro's own parser lets pass, where a subject's configuration
            (`validateNewSchemas`) says nothing else.
        approved: uses up an approval of what a schema takes back (`registry.governance.approvals.Approvals.spend`).
    """

    def __init__(
        self,
        store: SubjectStore,
        configuration: Configuration,
        *,
        governed: Callable[[str], bool],
        strict: bool = False,
        validate: bool = True,
        approved: Callable[[str, bytes, Sequence[str]], bool] = _never,
    ) -> None:
        self._store = store
        self.configuration = configuration
        self.drafts = Submissions(store, self.by_id)
        self._registering = Registration(
            store,
            configuration,
            self.drafts,
            by_id=self.by_id,
            governed=governed,
            strict=strict,
            validate=validate,
            approved=approved,
        )
        self._removing = Deletion(store, configuration, governed=governed)
        self._known: dict[int, StoredSchema] = {}
        self._lock = threading.Lock()

    # --- writing -----------------------------------------------------------------------------------------------

    def register(
        self,
        subject: str,
        content: Content,
        *,
        schema_id: int | None = None,
        number: int | None = None,
        normalize: bool = False,
    ) -> Registered:
        """Register a content, or find it registered already. See `Registration.register`."""
        return self._registering.register(subject, content, schema_id=schema_id, number=number, normalize=normalize)

    def register_view(self, grant: str, version: int, text: str) -> int:
        """Register what a grant version delivers; give its id. See `Registration.register_view`."""
        return self._registering.register_view(grant, version, text)

    def check(
        self, subject: str, content: Content, number: int | None = None, *, normalize: bool = False
    ) -> list[Incompatibility]:
        """Test a content against a subject's live versions. See `Registration.check`."""
        return self._registering.check(subject, content, number, normalize=normalize)

    def delete(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Delete every version of a subject. See `Deletion.delete`."""
        return self._removing.delete(subject, permanent=permanent)

    def delete_version(self, subject: str, number: int | None, *, permanent: bool = False) -> int:
        """Delete one version of a subject. See `Deletion.delete_version`."""
        return self._removing.delete_version(subject, number, permanent=permanent)

    # --- by id -------------------------------------------------------------------------------------------------

    def by_id(self, schema_id: int) -> StoredSchema:
        """Return what an id stands for, with the text first submitted for it.

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

    def by_guid(self, guid: str) -> StoredSchema:
        """Return what a GUID stands for.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        try:
            schema = self._store.by_guid(uuid.UUID(guid).bytes)
        except ValueError:
            schema = None
        if schema is None:
            raise InvalidError(Reason.SCHEMA_UNKNOWN, "no schema has this GUID", details={"schema": guid[:40]})
        return schema

    def highest_id(self) -> int:
        """Return the highest id that stands for a schema; 0 without any."""
        return self._store.highest_id()

    def parsed_by_id(self, schema_id: int) -> ParsedSchema:
        """Return the parsed schema of an id, its references written in, to read or write records with.

        Raises:
            InvalidError: SCHEMA_UNKNOWN; SCHEMA_INVALID, for a schema that is not Avro; SCHEMA_UNSAFE, for one that
                holds itself without end.
        """
        return self.drafts.parsed(schema_id)

    def described(self, schema_id: int) -> ParsedSchema:
        """Return the parsed schema of an id to search and compare: also one with which nothing can be read or written.

        Raises:
            InvalidError: SCHEMA_UNKNOWN; SCHEMA_INVALID, for a schema that is not Avro.
        """
        return self.drafts.parsed(schema_id, endless=True)

    def draft(self, subject: str, content: Content) -> Submission:
        """Read what is submitted, by the rules that hold for a subject. See `Registration.draft`."""
        return self._registering.draft(subject, content)

    def whole(self, schema_id: int) -> str:
        """Return the text of an id with its references written in: what stands alone.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        return self.drafts.whole(schema_id)

    def needed(self, references: Iterable[Reference]) -> list[str]:
        """Return the subjects that references are to, and those that these refer to in turn, sorted."""
        seen: set[int] = set()
        names: set[str] = set()
        todo = [*references]
        while todo:
            item = todo.pop()
            names.add(item.subject)
            if item.target not in seen:  # by id: two versions of a subject may refer to different ones
                seen.add(item.target)
                todo += self.by_id(item.target).content.references
        return sorted(names)

    def uses(self, schema_id: int, *, deleted: bool = False) -> list[StoredVersion]:
        """Return the versions that have an id, by subject and number.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        self.by_id(schema_id)
        return [version for version in self._store.uses(schema_id) if deleted or not version.deleted]

    # --- by subject --------------------------------------------------------------------------------------------

    def look_up(self, subject: str, content: Content, *, deleted: bool = False, normalize: bool = False) -> Registered:
        """Find a content among a subject's versions; of several, the latest.

        Args:
            subject: where to look.
            content: what to look for; without metadata and rules any will do.
            deleted: also look among softly deleted versions.
            normalize: look for its normal form first, then for what was submitted.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        found = None
        for form in (True, None) if normalize or self.configuration.normalizes(subject) else (None,):
            try:
                draft = self._registering.draft(subject, content, normalize=form)
            except InvalidError:
                if form:
                    continue  # the normal form of a schema may be too long, or none; it may stand here as it came
                self._refuse_unknown(subject, deleted=deleted)
                raise
            found = self._found(subject, draft, deleted=deleted)
            if found is not None:
                break
        if found is None:
            self._refuse_unknown(subject, deleted=deleted)
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"the subject {subject} has no version with this schema")
        version, text = found
        return registered(version, own_text(self.by_id(version.schema_id).content, text))

    def _found(self, subject: str, draft: Submission, *, deleted: bool) -> tuple[StoredVersion, str] | None:
        held = self._store.by_shape(subject, draft.shape)
        same = self._registering.same(subject, [item for item, _ in held if deleted or not item.deleted], draft)
        return None if same is None else next((item, text) for item, text in held if item is same)

    def version(self, subject: str, number: int | None, *, deleted: bool = False) -> Registered:
        """Return a version with its own text.

        Args:
            subject: whose.
            number: from 1; None = the latest that is not deleted.
            deleted: also find softly deleted ones.

        Raises:
            InvalidError: SUBJECT_UNKNOWN or VERSION_UNKNOWN.
        """
        held = self._store.held(subject, number) if number is not None or not deleted else None
        if held is not None and (deleted or not held[0].deleted):
            version, text = held
            return registered(version, own_text(self.by_id(version.schema_id).content, text))
        return self._own(pick(self._versions(subject, deleted=deleted), number))

    def versions(self, subject: str, *, deleted: bool = False, deleted_only: bool = False) -> list[int]:
        """Return a subject's version numbers in ascending order.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        return [item.number for item in self.stored(subject, deleted=deleted, deleted_only=deleted_only)]

    def stored(self, subject: str, *, deleted: bool = False, deleted_only: bool = False) -> list[StoredVersion]:
        """Return a subject's versions in ascending order.

        Raises:
            InvalidError: SUBJECT_UNKNOWN.
        """
        found = self._versions(subject, deleted=deleted or deleted_only)
        return [version for version in found if version.deleted or not deleted_only]

    def subjects(self, prefix: str = contexts.EVERY, *, deleted: bool = False, deleted_only: bool = False) -> list[str]:
        """Return the names of subjects that have versions, sorted; views are never among them."""
        return [
            name
            for name, live in self._store.subjects()
            if contexts.matches(name, prefix) and (not live if deleted_only else live or deleted)
        ]

    def context_names(self) -> list[str]:
        """Return the contexts that hold subjects, the default one always, sorted."""
        return sorted({contexts.DEFAULT, *(contexts.split(name).context for name, _ in self._store.subjects())})

    def listed(
        self, prefix: str = contexts.EVERY, *, deleted: bool = False, latest_only: bool = False
    ) -> list[StoredVersion]:
        """Return every version of the subjects that a prefix means, by subject and number."""
        found = [
            item
            for item in self._store.listed()
            if (deleted or not item.deleted) and contexts.matches(item.subject, prefix)
        ]
        if not latest_only:
            return found
        return list({item.subject: item for item in found}.values())

    def full(self, versions: Iterable[StoredVersion]) -> list[Registered]:
        """Return versions with their own texts."""
        return [self._own(version) for version in versions]

    def referrers(self, subject: str, number: int, *, deleted: bool = False) -> list[int]:
        """Return the ids of schemas that refer to a version, ascending."""
        found = self._store.referrers(subject, number)
        return sorted({item.schema_id for item in found if deleted or not item.deleted})

    def with_properties(self, subject: str, wanted: Mapping[str, str], *, deleted: bool = False) -> Registered:
        """Return the latest version whose metadata has these properties.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN, when no version has them.
        """
        for version in reversed(self._versions(subject, deleted=deleted)):
            found = properties_of(self.by_id(version.schema_id).content.metadata)
            if wanted.items() <= found.items():
                return self._own(version)
        raise InvalidError(
            Reason.VERSION_UNKNOWN, "no version's metadata has these properties", details={"version": "latest"}
        )

    # --- classification ----------------------------------------------------------------------------------------

    def classification(self, subject: str, number: int | None = None) -> list[Labelled]:
        """Return the classification of every field of a version; None = the latest.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_UNCLASSIFIED; SCHEMA_UNSAFE, no record can be of it.
        """
        parsed = self.parsed_by_id(self.version(subject, number).schema_id)
        return classification.classify(resolved(parsed) if parsed.fullname else parsed.json)

    def taken_back(self, subject: str, content: Content, *, normalize: bool = False) -> tuple[bytes, list[str]]:
        """Return what a content would take back of a subject's classification. See `Registration.taken_back`."""
        return self._registering.taken_back(subject, content, normalize=normalize)

    def classified(self, subject: str) -> list[Labelled]:
        """Return the classification of the fields of every live version.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNCLASSIFIED, when one of the versions lacks something; SCHEMA_UNSAFE,
                when no record can be of one: such a resource is not published.
        """
        numbers = self.versions(subject)
        return [field for number in numbers for field in self.classification(subject, number)]

    def _versions(self, subject: str, *, deleted: bool) -> Sequence[StoredVersion]:
        found = [version for version in self._store.versions(subject) if deleted or not version.deleted]
        if not found:
            raise unknown_subject(subject)
        return found

    def _refuse_unknown(self, subject: str, *, deleted: bool) -> None:
        if self._store.held(subject, None) is None:
            self._versions(subject, deleted=deleted)

    def _own(self, version: StoredVersion) -> Registered:
        content = self.by_id(version.schema_id).content
        text = self._store.text(version.subject, version.number)
        return registered(version, content if text is None else own_text(content, text))
