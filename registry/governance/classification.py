"""Classification of fields: complete for each, and never lowered by a later version. Pure: schema JSON in, verdict out.

A field carries five attributes beside its Avro type:

    zh         its Chinese label
    level      G1 … G4 or IMP: general 1 to 4, important (GB/T 43697-2024)
    personal   N no, P personal information, D direct identifier (PIPL, Art. 4)
    sensitive  N no, s only under the profile of GB/T 35273-2020, S by PIPL, Art. 28
    mask       the rule by which it is shown where a grant states none

Other registries store such tags and leave the rest to the client; here a field without them is not registered. The
order of each scale is total, "the higher wins" (GB/T 43697-2024), and a later version may raise it but not lower it:
that would open, without a decision, what grants were approved under the old classification. A field that is missing in
one version and comes back is compared with what it was.

Fields of nested records are classified too, and are named by a dotted path (`holder.name`), which passes through
arrays, maps and unions. Two rules save repetition and close a gap:

    inherited       a record may state level, personal, sensitive and mask for those of its fields that do not
    strictest wins  what a record holds is classified at least as high as the field that holds it, wherever the
                    record is defined: in place, in another field, or in another subject's schema that is referred to

In a document whose named types are resolved (`registry.avro.fields.resolved_json`) a record used twice is classified at
each use; in one as written, where it is defined.

What counts as lowered: a level, personal or sensitive value that falls, and a mask that shows something that the old
one hid (`registry.governance.mask_order`). To lower a classification, one person asks and another approves
(`registry.governance.approvals`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from registry.governance.mask_order import MASKS, hides_at_least
from schemas.access import Level
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "EXPECTED",
    "INHERITED",
    "MASKS",
    "MAX_FORMER_PATHS",
    "PERSONAL",
    "SENSITIVE",
    "ClassificationFinding",
    "ClassifiedField",
    "effective_fields",
    "find_lowered",
    "former_paths",
    "highest_level",
    "lowered_error",
    "lowered_since",
    "read_classification",
    "require_classification",
    "shown_by_default",
]

MAX_FORMER_PATHS = 100  # of a field, in one earlier version
LEVELS = tuple(Level.__members__)
PERSONAL = ("N", "P", "D")  # in ascending order
SENSITIVE = ("N", "s", "S")  # in ascending order

_VOCABULARY: Mapping[str, Sequence[str]] = {
    "level": LEVELS,
    "personal": PERSONAL,
    "sensitive": SENSITIVE,
    "mask": MASKS,
}
INHERITED = tuple(_VOCABULARY)
"""Attributes that a record may state for its fields."""
_SCALES: Mapping[str, Sequence[str]] = {"level": LEVELS, "personal": PERSONAL, "sensitive": SENSITIVE}
EXPECTED = "zh, a Chinese label; " + "; ".join(
    f"{name}, one of {' '.join(words)}" for name, words in _VOCABULARY.items()
)
"""What a field must carry, as text for messages."""


class _HasPath(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def aliases(self) -> tuple[str, ...]: ...


_P = TypeVar("_P", bound=_HasPath)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedField:
    """Classification of one field.

    Attributes:
        path: dotted names from the outermost record down.
        at: JSON path in the schema, such as `$.fields[3]`.
        zh: Chinese label. aliases: dotted paths that its own aliases give it.
    """

    path: str
    at: str
    zh: str
    level: Level
    personal: str
    sensitive: str
    mask: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationFinding:
    """Error in one field's classification.

    Attributes:
        path: dotted path of the field; empty for the record itself. at: JSON path in the schema.
        message: what was got, what was expected.
    """

    path: str
    at: str
    message: str

    def __str__(self) -> str:
        return f"{self.at} ({self.path or 'record'}): {self.message}"


def read_classification(schema: Any) -> tuple[list[ClassifiedField], list[ClassificationFinding]]:
    """Read the classification of every field of a schema.

    Args:
        schema: the schema as parsed JSON, already validated as Avro.

    Returns:
        The fields whose classification is complete, and every error.
    """
    fields: list[ClassifiedField] = []
    findings: list[ClassificationFinding] = []
    if not isinstance(schema, dict) or schema.get("type") != "record":
        findings.append(
            ClassificationFinding(path="", at="$", message="expected a record: only its fields can be classified")
        )
        return fields, findings
    if not _label(schema.get("zh")):
        findings.append(ClassificationFinding(path="", at="$", message="missing: zh, the Chinese name of the record"))
    for path, at, aliases, field in effective_fields(schema):
        errors = _errors(field)
        findings += [ClassificationFinding(path=path, at=at, message=message) for message in errors]
        if not errors:
            fields.append(
                ClassifiedField(
                    path=path,
                    at=at,
                    zh=field["zh"],
                    level=Level[field["level"]],
                    personal=field["personal"],
                    sensitive=field["sensitive"],
                    mask=field["mask"],
                    aliases=aliases,
                )
            )
    return fields, findings


def require_classification(schema: Any) -> list[ClassifiedField]:
    """Return the classification of every field, or raise.

    Raises:
        InvalidError: SCHEMA_UNCLASSIFIED, naming each incomplete field and what it lacks.
    """
    fields, findings = read_classification(schema)
    if findings:
        raise InvalidError(
            Reason.SCHEMA_UNCLASSIFIED,
            f"every field needs {EXPECTED}; got: " + "; ".join(str(item) for item in findings),
            details={"fields": ",".join(sorted({item.path for item in findings}))},
        )
    return fields


def find_lowered(new: Iterable[ClassifiedField], old: Iterable[ClassifiedField]) -> list[ClassificationFinding]:
    """Compare two versions field by field and return what the new one lowers.

    A renamed field is matched by its alias, or by that of a field that holds it, so that a new name does not hide an
    identifier.

    Raises:
        InvalidError: SCHEMA_UNSAFE, a field has more former names than can be compared.
    """
    before: Mapping[str, ClassifiedField] = {field.path: field for field in old}
    return [
        ClassificationFinding(path=field.path, at=field.at, message=text)
        for field, paths in former_paths(new, before)
        for path in paths
        if path in before
        for text in _lowered_attributes(field, before[path])
    ]


def former_paths(entities: Iterable[_P], known: Iterable[str]) -> Iterator[tuple[_P, list[str]]]:
    """Return each field of a version with the paths that it has in an earlier one, its own path first.

    A field is known by its name or an alias, in a record that is held by a field which is known likewise.

    Args:
        entities: fields with the paths that their own aliases give them; each after the field that holds it.
        known: the paths of the earlier version.

    Raises:
        InvalidError: SCHEMA_UNSAFE, for a field that would have more than MAX_FORMER_PATHS.
    """
    below: dict[str, set[str]] = {}  # path of a field, or "", to the names of the fields below it
    for path in known:
        rest = path
        while rest:
            rest, _, name = rest.rpartition(".")
            if name in below.setdefault(rest, set()):
                break
            below[rest].add(name)
    found: dict[str, list[str]] = {"": [""]}
    for entity in entities:
        if entity.path not in found:
            found[entity.path] = [entity.path]
        if entity.path:
            parent = entity.path.rpartition(".")[0]
            names = {path.rpartition(".")[2] for path in (entity.path, *entity.aliases)}
            paths = [
                f"{former}.{name}" if former else name
                for former in found.get(parent, [parent])
                for name in sorted(names & below.get(former, set()))
            ]
            found[entity.path] = [*dict.fromkeys([*found[entity.path], *paths])]
        if len(found[entity.path]) > MAX_FORMER_PATHS:
            raise InvalidError(
                Reason.SCHEMA_UNSAFE,
                f"got the field {entity.path[:100]} with more than {MAX_FORMER_PATHS} former names, its records' "
                "included; expected fewer aliases",
                details={"field": entity.path[:100]},
            )
        yield entity, found[entity.path]


def lowered_since(
    new: Iterable[ClassifiedField], earlier: Iterable[tuple[int, Iterable[ClassifiedField]]]
) -> list[str]:
    """Compare a new version with every earlier one, not only the last: a field may have been missing in between.

    Args:
        new: classification of the new version.
        earlier: (version number, classification) of each earlier one.

    Returns:
        What the new version lowers, as texts that name version, field, got and expected.
    """
    fields = list(new)
    return [f"version {number}: {finding}" for number, old in earlier for finding in find_lowered(fields, old)]


def lowered_error(findings: Sequence[str]) -> ConflictError:
    """Return the error for a version that lowers a classification without approval."""
    return ConflictError(
        Reason.CLASSIFICATION_LOWERED,
        "a classification is not lowered by registering: keep it as it was, or have it approved by another person "
        "(POST /approvals, or pool-schema approval ask); " + "; ".join(findings),
    )


def highest_level(fields: Sequence[ClassifiedField], names: Iterable[str] | None = None) -> Level:
    """Return the highest level among fields: the lowest possible ceiling of a grant that shows them.

    Args:
        fields: a schema's classification.
        names: the top-level fields to be shown; their nested fields count too. None = all.

    Raises:
        InvalidError: FIELD_UNKNOWN, when a name is no top-level field.
    """
    tops = {field.path.partition(".")[0] for field in fields}
    chosen = tops if names is None else set(names)
    unknown = sorted(chosen - tops)
    if unknown:
        raise InvalidError(
            Reason.FIELD_UNKNOWN, f"got the fields {', '.join(unknown)}; the schema has {', '.join(sorted(tops))}"
        )
    return max((field.level for field in fields if field.path.partition(".")[0] in chosen), default=Level.G1)


def shown_by_default(fields: Iterable[ClassifiedField]) -> dict[str, str]:
    """Return the mask of each top-level field: how it is shown where a grant states none.

    A view masks top-level fields. One whose type holds a record with a masked field is therefore dropped as a whole:
    shown, it would show that field too.
    """
    masks: dict[str, str] = {}
    for field in fields:
        top, _, nested = field.path.partition(".")
        if not nested:
            masks.setdefault(top, field.mask)
        elif field.mask != "none":
            masks[top] = "drop"
    return masks


def _lowered_attributes(new: ClassifiedField, old: ClassifiedField) -> Iterator[str]:
    if new.level < old.level:
        yield f'"level" falls from {old.level.name} to {new.level.name}'
    if PERSONAL.index(new.personal) < PERSONAL.index(old.personal):
        yield f'"personal" falls from {old.personal} to {new.personal}'
    if SENSITIVE.index(new.sensitive) < SENSITIVE.index(old.sensitive):
        yield f'"sensitive" falls from {old.sensitive} to {new.sensitive}'
    if not hides_at_least(new.mask, old.mask):
        verb = "is lifted" if new.mask == "none" else "shows what was hidden: it goes"
        yield f'"mask" {verb} from {old.mask} to {new.mask}'


def _errors(field: Mapping[str, Any]) -> list[str]:
    missing = [name for name in _VOCABULARY if name not in field]
    if not _label(field.get("zh")):
        missing.insert(0, "zh")
    errors = [f"missing: {', '.join(missing)}"] if missing else []
    for name, words in _VOCABULARY.items():
        if name in field and field[name] not in words:
            errors.append(f'"{name}" is {str(field[name])[:40]!r}; expected one of {", ".join(words)}')
    if not errors and field["personal"] == "N" and field["sensitive"] != "N":
        errors.append('"sensitive" is set but "personal" is N; sensitive personal information is personal: P or D')
    return errors


def _label(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


_Enclosing = Mapping[str, str]  # values of the field that holds a record, on the scales
_NONE: _Enclosing = {}
_EffectiveField = tuple[str, str, tuple[str, ...], dict[str, Any]]  # path, JSON path, former paths, effective field


def effective_fields(
    record: Mapping[str, Any], prefix: str = "", at: str = "$", enclosing: _Enclosing = _NONE
) -> Iterator[_EffectiveField]:
    """Walk a record's fields and those of the records defined within, depth first, in order.

    Yield path, JSON path, former paths, and the field with what it inherits and what encloses it raises.
    """
    stated = {name: record[name] for name in INHERITED if name in record}
    for index, field in enumerate(record.get("fields", ())):
        path = prefix + field["name"]
        here = f"{at}.fields[{index}]"
        effective = _strictest(stated | field, enclosing)
        yield path, here, tuple(prefix + alias for alias in field.get("aliases", ())), effective
        yield from _within(field["type"], f"{path}.", f"{here}.type", effective)


def _within(node: Any, prefix: str, at: str, enclosing: _Enclosing) -> Iterator[_EffectiveField]:
    if isinstance(node, list):
        for index, branch in enumerate(node):
            yield from _within(branch, prefix, f"{at}[{index}]", enclosing)
    elif isinstance(node, dict):
        kind = node.get("type")
        if kind in ("record", "error"):
            yield from effective_fields(node, prefix, at, enclosing)
        elif kind == "array":
            yield from _within(node["items"], prefix, f"{at}.items", enclosing)
        elif kind == "map":
            yield from _within(node["values"], prefix, f"{at}.values", enclosing)
        elif isinstance(kind, (dict, list)):
            yield from _within(kind, prefix, f"{at}.type", enclosing)


def _strictest(field: dict[str, Any], enclosing: _Enclosing) -> dict[str, Any]:
    """Raise a field's values to those of the field that holds its record (GB/T 43697-2024: the higher wins)."""
    raised = {
        name: enclosing[name]
        for name, scale in _SCALES.items()
        if enclosing.get(name) in scale
        and field.get(name) in scale
        and scale.index(field[name]) < scale.index(enclosing[name])
    }
    return field | raised
