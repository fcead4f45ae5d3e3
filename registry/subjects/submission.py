"""Submission: a candidate schema, checked, its references resolved, its keys computed.

    content ── type of schema ── references: where they stand, what they hold, their own ── parse ── keys

A reference names a subject's version; -1 is the latest. The draft holds the number that this is, and the id of what
stands there, so that it means the same forever. A schema that needs others is parsed with them written into it,
and so are those that it is compared with: compatibility, classification and the codec see one whole schema.
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
from registry.subjects.lookup import MOST_REFERENCES, SchemaLookup
from registry.subjects.model import Content, Reference
from registry.subjects.normal_form import normalized
from registry.subjects.store import SubjectReader

__all__ = ["Submission", "Submissions"]

_MOST_KNOWN = 32 * 1024 * 1024  # characters of texts whose keys are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked content.

    Attributes:
        content: as submitted, its references resolved.
        written: what it says without metadata and rules, in canonical form
        (`registry.subjects.fingerprint.shape_text`).
        whole: an Avro schema's text with its references written in, the text itself where it has none.
        shape: the key without metadata and rules.
        strict: whether it keeps what Avro's own parser does not ask for.
        allow_non_terminating: whether a record of it may be infinitely recursive.
    """

    content: Content
    written: str
    whole: str
    shape: bytes
    strict: bool
    allow_non_terminating: bool

    @property
    def parsed(self) -> ParsedSchema | None:
        """`whole`, parsed; None for another kind than Avro."""
        if self.content.kind != SchemaType.AVRO:
            return None
        return parse(self.whole, strict=self.strict, allow_non_terminating=self.allow_non_terminating)

    @property
    def bare(self) -> bool:
        """Whether neither metadata nor rules were submitted."""
        return self.content.metadata is None and self.content.rule_set is None

    def key(self, content: Content | None = None) -> bytes:
        """Return the key, with another content's metadata and rules if one is given."""
        return key_of(self.written, content or self.content)


class Submissions:
    """Reads submissions: checks them, resolves their references, computes their keys.

    Args:
        store: where referenced versions stand.
        lookup: finds what is referred to.
    """

    def __init__(self, store: SubjectReader, lookup: SchemaLookup) -> None:
        self._store = store
        self._lookup = lookup
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bool, bool], tuple[str, bytes]] = {}
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
        """Check a content that is meant for a subject.

        Args:
            reader: to resolve references with.
            subject: references without a context are to its context.
            content: as submitted.
            validate: also refuse what Avro's own parser lets pass: names, defaults, logical types.
            allow_non_terminating: also accept an infinitely recursive record, with which nothing is ever read or
                written.
            normalize: give the draft of the content's normal form (`registry.subjects.normal_form`).

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
        """Read a content; None as the subject: its references are resolved already, for every subject alike."""
        kind = parse_schema_type(content.kind)
        if len(content.references) > MOST_REFERENCES:
            raise schema_unsafe(f"got {len(content.references)} references; expected {MOST_REFERENCES} at most")
        resolved = content.references
        if subject is not None:
            resolved = tuple(self._resolved(reader, subject, item) for item in resolved)
        if resolved or content.kind != kind.value:
            content = replace(content, kind=kind.value, references=resolved)
        whole = content.text
        if kind is not SchemaType.AVRO:
            written, shape = _keys(content, canonical_form(kind, content.text))
        elif not resolved:
            written, shape = self._plain(content, strict=validate, allow_non_terminating=allow_non_terminating)
        else:
            texts = self._lookup.texts(reader, resolved)
            # Once with its references beside it, for the errors' sake and its own JSON; once whole.
            written, shape = _keys(
                content,
                parse(
                    content.text, references=texts, strict=validate, allow_non_terminating=allow_non_terminating
                ).json,
            )
            whole = inline_references(content.text, texts)
            parse(whole, strict=validate, allow_non_terminating=allow_non_terminating)
        return Submission(
            content=content,
            written=written,
            whole=whole,
            shape=shape,
            strict=validate,
            allow_non_terminating=allow_non_terminating,
        )

    def _canonical(self, reader: Reader, draft: Submission) -> Any:
        content = draft.content
        if content.kind != SchemaType.AVRO:
            return canonical_form(parse_schema_type(content.kind), content.text)
        texts = self._lookup.texts(reader, content.references)
        return parse(
            content.text, references=texts, strict=draft.strict, allow_non_terminating=draft.allow_non_terminating
        ).json

    def _plain(self, content: Content, *, strict: bool, allow_non_terminating: bool) -> tuple[str, bytes]:
        """Return the keys of an Avro schema that needs no other; a text that was read once is not parsed again."""
        known = self._known.get((content.text, strict, allow_non_terminating))
        if known is None:
            known = _keys(content, parse(content.text, strict=strict, allow_non_terminating=allow_non_terminating).json)
            size = len(content.text) + len(known[0])
            with self._lock:
                self._size += size
                if self._size > _MOST_KNOWN:
                    self._known.clear()
                    self._size = size
                self._known[content.text, strict, allow_non_terminating] = known
        return known

    def _resolved(self, reader: Reader, subject: str, item: Reference) -> Reference:
        where = contexts.relative(item.subject, subject)
        found = self._store.held(reader, where, None if item.version == -1 else item.version)
        if found is None or found[0].deleted:
            shown = "latest" if item.version == -1 else str(item.version)
            raise schema_invalid(
                f"No schema reference found for subject {json.dumps(where, ensure_ascii=False)} and version {shown}; "
                "register what the schema refers to first"
            )
        version = found[0]
        return Reference(item.name, where, version.number, version.schema_id)


def _keys(content: Content, canonical: Any) -> tuple[str, bytes]:
    written = shape_text(content, canonical)
    return written, shape_key(written)
