"""JSON Lines parser: one file as a portion, each line an object (RFC 8259) whose members are the columns.

The columns are all names of members in the file, in the order in which they first appear: the file is read once for
them. A member that a line lacks is null. Every value stays text:

    text              as it is
    number            the digits that the file has, so none is lost
    true, false       true, false
    null              null
    object, array     JSON without blanks, its numbers as they are

A line that is no object, names a member twice, has NaN, infinity or half a surrogate pair, or is nested deeper than 100
levels is a reject. A blank line is skipped.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from typing_extensions import Unpack, override

from connectors.sources.encoding import assign_characters, open_text
from connectors.sources.file_portion import FilePortion, KnownFile, Record, rejected_file

__all__ = ["JsonLinesPortion", "cell_of", "json_of", "parse_json"]

_MAX_COLUMNS = 2_000
_MAX_LEVELS = 100  # of arrays and objects: what is written out again takes Python's stack


_TOO_DEEP = f"JSON of at most {_MAX_LEVELS} levels of arrays and objects"


class _Number(str):
    """A number, as the file has it."""

    __slots__ = ()


class _NotAllowedError(ValueError):
    """What a line has in place of what is expected; never a value."""


class JsonLinesPortion(FilePortion):
    """A whole file."""

    def __init__(self, path: Path, **known: Unpack[KnownFile]) -> None:
        """Read the names of the columns.

        Raises:
            InvalidError: FILE_REJECTED, when no line is an object, or they have too many names.
            UnavailableError: SOURCE_UNAVAILABLE.
        """
        super().__init__(path, **known)
        self._record_encoding = self.encoding.removesuffix("-sig")
        self.columns = self._names()

    def _names(self) -> list[str]:
        """Return the names of all members, in the order in which they first appear."""
        names: dict[str, None] = {}
        lines = 0
        for _, found, _ in self._objects():
            lines += 1
            if isinstance(found, dict):
                names.update(dict.fromkeys(found))
            if len(names) > _MAX_COLUMNS:
                raise rejected_file(f"{self.name} has more than {_MAX_COLUMNS} names of members; expected columns")
        if lines and not names:
            raise rejected_file(f"{self.name} has no line that is a JSON object with members; expected one a line")
        return list(names)

    def _cells(self, found: dict[str, Any]) -> Sequence[str | None]:
        """Return the cells of an object, in the order of the columns."""
        return [cell_of(found.get(name)) for name in self.columns]

    @override
    def _records(self) -> Iterator[Record]:
        for line, found, text in self._objects():
            original = text.encode(self._record_encoding)
            yield line, found if isinstance(found, str) else self._cells(found), original

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | str, str]]:
        """Yield (line, object, text); in place of the object what was expected."""
        with open_text(self.path, self.encoding) as file:
            for line, text in enumerate(file, 1):
                if text.strip(" \t\r\n\ufeff"):
                    yield line, _parse(assign_characters(text, self.encoding)), text


def parse_json(text: str) -> Any:
    """Return a JSON value whose numbers are texts, as they came (`cell_of`, `json_of`).

    Raises:
        ValueError: it is no JSON, an object names a member twice, a number is NaN or infinite, or it has more than 100
            levels of arrays and objects.
    """
    try:
        found = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_constant, object_pairs_hook=_members
        )
    except RecursionError:
        raise _NotAllowedError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > _MAX_LEVELS:  # else there cannot be more levels
        _require_levels(found)
    return found


def _require_levels(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_LEVELS + 1):
        within = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        if not within:
            return
        level = list(chain.from_iterable(within))
    raise _NotAllowedError(_TOO_DEEP)


def _parse(text: str) -> dict[str, Any] | str:
    try:
        found = parse_json(text)
        text.encode()
        json.dumps(found, ensure_ascii=False).encode()  # an escape may stand for half a pair
    except _NotAllowedError as error:
        return str(error)
    except json.JSONDecodeError as error:
        return f"a JSON object on one line ({error.msg}, character {error.pos + 1})"
    except UnicodeEncodeError:
        return "text without half a surrogate pair"
    return found if isinstance(found, dict) else "a JSON object; got another value"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NotAllowedError("an object that names each member once")
    return found


def _constant(name: str) -> Any:
    raise _NotAllowedError(f"numbers that JSON has; got {name}")


def cell_of(value: Any) -> str | None:
    """Return a value of `parse_json` as the text of a cell; None for null."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
    return json_of(value)


def json_of(value: Any) -> str:
    """Return a value of `parse_json` as JSON without blanks, its numbers as they came."""
    match value:
        case _Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json_of(name)}:{json_of(each)}" for name, each in value.items()) + "}"
        case list():
            return "[" + ",".join(map(json_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
