"""Search of the catalogue, over the index in memory and in PostgreSQL: what contains the words is found, no more."""

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from registry.catalogue.search import (
    Facets,
    Hit,
    MemorySearch,
    SearchIndex,
    SearchQuery,
    Tier,
    query_words,
    text_vector,
)
from registry.database.unit_of_work import Database, MemoryDatabase, PostgresDatabase
from registry.directory.model import CatalogueEntry, EntryState, ShareType
from registry.postgres import tables
from registry.postgres.catalogue_search import PostgresSearch
from schemas.access import Level
from schemas.errors import InvalidError
from schemas.names import ResourceName, Topic
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.procedure import AUTHORITY, EDITOR, FILED, HEAD, E, room
from tests.kit.share import random_of

Place = tuple[Database, SearchIndex]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield MemoryDatabase(), MemorySearch()
        return
    engine: sa.Engine = request.getfixturevalue("engine")
    tables.metadata.create_all(engine)
    yield PostgresDatabase(engine), PostgresSearch()


def entry(name: str, title: str, abstract: str = "", **changes: Any) -> CatalogueEntry:
    known: dict[str, Any] = {
        "topic": Topic(ResourceName(name), 1),
        "title": title,
        "abstract": abstract,
        "provider": "d-1",
        "code": "101001/000001",
        "share_type": ShareType.UNCONDITIONAL,
        "level": Level.G2,
    }
    return CatalogueEntry(**(known | changes))


ENTRIES = [
    entry("residents", "户籍人口信息", "全市常住人口", provider="d-1", level=Level.G4),
    entry("insurance", "社会保险参保信息", "城镇职工 Social Insurance", state=EntryState.PUBLISHED),
    entry("vehicles", "机动车信息", "车辆与驾驶人", provider="d-2", code="203001/000007"),
    entry("care", "养老服务机构", "残疾人、老人;人,口", provider="d-2", share_type=ShareType.UNCONDITIONAL),
]


def fill(place: Place) -> None:
    database, index = place
    with database.begin() as work:
        for one in ENTRIES:
            index.index_entry(work, one)


def find(place: Place, text: str = "", **query: Any) -> list[str]:
    database, index = place
    with database.read() as reader:
        words = query_words(text) if text else ()
        return [str(hit.topic.name) for hit in index.find(reader, SearchQuery(words=words, **query))]


def facets(place: Place, text: str = "", **query: Any) -> Facets:
    database, index = place
    with database.read() as reader:
        return index.facets(reader, SearchQuery(words=query_words(text) if text else (), **query))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("人口", ["residents"]),
        ("信息", ["insurance", "residents", "vehicles"]),
        ("口信", ["residents"]),
        ("户籍人口信息", ["residents"]),
        ("人口户籍", []),
        ("险", ["insurance"]),
        ("人", ["care", "residents", "vehicles"]),
        ("社会 信息", ["insurance"]),
        ("social", ["insurance"]),
        ("SOC ins", ["insurance"]),
        ("surance", []),
        ("203001/000007", ["vehicles"]),
        ("驾驶人车辆", []),
        ("残疾人 老人", ["care"]),
        ("龘", []),
    ],
)
def test_what_contains_every_word_is_found_and_nothing_else(place: Place, text: str, expected: list[str]) -> None:
    fill(place)
    assert sorted(find(place, text)) == expected


def test_facets_count_and_limit(place: Place) -> None:
    fill(place)
    found = facets(place, "信息")
    assert found.counts["provider"] == {"d-1": 2, "d-2": 1}
    assert found.counts["level"] == {"G2": 2, "G4": 1}
    assert found.counts["state"] == {"draft": 2, "published": 1}
    assert not found.more
    assert find(place, "信息", limits={"provider": "d-2"}) == ["vehicles"]
    assert find(place, limits={"state": "published"}) == ["insurance"]
    assert facets(place, "信息", limits={"level": "G4"}).counts["provider"] == {"d-1": 1}


def test_a_department_finds_and_counts_its_own_drafts_and_of_others_what_is_in_force(place: Place) -> None:
    fill(place)
    assert find(place, viewer="d-1") == ["insurance", "residents"]
    assert find(place, viewer="d-2") == ["care", "insurance", "vehicles"]
    assert find(place, viewer="") == ["insurance"]
    assert find(place, "信息", viewer="d-2", limits={"state": "draft"}) == ["vehicles"]
    assert facets(place, viewer="d-2").counts["state"] == {"draft": 2, "published": 1}
    assert facets(place, viewer="").counts["provider"] == {"d-1": 1}


def test_pages_are_by_topic(place: Place) -> None:
    fill(place)
    assert find(place, limit=2) == ["care", "insurance"]
    assert find(place, limit=2, after=Hit(Tier.TEXT, Topic(ResourceName("insurance"), 1))) == ["residents", "vehicles"]


def test_a_changed_entry_is_found_by_what_it_says_now(place: Place) -> None:
    fill(place)
    database, index = place
    with database.begin() as work:
        index.index_metadata(work, ENTRIES[0].topic, metadata(theme="health"))
        index.index_entry(work, entry("residents", "暂住人员"))
    assert find(place, "户籍") == []
    assert find(place, "暂住") == ["residents"]
    assert find(place, "natural persons") == ["residents"], "its metadata stays"
    assert find(place, "公民身份号码") == ["residents"]
    assert facets(place, "暂住").counts["theme"] == {"health": 1}

    def broken() -> None:
        with database.begin() as work:
            index.index_entry(work, entry("residents", "改名"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert find(place, "改名") == []


def test_hits_are_those_of_a_naive_search(place: Place) -> None:
    chance = random.Random(7)
    letters = "人口信息户籍车"

    def text(most: int) -> str:
        return "".join(chance.choice(f"{letters}a,") for _ in range(chance.randint(1, most)))

    database, index = place
    titles = {f"r{number:03}": text(12) + "人" for number in range(80)}
    with database.begin() as work:
        for name, title in titles.items():
            index.index_entry(work, entry(name, title))
    for _ in range(150):
        word = "".join(chance.choice(letters) for _ in range(chance.randint(1, 4)))
        assert sorted(find(place, word)) == sorted(name for name, title in titles.items() if word in title), word


def test_exact_names_come_first_then_titles_then_the_rest(place: Place) -> None:
    database, index = place
    with database.begin() as work:
        for one in (
            entry("a-report", "年报", "人口 population 信息", code="201001/000001"),
            entry("b-census", "人口信息普查", code="201001/000002"),
            entry("population", "户籍", "按年", code="201001/000003"),
            entry("z-people", "人口信息", code="201001/000004"),
            entry("y-english", "居民", "人口信息", code="201001/000005"),
            entry("x-code", "目录 201001/000002", code="201001/000006"),
        ):
            index.index_entry(work, one)
        index.index_metadata(work, Topic(ResourceName("y-english"), 1), metadata(title_en="Population", items=()))
    assert find(place, "人口信息") == ["z-people", "b-census", "y-english"]
    assert find(place, " 人口信息。") == ["z-people", "b-census", "y-english"]
    assert find(place, "POPULATION") == ["population", "y-english", "a-report"]
    assert find(place, "201001/000002") == ["b-census", "x-code"]
    assert find(place, "人口 信息") == ["b-census", "z-people", "a-report", "y-english"]


def test_pages_of_any_size_are_the_hits_in_the_order_of_a_naive_ranking(place: Place) -> None:
    chance = random_of("tiers of hits")
    database, index = place

    def text(most: int) -> str:
        return "".join(chance.choice("人口ab ") for _ in range(chance.randint(1, most))).strip() or "人"

    said = {}
    with database.begin() as work:
        for number in range(60):
            name = f"r{chance.randrange(10**6):06}"
            said[name] = (text(3), text(8))
            index.index_entry(work, entry(name, *said[name], code=f"201001/{number:06}"))

    def runs(*texts: str) -> list[str]:
        return [run for text in texts for run in re.findall("[人口]+|[ab]+", text)]

    def has(word: str, among: list[str]) -> bool:
        return any(word in run if word[0] in "人口" else run.startswith(word) for run in among)

    for _ in range(60):
        words = runs(text(3))
        ranked = sorted(
            (0 if runs(title) == words else 1 if all(has(word, runs(title)) for word in words) else 2, name)
            for name, (title, abstract) in said.items()
            if all(has(word, runs(title, abstract)) for word in words)
        )
        size = chance.randint(1, 9)
        found: list[Hit] = []
        while True:
            after = Hit.parse(str(found[-1])) if found else None
            with database.read() as reader:
                page = index.find(reader, SearchQuery(words=query_words(" ".join(words)), after=after, limit=size))
            found += page
            if len(page) < size:
                break
        assert [(int(hit.tier), str(hit.topic.name)) for hit in found] == ranked, words


@pytest.mark.parametrize("cursor", ["residents.v1", "3/residents.v1", "/residents.v1", "0/", "0/../x", "-1/a.v1"])
def test_a_cursor_of_another_form_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidError):
        Hit.parse(cursor)


@pytest.mark.parametrize("text", ["!?", "_", "x" * 101, " ".join("abcdefghijk"), "'; --", "\\"])
def test_a_query_without_words_or_with_too_many_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        query_words(text)


@pytest.mark.postgres
def test_whatever_stands_in_a_text_its_tokens_are_a_vector(engine: sa.Engine) -> None:
    evil = "a'b\\c:1A \"人'口\" ' OR 1=1 -- \u2028 İßﬁ ½ ² 𠮷野家 é e\u0301"
    long = " ".join(f"w{number}" for number in range(20_000)) + "人" * 2_000
    with engine.connect() as connection:
        for text in (evil, long, "", "人" * 600):
            vector = text_vector([("A", text)])
            assert connection.execute(sa.text("SELECT length(CAST(:v AS tsvector))"), {"v": vector}).scalar_one() >= 0


def test_metadata_is_found_from_its_publication_on() -> None:
    here = room()
    here.describe()
    found = (here.database, here.search)
    assert find(found, "自然人") == ["population"]
    assert find(found, "natural") == [], "a draft's metadata is not indexed"
    here.apply(E.SUBMIT, EDITOR)
    here.apply(E.APPROVE, HEAD)
    here.apply(E.PUBLISH, AUTHORITY)
    assert find(found, "natural") == ["population"]
    assert find(found, limits={"state": "published"}) == ["population"]
    here.apply(E.SUSPEND, HEAD, **FILED)
    assert find(found, limits={"state": "suspended"}) == ["population"]


@pytest.mark.parametrize("letter", ["я", "ひ", "한", "𐐨", "İ"])
def test_a_text_without_spaces_in_any_script_is_indexed_and_found_by_its_beginning(place: Place, letter: str) -> None:
    """PostgreSQL refuses a token of more than 2,046 bytes, and with it the entry; an abstract may be that long."""
    database, index = place
    with database.begin() as work:
        index.index_entry(work, entry("foreign", "外文", letter * 2_000))
    assert find(place, letter * 20) == ["foreign"]
    assert find(place, letter * 21 + "x") == []
