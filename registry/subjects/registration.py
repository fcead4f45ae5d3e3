"""Registration of schemas: the checks of a submission, and its id and version.

    submission ── mode ── registered already? ── contract merged ── classified ── compatible ── approved ── stored

All steps run under the subject's lock and in one transaction, so that any number of processes may register
concurrently, and each content gets one id and each version one number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import Any

from registry.avro.compatibility import (
    RESERVED_FIELD,
    Compatibility,
    Direction,
    Incompatibility,
    find_incompatibilities,
    require_compatible,
)
from registry.avro.fields import resolved_json
from registry.avro.name_resolution import schema_invalid
from registry.avro.parser import ParsedSchema
from registry.avro.resource_rules import require_publishable
from registry.avro.schema_types import SchemaType
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance import classification
from registry.governance.element_references import ElementReferences
from registry.governance.element_rules import element_fields, require_fit
from registry.governance.subject_references import require_subjects
from registry.governance.tags import TaggedEntity, dropped_tags, tagged_entities
from registry.subjects.configuration import Configuration, Mode
from registry.subjects.contexts import scopes
from registry.subjects.data_contracts import (
    merge,
    properties_of,
    refuse_sensitive_values,
    reserved_fields,
    validate_metadata,
    validate_rules,
)
from registry.subjects.lookup import SchemaLookup
from registry.subjects.model import Content, StoredSchema, StoredVersion
from registry.subjects.store import (
    MAX_GAPS,
    MAX_IMPORTED_ID,
    SubjectChange,
    SubjectReader,
    SubjectWriter,
    require_same_content,
)
from registry.subjects.submission import Submission, SubmissionReader
from registry.subjects.versions import (
    RegisteredVersion,
    check_subject_name,
    select_version,
    unknown_subject,
    view_subject,
    with_text,
)
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.names import Topic

__all__ = ["Form", "Registration"]

_RESERVATION_REMOVED = (
    "The new schema has reserved field {} removed from its metadata which is present in the old schema's metadata."
)
_RESERVED_FIELD = "The new schema has field that conflicts with the reserved field {}."
_CONTRACT_KEYS = ("defaultMetadata", "overrideMetadata", "defaultRuleSet", "overrideRuleSet")


def no_other_majors(reader: Reader, subject: str) -> Sequence[Topic]:
    """Return no topics: for a registry without a catalogue."""
    del reader, subject
    return ()


def never_approved(work: UnitOfWork, subject: str, fingerprint: bytes, findings: Sequence[str]) -> bool:
    """Return False: for a registry without approvals."""
    del work, subject, fingerprint, findings
    return False


class Form(Enum):
    """Form in which a content is read."""

    AS_CONFIGURED = "as configured"  # normalized if the subject's configuration says so
    NORMALIZED = "normalized"
    AS_SUBMITTED = "as submitted"


class Registration:
    """Service that registers contents, tests whether they could be registered, and finds registered ones.

    Args:
        reader, writer: of the store of subjects.
        lookup: finds schemas by id.
        configuration: levels, modes and contracts.
        governed: returns whether every field must be classified under a subject (`registry.directory.catalogue`).
        other_majors: returns the topics of the other majors of a subject's resource: a new major is no way to lower
            what an earlier one has.
        strict: also refuse logical types that change their meaning between versions.
        validate: also refuse names and defaults that Avro's own parser accepts, unless a subject's configuration
            (`validateNewSchemas`) says otherwise.
        approved: consumes an approval to lower a classification, by subject, fingerprint and findings
            (`registry.governance.approvals.Approvals.consume`); returns whether there was one.
        elements: the dictionary of data elements; None = there is none, and fields may name any.
    """

    def __init__(
        self,
        reader: SubjectReader,
        writer: SubjectWriter,
        lookup: SchemaLookup,
        configuration: Configuration,
        *,
        governed: Callable[[Reader, str], bool],
        other_majors: Callable[[Reader, str], Sequence[Topic]] = no_other_majors,
        strict: bool = False,
        validate: bool = True,
        approved: Callable[[UnitOfWork, str, bytes, Sequence[str]], bool] = never_approved,
        elements: ElementReferences | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lookup = lookup
        self._configuration = configuration
        self._submission_reader = SubmissionReader(reader, lookup)
        self._governed = governed
        self._other_majors = other_majors
        self._strict = strict
        self._validate = validate
        self._approved = approved
        self._elements = elements

    def read(
        self,
        reader: Reader,
        subject: str,
        content: Content,
        *,
        form: Form = Form.AS_CONFIGURED,
    ) -> Submission:
        """Validate a content by the rules of a subject.

        Args:
            reader: to resolve references with.
            subject: whose rules apply.
            content: as submitted.
            form: whether its normal form is read.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        return self._read(reader, subject, content, form, governed=lambda: self._governed(reader, subject))

    def _read(
        self, reader: Reader, subject: str, content: Content, form: Form, *, governed: Callable[[], bool]
    ) -> Submission:
        """Validate a content; *governed* is called only if the strict rules refuse it."""
        normalize = form is Form.NORMALIZED or (
            form is Form.AS_CONFIGURED and self._configuration.normalizes(reader, subject)
        )
        try:
            return self._submission_reader.read(reader, subject, content, validate=self._validate, normalize=normalize)
        except InvalidError as error:
            # The configuration is read only here: what passes the strict rules passes the lenient ones too.
            config = self._configuration.effective(reader, subject)
            validate = config.get("validateNewSchemas", self._validate)
            # Only records of catalogued subjects pass through the pool; those of others are never decoded.
            allow_non_terminating = not governed()
            if validate is self._validate and not (allow_non_terminating and error.reason is Reason.SCHEMA_UNSAFE):
                raise
        return self._submission_reader.read(
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
        """Register a content, or return its version if it is registered already (idempotent).

        Metadata and rules that are not submitted are taken from the latest version; the configuration's defaults apply
        below them, its overrides above.

        Args:
            work: the transaction.
            subject: under which.
            content: as submitted.
            normalize: register its normal form, also if the configuration does not say so. An imported content is
                kept as it is.
            schema_id: its id in another registry; only in the mode IMPORT, and required there.
            number: in the mode IMPORT, its version in another registry; else the version that it is to become, or is
                already: another one is refused.

        Raises:
            InvalidError: SUBJECT_INVALID; SCHEMA_INVALID, also for another *number* than the next one; SCHEMA_UNSAFE;
                SCHEMA_UNCLASSIFIED and ELEMENT_UNFIT, naming each field; REQUEST_INVALID, for a sensitive value in the
                metadata.
            ConflictError: SCHEMA_INCOMPATIBLE, naming versions and JSON paths; CLASSIFICATION_LOWERED; ID_TAKEN.
            RefusedError: SUBJECT_READ_ONLY; SUBJECT_NOT_IN_IMPORT.
            UnavailableError: as `SubjectWriter.change`.
        """
        check_subject_name(subject)
        # Read once, since the subject may be catalogued at any moment: one answer for all steps.
        governed = self._governed(work, subject)
        as_configured = schema_id is None and not normalize
        normalized = normalize if not as_configured else self._configuration.normalizes(work, subject)
        form = Form.NORMALIZED if normalized and schema_id is None else Form.AS_SUBMITTED
        submission = self._read(work, subject, content, form, governed=lambda: governed)
        referenced = [item.subject for item in submission.content.references]
        with self._writer.change(work, subject, scopes=scopes(subject), also=referenced) as change:
            mode = self._configuration.require_writable(work, subject, change)
            _check_mode(subject, mode, schema_id)
            self._check_references(work, submission)
            versions = change.versions()
            if schema_id is not None:
                return self._import(work, change, subject, submission, versions, schema_id, number, governed=governed)
            live = [version for version in versions if not version.deleted]
            config = self._configuration.effective(work, subject, change)
            if as_configured and bool(config.get("normalize")) is not normalized:
                # The cache is up to a second old; these settings are read under the subject's lock.
                form = Form.AS_SUBMITTED if normalized else Form.NORMALIZED
                submission = self._read(work, subject, content, form, governed=lambda: governed)
            existing = self._matching_version(work, subject, live, submission, config)
            new_number = versions[-1].number + 1 if versions else 1
            _check_number(number, new_number, existing)
            if existing is not None:
                text = self._reader.version_text(work, subject, existing.number)
                content = self._lookup.by_id(work, existing.schema_id).content
                return RegisteredVersion.of(existing, content if text is None else with_text(content, text))
            merged = self._with_contract(work, submission.content, live, config)
            refuse_sensitive_values(merged.metadata)
            findings = self._find_lowered(work, subject, submission, merged, versions) if governed else []
            require_compatible(
                self._incompatibilities(work, submission, merged, live, config, None),
                Compatibility(config["compatibility"]),
            )
            if governed and submission.parsed is not None and submission.parsed.fullname:
                require_subjects(resolved_json(submission.parsed))
            uses = self._element_uses(work, submission) if governed else []
            self._require_approval(work, subject, submission, findings)  # last, since it consumes an approval
            schema = change.add_content(new_number, submission.key(merged), submission.fingerprint, merged)
            self._record_elements(work, subject, new_number, uses)
            return _version(subject, new_number, schema, merged)

    def register_view(self, work: UnitOfWork, grant: str, version: int, text: str) -> int:
        """Register the schema of the records that a grant version delivers; return its id.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
            ConflictError: VERSION_CONFLICT, when the grant version has another view already.
        """
        subject = view_subject(grant, version)
        submission = self._submission_reader.read(work, subject, Content(text=text))
        with self._writer.change(work, subject, hidden=True) as change:
            versions = change.versions()
            if versions and versions[-1].fingerprint == submission.fingerprint:
                return versions[-1].schema_id
            if versions:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    f"version {version} of the grant {grant} has another view; a changed view is a new grant version",
                )
            return change.add_content(1, submission.key(), submission.fingerprint, submission.content).id

    def find_incompatibilities(
        self, reader: Reader, subject: str, content: Content, number: int | None = None, *, normalize: bool = False
    ) -> list[Incompatibility]:
        """Test a content against a subject's live versions, without registering it.

        Args:
            reader: to read with.
            subject: whose level and versions apply.
            content: to test.
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
        merged = self._with_contract(reader, submission.content, live, config)
        return self._incompatibilities(reader, submission, merged, live, config, number)

    def find_version(
        self, reader: Reader, subject: str, content: Content, *, deleted: bool = False, normalize: bool = False
    ) -> RegisteredVersion:
        """Find a content among a subject's versions; of several, the latest.

        Args:
            reader: to read with.
            subject: whose versions are searched.
            content: to find; without metadata and rules, it matches any.
            deleted: also search softly deleted versions.
            normalize: search for its normal form first, then for it as submitted.

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
                    continue  # the normal form may be too long or invalid, while the content is registered as submitted
                self._lookup.require_subject(reader, subject, deleted=deleted)
                raise
            found = self._find(reader, subject, submission, deleted=deleted)
            if found is not None:
                break
        if found is None:
            self._lookup.require_subject(reader, subject, deleted=deleted)
            raise InvalidError(Reason.SCHEMA_UNKNOWN, f"the subject {subject} has no version with this schema")
        version, text = found
        return RegisteredVersion.of(version, with_text(self._lookup.by_id(reader, version.schema_id).content, text))

    def _find(
        self, reader: Reader, subject: str, submission: Submission, *, deleted: bool
    ) -> tuple[StoredVersion, str] | None:
        stored = self._reader.versions_by_fingerprint(reader, subject, submission.fingerprint)
        versions = [item for item, _ in stored if deleted or not item.deleted]
        same = self._matching_version(reader, subject, versions, submission)
        return None if same is None else next((item, text) for item, text in stored if item is same)

    def _matching_version(
        self,
        reader: Reader,
        subject: str,
        versions: Sequence[StoredVersion],
        submission: Submission,
        config: Mapping[str, Any] | None = None,
    ) -> StoredVersion | None:
        """Return the latest version with a submission's content; one without metadata and rules matches any.

        Args:
            reader: to read with.
            subject: whose contracts apply.
            versions: ascending.
            submission: to match.
            config: the subject's configuration, if a new version would be created; then a contract that has changed
                since makes a content without metadata and rules a new one.
        """
        matching = [version for version in versions if version.fingerprint == submission.fingerprint]
        if not matching:
            return None
        if submission.without_contract and not any((config or {}).get(name) for name in _CONTRACT_KEYS):
            return matching[-1]
        effective = config or self._configuration.effective(reader, subject)
        latest = self._lookup.by_id(reader, matching[-1].schema_id).content if submission.without_contract else None
        keys = {submission.key(self._merge(submission.content, latest, effective))}
        if config is None:
            keys.add(submission.key())
        return next((version for version in reversed(matching) if version.key in keys), None)

    def _import(
        self,
        work: UnitOfWork,
        change: SubjectChange,
        subject: str,
        submission: Submission,
        versions: Sequence[StoredVersion],
        schema_id: int,
        number: int | None,
        *,
        governed: bool,
    ) -> RegisteredVersion:
        """Store a version of another registry unchanged: neither merged nor compared with the others."""
        if not 0 < schema_id < 2**31:
            raise InvalidError(Reason.REQUEST_INVALID, f"got the id {schema_id}; expected 1 to 2^31-1")
        target = number if number is not None else (versions[-1].number + 1 if versions else 1)
        if not 0 < target < 2**31:
            raise InvalidError(Reason.VERSION_INVALID, "got no version id", details={"version": str(target)})
        highest = self._reader.highest_id(work)
        limit = max(highest, min(highest + MAX_GAPS, MAX_IMPORTED_ID))
        if schema_id > limit:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the id {schema_id}; expected {limit} at most: ids go on from the highest one, and are finite",
            )
        content = submission.content
        refuse_sensitive_values(content.metadata)
        schema = change.import_content(schema_id, submission.key(), submission.fingerprint, content)
        for version in versions:
            if version.number == target or (number is None and version.schema_id == schema_id):
                if version.schema_id != schema_id:
                    require_same_content(schema, version.key)
                    raise ConflictError(
                        Reason.ID_MISMATCH,
                        f"version {target} of {subject} has the id {version.schema_id}, and not {schema_id}",
                    )
                return RegisteredVersion.of(version, content)
        findings = self._find_lowered(work, subject, submission, content, versions) if governed else []
        uses = self._element_uses(work, submission) if governed else []
        self._require_approval(work, subject, submission, findings)
        change.add_version(target, schema, content.text)
        self._record_elements(work, subject, target, uses)
        return _version(subject, target, schema, content)

    def with_contract(self, reader: Reader, subject: str, content: Content) -> Content:
        """Return a content with the metadata and rules with which it would be registered."""
        live = [version for version in self._reader.versions(reader, subject) if not version.deleted]
        return self._with_contract(reader, content, live, self._configuration.effective(reader, subject))

    def _with_contract(
        self, reader: Reader, content: Content, live: Sequence[StoredVersion], config: Mapping[str, Any]
    ) -> Content:
        latest = self._lookup.by_id(reader, live[-1].schema_id).content if live else None
        return self._merge(content, latest, config)

    def _merge(self, content: Content, latest: Content | None, config: Mapping[str, Any]) -> Content:
        metadata, rules = content.metadata, content.rule_set
        if latest is not None:
            metadata = latest.metadata if metadata is None else metadata
            rules = latest.rule_set if rules is None else rules
        metadata = merge(validate_metadata(config.get("defaultMetadata")), metadata)
        rules = merge(validate_rules(config.get("defaultRuleSet")), rules)
        metadata = merge(metadata, validate_metadata(config.get("overrideMetadata")))
        rules = merge(rules, validate_rules(config.get("overrideRuleSet")))
        if (metadata, rules) == (content.metadata, content.rule_set):
            return content
        return replace(content, metadata=metadata, rule_set=rules)

    def _check_references(self, work: UnitOfWork, submission: Submission) -> None:
        """Check that no referenced version was deleted while this transaction waited for the lock."""
        for item in submission.content.references:
            found = self._reader.version(work, item.subject, item.version)
            if found is None or found[0].deleted or found[0].schema_id != item.schema_id:
                raise schema_invalid(
                    f"version {item.version} of {item.subject}, which the schema refers to, was deleted just now"
                )

    def lowered_classification(
        self, reader: Reader, subject: str, content: Content, *, normalize: bool = False
    ) -> tuple[bytes, list[str]]:
        """Return a content's fingerprint, and what it would lower of a subject's classification.

        Args:
            reader: to read with.
            subject: whose classification.
            content: to compare.
            normalize: compare its normal form, as it would be registered.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED.
        """
        submission = self.read(reader, subject, content, form=_form(normalize=normalize))
        merged = self.with_contract(reader, subject, submission.content)
        return submission.fingerprint, self._find_lowered(
            reader, subject, submission, merged, self._reader.versions(reader, subject)
        )

    def _require_approval(self, work: UnitOfWork, subject: str, submission: Submission, findings: list[str]) -> None:
        if findings and not self._approved(work, subject, submission.fingerprint, findings):
            raise classification.lowered_error(findings)

    def _find_lowered(
        self,
        reader: Reader,
        subject: str,
        submission: Submission,
        content: Content,
        versions: Iterable[StoredVersion],
    ) -> list[str]:
        """Return what a submission lowers of the earlier versions' classification, tags included.

        The versions of lower majors of the resource are earlier ones too. Those of higher majors count for fields that
        this major has not had yet.

        Args:
            reader: to read with.
            subject: under which it would be registered.
            submission: the new schema.
            content: with the metadata that it would be registered with.
            versions: the earlier ones of the subject.
        """
        parsed: ParsedSchema | None = submission.parsed
        if parsed is None:
            raise InvalidError(
                Reason.SCHEMA_UNCLASSIFIED,
                f"got a schema of the type {submission.content.schema_type} for a catalogued resource; expected "
                "AVRO, whose fields carry their classification",
            )
        fields = classification.require_classification(resolved_json(parsed) if parsed.fullname else parsed.json)
        require_publishable(parsed)
        tagged = tagged_entities(parsed, content.metadata)
        earlier = self._earlier(reader, versions)
        findings = _lowered(fields, tagged, earlier)
        known = {field.path for _, old, _ in earlier for field in _classification(old)}
        for topic in self._other_majors(reader, subject):
            others = self._earlier(reader, self._reader.versions(reader, topic.subject))
            if topic < Topic.parse(subject.removesuffix("-value")):
                found = _lowered(fields, tagged, others)
            else:
                classified = [(number, _classification(old)) for number, old, _ in others]
                found = classification.lowered_since(
                    fields, [(number, [one for one in old if one.path not in known]) for number, old in classified]
                )
            findings += [f"{topic}, {one}" for one in found]
        return findings

    def _element_uses(self, reader: Reader, submission: Submission) -> list[tuple[str, str]]:
        """Return code and path of each field that names a data element, or raise what does not fit."""
        elements, parsed = self._elements, submission.parsed
        if elements is None or parsed is None or not parsed.fullname:
            return []
        schema = resolved_json(parsed)
        require_fit(schema, lambda code: elements.definition(reader, code))
        return [(field.element, field.path) for field in element_fields(schema) if field.element is not None]

    def _record_elements(self, work: UnitOfWork, subject: str, number: int, uses: Sequence[tuple[str, str]]) -> None:
        if self._elements is not None:
            self._elements.record(work, subject, number, uses)

    def _earlier(self, reader: Reader, versions: Iterable[StoredVersion]) -> list[tuple[int, ParsedSchema, str | None]]:
        """Return number, schema and metadata of the Avro ones among versions."""
        # Softly deleted versions too: deleting must not lower a classification.
        return [
            (
                version.number,
                self._lookup.parsed_for_comparison(reader, version.schema_id),
                self._lookup.by_id(reader, version.schema_id).content.metadata,
            )
            for version in versions
            if self._lookup.by_id(reader, version.schema_id).content.schema_type == SchemaType.AVRO
        ]

    def _incompatibilities(
        self,
        reader: Reader,
        submission: Submission,
        content: Content,
        live: Sequence[StoredVersion],
        config: Mapping[str, Any],
        number: int | None,
    ) -> list[Incompatibility]:
        return [
            *self._reserved_fields(reader, submission, content, live, config),
            *self._unreadable(reader, submission, content, live, config, number),
        ]

    def _reserved_fields(
        self,
        reader: Reader,
        submission: Submission,
        content: Content,
        live: Sequence[StoredVersion],
        config: Mapping[str, Any],
    ) -> list[Incompatibility]:
        """Return the fields whose names are reserved, and the reservations that the latest version has alone."""
        if not config.get("validateFields"):
            return []
        latest = live[-1].number if live else 0
        before = self._lookup.by_id(reader, live[-1].schema_id).content.metadata if live else None
        parsed, reserved = submission.parsed, reserved_fields(content.metadata)
        own = {field.name for field in parsed.fields} if parsed is not None else set()
        return [
            *(_reserved(latest, name, _RESERVATION_REMOVED) for name in sorted(reserved_fields(before) - reserved)),
            *(_reserved(latest, name, _RESERVED_FIELD) for name in sorted(reserved & own)),
        ]

    def _unreadable(
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
            own = properties_of(content.metadata).get(group)
            live = [item for item in live if self._property(reader, item, group) == own]
        if level is Compatibility.NONE or not live:
            return []
        single = [item for item in live if item.number == number] or live[-1:]
        compared = live if level.transitive else single
        of_another_type = [
            item
            for item in compared
            if self._lookup.by_id(reader, item.schema_id).content.schema_type != content.schema_type
        ]
        if of_another_type:
            return [_another_type(item.number, content.schema_type) for item in reversed(of_another_type)]
        if content.schema_type != SchemaType.AVRO:
            raise schema_invalid(
                f"whether a schema of the type {content.schema_type} may follow another is not checked by this "
                "registry; set the subject's compatibility to NONE, and check it where it is written"
            )
        texts = [(item.number, self._lookup.inlined_text(reader, item.schema_id)) for item in compared]
        return find_incompatibilities(submission.inlined_text, texts, level, strict=self._strict)

    def _property(self, reader: Reader, version: StoredVersion, name: str) -> str | None:
        return properties_of(self._lookup.by_id(reader, version.schema_id).content.metadata).get(name)


def _form(*, normalize: bool) -> Form:
    return Form.NORMALIZED if normalize else Form.AS_CONFIGURED


def _version(subject: str, number: int, schema: StoredSchema, content: Content) -> RegisteredVersion:
    version = StoredVersion(
        subject=subject,
        number=number,
        schema_id=schema.id,
        key=schema.key,
        fingerprint=schema.fingerprint,
        deleted=False,
    )
    return RegisteredVersion.of(version, content)


@lru_cache(maxsize=4_096)
def _classification(parsed: ParsedSchema) -> tuple[classification.ClassifiedField, ...]:
    """Return the classification of a registered schema; cached, since each registration compares with every version."""
    return tuple(classification.read_classification(resolved_json(parsed))[0])


@lru_cache(maxsize=4_096)
def _tags(parsed: ParsedSchema, metadata: str | None) -> tuple[TaggedEntity, ...]:
    return tuple(tagged_entities(parsed, metadata))


def _lowered(
    fields: Sequence[classification.ClassifiedField],
    tagged: Sequence[TaggedEntity],
    earlier: Sequence[tuple[int, ParsedSchema, str | None]],
) -> list[str]:
    """Return what fields and tags lower of earlier versions."""
    return [
        *classification.lowered_since(fields, [(number, _classification(old)) for number, old, _ in earlier]),
        *dropped_tags(tagged, [(number, _tags(old, metadata)) for number, old, metadata in earlier]),
    ]


def _check_number(number: int | None, new_number: int, existing: StoredVersion | None) -> None:
    """Refuse a version that is not the one which the content has, or would get.

    Raises:
        InvalidError: SCHEMA_INVALID, Confluent's number and text.
    """
    if number is None or number == (new_number if existing is None else existing.number):
        return
    expected = f"{new_number}, or none" if existing is None else f"{existing.number}, which has this schema, or none"
    raise schema_invalid(f"Version is not one more than previous version: got {number}; expected {expected}")


def _reserved(version: int, name: str, text: str) -> Incompatibility:
    return Incompatibility(
        version=version,
        direction=Direction.BACKWARD,
        at="$",
        field=name,
        kind=RESERVED_FIELD,
        detail=text.format(name),
        library=text.format(name),
    )


def _check_mode(subject: str, mode: Mode, schema_id: int | None) -> None:
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
