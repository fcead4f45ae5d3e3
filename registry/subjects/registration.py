"""Registration of schemas under a subject: checks, compatibility, classification, id and version.

    submission ── mode ── registered? ── contract merged ── classified ── compatible ── approved ── id ── version

All of it under the subject's lock and in one transaction, so that any number of processes may register concurrently and
each content gets one id and each version one number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import Any

from registry.avro.compatibility import (
    Compatibility,
    Direction,
    Incompatibility,
    find_incompatibilities,
    require_compatible,
)
from registry.avro.fields import resolved_json
from registry.avro.name_resolution import schema_invalid
from registry.avro.parser import ParsedSchema
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance import classification
from registry.subjects.configuration import Configuration, Mode
from registry.subjects.contexts import scopes
from registry.subjects.data_contracts import checked_metadata, checked_rules, merged, properties_of
from registry.subjects.lookup import SchemaLookup
from registry.subjects.model import Content, StoredSchema, StoredVersion
from registry.subjects.store import (
    MAX_GAPS,
    MAX_IMPORTED_ID,
    Change,
    SubjectReader,
    SubjectWriter,
    require_same_content,
)
from registry.subjects.submission import Submission, Submissions
from registry.subjects.versions import (
    RegisteredVersion,
    check_subject_name,
    select_version,
    unknown_subject,
    view_subject,
    with_text,
)
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["Form", "Registration"]

_CONTRACTS = ("defaultMetadata", "overrideMetadata", "defaultRuleSet", "overrideRuleSet")


def never_approved(work: UnitOfWork, subject: str, shape: bytes, findings: Sequence[str]) -> bool:
    """Approve nothing: for a registry without approvals."""
    del work, subject, shape, findings
    return False


class Form(Enum):
    """The form in which a content is read."""

    AS_CONFIGURED = "as configured"  # normalized where the subject's configuration says so
    NORMALIZED = "normalized"
    AS_SUBMITTED = "as submitted"


class Registration:
    """Registers contents, tests whether they could be registered, and finds them again.

    Args:
        reader, writer: where subjects are stored.
        lookup: finds schemas by id.
        configuration: levels, modes and contracts.
        governed: returns whether every field must be classified under a subject (`registry.directory.catalogue`).
        strict: also refuse logical types that change their meaning between versions.
        validate: also refuse names and defaults that Avro's own parser accepts, where a subject's configuration
            (`validateNewSchemas`) does not override it.
        approved: consumes an approval of a lowered classification, by subject, shape and findings
            (`registry.governance.approvals.Approvals.spend`); returns whether there was one.
    """

    def __init__(
        self,
        reader: SubjectReader,
        writer: SubjectWriter,
        lookup: SchemaLookup,
        configuration: Configuration,
        *,
        governed: Callable[[Reader, str], bool],
        strict: bool = False,
        validate: bool = True,
        approved: Callable[[UnitOfWork, str, bytes, Sequence[str]], bool] = never_approved,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lookup = lookup
        self._configuration = configuration
        self._submissions = Submissions(reader, lookup)
        self._governed = governed
        self._strict = strict
        self._validate = validate
        self._approved = approved

    def read(
        self,
        reader: Reader,
        subject: str,
        content: Content,
        *,
        form: Form = Form.AS_CONFIGURED,
        governed: bool | None = None,
    ) -> Submission:
        """Read a submitted content by the rules of a subject.

        Args:
            reader: to resolve references with.
            subject: whose rules.
            content: as submitted.
            form: whether its normal form is taken.
            governed: whether the subject is; None: not queried yet.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        normalize = form is Form.NORMALIZED or (
            form is Form.AS_CONFIGURED and self._configuration.normalizes(reader, subject)
        )
        try:
            return self._submissions.read(reader, subject, content, validate=self._validate, normalize=normalize)
        except InvalidError as error:
            # The configuration is read only here: a content that passes the strict rules passes the others.
            config = self._configuration.effective(reader, subject)
            validate = config.get("validateNewSchemas", self._validate)
            # Records pass through the pool under catalogued subjects only; elsewhere nothing is decoded.
            allow_non_terminating = not (self._governed(reader, subject) if governed is None else governed)
            if validate is self._validate and not (allow_non_terminating and error.reason is Reason.SCHEMA_UNSAFE):
                raise
        return self._submissions.read(
            reader,
            subject,
            content,
            validate=validate,
            allow_non_terminating=allow_non_terminating,
            normalize=normalize,
        )

    def register(
        self,
        work: UnitOfWork,
        subject: str,
        content: Content,
        *,
        schema_id: int | None = None,
        number: int | None = None,
        normalize: bool = False,
    ) -> RegisteredVersion:
        """Register a content, or return the version that has it already.

        Metadata and rules that are left out are taken from the latest version; the configuration's defaults have a
        lower priority, its overrides a higher one.

        Args:
            work: the transaction.
            subject: under which.
            content: as submitted.
            normalize: register its normal form, even where the configuration does not require it. An import is
                stored as it is.
            schema_id: its id in the other registry; in the mode IMPORT only, and required there.
            number: its version in the other registry; in the mode IMPORT only.

        Raises:
            InvalidError: SUBJECT_INVALID; SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED, naming each field.
            ConflictError: SCHEMA_INCOMPATIBLE, naming versions and JSON paths; CLASSIFICATION_LOWERED; ID_TAKEN.
            RefusedError: SUBJECT_READ_ONLY; SUBJECT_NOT_IN_IMPORT.
            UnavailableError: see `SubjectWriter.change`.
        """
        check_subject_name(subject)
        # Queried once: the subject may be catalogued at any moment, and every check below needs the same answer.
        governed = self._governed(work, subject)
        form = Form.AS_SUBMITTED if schema_id is not None else _form(normalize=normalize)
        submission = self.read(work, subject, content, form=form, governed=governed)
        needed = [item.subject for item in submission.content.references]
        with self._writer.change(work, subject, scopes=scopes(subject), also=needed) as change:
            mode = self._configuration.refuse_read_only(work, subject, change)
            _refuse_mode(subject, mode, schema_id)
            self._refuse_gone(work, submission)
            versions = change.versions()
            if schema_id is not None:
                return self._import(work, change, subject, submission, versions, schema_id, number, governed=governed)
            live = [version for version in versions if not version.deleted]
            config = self._configuration.effective(work, subject, change)
            existing = self._find_same(work, subject, live, submission, config)
            if existing is not None:
                text = self._reader.text(work, subject, existing.number)
                content = self._lookup.by_id(work, existing.schema_id).content
                return RegisteredVersion.of(existing, content if text is None else with_text(content, text))
            merged_content = self._contract(work, submission.content, live, config)
            findings = self._lowered(work, submission, versions) if governed else []
            require_compatible(
                self._incompatibilities(work, submission, merged_content, live, config, None),
                Compatibility(config["compatibility"]),
            )
            self._refuse_unapproved(work, subject, submission, findings)  # last, because it consumes an approval
            new = versions[-1].number + 1 if versions else 1
            return _version(
                subject,
                new,
                change.put(new, submission.key(merged_content), submission.shape, merged_content),
                merged_content,
            )

    def register_view(self, work: UnitOfWork, grant: str, version: int, text: str) -> int:
        """Register the output schema of a grant version; return its id.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
            ConflictError: VERSION_CONFLICT, the grant version has another view already.
        """
        subject = view_subject(grant, version)
        submission = self._submissions.read(work, subject, Content(text=text))
        with self._writer.change(work, subject, hidden=True) as change:
            versions = change.versions()
            if versions and versions[-1].shape == submission.shape:
                return versions[-1].schema_id
            if versions:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    f"version {version} of the grant {grant} has another view; a changed view is a new grant version",
                )
            return change.put(1, submission.key(), submission.shape, submission.content).id

    def check(
        self, reader: Reader, subject: str, content: Content, number: int | None = None, *, normalize: bool = False
    ) -> list[Incompatibility]:
        """Return the incompatibilities of a content with a subject's live versions, without registering it.

        Args:
            reader: to look up with.
            subject: whose level and versions apply.
            content: what would be registered.
            number: test against this version if the level is not transitive; None = the latest.
            normalize: test its normal form.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        submission = self.read(reader, subject, content, form=_form(normalize=normalize))
        live = [version for version in self._reader.versions(reader, subject) if not version.deleted]
        if not live:
            raise unknown_subject(subject)
        config = self._configuration.effective(reader, subject)
        if number is not None:
            select_version(live, number)
        return self._incompatibilities(
            reader, submission, self._contract(reader, submission.content, live, config), live, config, number
        )

    def find(
        self, reader: Reader, subject: str, content: Content, *, deleted: bool = False, normalize: bool = False
    ) -> RegisteredVersion:
        """Find a content among a subject's versions; of several, the latest.

        Args:
            reader: to look up with.
            subject: where to look.
            content: what to look for; without metadata and rules, those of the version do not matter.
            deleted: also look among softly deleted versions.
            normalize: look for its normal form first, then for what was submitted.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; SCHEMA_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        found = None
        forms = [Form.AS_SUBMITTED]
        if normalize or self._configuration.normalizes(reader, subject):
            forms.insert(0, Form.NORMALIZED)
        for form in forms:
            try:
                submission = self.read(reader, subject, content, form=form)
            except InvalidError:
                if form is Form.NORMALIZED:
                    continue  # the normal form may be too long or invalid; the content may be registered as submitted
                self._lookup.refuse_unknown(reader, subject, deleted=deleted)
                raise
            found = self._find(reader, subject, submission, deleted=deleted)
            if found is not None:
                break
        if found is None:
            self._lookup.refuse_unknown(reader, subject, deleted=deleted)
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"the subject {subject} has no version with this schema")
        version, text = found
        return RegisteredVersion.of(version, with_text(self._lookup.by_id(reader, version.schema_id).content, text))

    def _find(
        self, reader: Reader, subject: str, submission: Submission, *, deleted: bool
    ) -> tuple[StoredVersion, str] | None:
        stored = self._reader.by_shape(reader, subject, submission.shape)
        versions = [item for item, _ in stored if deleted or not item.deleted]
        same = self._find_same(reader, subject, versions, submission)
        return None if same is None else next((item, text) for item, text in stored if item is same)

    def _find_same(
        self,
        reader: Reader,
        subject: str,
        versions: Sequence[StoredVersion],
        submission: Submission,
        config: Mapping[str, Any] | None = None,
    ) -> StoredVersion | None:
        """Return the latest version with a submission's content; without metadata and rules it matches any.

        Args:
            reader: to look up with.
            subject: whose contracts apply.
            versions: ascending.
            submission: what to look for.
            config: the subject's configuration, for a registration; a contract that has changed since makes a content
                without metadata and rules a different one.
        """
        fitting = [version for version in versions if version.shape == submission.shape]
        if not fitting:
            return None
        if submission.without_contract and not any((config or {}).get(name) for name in _CONTRACTS):
            return fitting[-1]
        effective = config or self._configuration.effective(reader, subject)
        before = self._lookup.by_id(reader, fitting[-1].schema_id).content if submission.without_contract else None
        keys = {submission.key(self._merge(submission.content, before, effective))}
        if config is None:
            keys.add(submission.key())
        return next((version for version in reversed(fitting) if version.key in keys), None)

    def _import(
        self,
        work: UnitOfWork,
        change: Change,
        subject: str,
        submission: Submission,
        versions: Sequence[StoredVersion],
        schema_id: int,
        number: int | None,
        *,
        governed: bool,
    ) -> RegisteredVersion:
        """Store a version of another registry as it is: neither merged nor compared with the others."""
        if not 0 < schema_id < 2**31:
            raise InvalidError(Reason.REQUEST_INVALID, f"got the id {schema_id}; expected 1 to 2^31-1")
        wanted = number if number is not None else (versions[-1].number + 1 if versions else 1)
        if not 0 < wanted < 2**31:
            raise InvalidError(Reason.VERSION_INVALID, "got no version id", details={"version": str(wanted)})
        highest = self._reader.highest_id(work)
        most = max(highest, min(highest + MAX_GAPS, MAX_IMPORTED_ID))
        if schema_id > most:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the id {schema_id}; expected {most} at most: ids go on from the highest one, and are finite",
            )
        content = submission.content
        schema = change.restore(schema_id, submission.key(), submission.shape, content)
        for version in versions:
            if version.number == wanted or (number is None and version.schema_id == schema_id):
                if version.schema_id != schema_id:
                    require_same_content(schema, version.key)
                    raise ConflictError(
                        Reason.ID_MISMATCH,
                        f"version {wanted} of {subject} has the id {version.schema_id}, and not {schema_id}",
                    )
                return RegisteredVersion.of(version, content)
        self._refuse_unapproved(
            work, subject, submission, self._lowered(work, submission, versions) if governed else []
        )
        change.add(wanted, schema, content.text)
        return _version(subject, wanted, schema, content)

    def _contract(
        self, reader: Reader, content: Content, live: Sequence[StoredVersion], config: Mapping[str, Any]
    ) -> Content:
        before = self._lookup.by_id(reader, live[-1].schema_id).content if live else None
        return self._merge(content, before, config)

    def _merge(self, content: Content, before: Content | None, config: Mapping[str, Any]) -> Content:
        metadata, rules = content.metadata, content.rule_set
        if before is not None:
            metadata = before.metadata if metadata is None else metadata
            rules = before.rule_set if rules is None else rules
        metadata = merged(checked_metadata(config.get("defaultMetadata")), metadata)
        rules = merged(checked_rules(config.get("defaultRuleSet")), rules)
        metadata = merged(metadata, checked_metadata(config.get("overrideMetadata")))
        rules = merged(rules, checked_rules(config.get("overrideRuleSet")))
        if (metadata, rules) == (content.metadata, content.rule_set):
            return content
        return replace(content, metadata=metadata, rule_set=rules)

    def _refuse_gone(self, work: UnitOfWork, submission: Submission) -> None:
        """Refuse a reference to a version that was deleted while this call waited for the lock."""
        for item in submission.content.references:
            found = self._reader.version(work, item.subject, item.version)
            if found is None or found[0].deleted or found[0].schema_id != item.target:
                raise schema_invalid(
                    f"version {item.version} of {item.subject}, which the schema refers to, was deleted just now"
                )

    def lowered_classification(
        self, reader: Reader, subject: str, content: Content, *, normalize: bool = False
    ) -> tuple[bytes, list[str]]:
        """Return the shape of a content, and the findings where it would lower a subject's classification.

        Args:
            reader: to look up with.
            subject: whose.
            content: what would be registered.
            normalize: of its normal form, as it would be registered.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED.
        """
        submission = self.read(reader, subject, content, form=_form(normalize=normalize))
        return submission.shape, self._lowered(reader, submission, self._reader.versions(reader, subject))

    def _refuse_unapproved(self, work: UnitOfWork, subject: str, submission: Submission, findings: list[str]) -> None:
        if findings and not self._approved(work, subject, submission.shape, findings):
            raise classification.lowered_error(findings)

    def _lowered(self, reader: Reader, submission: Submission, versions: Iterable[StoredVersion]) -> list[str]:
        parsed: ParsedSchema | None = submission.parsed
        if parsed is None:
            raise InvalidError(
                Reason.SCHEMA_UNCLASSIFIED,
                f"got a schema of the type {submission.content.kind} for a catalogued resource; expected AVRO, whose "
                "fields carry their classification",
            )
        fields = classification.require_classification(resolved_json(parsed) if parsed.fullname else parsed.json)
        # Softly deleted versions too: deleting a version does not remove its classification.
        earlier = [
            (version.number, _classified(self._lookup.parsed_for_comparison(reader, version.schema_id)))
            for version in versions
            if self._lookup.by_id(reader, version.schema_id).content.kind == SchemaType.AVRO
        ]
        return classification.lowered_since(fields, earlier)

    def _incompatibilities(
        self,
        reader: Reader,
        submission: Submission,
        content: Content,
        live: Sequence[StoredVersion],
        config: Mapping[str, Any],
        number: int | None,
    ) -> list[Incompatibility]:
        level = Compatibility(config["compatibility"])
        group = config.get("compatibilityGroup")
        if group:
            wanted = properties_of(content.metadata).get(group)
            live = [item for item in live if self._property(reader, item, group) == wanted]
        if level is Compatibility.NONE or not live:
            return []
        picked = [item for item in live if item.number == number] or live[-1:]
        relevant = live if level.transitive else picked
        other = [item for item in relevant if self._lookup.by_id(reader, item.schema_id).content.kind != content.kind]
        if other:
            return [_another_type(item.number, content.kind) for item in reversed(other)]
        if content.kind != SchemaType.AVRO:
            raise schema_invalid(
                f"whether a schema of the type {content.kind} may follow another is not checked by this registry; set "
                "the subject's compatibility to NONE, and check it where it is written"
            )
        texts = [(item.number, self._lookup.inlined_text(reader, item.schema_id)) for item in relevant]
        return find_incompatibilities(submission.inlined, texts, level, strict=self._strict)

    def _property(self, reader: Reader, version: StoredVersion, name: str) -> str | None:
        return properties_of(self._lookup.by_id(reader, version.schema_id).content.metadata).get(name)


def _form(*, normalize: bool) -> Form:
    return Form.NORMALIZED if normalize else Form.AS_CONFIGURED


def _version(subject: str, number: int, schema: StoredSchema, content: Content) -> RegisteredVersion:
    version = StoredVersion(
        subject=subject, number=number, schema_id=schema.id, key=schema.key, shape=schema.shape, deleted=False
    )
    return RegisteredVersion.of(version, content)


@lru_cache(maxsize=4_096)
def _classified(parsed: ParsedSchema) -> tuple[classification.ClassifiedField, ...]:
    """Return the classification in a registered schema. Cached: it never changes, and each registration needs all."""
    return tuple(classification.read_classification(resolved_json(parsed))[0])


def _refuse_mode(subject: str, mode: Mode, schema_id: int | None) -> None:
    if schema_id is not None and mode is not Mode.IMPORT:
        raise RefusedError(
            Reason.SUBJECT_NOT_IN_IMPORT,
            f"Subject {subject} is not in import mode; leave the id out, or set its mode to IMPORT",
        )
    if schema_id is None and mode is Mode.IMPORT:
        raise RefusedError(
            Reason.SUBJECT_NOT_IN_IMPORT,
            f"Subject {subject} is not in read-write mode; state the id, or set its mode to READWRITE",
        )


def _another_type(number: int, kind: str) -> Incompatibility:
    return Incompatibility(
        version=number,
        direction=Direction.BACKWARD,
        at="$",
        field="",
        kind="schema_type",
        detail=f"the new schema is of another type, {kind}",
        library=f"schema type {kind}",
    )
