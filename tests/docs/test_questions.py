"""Twenty questions of a newcomer, in docs/architecture.md: the question's words find the module's first line."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Where is it?")[2].partition("\n## ")[0]
QUESTIONS = re.findall(r"^\| ([^|`]+\?) \| `([\w/.]+)` \|$", SECTION, re.MULTILINE)
# Words that every question and every first line has: they lead nowhere.
_COMMON = (
    "a add all an and are as at be by do does for from get go has have how if in into is it its may more must no not of"
    " on one or out so than that the their them then they this to under until use used was were what when where which"
    " who with without would"
)


def stems(text: str) -> set[str]:
    """Return the words of a text that a search would use, without their endings."""
    words = set(re.findall(r"[a-z0-9]+", text.lower())) - set(_COMMON.split())
    return {re.sub(r"(?:ing|er|ed)$", "", word.removesuffix("s")).removesuffix("e")[:6] for word in words}


def first_line(path: str) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or "").partition("\n")[0]


def test_there_are_twenty_questions_over_all_packages() -> None:
    assert len(QUESTIONS) == 20
    answers = [path for _, path in QUESTIONS]
    assert len(set(answers)) == len(answers)
    assert {path.split("/")[0] for path in answers} == {"schemas", "registry", "exchange", "connectors"}


@pytest.mark.parametrize(("question", "path"), QUESTIONS, ids=[path for _, path in QUESTIONS])
def test_the_first_line_of_the_right_module_answers(question: str, path: str) -> None:
    assert (ROOT / path).is_file()
    assert stems(question) & stems(first_line(path)), f"{question} {first_line(path)}"


def test_a_first_line_without_a_word_of_the_question_is_no_answer() -> None:
    assert not stems("Where is a bearer token checked?") & stems("Retention and log compaction of a broker, in steps.")
