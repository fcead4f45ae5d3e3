"""The glossary: each word once, in order, in Chinese too, with a module that exists and uses the word."""

import re
from dataclasses import dataclass

import pytest

from tests.docs.pages import ROOT, links

PAGE = ROOT / "docs" / "glossary.md"
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Word:
    """One row of the glossary."""

    names: tuple[str, ...]  # the word, then what stands in parentheses
    chinese: str
    meaning: str
    module: str
    tables: tuple[str, ...]


def words() -> list[Word]:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = []
    for row in rows[1:]:  # the first is the head
        name, chinese, meaning, where = (cell.strip() for cell in row.strip("|").split("|"))
        module, *tables = re.findall(r"`([^`]+)`", where)
        names = tuple(part.strip() for part in re.split(r"[(),]", name) if part.strip())
        found.append(Word(names, chinese, meaning, module, tuple(tables)))
    return found


WORDS = words()


def uses(text: str, name: str) -> bool:
    """Return whether a text has a name: in prose, as a class (`UnitOfWork`) or as an identifier (`unit_of_work`)."""
    pattern = r"[\s_-]*".join(map(re.escape, name.split()))
    return re.search(pattern, text, re.IGNORECASE) is not None


def test_there_are_some_thirty_words_in_order_and_none_twice() -> None:
    heads = [word.names[0] for word in WORDS]
    assert len(heads) >= 30
    assert heads == sorted(heads)
    every = [name for word in WORDS for name in word.names]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.names[0])
def test_a_word_has_chinese_a_meaning_and_a_module_that_uses_it(word: Word) -> None:
    assert _HAN.search(word.chinese)
    assert re.fullmatch(r"[^.]+\.( [^.]+\.)?", word.meaning), "one or two sentences"
    module = ROOT / word.module
    assert module.is_file()
    text = module.read_text(encoding="utf-8")
    assert any(uses(text, name) for name in word.names), f"{word.module} does not use {word.names}"


@pytest.mark.parametrize("word", [word for word in WORDS if word.tables], ids=lambda word: word.names[0])
def test_a_table_of_a_word_exists(word: Word) -> None:
    declared = "\n".join(
        file.read_text(encoding="utf-8")
        for package in ("registry", "exchange")
        for file in (ROOT / package).rglob("*.py")
        if file.stem in {"tables", "postgres"}
    )
    for table in word.tables:
        assert f'"{table}"' in declared, table


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_glossary_is_linked(page: str) -> None:
    assert "docs/glossary.md" in links(ROOT / page)


def test_a_word_is_found_in_each_way_of_writing_it() -> None:
    for text in ("a unit of work", "class UnitOfWork:", "import unit_of_work"):
        assert uses(text, "unit of work")
    assert not uses("a unit and its work", "unit of work")
