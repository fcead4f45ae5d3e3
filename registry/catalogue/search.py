"""Search of the catalogue in Chinese and English, with facets: tokens, queries, the port and its twin in memory.

Chinese has no spaces, and a dictionary misses names. So a text is indexed by tokens that need none:

    a run of Han characters      its pairs in order, at positions one behind the other: 人口信息 → 人口 口信 信息
    a Latin word or a number     as it is, in lower case
    between two runs             a gap of positions, so that no phrase reaches over it
    behind the last run          each Han character once, with a gap before each: for queries of one character

A word is indexed by its first 500 characters: PostgreSQL has tokens of 2,046 bytes at most, and queries have 100
characters.

A query is its words, all of them: of Han characters a phrase of its pairs (or the one character), of Latin letters the
beginning of a word. So a word of two or more Han characters finds exactly the texts that contain it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from typing_extensions import override

from registry.catalogue.metadata import Metadata
from registry.database.unit_of_work import Reader, UnitOfWork, on_rollback
from registry.directory.model import PUBLIC_STATES, CatalogueEntry
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "FACETS",
    "MOST_COUNTED",
    "Facets",
    "IndexedEntry",
    "MemorySearch",
    "SearchIndex",
    "SearchQuery",
    "counted",
    "metadata_texts",
    "query_words",
    "text_vector",
    "word_query",
]

FACETS: Final = ("provider", "share_type", "level", "state", "theme")
"""By which hits are counted and limited."""
MOST_COUNTED: Final = 10_000
"""Hits that are counted at most."""
_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN: Final = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+")
_ONLY_HAN: Final = re.compile(rf"[{_HAN}]+")
_LONGEST_TOKEN: Final = 500  # characters, of 4 bytes at most; a token of PostgreSQL has 2,046 bytes
_LAST: Final = 16_000  # position; a tsvector has 16,383
_MOST_WORDS: Final = 10
_LONGEST: Final = 100  # characters of a query


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What is sought.

    Attributes:
        words: of the query, see `query_words`; empty = every entry.
        limits: facet → value that an entry must have.
        viewer: department that searches, see `CatalogueEntry.is_visible_to`; None = every entry is found.
        after: topic behind which the page begins.
        limit: at most so many.
    """

    words: tuple[str, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    viewer: str | None = None
    after: Topic | None = None
    limit: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """Hits by facet and value. `more`: there are more than were counted."""

    counts: Mapping[str, Mapping[str, int]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedEntry:
    """What the index has of an entry: its facets, and its texts by weight, A before B."""

    topic: Topic
    facets: Mapping[str, str]
    texts: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, entry: CatalogueEntry) -> "IndexedEntry":
        """Return what is indexed of an entry itself; its theme comes with its metadata."""
        facets = {
            "provider": entry.provider,
            "share_type": str(entry.share_type),
            "level": entry.level.name,
            "state": str(entry.state),
        }
        texts = (("A", entry.title), ("B", entry.abstract), ("B", f"{entry.topic.name} {entry.code}"))
        return cls(topic=entry.topic, facets=facets, texts=texts)


def metadata_texts(metadata: Metadata) -> list[tuple[str, str]]:
    """Return what is indexed of full metadata beside the entry's own texts, by weight."""
    names = [(item.name, item.name_en.replace("_", " ")) for item in metadata.items]
    return [
        ("A", metadata.title_en),
        ("B", metadata.abstract_en),
        *(("B", name) for pair in names for name in pair),
    ]


def query_words(text: str) -> tuple[str, ...]:
    """Return the words of a query: runs of Han characters, Latin words.

    Raises:
        InvalidError: REQUEST_INVALID, it has no letter or digit, more than 100 characters, or more than 10 words.
    """
    words = tuple(run.lower() for run in _RUN.findall(text))
    if not words or len(words) > _MOST_WORDS or len(text) > _LONGEST:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a query of {len(text)} characters and {len(words)} words; expected 1 to {_MOST_WORDS} words in "
            f"{_LONGEST} characters",
        )
    return words


def text_vector(texts: Iterable[tuple[str, str]]) -> str:
    """Return texts as a `tsvector` of PostgreSQL in its own notation, which no parser of its locale splits.

    Args:
        texts: weight (A to D) and text.
    """
    places: dict[str, list[str]] = {}
    position = 1
    for token, weight, gap in _tokens(texts):
        position += 2 if gap else 1
        if position > _LAST:
            break
        at = places.setdefault(token, [])
        if len(at) < 255:
            at.append(f"{position}{weight}")
    return " ".join(f"{_quoted(token)}:{','.join(at)}" for token, at in sorted(places.items()))


def word_query(words: Iterable[str]) -> str:
    """Return words as a `tsquery` of PostgreSQL in its own notation."""
    return " & ".join(map(_phrase, words))


def _phrase(word: str) -> str:
    if not _ONLY_HAN.fullmatch(word):
        return f"{_quoted(word)}:*"
    if len(word) == 1:
        return _quoted(word)
    return f"({' <-> '.join(map(_quoted, _pairs(word)))})"


def _tokens(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, bool]]:
    """Yield token, weight, and whether a gap of positions is before it."""
    singles: dict[str, str] = {}
    for weight, text in texts:
        for run in _RUN.findall(text):
            if not _ONLY_HAN.fullmatch(run):
                yield run.lower()[:_LONGEST_TOKEN], weight, True
                continue
            for character in run:
                singles.setdefault(character, weight)
            for number, pair in enumerate(_pairs(run)):
                yield pair, weight, number == 0
    for character, weight in singles.items():
        yield character, weight, True


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def _quoted(token: str) -> str:
    # Letters and digits alone: nothing in it could end the quotation.
    return f"'{token}'"


class SearchIndex(Protocol):
    """Port: finds entries by words and facets. It decides nothing: what it finds is read from the catalogue."""

    def index_entry(self, work: UnitOfWork, entry: CatalogueEntry) -> None:
        """Index an entry in place of its version before; what is indexed of its metadata stays."""
        ...

    def index_metadata(self, work: UnitOfWork, topic: Topic, metadata: Metadata) -> None:
        """Index the metadata in force of an entry that is indexed."""
        ...

    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Topic]:
        """Return the topics of hits, in their order; fewer than the limit only at the end."""
        ...

    def facets(self, reader: Reader, query: SearchQuery) -> Facets:
        """Return how many hits there are by facet and value; `after` and `limit` do not count."""
        ...


def counted(rows: Sequence[Mapping[str, str]]) -> Facets:
    """Return the facets of hits, MOST_COUNTED + 1 of them at most."""
    within = rows[:MOST_COUNTED]
    counts = {name: Counter(row[name] for row in within if row.get(name)) for name in FACETS}
    return Facets(
        counts={name: dict(sorted(found.items())) for name, found in counts.items()}, more=len(rows) > MOST_COUNTED
    )


class MemorySearch(SearchIndex):
    """Search in memory: each word is looked for in each text."""

    def __init__(self) -> None:
        self._entries: dict[Topic, IndexedEntry] = {}
        self._metadata: dict[Topic, Metadata] = {}

    @override
    def index_entry(self, work: UnitOfWork, entry: CatalogueEntry) -> None:
        before = self._entries
        on_rollback(work, lambda: setattr(self, "_entries", before))
        self._entries = {**before, entry.topic: IndexedEntry.of(entry)}

    @override
    def index_metadata(self, work: UnitOfWork, topic: Topic, metadata: Metadata) -> None:
        before = self._metadata
        on_rollback(work, lambda: setattr(self, "_metadata", before))
        self._metadata = {**before, topic: metadata}

    @override
    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Topic]:
        found = (topic for topic, _ in self._hits(query) if query.after is None or topic > query.after)
        return [*found][: query.limit]

    @override
    def facets(self, reader: Reader, query: SearchQuery) -> Facets:
        return counted([facets for _, facets in self._hits(query)])

    def _hits(self, query: SearchQuery) -> Iterator[tuple[Topic, Mapping[str, str]]]:
        for topic in sorted(self._entries):
            entry, metadata = self._entries[topic], self._metadata.get(topic)
            facets = {**entry.facets, "theme": "" if metadata is None else metadata.theme}
            texts = [text for _, text in (*entry.texts, *(metadata_texts(metadata) if metadata else ()))]
            runs = [run.lower() for text in texts for run in _RUN.findall(text)]
            seen = query.viewer in {None, facets["provider"]} or facets["state"] in PUBLIC_STATES
            if (
                seen
                and all(facets.get(name) == value for name, value in query.limits.items())
                and all(
                    any(word in run if _ONLY_HAN.fullmatch(word) else run.startswith(word) for run in runs)
                    for word in query.words
                )
            ):
                yield topic, facets
