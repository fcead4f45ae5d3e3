"""Commands that the pages name exist, with the options that they are given."""

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.docs.cli_reference import FILE, PROGRAMS, commands, options, page
from tests.docs.pages import PAGES, code, name

COMMANDS = dict(commands())
_BEFORE = {"$", "sudo", "&&", "|", ";"}


def invocations() -> Iterator[tuple[str, list[str]]]:
    """Return each call of one of the programs that stands in a page."""
    for one in PAGES:
        if one == FILE:
            continue
        for line in code(one):
            text = re.sub(r"\s#\s.*$", "", line.split("→")[0]).strip().removeprefix("$ ")
            for part in re.split(r"&&|\||;|\$\(", text):
                try:
                    words = shlex.split(part.replace("…", "X"))
                except ValueError:
                    words = part.split()
                while words and (words[0] in _BEFORE or re.fullmatch(r"[A-Z_]+=.*", words[0])):
                    words = words[1:]
                if words and words[0].rsplit("/", 1)[-1] in PROGRAMS and len(words) > 1:
                    yield name(one), [words[0].rsplit("/", 1)[-1], *words[1:]]


CALLS = list(invocations())


def test_the_pages_show_the_commands() -> None:
    assert len(CALLS) > 40


@pytest.mark.parametrize(
    ("where", "words"), CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_command_that_a_page_names_exists(where: str, words: list[str]) -> None:
    known, rest = words[0], words[1:]
    given: list[str] = []
    taken = options(COMMANDS[known])
    while rest:
        word = rest[0].rstrip("`.,:)")
        if f"{known} {word}" in COMMANDS:
            known = f"{known} {word}"
            taken |= options(COMMANDS[known])
        elif word.startswith("-") and word != "-":
            given.append(word.split("=")[0])
        rest = rest[1:]
    is_group = hasattr(COMMANDS[known], "commands")
    alternatives = any("|" in word or "/" in word for word in words[1:])
    assert not is_group or len(words) == len(known.split()) or given or alternatives, (
        f"{where}: no such command: {words}"
    )
    unknown = [word for word in given if word not in taken]
    assert not unknown, f"{where}: {known} has no {', '.join(unknown)}"


def test_the_reference_of_commands_is_what_the_programs_say() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "run `python -m tests.docs.cli_reference`"
