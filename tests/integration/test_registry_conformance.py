"""Compatibility through the REST call: Java Avro's own cases, or a few of ours where those are not at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.world.registry_served import World

pytestmark = pytest.mark.postgres

FOREIGN = Path(__file__).parents[3] / "shared" / "conformance" / "avro_compatibility.json"


def r(*fields: dict[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


OWN: list[dict[str, Any]] = [
    {"reader": "long", "writer": "int", "compatible": True},
    {"reader": "int", "writer": "long", "compatible": False},
    {"reader": ["null", "int"], "writer": "int", "compatible": True},
    {"reader": "int", "writer": ["null", "int"], "compatible": False},
    {"reader": "bytes", "writer": "string", "compatible": True},
    {"reader": r({"name": "x", "type": "int", "default": 1}), "writer": r(), "compatible": True},
    {"reader": r({"name": "x", "type": "int"}), "writer": r(), "compatible": False},
    {"reader": r(name="S"), "writer": r(), "compatible": False},
    {
        "reader": {"type": "enum", "name": "E", "symbols": ["A"]},
        "writer": {"type": "enum", "name": "E", "symbols": ["A", "B"]},
        "compatible": False,
    },
    # A record of which no value ends: nothing can be decoded with it, but it is compared.
    {
        "reader": r({"name": "head", "type": "long"}, {"name": "tail", "type": "R"}),
        "writer": r({"name": "head", "type": "int"}, {"name": "tail", "type": "R"}),
        "compatible": True,
    },
    {
        "reader": r({"name": "head", "type": "int"}, {"name": "tail", "type": "R"}),
        "writer": r({"name": "head", "type": "long"}, {"name": "tail", "type": "R"}),
        "compatible": False,
    },
    {
        "reader": {"type": "array", "items": "long"},
        "writer": {"type": "array", "items": "int"},
        "compatible": True,
    },
]


def test_every_case_has_its_verdict_through_the_call(world: World) -> None:
    cases = json.loads(FOREIGN.read_text()) if FOREIGN.exists() else OWN
    wrong = []
    for number, case in enumerate(cases):
        subject = f"conformance-{number}"
        # Some of the cases have names that a new schema may not have; here the comparison is asked for.
        world.http.put(f"/config/{subject}", json={"compatibility": "BACKWARD", "validateNewSchemas": False})
        written = world.http.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(case["writer"])})
        assert written.status_code == 200, (case, written.text)
        for path in (f"{subject}/versions/latest", f"{subject}/versions"):
            answer = world.http.post(f"/compatibility/subjects/{path}", json={"schema": json.dumps(case["reader"])})
            if answer.json().get("is_compatible") is not case["compatible"]:
                wrong.append((case, answer.text))
        registered = world.http.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(case["reader"])})
        if registered.status_code != (200 if case["compatible"] else 409):
            wrong.append((case, registered.text))
    assert wrong == []
    assert len(cases) in (143, len(OWN))
