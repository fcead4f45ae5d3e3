"""What somebody submits becomes a draft: checked, its references resolved, its keys known.

    content ── type of schema ── references: where they stand, what they hold, their own ── parse ── keys

A reference names a subject's version; -1 is the latest. The draft holds the number that this is, and the id of what
stands there, so that it means the same forever. A schema that needs others is parsed with them written into it,
and so are those that it is compared with: compatibility, classification and the codec see one whole schema.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from registry.avro.inlining import inlined
from registry.avro.name_resolution import MAX_TEXT_BYTES, schema_invalid, schema_unsafe
from registry.avro.parser import ParsedSchema, parse
from registry.avro.schema_types import Kind, canonical_of, kind_of
from registry.subjects import contexts
from registry.subjects.fingerprint import key_of, shape_key, shape_text
from registry.subjects.model import Content, Reference, StoredSchema
from registry.subjects.normal_form import normalized
from registry.subjects.store import SubjectStore
from schemas.errors import InvalidError

__all__ = ["Submission", "Submissions"]

_MOST_REFERENCES = 200  # of a schema and of those that it needs, together
_MOST_WHOLE = 2_000  # texts of schemas with their references written in
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
        endless: whether it may hold a record that holds itself without end.
    """

    content: Content
    written: str
    whole: str
    shape: bytes
    strict: bool
    endless: bool

    @property
    def parsed(self) -> ParsedSchema | None:
        """`whole`, parsed; None for another kind than Avro."""
        if self.content.kind != Kind.AVRO:
            return None
        return parse(self.whole, strict=self.strict, endless=self.endless)

    @property
    def bare(self) -> bool:
        """Whether neither metadata nor rules were submitted."""
        return self.content.metadata is None and self.content.rule_set is None

    def key(self, content: Content | None = None) -> bytes:
        """Return the key, with another content's metadata and rules if one is given."""
        return key_of(self.written, content or self.content)


class Submissions:
    """Makes drafts.

    Args:
        store: where referenced versions stand.
        by_id: gives what an id stands for.
    """

    def __init__(self, store: SubjectStore, by_id: Callable[[int], StoredSchema]) -> None:
        self._store = store
        self._by_id = by_id
        self._lock = threading.Lock()
        self._whole: dict[int, str] = {}
        self._known: dict[tuple[str, bool, bool], tuple[str, bytes]] = {}
        self._size = 0

    def read(
        self,
        subject: str,
        content: Content,
        *,
        validate: bool = True,
        endless: bool = False,
        normalize: bool = False,
    ) -> Submission:
        """Check a content that is meant for a subject.

        Args:
            subject: references without a context are to its context.
            content: as submitted.
            validate: also refuse what Avro's own parser lets pass: names, defaults, logical types.
            endless: also take a record that holds itself without end, with which nothing is ever read or written.
            normalize: give the draft of the content's normal form (`registry.subjects.normal_form`).

        Raises:
            InvalidError: SCHEMA_INVALID or SCHEMA_UNSAFE.
        """
        draft = self._read(subject, content, validate=validate, endless=endless)
        if not normalize:
            return draft
        plain = normalized(draft.content, self._canonical(draft))
        same = plain == draft.content
        return draft if same else self._read(None, plain, validate=validate, endless=endless)

    def _read(self, subject: str | None, content: Content, *, validate: bool, endless: bool) -> Submission:
        """See `read`; None as the subject: the references are resolved, and mean the same whatever subject asks."""
        kind = kind_of(content.kind)
        if len(content.references) > _MOST_REFERENCES:
            raise schema_unsafe(f"got {len(content.references)} references; expected {_MOST_REFERENCES} at most")
        resolved = content.references
        if subject is not None:
            resolved = tuple(self._resolved(subject, item) for item in resolved)
        if resolved or content.kind != kind.value:
            content = replace(content, kind=kind.value, references=resolved)
        whole = content.text
        if kind is not Kind.AVRO:
            written, shape = _keys(content, canonical_of(kind, content.text))
        elif not resolved:
            written, shape = self._plain(content, strict=validate, endless=endless)
        else:
            texts = self._texts(resolved)
            # Once with its references beside it, for the errors' sake and its own JSON; once whole.
            written, shape = _keys(
                content, parse(content.text, references=texts, strict=validate, endless=endless).json
            )
            whole = inlined(content.text, texts)
            parse(whole, strict=validate, endless=endless)
        return Submission(content=content, written=written, whole=whole, shape=shape, strict=validate, endless=endless)

    def _canonical(self, draft: Submission) -> Any:
        content = draft.content
        if content.kind != Kind.AVRO:
            return canonical_of(kind_of(content.kind), content.text)
        texts = self._texts(content.references)
        return parse(content.text, references=texts, strict=draft.strict, endless=draft.endless).json

    def whole(self, schema_id: int) -> str:
        """Return an id's text with its references written in.

        Raises:
            InvalidError: SCHEMA_UNKNOWN.
        """
        known = self._whole.get(schema_id)
        if known is not None:
            return known
        content = self._by_id(schema_id).content
        if not content.references or content.kind != Kind.AVRO:
            return content.text
        text = inlined(content.text, self._texts(content.references))
        with self._lock:
            if len(self._whole) >= _MOST_WHOLE:
                self._whole.clear()
            self._whole[schema_id] = text
        return text

    def parsed(self, schema_id: int, *, endless: bool = False) -> ParsedSchema:
        """Return an Avro schema parsed, its references written in.

        Args:
            schema_id: which one.
            endless: to describe or compare it alone; without, what is given may be read and written with.

        Raises:
            InvalidError: SCHEMA_UNKNOWN; SCHEMA_INVALID, when it is no Avro schema; SCHEMA_UNSAFE, when it holds itself
                without end.
        """
        content = self._by_id(schema_id).content
        if content.kind != Kind.AVRO:
            raise schema_invalid(f"the schema {schema_id} is of the type {content.kind}; expected AVRO")
        whole = self.whole(schema_id)
        try:
            return parse(whole, endless=endless)
        except InvalidError:
            return parse(whole, strict=False, endless=endless)  # registered where new schemas are not validated

    def _plain(self, content: Content, *, strict: bool, endless: bool) -> tuple[str, bytes]:
        """Return the keys of an Avro schema that needs no other; a text that was read once is not parsed again."""
        known = self._known.get((content.text, strict, endless))
        if known is None:
            known = _keys(content, parse(content.text, strict=strict, endless=endless).json)
            size = len(content.text) + len(known[0])
            with self._lock:
                self._size += size
                if self._size > _MOST_KNOWN:
                    self._known.clear()
                    self._size = size
                self._known[content.text, strict, endless] = known
        return known

    def _resolved(self, subject: str, item: Reference) -> Reference:
        where = contexts.relative(item.subject, subject)
        found = self._store.held(where, None if item.version == -1 else item.version)
        if found is None or found[0].deleted:
            shown = "latest" if item.version == -1 else str(item.version)
            raise schema_invalid(
                f"No schema reference found for subject {json.dumps(where, ensure_ascii=False)} and version {shown}; "
                "register what the schema refers to first"
            )
        version = found[0]
        return Reference(item.name, where, version.number, version.schema_id)

    def _texts(self, references: tuple[Reference, ...]) -> tuple[str, ...]:
        """Return the texts of everything that is referred to, each before those that need it."""
        order: dict[int, str] = {}
        size = 0
        todo = [(item.target, False) for item in reversed(references)]
        while todo:
            schema_id, ready = todo.pop()
            if schema_id in order:
                continue
            content = self._by_id(schema_id).content
            if content.kind != Kind.AVRO:
                raise schema_invalid(f"got a reference to a schema of the type {content.kind}; expected AVRO")
            if ready:
                order[schema_id] = content.text
                size += len(content.text)
                if len(order) > _MOST_REFERENCES or size > MAX_TEXT_BYTES:
                    raise schema_unsafe(
                        f"got a schema that needs more than {_MOST_REFERENCES} others, or {MAX_TEXT_BYTES} "
                        "characters of them; expected fewer"
                    )
            else:
                todo.append((schema_id, True))
                todo += [(item.target, False) for item in reversed(content.references)]
        return tuple(order.values())


def _keys(content: Content, canonical: Any) -> tuple[str, bytes]:
    written = shape_text(content, canonical)
    return written, shape_key(written)
