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

Hits come in three tiers (`Tier`), by topic within each: what is named exactly so, what has every word in its titles,
the rest. A page begins behind a tier and a topic, so that no entry of a later tier with an earlier topic is left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
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
    "Hit",
    "IndexedEntry",
    "MemorySearch",
    "SearchIndex",
    "SearchQuery",
    "Tier",
    "counted",
    "metadata_names",
    "metadata_texts",
    "normalized",
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


class Tier(IntEnum):
    """How well a hit answers a query; the lower, the better."""

    EXACT = 0  # its code, name or title is the query
    TITLE = 1  # its titles have every word
    TEXT = 2  # its texts have every word; every hit of a query without words


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """An entry that a search finds, in the order of hits."""

    tier: Tier
    topic: Topic

    @classmethod
    def parse(cls, cursor: str) -> "Hit":
        """Return the hit of a cursor, which `str` made.

        Raises:
            InvalidError: REQUEST_INVALID, it has another form; NAME_INVALID.
        """
        tier, slash, topic = cursor.partition("/")
        if not slash or tier not in {str(int(one)) for one in Tier}:
            raise InvalidError(
                Reason.REQUEST_INVALID, 'after: got a cursor of another form; expected that of a `Link: rel="next"`'
            )
        return cls(Tier(int(tier)), Topic.parse(topic))

    def __str__(self) -> str:
        return f"{int(self.tier)}/{self.topic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What is sought.

    Attributes:
        words: of the query, see `query_words`; empty = every entry.
        limits: facet → value that an entry must have.
        viewer: department that searches, see `CatalogueEntry.is_visible_to`; None = every entry is found.
        after: hit behind which the page begins.
        limit: at most so many.
    """

    words: tuple[str, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    viewer: str | None = None
    after: Hit | None = None
    limit: int = 1_000

    @property
    def exact(self) -> str:
        """The query as a name (`normalized`); empty without words."""
        return " ".join(self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """Hits by facet and value. `more`: there are more than were counted."""

    counts: Mapping[str, Mapping[str, int]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedEntry:
    """What the index has of an entry: its facets, its texts by weight, A before B, and its names, `normalized`."""

    topic: Topic
    facets: Mapping[str, str]
    texts: Sequence[tuple[str, str]]
    names: Sequence[str]

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
        names = [*map(normalized, (str(entry.topic.name), entry.code, entry.title))]
        return cls(topic=entry.topic, facets=facets, texts=texts, names=names)


def metadata_texts(metadata: Metadata) -> list[tuple[str, str]]:
    """Return what is indexed of full metadata beside the entry's own texts, by weight."""
    names = [(item.name, item.name_en.replace("_", " ")) for item in metadata.items]
    return [
        ("A", metadata.title_en),
        ("B", metadata.abstract_en),
        *(("B", name) for pair in names for name in pair),
    ]


def metadata_names(metadata: Metadata) -> list[str]:
    """Return the names, `normalized`, that full metadata add to those of the entry."""
    return [normalized(metadata.title_en)] if metadata.title_en else []


def normalized(text: str) -> str:
    """Return a name for comparison: its runs of Han characters and its words, in lower case, one space between them."""
    return " ".join(run.lower() for run in _RUN.findall(text))


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


def word_query(words: Iterable[str], weight: str = "") -> str:
    """Return words as a `tsquery` of PostgreSQL in its own notation; with a weight, found in texts of it alone."""
    return " & ".join(_phrase(word, weight) for word in words)


def _phrase(word: str, weight: str) -> str:
    if not _ONLY_HAN.fullmatch(word):
        return f"{_quoted(word)}:*{weight}"
    suffix = f":{weight}" if weight else ""
    if len(word) == 1:
        return f"{_quoted(word)}{suffix}"
    return f"({' <-> '.join(f'{_quoted(pair)}{suffix}' for pair in _pairs(word))})"


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

    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Hit]:
        """Return the hits behind one, in their order; fewer than the limit only at the end."""
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
    def find(self, reader: Reader, query: SearchQuery) -> Sequence[Hit]:
        found = sorted(hit for hit, _ in self._hits(query) if query.after is None or hit > query.after)
        return found[: query.limit]

    @override
    def facets(self, reader: Reader, query: SearchQuery) -> Facets:
        return counted([facets for _, facets in self._hits(query)])

    def _hits(self, query: SearchQuery) -> Iterator[tuple[Hit, Mapping[str, str]]]:
        for topic in self._entries:
            entry, metadata = self._entries[topic], self._metadata.get(topic)
            facets = {**entry.facets, "theme": "" if metadata is None else metadata.theme}
            texts = (*entry.texts, *(metadata_texts(metadata) if metadata else ()))
            seen = query.viewer in {None, facets["provider"]} or facets["state"] in PUBLIC_STATES
            if (
                seen
                and all(facets.get(name) == value for name, value in query.limits.items())
                and _has_all(query.words, (text for _, text in texts))
            ):
                names = (*entry.names, *(metadata_names(metadata) if metadata else ()))
                titles = (text for weight, text in texts if weight == "A")
                tier = Tier.TEXT
                if query.words:
                    tier = Tier.TITLE if _has_all(query.words, titles) else tier
                    tier = Tier.EXACT if query.exact in names else tier
                yield Hit(tier, topic), facets


def _has_all(words: Iterable[str], texts: Iterable[str]) -> bool:
    """Return whether every word is in one of the texts, as a search finds it there."""
    runs = [run.lower() for text in texts for run in _RUN.findall(text)]
    return all(
        any(word in run if _ONLY_HAN.fullmatch(word) else run.startswith(word) for run in runs) for word in words
    )
