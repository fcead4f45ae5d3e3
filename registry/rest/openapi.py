"""OpenAPI document of the REST API, generated from the routing table."""

import re
from collections.abc import Iterable
from dataclasses import replace
from inspect import getdoc
from typing import Any

from registry.rest.requests import DEFAULT_MEDIA_TYPE
from registry.rest.routing import Member, Parameter, Route, ValueType

__all__ = ["document"]

_ERROR = {
    "description": "an error, with Confluent's number",
    "content": {
        DEFAULT_MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["error_code", "message"],
                "properties": {"error_code": {"type": "integer"}, "message": {}},
            }
        }
    },
}
_DONE = {
    "description": "done",
    "content": {"application/json": {"schema": {}}, DEFAULT_MEDIA_TYPE: {"schema": {}}},
}
_EMPTY = {"description": "nothing to say"}
_REFUSALS = (400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 500, 503)
_TYPES: dict[ValueType, dict[str, Any]] = {
    ValueType.TEXT: {"type": "string"},
    ValueType.OPTIONAL_TEXT: {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ValueType.TEXTS: {"type": "array", "items": {"type": "string"}},
    ValueType.FLAG: {"type": "boolean"},
    ValueType.NUMBER: {"type": "integer"},
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the document of a routing table."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.documented:
            path = re.sub(r":int\}", "}", route.path)
            paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {"openapi": "3.1.0", "info": {"title": "Schema registry", "version": version}, "paths": paths}


def _operation(route: Route) -> dict[str, Any]:
    name = route.handler.__name__
    suffix = "_one" if route.path.endswith("{subject}") else ""
    responses: dict[int, Any] = {route.status: _DONE, **dict.fromkeys(_REFUSALS, _ERROR)}
    if route.empty_status is not None:
        responses[route.empty_status] = _EMPTY
    found: dict[str, Any] = {
        "summary": name.replace("_", " ").title(),
        "description": getdoc(route.handler),
        "operationId": f"{name}_{route.method.lower()}{suffix}",
        "responses": {str(status): response for status, response in sorted(responses.items())},
    }
    parameters = [_parameter(one, "path") for one in route.fields] + [_parameter(one, "query") for one in route.query]
    parameters += [_parameter(replace(one, name=one.also), "query") for one in route.query if one.also]
    if parameters:
        found["parameters"] = parameters
    if route.body is not None:
        found["requestBody"] = {"required": True, "content": {DEFAULT_MEDIA_TYPE: {"schema": _body(route.body)}}}
    return found


def _body(members: tuple[Member, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {one.name: dict(one.schema) for one in members},
        "required": [one.name for one in members if one.required],
        "additionalProperties": False,
    }


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    schema = _TYPES[parameter.type] | {"title": parameter.name.replace("_", " ").title()}
    if parameter.choices:
        schema["enum"] = [*parameter.choices]
    found: dict[str, Any] = {"name": parameter.name, "in": where, "required": where == "path"}
    if parameter.description:
        schema["description"] = found["description"] = parameter.description
    if parameter.default is not None:
        default = parameter.default
        schema["default"] = [*default] if parameter.type is ValueType.TEXTS else default
    return found | {"schema": schema}
