"""JSON form of a content, as Confluent's REST API and the `_schemas` topic have it. Pure."""

import json
from typing import Any

from registry.avro.schema_types import SchemaType
from registry.subjects.model import Content

__all__ = ["content_json"]


def content_json(content: Content) -> dict[str, Any]:
    """Return a content as JSON, without the type if it is Avro and without what it does not have."""
    answer: dict[str, Any] = {"schema": content.text}
    if content.schema_type != SchemaType.AVRO:
        answer["schemaType"] = content.schema_type
    if content.references:
        answer["references"] = [
            {"name": item.name, "subject": item.subject, "version": item.version} for item in content.references
        ]
    if content.metadata is not None:
        answer["metadata"] = json.loads(content.metadata)
    if content.rule_set is not None:
        answer["ruleSet"] = json.loads(content.rule_set)
    return answer
