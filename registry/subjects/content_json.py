"""A content as a JSON document, in the form of Confluent's REST API and of the `_schemas` topic. Pure."""

import json
from typing import Any

from registry.avro.schema_types import SchemaType
from registry.subjects.model import Content

__all__ = ["content_json"]


def content_json(content: Content) -> dict[str, Any]:
    """Return a content; the type only where it is not Avro, the rest only where there is any."""
    answer: dict[str, Any] = {"schema": content.text}
    if content.kind != SchemaType.AVRO:
        answer["schemaType"] = content.kind
    if content.references:
        answer["references"] = [
            {"name": item.name, "subject": item.subject, "version": item.version} for item in content.references
        ]
    if content.metadata is not None:
        answer["metadata"] = json.loads(content.metadata)
    if content.rule_set is not None:
        answer["ruleSet"] = json.loads(content.rule_set)
    return answer
