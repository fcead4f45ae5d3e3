"""Every time that leaves the pool for people is ISO 8601 with its zone: in HTTP's JSON, in CSV, on the command line."""

import csv
import io
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from exchange.api import http
from tests.kit.patience import PATIENCE
from tests.kit.world.world import World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
_NAMED = re.compile(
    r"(^|_)(at|time|since|until|from|to|before|after|expires|used|last_use|ends|started|signature)$", re.IGNORECASE
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_EPOCHS = (1_600_000_000, 4_000_000_000)  # seconds; in milliseconds and microseconds too
# Parameters beside `from` and `to`, which are ISO 8601, for programs of before.
_OLD_PARAMETERS = {"since", "until"}
# An entry is what was signed, byte by byte (docs/reference/audit-entry.md); `time` beside it is ISO 8601.
_SIGNED = {"entry"}


def wrong(value: Any, path: str = "", *, name: str = "") -> Iterator[str]:
    """Yield the paths of what is a time in another form."""
    if isinstance(value, dict):
        for member, inner in value.items():
            if member not in _SIGNED or not isinstance(inner, dict):
                yield from wrong(inner, f"{path}.{member}", name=member)
    elif isinstance(value, list):
        for inner in value:
            yield from wrong(inner, f"{path}[]", name=name)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        if any(_EPOCHS[0] <= value / unit <= _EPOCHS[1] for unit in (1, 1e3, 1e6, 1e9)):
            yield f"{path}: {value}"
    elif _ISO.match(str(value)) and not _has_zone(str(value)):
        yield f"{path}: {value}"


def _has_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def test_what_is_wrong_is_found() -> None:
    now = datetime.now(UTC)
    signed = {"at": 1_795_000_000_000_000}
    good = {"at": now.isoformat(), "expires": "2026-11-30T10:00:00+08:00", "size": 12, "entry": signed}
    assert list(wrong([good])) == []
    seconds, local = int(now.timestamp()), now.replace(tzinfo=None).isoformat()
    for bad in ({"at": seconds}, {"x": seconds * 10**6}, {"at": local}):
        assert list(wrong([bad])), bad
    assert list(wrong({"entry": int(now.timestamp())}))


def properties(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each named schema of a document: properties and parameters, however deep."""
    if isinstance(schema, list):
        for inner in schema:
            yield from properties(inner)
    if isinstance(schema, dict):
        for key, inner in schema.get("properties", {}).items() if isinstance(schema.get("properties"), dict) else ():
            yield key, inner
        if "in" in schema and "schema" in schema:
            yield schema["name"], schema["schema"]
        for inner in schema.values():
            yield from properties(inner)


def declared(document: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return what a document declares under the name of a time."""
    found = [(name, schema) for name, schema in properties(document) if _NAMED.search(name)]
    assert found
    return found


def is_number(schema: dict[str, Any]) -> bool:
    return bool({schema.get("type"), *(one.get("type") for one in schema.get("anyOf", ()))} & {"integer", "number"})


def control_api() -> dict[str, Any]:
    none: Any = None  # the document needs neither pool nor scheduler
    document: dict[str, Any] = http.create(none, none).openapi()
    return document


def test_the_control_api_declares_no_time_as_a_number() -> None:
    assert [name for name, schema in declared(control_api()) if is_number(schema) and name not in _OLD_PARAMETERS] == []
    named = [(name, one) for name, one in declared(control_api()["components"]) if name in {"not_before", "expires"}]
    assert {name for name, _ in named} == {"not_before", "expires"}
    for name, schema in named:
        assert "date-time" in {one.get("format") for one in (schema, *schema.get("anyOf", ()))}, name


def token(world: World) -> str:
    return world.root._headers["authorization"].removeprefix("Bearer ")


def registry(world: World, path: str) -> Any:
    address, headers = world.addresses["registry"], {"authorization": f"Bearer {token(world)}"}
    context = ssl.create_default_context(cafile=str(world.data / "ca" / "authority.crt"))
    answer = httpx.get(f"https://{address}{path}", headers=headers, verify=context, timeout=PATIENCE)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def asked(world: World) -> Iterator[tuple[str, Any]]:
    """Ask every address of the control API that takes no argument, and one item of two lists."""
    found = {}
    for path, methods in control_api()["paths"].items():
        short = path.removeprefix("/v1")
        if "get" not in methods or any(one.get("required") for one in methods["get"].get("parameters", ())):
            continue
        if not short.endswith("/checkpoint"):
            found[short] = world.root.get(short)
            yield short, found[short]
    yield "/grants/{grant_id}", world.root.get(f"/grants/{found['/grants'][0]['id']}")
    yield "/audit/entries/{entry_id}", world.root.get(f"/audit/entries/{found['/audit/entries'][0]['entry']['id']}")


@pytest.fixture(scope="module")
def world(postgres_world: World) -> World:
    provider, consumer = postgres_world.department("测绘局"), postgres_world.department("气象局")
    provider.offer("plots.v1", SCHEMA, level="G2")
    provider.enrol("source")
    grant = consumer.request("plots.v1", ["permit_no"])
    provider.approve(grant)
    provider.account("sharing_office_head").post("/violations", {"code": "C3", "grant": grant, "reason": "信访举报"})
    return postgres_world


def test_every_answer_of_the_control_api(world: World) -> None:
    found = dict(asked(world))
    for path in ("/grants", "/certificates", "/users", "/proposals", "/audit/entries", "/clock", "/violations"):
        assert found[path], path
    assert {path: problems for path, answer in found.items() if (problems := list(wrong(answer)))} == {}
    moment = datetime.fromisoformat(found["/audit/entries"][0]["time"])
    assert abs(moment - datetime.now(UTC)) < timedelta(hours=3)


def test_every_answer_of_the_registry(world: World) -> None:
    document = registry(world, "/openapi.json")
    assert [name for name, schema in properties(document) if _NAMED.search(name) and is_number(schema)] == []
    paths = [path for path, methods in document["paths"].items() if "get" in methods and "{" not in path]
    assert {"/subjects", "/schemas", "/approvals"} <= set(paths)
    found = {path: list(wrong(registry(world, path))) for path in paths if path not in {"/", "/openapi.json"}}
    assert {path: problems for path, problems in found.items() if problems} == {}


def test_lists_of_the_command_line_and_csv(world: World) -> None:
    file = world.folder / "times-token"
    file.write_text(token(world))
    options = ("--data", str(world.data), "--token-file", str(file))
    for command in (
        ("grant", *options, "list"),
        ("certificate", *options, "list"),
        ("user", *options, "list"),
        ("clock", *options, "show"),
    ):
        said = world.programs.run("pool", *command).stdout
        moments = re.findall(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[^\s\",]*", said)
        assert moments, (command, said)
        assert all(map(_has_zone, moments)), (command, moments)
    rows = list(
        csv.DictReader(io.StringIO(world.programs.run("pool", "audit", "list", *options, "--format", "csv").stdout))
    )
    assert rows
    assert all(_has_zone(row["at"]) for row in rows)
