"""Data contracts: validation and merging of metadata and rule sets in Confluent's form. Pure.

The registry stores and returns them; clients act on them. Their form is validated, so that nothing is stored that a
client cannot read. A department can set values for all its subjects: its configuration's defaults apply below what is
submitted, its overrides above:

    defaultMetadata  <  as submitted, or of the latest version if nothing is submitted  <  overrideMetadata

Tags and properties are merged by key, rules by name; `sensitive` lists are united.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.errors import InvalidError, Reason

__all__ = [
    "RULE_KINDS",
    "RULE_LISTS",
    "RULE_MODES",
    "merge",
    "properties_of",
    "refuse_sensitive_values",
    "reserved_fields",
    "validate_metadata",
    "validate_rules",
]

_METADATA = frozenset({"tags", "properties", "sensitive"})
RULE_LISTS = ("migrationRules", "domainRules", "encodingRules")
RULE_MODES = frozenset({"UPGRADE", "DOWNGRADE", "UPDOWN", "WRITE", "READ", "WRITEREAD"})
_MIGRATION = frozenset({"UPGRADE", "DOWNGRADE", "UPDOWN"})
RULE_KINDS = frozenset({"CONDITION", "TRANSFORM"})
_RULE = frozenset(
    {"name", "doc", "kind", "mode", "type", "tags", "params", "expr", "onSuccess", "onFailure", "disabled"}
)
_RESERVED = "confluent:reserved"
_MAX_RULES = 500
_MAX_NAME = 256


def validate_metadata(value: Any, name: str = "metadata") -> str | None:
    """Validate metadata and return it as JSON text; None for none.

    Args:
        value: as submitted or configured.
        name: of the member that holds it, for messages.

    Raises:
        InvalidError: REQUEST_INVALID, naming the invalid member.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= _METADATA:
        raise _invalid(name, "an object of tags, properties and sensitive")
    tags, properties, sensitive = (value.get(member) for member in ("tags", "properties", "sensitive"))
    if tags is not None and not (isinstance(tags, dict) and all(_texts(one) for one in tags.values())):
        raise _invalid(f"{name}.tags", "an object of lists of strings")
    if properties is not None and not (
        isinstance(properties, dict) and all(isinstance(one, str) for one in properties.values())
    ):
        raise _invalid(f"{name}.properties", "an object of strings")
    if sensitive is not None and not _texts(sensitive):
        raise _invalid(f"{name}.sensitive", "a list of strings")
    return json.dumps(value, ensure_ascii=False)


def validate_rules(value: Any, name: str = "ruleSet") -> str | None:
    """Validate a rule set and return it as JSON text; None for none.

    Args:
        value: as submitted or configured.
        name: of the member that holds it, for messages.

    Raises:
        InvalidError: REQUEST_INVALID, for an invalid form; RULES_INVALID, for rules that no client can execute.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _invalid(name, "an object of migrationRules, domainRules and encodingRules")
    for member in value:
        if member not in RULE_LISTS and member != "enableAt":
            raise _invalid(name, f"{', '.join(RULE_LISTS)} and enableAt alone, not {str(member)[:40]!r}")
    for list_name in RULE_LISTS:
        rules = value.get(list_name)
        if rules is None:
            continue
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise _invalid(f"{name}.{list_name}", "a list of rules")
        if len(rules) > _MAX_RULES:
            raise _bad_rule(list_name, f"got {len(rules)} rules; expected {_MAX_RULES} at most")
        names = [_rule_name(list_name, rule) for rule in rules]
        if len(set(names)) < len(names):
            raise _bad_rule(list_name, "got two rules of one name; expected different names")
    return json.dumps(value, ensure_ascii=False)


def merge(lower: str | None, upper: str | None) -> str | None:
    """Merge metadata, or a rule set, over another; *upper* takes precedence."""
    if lower is None or upper is None:
        return upper if lower is None else lower
    below, above = json.loads(lower), json.loads(upper)
    result = {**below, **{name: value for name, value in above.items() if value is not None}}
    for name in ("tags", "properties"):
        if below.get(name) and above.get(name):
            result[name] = {**below[name], **above[name]}
    if below.get("sensitive") and above.get("sensitive"):
        result["sensitive"] = list(dict.fromkeys([*below["sensitive"], *above["sensitive"]]))
    for name in RULE_LISTS:
        if below.get(name) and above.get(name):
            result[name] = _by_name(below[name], above[name])
    return json.dumps(result, ensure_ascii=False)


def properties_of(metadata: str | None) -> Mapping[str, str]:
    """Return the properties of metadata."""
    found: Mapping[str, str] = (json.loads(metadata) if metadata else {}).get("properties") or {}
    return found


def reserved_fields(metadata: str | None) -> frozenset[str]:
    """Return the names that no field may have: the property `confluent:reserved`, separated by commas."""
    listed = (name.strip() for name in properties_of(metadata).get(_RESERVED, "").split(","))
    return frozenset(name for name in listed if name)


def refuse_sensitive_values(metadata: str | None) -> None:
    """Refuse metadata that holds the value of a property which it calls sensitive.

    Confluent's registry encrypts such values where it stores them. This one does not, so it does not take them.

    Raises:
        InvalidError: REQUEST_INVALID, naming the property.
    """
    sensitive = (json.loads(metadata) if metadata else {}).get("sensitive") or ()
    held = sorted(properties_of(metadata).keys() & set(sensitive))
    if held:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f'got a value of the property {held[0][:80]!r}, which "metadata.sensitive" names; sensitive values are not '
            "encrypted here, so leave the value out",
        )


def _by_name(lower: Iterable[Mapping[str, Any]], upper: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    above = {rule["name"]: rule for rule in upper}
    below = [rule for rule in lower if rule["name"] not in above]
    return [*below, *above.values()]


def _rule_name(list_name: str, rule: Mapping[str, Any]) -> str:  # noqa: C901 - one check a line
    name = rule.get("name")
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or not name.isprintable():
        raise _bad_rule(list_name, "got a rule without a name; expected a printable text")
    unknown = sorted(set(rule) - _RULE)
    if unknown:
        raise _bad_rule(list_name, f"the rule {name!r} has the member {unknown[0][:40]!r}, which no client knows")
    kind, mode = rule.get("kind"), rule.get("mode")
    if kind is not None and kind not in RULE_KINDS:
        raise _bad_rule(list_name, f"the rule {name!r} has another kind; expected {' or '.join(sorted(RULE_KINDS))}")
    if mode is not None and mode not in RULE_MODES:
        raise _bad_rule(
            list_name, f"the rule {name!r} has another mode; expected one of {', '.join(sorted(RULE_MODES))}"
        )
    if mode is not None and (mode in _MIGRATION) is not (list_name == "migrationRules"):
        raise _bad_rule(list_name, f"the rule {name!r} has the mode {mode}, which does not belong there")
    for text in ("doc", "type", "expr", "onSuccess", "onFailure"):
        if rule.get(text) is not None and not isinstance(rule[text], str):
            raise _bad_rule(list_name, f"the rule {name!r} has a {text} that is no string")
    if rule.get("tags") is not None and not _texts(rule["tags"]):
        raise _bad_rule(list_name, f"the rule {name!r} has tags that are no list of strings")
    params = rule.get("params")
    if params is not None and not (isinstance(params, dict) and all(isinstance(one, str) for one in params.values())):
        raise _bad_rule(list_name, f"the rule {name!r} has params that are no object of strings")
    if rule.get("disabled") is not None and not isinstance(rule["disabled"], bool):
        raise _bad_rule(list_name, f"the rule {name!r} is disabled by something else than true or false")
    return name


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _invalid(name: str, expected: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f'got "{name}" of another form; expected {expected}')


def _bad_rule(list_name: str, message: str) -> InvalidError:
    return InvalidError(Reason.RULES_INVALID, f"Invalid ruleset: {list_name}: {message}")
