"""Submission: a candidate schema, checked, its references resolved, its keys computed.

    content ── type of schema ── references resolved, direct and indirect ── parse ── keys

A reference names a subject's version; -1 is the latest. The submission has the resolved number, and the id of the
schema that this version has, so that its meaning never changes. A schema with references is parsed with them inlined,
and so are those that it is compared with: compatibility, classification and the codec see one complete schema.
"""

import json
import threading
from dataclasses import dataclass, replace
from typing import Any

from registry.avro.inlining import inline_references
from registry.avro.name_resolution import schema_invalid, schema_unsafe
from registry.avro.parser import ParsedSchema, parse
from registry.avro.schema_types import SchemaType, canonical_form, parse_schema_type
from registry.database.unit_of_work import Reader
from registry.subjects import contexts
from registry.subjects.fingerprint import key_of, shape_key, shape_text
from registry.subjects.lookup import MAX_REFERENCES, SchemaLookup
from registry.subjects.model import Content, Reference
from registry.subjects.normal_form import normalized
from registry.subjects.store import SubjectReader

__all__ = ["Submission", "Submissions"]

_CACHE_SIZE = 32 * 1024 * 1024  # characters of texts whose keys are cached


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked content.

    Attributes:
        content: as submitted, its references resolved.
        canonical_text: its canonical form without metadata and rules (`registry.subjects.fingerprint.shape_text`).
        inlined: an Avro schema's text with its references inlined, or the text itself.
        shape: the key without metadata and rules.
        strict: whether it was parsed with rules that Avro's own parser does not have.
        allow_non_terminating: whether a record of it may be infinitely recursive.
    """

    content: Content
    canonical_text: str
    inlined: str
    shape: bytes
    strict: bool
    allow_non_terminating: bool

    @property
    def parsed(self) -> ParsedSchema | None:
        """`inlined`, parsed; None for another kind than Avro."""
        if self.content.kind != SchemaType.AVRO:
            return None
        return parse(self.inlined, strict=self.strict, allow_non_terminating=self.allow_non_terminating)

    @property
    def without_contract(self) -> bool:
        """Whether neither metadata nor rules were submitted."""
        return self.content.metadata is None and self.content.rule_set is None

    def key(self, content: Content | None = None) -> bytes:
        """Return the key, with another content's metadata and rules if one is given."""
        return key_of(self.canonical_text, content or self.content)


class Submissions:
    """Reads submissions: checks them, resolves their references, computes their keys.

    Args:
        store: finds referenced versions.
        lookup: finds referenced schemas.
    """

    def __init__(self, store: SubjectReader, lookup: SchemaLookup) -> None:
        self._store = store
        self._lookup = lookup
        self._lock = threading.Lock()
        self._cached_keys: dict[tuple[str, bool, bool], tuple[str, bytes]] = {}
        self._size = 0

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
        """Check a content for a subject.

        Args:
            reader: to resolve references with.
            subject: references without a context are resolved in its context.
            content: as submitted.
            validate: also refuse names, defaults and logical types that Avro's own parser accepts.
            allow_non_terminating: also accept an infinitely recursive record, with which nothing is ever read or
                written.
            normalize: return the submission of the content's normal form (`registry.subjects.normal_form`).

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        draft = self._read(reader, subject, content, validate=validate, allow_non_terminating=allow_non_terminating)
        if not normalize:
            return draft
        plain = normalized(draft.content, self._canonical(reader, draft))
        same = plain == draft.content
        return (
            draft
            if same
            else self._read(reader, None, plain, validate=validate, allow_non_terminating=allow_non_terminating)
        )

    def _read(
        self, reader: Reader, subject: str | None, content: Content, *, validate: bool, allow_non_terminating: bool
    ) -> Submission:
        """Read a content. *subject* is None where its references are resolved already."""
        kind = parse_schema_type(content.kind)
        if len(content.references) > MAX_REFERENCES:
            raise schema_unsafe(f"got {len(content.references)} references; expected {MAX_REFERENCES} at most")
        resolved = content.references
        if subject is not None:
            resolved = tuple(self._resolved(reader, subject, item) for item in resolved)
        if resolved or content.kind != kind.value:
            content = replace(content, kind=kind.value, references=resolved)
        inlined = content.text
        if kind is not SchemaType.AVRO:
            canonical_text, shape = _keys(content, canonical_form(kind, content.text))
        elif not resolved:
            canonical_text, shape = self._plain(content, strict=validate, allow_non_terminating=allow_non_terminating)
        else:
            texts = self._lookup.reference_texts(reader, resolved)
            # Parsed with its references beside it, for error messages and its own JSON; then with them inlined.
            canonical_text, shape = _keys(
                content,
                parse(
                    content.text, references=texts, strict=validate, allow_non_terminating=allow_non_terminating
                ).json,
            )
            inlined = inline_references(content.text, texts)
            parse(inlined, strict=validate, allow_non_terminating=allow_non_terminating)
        return Submission(
            content=content,
            canonical_text=canonical_text,
            inlined=inlined,
            shape=shape,
            strict=validate,
            allow_non_terminating=allow_non_terminating,
        )

    def _canonical(self, reader: Reader, draft: Submission) -> Any:
        content = draft.content
        if content.kind != SchemaType.AVRO:
            return canonical_form(parse_schema_type(content.kind), content.text)
        texts = self._lookup.reference_texts(reader, content.references)
        return parse(
            content.text, references=texts, strict=draft.strict, allow_non_terminating=draft.allow_non_terminating
        ).json

    def _plain(self, content: Content, *, strict: bool, allow_non_terminating: bool) -> tuple[str, bytes]:
        """Return the keys of an Avro schema without references. Cached by text, so that a text is parsed once."""
        keys = self._cached_keys.get((content.text, strict, allow_non_terminating))
        if keys is None:
            keys = _keys(content, parse(content.text, strict=strict, allow_non_terminating=allow_non_terminating).json)
            size = len(content.text) + len(keys[0])
            with self._lock:
                self._size += size
                if self._size > _CACHE_SIZE:
                    self._cached_keys.clear()
                    self._size = size
                self._cached_keys[content.text, strict, allow_non_terminating] = keys
        return keys

    def _resolved(self, reader: Reader, subject: str, item: Reference) -> Reference:
        where = contexts.relative(item.subject, subject)
        found = self._store.version(reader, where, None if item.version == -1 else item.version)
        if found is None or found[0].deleted:
            shown = "latest" if item.version == -1 else str(item.version)
            raise schema_invalid(
                f"No schema reference found for subject {json.dumps(where, ensure_ascii=False)} and version {shown}; "
                "register what the schema refers to first"
            )
        version = found[0]
        return Reference(item.name, where, version.number, version.schema_id)


def _keys(content: Content, canonical: Any) -> tuple[str, bytes]:
    canonical_text = shape_text(content, canonical)
    return canonical_text, shape_key(canonical_text)
