"""Routing table: methods and paths, their handlers and parameters.

    Route("GET", "/subjects/{subject}/versions", handlers.list_versions, query=(DELETED, OFFSET, LIMIT))

One table of routes is the source of three things: which handler answers a request (`Router`), the keyword arguments
that it gets (`Route.arguments`), and the OpenAPI document (`registry.rest.openapi`). A handler's parameters have no
defaults of their own: a default is in the table alone.

Paths are matched as they were sent, not decoded: a subject may hold a slash, sent as %2F. No two routes of one method
may match the same path; the order of the table therefore means nothing.

A parameter or a member of a body that a route does not name is refused: a caller would
take what is ignored for done.

Values are read as leniently as pydantic reads a query string, since clients rely on it: `yes`, `on` and `1` are true,
` +1_000.0 ` is a number. Of a parameter that is given twice the last value counts, or all of them in a list.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response

from registry.rest.errors import HttpError

__all__ = ["Arguments", "Member", "Parameter", "Route", "Router", "ValueType"]

Arguments = Mapping[str, Any]
"""What a handler gets beside the request."""

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_INTEGER = re.compile(r"\s*([+-]?[0-9](?:_?[0-9])*)(?:\.0+)?\s*")
_FIELD = re.compile(r"\{([a-z_]+)(:int)?\}")


class ValueType(Enum):
    """The type of a parameter."""

    TEXT = "string"
    OPTIONAL_TEXT = "string or null"
    TEXTS = "array"
    FLAG = "boolean"
    NUMBER = "integer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a path or a query.

    Attributes:
        name: as a request states it.
        argument: as the handler gets it.
        type: of the value.
        default: the value where a request does not state it; a path states all of its own.
        description: for the document.
        choices: the only values of a text; empty = any.
        also: another name of it, which a client in use sends.
    """

    name: str
    argument: str
    type: ValueType
    default: Any = None
    description: str = ""
    choices: tuple[str, ...] = ()
    also: str = ""

    @classmethod
    def flag(
        cls, name: str, argument: str = "", *, default: bool = False, description: str = "", also: str = ""
    ) -> "Parameter":
        """Return a query parameter that is true or false."""
        return replace(cls._of_query(name, argument, ValueType.FLAG, default, description), also=also)

    @classmethod
    def number(cls, name: str, argument: str = "", *, default: int, description: str = "") -> "Parameter":
        """Return a query parameter that is an integer."""
        return cls._of_query(name, argument, ValueType.NUMBER, default, description)

    @classmethod
    def text(cls, name: str, argument: str = "", *, default: str | None = "", description: str = "") -> "Parameter":
        """Return a query parameter that is a text; its default may be None."""
        type_ = ValueType.OPTIONAL_TEXT if default is None else ValueType.TEXT
        return cls._of_query(name, argument, type_, default, description)

    @classmethod
    def choice(
        cls, name: str, argument: str, choices: tuple[str, ...], *, description: str = "", also: str = ""
    ) -> "Parameter":
        """Return a query parameter that is one of some texts; the first is its default."""
        found = cls._of_query(name, argument, ValueType.TEXT, choices[0], description)
        return replace(found, choices=choices, also=also)

    @classmethod
    def texts(cls, name: str, argument: str = "", *, description: str = "") -> "Parameter":
        """Return a query parameter that may be repeated: a list, by default an empty one."""
        return cls._of_query(name, argument, ValueType.TEXTS, (), description)

    @classmethod
    def _of_query(cls, name: str, argument: str, type_: ValueType, default: Any, description: str) -> "Parameter":
        return cls(name=name, argument=argument or name, type=type_, default=default, description=description)

    def read(self, stated: list[str]) -> Any:
        """Read what a request states, at least one value.

        Raises:
            ValueError: it is none of this type; the text says so.
        """
        if self.choices and stated[-1] not in self.choices:
            raise ValueError(f"Input should be one of {', '.join(map(repr, self.choices))}")
        return stated if self.type is ValueType.TEXTS else _READERS[self.type](stated[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a JSON body.

    Attributes:
        name: as a request states it.
        schema: its JSON schema, for the document. The handler validates the value.
        required: whether it must be there.
    """

    name: str
    schema: Mapping[str, Any]
    required: bool = False


@dataclass(frozen=True)
class Route:
    """One row of the table.

    Attributes:
        method: of HTTP.
        path: with fields `{name}`, or `{name:int}` for a number.
        handler: gets the request, then the fields, the query's parameters and the body as keyword arguments; returns a
            response, or what is sent as JSON.
        query: parameters of the query.
        body: members of the JSON object that the handler takes as `body`; None = it takes none.
        status: of an answer that is no response already.
        empty_status: of an answer without a body, if the handler gives such a one.
        cached: gets the ASGI scope and the arguments, and answers from memory; None where the handler has to be called.
            It runs on the event loop, so it may not wait.
        documented: whether the document names it.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    query: tuple[Parameter, ...] = ()
    body: tuple[Member, ...] | None = None
    status: int = 200
    empty_status: int | None = None
    cached: Callable[[Mapping[str, Any], Arguments], Response | None] | None = None
    documented: bool = True

    @cached_property
    def fields(self) -> tuple[Parameter, ...]:
        """The path's fields, in their order."""
        types = {"": ValueType.TEXT, ":int": ValueType.NUMBER}
        return tuple(
            Parameter(name=name, argument=name, type=types[type_]) for name, type_ in _FIELD.findall(self.path)
        )

    @cached_property
    def _field_readers(self) -> tuple[tuple[str, Callable[[str], Any]], ...]:
        return tuple((one.argument, _READERS[one.type]) for one in self.fields)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {one.argument: one.default for one in self.query}

    def arguments(self, values: Iterable[str], query: bytes) -> dict[str, Any]:
        """Read a request's parameters.

        Args:
            values: of the path's fields, in their order.
            query: the query string.

        Raises:
            HttpError: 404, a field of the path is of another type; 422, a parameter of the query is, or is not the
                route's.
        """
        found = self._defaults.copy()
        try:
            for (argument, read), value in zip(self._field_readers, values, strict=True):
                found[argument] = read(value)
        except ValueError:
            raise HttpError(404) from None
        if query:
            stated: dict[str, list[str]] = {}
            for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
                stated.setdefault(name, []).append(value)
            for one in self.query:
                of_parameter = stated.pop(one.also, []) + stated.pop(one.name, [])
                if of_parameter:
                    try:
                        found[one.argument] = one.read(of_parameter)
                    except ValueError as error:
                        raise HttpError(422, f"got another {one.name} than expected: {error}") from None
            for name in stated:
                raise HttpError(422, _unknown("query parameter", name, [one.name for one in self.query]))
        return found

    def check_body(self, body: Mapping[str, Any]) -> None:
        """Refuse a body with a member that the route does not name.

        Raises:
            HttpError: 422, as Confluent's registry answers.
        """
        names = [one.name for one in self.body or ()]
        for name in body:
            if name not in names:
                raise HttpError(422, _unknown("field", name, names))


class _Node:
    """What may follow the beginning of a path: either some literals or a field."""

    __slots__ = ("any_text", "literals", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.any_text: _Node | None = None
        self.routes: dict[str, Route] = {}  # by method

    def child(self, segment: str) -> "_Node":
        """Return the node of a segment, made where it is missing.

        Raises:
            ValueError: a literal and a field would follow the same beginning.
        """
        is_field = _FIELD.fullmatch(segment) is not None
        if self.literals if is_field else self.any_text is not None:
            raise ValueError(f"got a field beside a literal at {segment}; expected one of them")
        if not is_field:
            return self.literals.setdefault(segment, _Node())
        if self.any_text is None:
            self.any_text = _Node()
        return self.any_text


class Router:
    """Finds the route of a method and a path, in a tree of path segments.

    Args:
        routes: the table.

    Raises:
        ValueError: two routes could match the same method and path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for segment in route.path.split("/"):
                node = node.child(segment)
            if route.method in node.routes:
                raise ValueError(f"got two routes for {route.method} {route.path}; expected one")
            node.routes[route.method] = route

    def match(self, method: str, path: str) -> tuple[Route, list[str]]:
        """Return the route of a request and the values of its path's fields, none of which is empty.

        Raises:
            HttpError: 404, no route has the path; 405, none of those that have it has the method.
        """
        node = self._root
        values = []
        for segment in path.split("/"):
            if node.any_text is not None and segment:
                node = node.any_text
                values.append(segment)
            elif segment in node.literals:
                node = node.literals[segment]
            else:
                raise HttpError(404)
        route = node.routes.get(method)
        if route is None:
            raise HttpError(405 if node.routes else 404)
        return route, values


def _unknown(what: str, name: str, names: Iterable[str]) -> str:
    return f"Unrecognized {what}: {name[:80]!r}; expected {', '.join(names) or 'none'}"


def _flag(stated: str) -> bool:
    word = stated.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("Input should be a valid boolean, unable to interpret input")


def _number(stated: str) -> int:
    found = _INTEGER.fullmatch(stated)
    if found is None:
        raise ValueError("Input should be a valid integer, unable to parse string as an integer")
    try:
        return int(found[1])
    except ValueError:  # more digits than Python converts
        raise ValueError("Unable to parse input string as an integer, exceeded maximum size") from None


_READERS: Mapping[ValueType, Callable[[str], Any]] = {
    ValueType.TEXT: str,
    ValueType.OPTIONAL_TEXT: str,
    ValueType.FLAG: _flag,
    ValueType.NUMBER: _number,
}
