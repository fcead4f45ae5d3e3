"""What may be registered, and as what.

    draft ── mode ── known already? ── contract merged ── classified ── compatible ── approved ── id ── version

All of it under the subject's lock and in one transaction, so that any number of processes may register at once and
each content gets one id and each version one number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from registry.avro.compatibility import Compatibility, Direction, Incompatibility, check, refuse_incompatible
from registry.avro.fields import resolved
from registry.avro.name_resolution import schema_invalid
from registry.avro.parser import ParsedSchema
from registry.avro.schema_types import Kind
from registry.governance import classification
from registry.subjects.configuration import Configuration, Mode
from registry.subjects.contexts import scopes
from registry.subjects.data_contracts import checked_metadata, checked_rules, merged, properties_of
from registry.subjects.model import Content, StoredSchema, StoredVersion
from registry.subjects.store import MOST_GAPS, MOST_IMPORTED, Change, SubjectStore, refuse_taken
from registry.subjects.submission import Submission, Submissions
from registry.subjects.versions import (
    Registered,
    own_text,
    pick,
    refuse_name,
    registered,
    unknown_subject,
    view_subject,
)
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError

__all__ = ["Registration"]

_CONTRACTS = ("defaultMetadata", "overrideMetadata", "defaultRuleSet", "overrideRuleSet")


class Registration:
    """Registers contents and tests whether they could be.

    Args:
        store: where they are kept.
        configuration: levels, modes and contracts.
        drafts: reads what is submitted.
        by_id: gives what an id stands for.
        governed: whether every field must be classified under this subject.
        strict: also refuse logical types that change their meaning between versions.
        validate: whether new schemas are validated where a subject's configuration says nothing.
        approved: uses up an approval of what a schema takes back, by subject, shape and findings
            (`registry.governance.approvals.Approvals.spend`); tells whether there was one.
    """

    def __init__(
        self,
        store: SubjectStore,
        configuration: Configuration,
        drafts: Submissions,
        *,
        by_id: Callable[[int], StoredSchema],
        governed: Callable[[str], bool],
        strict: bool,
        validate: bool,
        approved: Callable[[str, bytes, Sequence[str]], bool],
    ) -> None:
        self._store = store
        self._configuration = configuration
        self._drafts = drafts
        self._by_id = by_id
        self._governed = governed
        self._strict = strict
        self._validate = validate
        self._approved = approved

    def draft(
        self, subject: str, content: Content, *, normalize: bool | None = False, governed: bool | None = None
    ) -> Submission:
        """Read what is submitted, by the rules that hold for a subject.

        Args:
            subject: whose rules.
            content: as submitted.
            normalize: take its normal form; False = where the subject's configuration says so, None = never.
            governed: whether the subject is; None = ask.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        if normalize is False:
            normalize = self._configuration.normalizes(subject)
        plain = bool(normalize)
        try:
            return self._drafts.read(subject, content, validate=self._validate, normalize=plain)
        except InvalidError as error:
            # Only here is the configuration asked: what passes the strict rules passes the others.
            validate = self._configuration.effective(subject).get("validateNewSchemas", self._validate)
            # Records go through the pool under catalogued subjects alone; elsewhere nothing is decoded.
            endless = not (self._governed(subject) if governed is None else governed)
            if validate is self._validate and not (endless and error.reason is Reason.SCHEMA_UNSAFE):
                raise
        return self._drafts.read(subject, content, validate=validate, endless=endless, normalize=plain)

    def register(
        self,
        subject: str,
        content: Content,
        *,
        schema_id: int | None = None,
        number: int | None = None,
        normalize: bool = False,
    ) -> Registered:
        """Register a content, or find it registered already.

        Metadata and rules that are left out are taken over from the latest version; the configuration's defaults
        go below, its overrides above.

        Args:
            subject: under which.
            content: as submitted.
            normalize: register its normal form, also where the configuration does not say so. What is imported is
                kept as it is elsewhere.
            schema_id: the id that it has elsewhere; in the mode IMPORT alone, and required there.
            number: the version that it has elsewhere; in the mode IMPORT alone.

        Raises:
            InvalidError: SUBJECT_INVALID; SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED, naming each field.
            ConflictError: SCHEMA_INCOMPATIBLE, naming versions and JSON paths; CLASSIFICATION_LOWERED; ID_TAKEN.
            RefusedError: SUBJECT_READ_ONLY; SUBJECT_NOT_IN_IMPORT.
            UnavailableError: see `SubjectStore.change`.
        """
        refuse_name(subject)
        # Asked once, since the subject may be catalogued at any moment: one answer for all that follows.
        governed = self._governed(subject)
        form = normalize if schema_id is None else None
        draft = self.draft(subject, content, normalize=form, governed=governed)
        needed = [item.subject for item in draft.content.references]
        with self._store.change(subject, scopes=scopes(subject), also=needed) as change:
            mode = self._configuration.refuse_read_only(subject, change)
            _refuse_mode(subject, mode, schema_id)
            self._refuse_gone(draft)
            versions = change.versions()
            if schema_id is not None:
                return self._import(change, subject, draft, versions, schema_id, number, governed=governed)
            live = [version for version in versions if not version.deleted]
            config = self._configuration.effective(subject, change)
            known = self.same(subject, live, draft, config)
            if known is not None:
                text = self._store.text(subject, known.number)
                content = self._by_id(known.schema_id).content
                return registered(known, content if text is None else own_text(content, text))
            whole = self._contract(draft.content, live, config)
            findings = self._taken_back(draft, versions) if governed else []
            refuse_incompatible(self._against(draft, whole, live, config, None), Compatibility(config["compatibility"]))
            self._refuse_unapproved(subject, draft, findings)  # last, for it uses an approval up
            new = versions[-1].number + 1 if versions else 1
            return _version(subject, new, change.put(new, draft.key(whole), draft.shape, whole), whole)

    def register_view(self, grant: str, version: int, text: str) -> int:
        """Register what a grant version delivers; give its id.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
            ConflictError: VERSION_CONFLICT, when the grant version has another view already.
        """
        subject = view_subject(grant, version)
        draft = self._drafts.read(subject, Content(text=text))
        with self._store.change(subject, hidden=True) as change:
            versions = change.versions()
            if versions and versions[-1].shape == draft.shape:
                return versions[-1].schema_id
            if versions:
                raise ConflictError(
                    Reason.VERSION_CONFLICT,
                    f"version {version} of the grant {grant} has another view; a changed view is a new grant version",
                )
            return change.put(1, draft.key(), draft.shape, draft.content).id

    def check(
        self, subject: str, content: Content, number: int | None = None, *, normalize: bool = False
    ) -> list[Incompatibility]:
        """Test a content against a subject's live versions, without registering it.

        Args:
            subject: whose level and versions count.
            content: what would be registered.
            number: test against this version if the level is not transitive; None = the latest.
            normalize: test its normal form.

        Raises:
            InvalidError: SUBJECT_UNKNOWN; VERSION_UNKNOWN; SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        draft = self.draft(subject, content, normalize=normalize)
        live = [version for version in self._store.versions(subject) if not version.deleted]
        if not live:
            raise unknown_subject(subject)
        config = self._configuration.effective(subject)
        if number is not None:
            pick(live, number)
        return self._against(draft, self._contract(draft.content, live, config), live, config, number)

    def same(
        self,
        subject: str,
        versions: Sequence[StoredVersion],
        draft: Submission,
        config: Mapping[str, Any] | None = None,
    ) -> StoredVersion | None:
        """Find the latest version with a draft's content; one without metadata and rules fits any.

        Args:
            subject: whose contracts count.
            versions: ascending.
            draft: what to look for.
            config: the subject's configuration, where new versions are made; there a contract that has changed
                since makes a bare content another one.
        """
        fitting = [version for version in versions if version.shape == draft.shape]
        if not fitting:
            return None
        if draft.bare and not any((config or {}).get(name) for name in _CONTRACTS):
            return fitting[-1]
        effective = config or self._configuration.effective(subject)
        before = self._by_id(fitting[-1].schema_id).content if draft.bare else None
        keys = {draft.key(self._merge(draft.content, before, effective))}
        if config is None:
            keys.add(draft.key())
        return next((version for version in reversed(fitting) if version.key in keys), None)

    def _import(
        self,
        change: Change,
        subject: str,
        draft: Submission,
        versions: Sequence[StoredVersion],
        schema_id: int,
        number: int | None,
        *,
        governed: bool,
    ) -> Registered:
        """Keep a version as it is elsewhere: neither merged nor compared with the others."""
        if not 0 < schema_id < 2**31:
            raise InvalidError(Reason.REQUEST_INVALID, f"got the id {schema_id}; expected 1 to 2^31-1")
        wanted = number if number is not None else (versions[-1].number + 1 if versions else 1)
        if not 0 < wanted < 2**31:
            raise InvalidError(Reason.VERSION_INVALID, "got no version id", details={"version": str(wanted)})
        highest = self._store.highest_id()
        most = max(highest, min(highest + MOST_GAPS, MOST_IMPORTED))
        if schema_id > most:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the id {schema_id}; expected {most} at most: ids go on from the highest one, and are finite",
            )
        content = draft.content
        schema = change.restore(schema_id, draft.key(), draft.shape, content)
        for version in versions:
            if version.number == wanted or (number is None and version.schema_id == schema_id):
                if version.schema_id != schema_id:
                    refuse_taken(schema, version.key)
                    raise ConflictError(
                        Reason.ID_MISMATCH,
                        f"version {wanted} of {subject} has the id {version.schema_id}, and not {schema_id}",
                    )
                return registered(version, content)
        self._refuse_unapproved(subject, draft, self._taken_back(draft, versions) if governed else [])
        change.add(wanted, schema, content.text)
        return _version(subject, wanted, schema, content)

    def _contract(self, content: Content, live: Sequence[StoredVersion], config: Mapping[str, Any]) -> Content:
        before = self._by_id(live[-1].schema_id).content if live else None
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

    def _refuse_gone(self, draft: Submission) -> None:
        """Refuse a reference to what was deleted while the lock was waited for."""
        for item in draft.content.references:
            found = self._store.held(item.subject, item.version)
            if found is None or found[0].deleted or found[0].schema_id != item.target:
                raise schema_invalid(
                    f"version {item.version} of {item.subject}, which the schema refers to, was deleted just now"
                )

    def taken_back(self, subject: str, content: Content, *, normalize: bool = False) -> tuple[bytes, list[str]]:
        """Return what a content would take back of a subject's classification; give its shape and the findings.

        Args:
            subject: whose.
            content: what would be registered.
            normalize: of its normal form, as it would be registered.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE; SCHEMA_UNCLASSIFIED.
        """
        draft = self.draft(subject, content, normalize=normalize)
        return draft.shape, self._taken_back(draft, self._store.versions(subject))

    def _refuse_unapproved(self, subject: str, draft: Submission, findings: list[str]) -> None:
        if findings and not self._approved(subject, draft.shape, findings):
            raise classification.refusal(findings)

    def _taken_back(self, draft: Submission, versions: Iterable[StoredVersion]) -> list[str]:
        parsed: ParsedSchema | None = draft.parsed
        if parsed is None:
            raise InvalidError(
                Reason.SCHEMA_UNCLASSIFIED,
                f"got a schema of the type {draft.content.kind} for a catalogued resource; expected AVRO, whose fields "
                "carry their classification",
            )
        fields = classification.classify(resolved(parsed) if parsed.fullname else parsed.json)
        # Softly deleted versions too: deleting is no way round.
        earlier = [
            (version.number, _classified(self._drafts.parsed(version.schema_id, endless=True)))
            for version in versions
            if self._by_id(version.schema_id).content.kind == Kind.AVRO
        ]
        return classification.taken_back(fields, earlier)

    def _against(
        self,
        draft: Submission,
        content: Content,
        live: Sequence[StoredVersion],
        config: Mapping[str, Any],
        number: int | None,
    ) -> list[Incompatibility]:
        level = Compatibility(config["compatibility"])
        group = config.get("compatibilityGroup")
        if group:
            wanted = properties_of(content.metadata).get(group)
            live = [item for item in live if self._property(item, group) == wanted]
        if level is Compatibility.NONE or not live:
            return []
        picked = [item for item in live if item.number == number] or live[-1:]
        relevant = live if level.transitive else picked
        other = [item for item in relevant if self._by_id(item.schema_id).content.kind != content.kind]
        if other:
            return [_another_type(item.number, content.kind) for item in reversed(other)]
        if content.kind != Kind.AVRO:
            raise schema_invalid(
                f"whether a schema of the type {content.kind} may follow another is not checked by this registry; set "
                "the subject's compatibility to NONE, and check it where it is written"
            )
        texts = [(item.number, self._drafts.whole(item.schema_id)) for item in relevant]
        return check(draft.whole, texts, level, strict=self._strict)

    def _property(self, version: StoredVersion, name: str) -> str | None:
        return properties_of(self._by_id(version.schema_id).content.metadata).get(name)


def _version(subject: str, number: int, schema: StoredSchema, content: Content) -> Registered:
    version = StoredVersion(
        subject=subject, number=number, schema_id=schema.id, key=schema.key, shape=schema.shape, deleted=False
    )
    return registered(version, content)


@lru_cache(maxsize=4_096)
def _classified(parsed: ParsedSchema) -> tuple[classification.Labelled, ...]:
    """Return what a registered schema says of its fields; it never changes, and each registration asks for all."""
    return tuple(classification.examine(resolved(parsed))[0])


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
