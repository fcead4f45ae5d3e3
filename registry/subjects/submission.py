"""Submission: a candidate schema, validated, with its references resolved and its keys computed.

    content ── schema type ── references: versions, their schemas, and the references of those ── parse ── keys

A reference names a subject's version; -1 is the latest. The submission holds the resolved number, and the id of that
version's schema, so that its meaning never changes. A schema with references is parsed with them inlined, and so are
the schemas that it is compared with: compatibility, classification and the codec see one complete schema.
"""

import json
import threading
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from registry.avro.inlining import inline_references
from registry.avro.name_resolution import schema_invalid, schema_unsafe
from registry.avro.parser import ParsedSchema, parse
from registry.avro.resource_rules import require_numbers_in_range
from registry.avro.schema_types import SchemaType, canonical_form, parse_schema_type
from registry.database.unit_of_work import Reader
from registry.subjects import contexts
from registry.subjects.fingerprint import canonical_schema_text, content_key_of, fingerprint_of
from registry.subjects.lookup import MAX_REFERENCES, SchemaLookup
from registry.subjects.model import Content, SchemaReference
from registry.subjects.normal_form import to_normal_form
from registry.subjects.store import SubjectReader

__all__ = ["ParserOptions", "Submission", "SubmissionReader"]

_CACHE_CHARACTERS = 32 * 1024 * 1024  # of texts whose keys are cached


class ParserOptions(NamedTuple):
    """Options of `registry.avro.parser.parse`, which explains them."""

    strict: bool
    allow_non_terminating: bool

    def parse(self, text: str, references: tuple[str, ...] = ()) -> ParsedSchema:
        """Return a parsed Avro schema.

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        return parse(text, references=references, strict=self.strict, allow_non_terminating=self.allow_non_terminating)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Validated content.

    Attributes:
        content: as submitted, its references resolved.
        canonical_text: canonical form without metadata and rules
            (`registry.subjects.fingerprint.canonical_schema_text`).
        inlined_text: text of an Avro schema with its references inlined; the text itself if it has none.
        fingerprint: SHA-256 of `canonical_text`.
        options: with which it was parsed.
    """

    content: Content
    canonical_text: str
    inlined_text: str
    fingerprint: bytes
    options: ParserOptions

    @property
    def parsed(self) -> ParsedSchema | None:
        """`inlined_text`, parsed; None for another type than Avro."""
        return self.options.parse(self.inlined_text) if self.content.schema_type == SchemaType.AVRO else None

    @property
    def without_contract(self) -> bool:
        """Whether neither metadata nor rules were submitted."""
        return self.content.metadata is None and self.content.rule_set is None

    def key(self, content: Content | None = None) -> bytes:
        """Return the content's key, with the metadata and rules of *content* if it is given."""
        return content_key_of(self.canonical_text, content or self.content)


class SubmissionReader:
    """Reads submissions: validates contents, resolves their references, computes their keys. Thread-safe.

    Args:
        store: of the referenced versions.
        lookup: finds the referenced schemas.
    """

    def __init__(self, store: SubjectReader, lookup: SchemaLookup) -> None:
        self._store = store
        self._lookup = lookup
        self._lock = threading.Lock()
        self._cached_keys: dict[tuple[str, ParserOptions], tuple[str, bytes]] = {}
        self._cached_characters = 0

    def read(
        self,
        reader: Reader,
        subject: str,
        content: Content,
        *,
        validate: bool = True,
        allow_non_terminating: bool = False,
        normalize: bool = False,
    ) -> Submission:
        """Validate a content that is submitted for a subject.

        Args:
            reader: to resolve references with.
            subject: references without a context are to its context.
            content: as submitted.
            validate: also refuse what Avro's own parser accepts: names, defaults, logical types.
            allow_non_terminating: also accept an infinitely recursive record, with which nothing is read or written.
            normalize: return the submission of the content's normal form (`registry.subjects.normal_form`).

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        options = ParserOptions(strict=validate, allow_non_terminating=allow_non_terminating)
        submission = self._read(reader, subject, content, options)
        if not normalize:
            return submission
        normal_form = to_normal_form(submission.content, self._parsed_json(reader, submission))
        return submission if normal_form == submission.content else self._read(reader, None, normal_form, options)

    def _read(self, reader: Reader, subject: str | None, content: Content, options: ParserOptions) -> Submission:
        """Validate a content; subject None = its references are resolved already."""
        schema_type = parse_schema_type(content.schema_type)
        if len(content.references) > MAX_REFERENCES:
            raise schema_unsafe(f"got {len(content.references)} references; expected {MAX_REFERENCES} at most")
        references = content.references
        if subject is not None:
            references = tuple(self._resolve(reader, subject, item) for item in references)
        if references or content.schema_type != schema_type.value:
            content = replace(content, schema_type=schema_type.value, references=references)
        inlined_text = content.text
        if schema_type is not SchemaType.AVRO:
            canonical_text, fingerprint = _keys(content, canonical_form(schema_type, content.text))
        elif not references:
            canonical_text, fingerprint = self._keys_without_references(content, options)
        else:
            texts = self._lookup.reference_texts(reader, references)
            # Parsed twice: with its references beside it, for its own JSON and for errors that name it; then inlined.
            parsed = options.parse(content.text, texts)
            require_numbers_in_range(parsed)
            canonical_text, fingerprint = _keys(content, parsed.json)
            inlined_text = inline_references(content.text, texts)
            options.parse(inlined_text)
        return Submission(
            content=content,
            canonical_text=canonical_text,
            inlined_text=inlined_text,
            fingerprint=fingerprint,
            options=options,
        )

    def _parsed_json(self, reader: Reader, submission: Submission) -> Any:
        """Return a submission's own text as parsed JSON; for another type than Avro, its canonical form."""
        content = submission.content
        if content.schema_type != SchemaType.AVRO:
            return canonical_form(parse_schema_type(content.schema_type), content.text)
        return submission.options.parse(content.text, self._lookup.reference_texts(reader, content.references)).json

    def _keys_without_references(self, content: Content, options: ParserOptions) -> tuple[str, bytes]:
        """Return canonical text and fingerprint of an Avro schema without references; cached by text."""
        cached = self._cached_keys.get((content.text, options))
        if cached is None:
            parsed = options.parse(content.text)
            require_numbers_in_range(parsed)
            cached = _keys(content, parsed.json)
            characters = len(content.text) + len(cached[0])
            with self._lock:
                self._cached_characters += characters
                if self._cached_characters > _CACHE_CHARACTERS:
                    self._cached_keys.clear()
                    self._cached_characters = characters
                self._cached_keys[content.text, options] = cached
        return cached

    def _resolve(self, reader: Reader, subject: str, reference: SchemaReference) -> SchemaReference:
        """Return a reference with the subject, number and schema id of the version that it means now."""
        target = contexts.resolve_subject(reference.subject, subject)
        found = self._store.version(reader, target, None if reference.version == -1 else reference.version)
        if found is None or found[0].deleted:
            wanted = "latest" if reference.version == -1 else str(reference.version)
            raise schema_invalid(
                f"No schema reference found for subject {json.dumps(target, ensure_ascii=False)} and version {wanted}; "
                "register what the schema refers to first"
            )
        version = found[0]
        return SchemaReference(reference.name, target, version.number, version.schema_id)


def _keys(content: Content, canonical: Any) -> tuple[str, bytes]:
    """Return canonical text and fingerprint of a content."""
    canonical_text = canonical_schema_text(content, canonical)
    return canonical_text, fingerprint_of(canonical_text)
