"""The routing table: what matches, how parameters are read, and that handlers take what the table gives them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from registry.rest.config import ConfigHandlers
from registry.rest.errors import HttpError
from registry.rest.governance import GovernanceHandlers
from registry.rest.handlers import Handlers
from registry.rest.routing import Parameter, Route, Router, ValueType
from registry.rest.schemas import SchemaHandlers
from registry.rest.subjects import SubjectHandlers

GROUPS: list[type[Handlers]] = [SubjectHandlers, SchemaHandlers, ConfigHandlers, GovernanceHandlers]
TYPES = {
    ValueType.TEXT: "str",
    ValueType.OPTIONAL_TEXT: "str | None",
    ValueType.TEXTS: "collections.abc.Sequence[str]",
    ValueType.FLAG: "bool",
    ValueType.NUMBER: "int",
}
ROUTES = [route for group in GROUPS for route in group.routes(group.__new__(group))]
ROUTER = Router(ROUTES)


def nothing(*_: Any, **__: Any) -> None: ...


def status(error: pytest.ExceptionInfo[HttpError]) -> int:
    return error.value.status


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_handler_takes_what_the_table_gives_it(route: Route) -> None:
    taken = {
        name: inspect.formatannotation(parameter.annotation)
        for name, parameter in [*inspect.signature(route.handler).parameters.items()][1:]
    }
    given = {one.argument: TYPES[one.type] for one in (*route.fields, *route.query)}
    assert taken == given | ({"body": "dict[str, typing.Any]"} if route.body else {})


def test_a_path_matches_as_it_was_sent() -> None:
    route, values = ROUTER.match("GET", "/subjects/a%2Fb/versions/latest")
    assert (route.path, values) == ("/subjects/{subject}/versions/{version}", ["a%2Fb", "latest"])
    assert ROUTER.match("GET", "/schemas/ids/7")[0].arguments(["7"], b"")["schema_id"] == 7
    assert ROUTER.match("GET", "/")[1] == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/subjects/", 404),
        ("GET", "//", 404),
        ("GET", "", 404),
        ("GET", "subjects", 404),
        ("GET", "*", 404),
        ("GET", "/schemas/ids", 404),
        ("GET", "/schemas/ids/1/", 404),
        ("GET", "/subjects/x/versions//schema", 404),
        ("PUT", "/subjects", 405),
        ("HEAD", "/subjects", 405),
        ("GET", "/compatibility/subjects/x/versions", 405),
    ],
)
def test_what_matches_no_route_is_refused(method: str, path: str, expected: int) -> None:
    with pytest.raises(HttpError) as error:
        ROUTER.match(method, path)
    assert status(error) == expected


@pytest.mark.parametrize("other", ["/a/{b}", "/a/{c:int}", "/a/x"])
def test_two_routes_never_match_one_path(other: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        Router([Route("GET", "/a/{b}", nothing), Route("GET", other, nothing)])
    with pytest.raises(ValueError, match="expected one"):
        Router([Route("GET", "/a/x", nothing), Route("GET", "/a/{b}" if other == "/a/x" else "/a/x", nothing)])


NUMBERS = [
    "0", "1", "-1", "+1", "007", " 1 ", "\t1\n", "\u00a01", "1.0", "-1.000", "1_000", "1_000.0",
    "", " ", "+", "-", "--1", "+-1", "+ 1", "1.", ".0", "1.5", "1e3", "0x1", "1_", "_1", "1__0", "1,0", "true", "nan",
    "\u0663", "\u00b2", "-0", "9" * 30, "9" * 4300, "9" * 4301,
]  # fmt: skip
FLAGS = [
    "1", "0", "true", "TRUE", "tRuE", "t", "yes", "y", "on", "ON", "false", "off", "no", "n", "f",
    "", " true", "ON ", "2", "-1", "01", "truee", "null", "\uff54rue",
]  # fmt: skip


def outcome(read: Callable[[str], Any], stated: str) -> Any:
    """Return what a text is read as, or why it is refused."""
    try:
        return read(stated)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("type_", "parameter", "stated"),
    [
        *((int, Parameter.number("x", default=0), stated) for stated in NUMBERS),
        *((bool, Parameter.flag("x"), stated) for stated in FLAGS),
    ],
    ids=lambda one: repr(one)[:12] if isinstance(one, str) else "",
)
def test_values_are_read_and_refused_as_pydantic_does(type_: type, parameter: Parameter, stated: str) -> None:
    expected = outcome(TypeAdapter(type_).validate_python, stated)
    assert outcome(lambda text: parameter.read([text]), stated) == expected


TABLE = Route(
    "GET",
    "/a/{b}/{c:int}",
    nothing,
    (
        Parameter.flag("deletedOnly", "deleted_only", also="deleted_only"),
        Parameter.number("limit", default=-1),
        Parameter.text("format", "form"),
        Parameter.text("level", default=None),
        Parameter.texts("tag", "tags"),
    ),
)
DEFAULTS = {"deleted_only": False, "limit": -1, "form": "", "level": None, "tags": ()}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", {}),
        (b"deleted_only=true", {"deleted_only": True}),
        (b"deleted_only=true&deletedOnly=false", {"deleted_only": False}),
        (b"deletedOnly=yes&limit=3", {"deleted_only": True, "limit": 3}),
        (b"limit=x&limit=3", {"limit": 3}),
        (b"tag=a&tag=b&tag=", {"tags": ["a", "b", ""]}),
        (b"tag", {"tags": [""]}),
        (b"format=&level=", {"form": "", "level": ""}),
        (b"format=%E4%B8%AD+%26&level=%2B", {"form": "中 &", "level": "+"}),
        (b"format=%ff", {"form": "\ufffd"}),
    ],
)
def test_a_query_is_read_by_names_and_defaults(query: bytes, expected: dict[str, Any]) -> None:
    assert TABLE.arguments(["x", "7"], query) == DEFAULTS | expected | {"b": "x", "c": 7}


def test_a_bad_path_is_not_found_and_of_a_bad_query_the_first_of_the_table_is_named() -> None:
    with pytest.raises(HttpError) as error:
        TABLE.arguments(["x", "y"], b"limit=x")
    assert status(error) == 404
    with pytest.raises(HttpError) as error:
        TABLE.arguments(["x", "7"], b"limit=x&deletedOnly=")
    assert status(error) == 422
    assert error.value.message.startswith("got another deletedOnly than expected: Input should be a valid boolean")
