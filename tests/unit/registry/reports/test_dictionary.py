"""The data dictionary: everything a schema says is in it, as text and nothing but text."""

import json
import re
from html.parser import HTMLParser

import pytest

from registry.avro.parser import parse
from registry.governance.classification import INHERITED
from registry.governance.classification import LEVELS as EVERY_LEVEL
from registry.governance.classification import MASKS as EVERY_MASK
from registry.reports.dictionary import LEVELS, MASKS, PERSONAL, SENSITIVE, Language, build_sheet
from registry.reports.dictionary_html import to_html
from registry.reports.dictionary_markdown import to_markdown
from schemas import library

POPULATION = build_sheet(parse(library.text("population")), "base/population")
ATTACK = "<script>alert(1)</script>\"'|[x](javascript:alert(1))"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == [], "every element is closed"
    return tags


def test_a_sheet_tells_what_the_schema_says() -> None:
    rows = {row.path: row for row in POPULATION.rows}
    assert len(rows) == 20
    number = rows["id_number"]
    assert (number.key, number.level, number.personal, number.mask) == (True, "G4", "D", "keep_3_4")
    assert number.required
    assert not rows["former_name"].required
    assert ("codes", "0 1 2 9") in rows["sex_code"].facts
    assert (rows["birth_date"].type_en, rows["birth_date"].type_zh) == ("date", "日期")
    assert POPULATION.level is not None
    assert POPULATION.level.name == "G4"
    assert len(POPULATION.direct) == 5


def test_fields_of_a_nested_record_stand_below_it_with_what_they_inherit() -> None:
    inner = {"type": "record", "name": "Home", "level": "G2", "personal": "P", "sensitive": "N", "mask": "drop"}
    inner["fields"] = [{"name": "city", "type": "string", "zh": "市"}]
    field = {"name": "home", "type": ["null", inner], "default": None, "zh": "住址"}
    field |= {"level": "G3", "personal": "P", "sensitive": "N", "mask": "none"}
    found = build_sheet(parse(json.dumps({"type": "record", "name": "R", "zh": "人", "fields": [field]})))
    assert [(row.path, row.depth, row.level, row.mask) for row in found.rows] == [
        ("home", 0, "G3", "none"),
        ("home.city", 1, "G3", "drop"),
    ]


@pytest.mark.parametrize("language", Language)
def test_every_field_is_on_the_page_in_each_language(language: Language) -> None:
    page, text = to_html([POPULATION], language=language), to_markdown([POPULATION], language=language)
    told = read(page).text
    for row in POPULATION.rows:
        assert row.name in told
        assert f"`{row.path}`" in text
        assert row.zh in told
    assert ("直接标识符" in told) is (language is not Language.EN)
    assert ("direct identifier" in told) is (language is not Language.ZH)
    assert f'lang="{"en" if language is Language.EN else "zh-CN"}"' in page


def test_several_records_have_a_table_of_contents_that_leads_to_them() -> None:
    sheets = [build_sheet(parse(library.text(name)), name) for name in library.names() if name.startswith("base/")]
    page = to_html(sheets)
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) == len(sheets) == 8
    assert all(f'id="{link}"' in page for link in links)


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = to_html([POPULATION])
    assert read(page).seen.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)|url\(|@import", page)


def hostile() -> str:
    field = {"name": "id", "type": "string", "zh": ATTACK, "doc": ATTACK, "standard": ATTACK, "default": ATTACK}
    field |= {"level": "G3", "personal": "P", "sensitive": "N", "mask": "none"}
    return json.dumps({"type": "record", "name": "R", "zh": ATTACK, "doc": ATTACK, "x": ATTACK, "fields": [field]})


def test_what_a_schema_says_stays_text() -> None:
    found = [build_sheet(parse(hostile()), ATTACK)]
    tags = read(to_html(found, title=ATTACK))
    assert "script" not in tags.seen
    assert "<script>alert(1)</script>" in tags.text
    text = to_markdown(found, title=ATTACK)
    assert "<script" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)\]\(", text)
    (line,) = [line for line in text.splitlines() if line.startswith("| `id`")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 10, "a pipe in a label makes no cell"


def test_a_schema_without_classification_says_so() -> None:
    found = build_sheet(parse('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}'))
    assert "未分级 not classified" in to_html([found])
    assert found.level is None


def test_every_word_of_the_classification_has_words() -> None:
    assert set(LEVELS) == set(EVERY_LEVEL)
    assert set(MASKS) == set(EVERY_MASK)
    assert set(PERSONAL) == {"N", "P", "D"}
    assert set(SENSITIVE) == {"N", "s", "S"}
    assert INHERITED == ("level", "personal", "sensitive", "mask")
