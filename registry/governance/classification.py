"""Every field is classified, and no version lowers what an earlier one said. Pure: schema JSON in, verdict out.

A field carries five attributes beside its Avro type:

    zh         its Chinese label
    level      G1 … G4 or IMP: general 1 to 4, important (GB/T 43697-2024)
    personal   N no, P personal information, D direct identifier (PIPL, Art. 4)
    sensitive  N no, s only under the profile of GB/T 35273-2020, S by PIPL, Art. 28
    mask       the rule by which it is shown where a grant says nothing else

Peers store such tags and leave the rest to the client; here a field without them is not registered. The order
of each scale is total, "the higher wins" (GB/T 43697-2024), and a later version may climb it but not descend:
that would open, without anybody's decision, what grants were approved under the old classification. A field
that is gone for a version and comes back is held to what it was.

Fields of nested records are classified too, and are named by a dotted path (`holder.name`), which passes through
arrays, maps and unions. Two rules spare words and close a gap:

    inherited       a record may state level, personal, sensitive and mask for those of its fields that do not
    strictest wins  what a record holds is classified at least as high as the field that holds it, wherever the
                    record is defined: in place, in another field, or in another subject's schema that is referred to

In a document whose named types are resolved (`registry.avro.fields.resolved`) a record used twice is classified at each
use; as it is written, where it is defined.

What is taken back. A mask is widened when the new one shows something that the old one hid; only `drop`, and the
narrower half of a pair such as keep_3_4 and keep_3_4_if_person, shows nothing more than another mask. Who has to take
something back asks for it, and another person approves (`registry.governance.approvals`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.access import Level
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "EXPECTED",
    "INHERITED",
    "MASKS",
    "PERSONAL",
    "SENSITIVE",
    "Finding",
    "Labelled",
    "classify",
    "examine",
    "highest_level",
    "lowered",
    "refusal",
    "taken_back",
]

LEVELS = tuple(Level.__members__)
PERSONAL = ("N", "P", "D")  # in ascending order
SENSITIVE = ("N", "s", "S")  # in ascending order
MASKS = (
    "none",
    "keep_3_4",
    "keep_3_4_if_person",
    "name_first",
    "name_first_if_person",
    "phone_3_4",
    "year_only",
    "div_city",
    "addr_district",
    "geo_3",
    "band",
    "predicate",
    "redact_pii",
    "hmac_sm3",
    "drop",
)
"""The vocabulary of masks. A schema may name any of them; a grant only those that the view carries out
(`schemas.access.MaskRule`)."""

_VOCABULARY: Mapping[str, Sequence[str]] = {
    "level": LEVELS,
    "personal": PERSONAL,
    "sensitive": SENSITIVE,
    "mask": MASKS,
}
INHERITED = tuple(_VOCABULARY)
"""What a record may state for its fields."""
_SCALES: Mapping[str, Sequence[str]] = {"level": LEVELS, "personal": PERSONAL, "sensitive": SENSITIVE}
_NARROWER: Mapping[str, frozenset[str]] = {
    "none": frozenset(MASKS),
    "keep_3_4_if_person": frozenset({"keep_3_4"}),
    "name_first_if_person": frozenset({"name_first"}),
}  # mask → masks that show nothing that it hides; `drop` and the mask itself always do
EXPECTED = "zh, a Chinese label; " + "; ".join(
    f"{name}, one of {' '.join(words)}" for name, words in _VOCABULARY.items()
)
"""What a field must carry, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One field's classification.

    Attributes:
        path: dotted names from the outermost record down.
        at: JSON path in the schema, such as `$.fields[3]`.
        zh: Chinese label. aliases: dotted paths under which earlier versions may know the field.
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
class Finding:
    """What is wrong with one field's classification.

    Attributes:
        path: dotted path of the field; empty for the record itself. at: JSON path in the schema.
        message: what was got, what was expected.
    """

    path: str
    at: str
    message: str

    def __str__(self) -> str:
        return f"{self.at} ({self.path or 'record'}): {self.message}"


def examine(schema: Any) -> tuple[list[Labelled], list[Finding]]:
    """Read the classification of every field of a schema.

    Args:
        schema: the schema as parsed JSON, already known to be valid Avro.

    Returns:
        The fields whose classification is whole, and everything that is wrong.
    """
    fields: list[Labelled] = []
    findings: list[Finding] = []
    if not isinstance(schema, dict) or schema.get("type") != "record":
        findings.append(Finding(path="", at="$", message="expected a record: only its fields can be classified"))
        return fields, findings
    if not _label(schema.get("zh")):
        findings.append(Finding(path="", at="$", message="missing: zh, the Chinese name of the record"))
    for path, at, aliases, field in _fields(schema, "", "$", {}):
        wrong = _wrong(field)
        findings += [Finding(path=path, at=at, message=message) for message in wrong]
        if not wrong:
            fields.append(
                Labelled(
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


def classify(schema: Any) -> list[Labelled]:
    """Return the classification of every field.

    Raises:
        InvalidError: SCHEMA_UNCLASSIFIED, naming each field that lacks something and what it lacks.
    """
    fields, findings = examine(schema)
    if findings:
        raise InvalidError(
            Reason.SCHEMA_UNCLASSIFIED,
            f"every field needs {EXPECTED}; got: " + "; ".join(str(item) for item in findings),
            details={"fields": ",".join(sorted({item.path for item in findings}))},
        )
    return fields


def lowered(new: Iterable[Labelled], old: Iterable[Labelled]) -> list[Finding]:
    """Compare two versions field by field and give what the new one takes back.

    A renamed field is recognised by its alias, so that a new name does not launder an identifier.
    """
    before: Mapping[str, Labelled] = {field.path: field for field in old}
    findings = []
    for field in new:
        for path in (field.path, *field.aliases):
            if path in before:
                findings += [
                    Finding(path=field.path, at=field.at, message=text) for text in _taken_back(field, before[path])
                ]
    return findings


def taken_back(new: Iterable[Labelled], earlier: Iterable[tuple[int, Iterable[Labelled]]]) -> list[str]:
    """Hold a new version to every earlier one, not only to the last: a field may have been away in between.

    Args:
        new: classification of the new version.
        earlier: (version number, classification) of each earlier one.

    Returns:
        What the new version takes back, in words that name version, field, got and expected.
    """
    fields = list(new)
    return [f"version {number}: {finding}" for number, old in earlier for finding in lowered(fields, old)]


def refusal(findings: Sequence[str]) -> ConflictError:
    """Return the error for a version that takes something back without approval."""
    return ConflictError(
        Reason.CLASSIFICATION_LOWERED,
        "a classification is not lowered by registering: keep it as it was, or have it approved by another person "
        "(POST /approvals, or pool-schema approval ask); " + "; ".join(findings),
    )


def highest_level(fields: Sequence[Labelled], names: Iterable[str] | None = None) -> Level:
    """Return the highest level among fields: the least ceiling of a grant that shows them.

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


def _taken_back(new: Labelled, old: Labelled) -> Iterator[str]:
    if new.level < old.level:
        yield f'"level" falls from {old.level.name} to {new.level.name}'
    if PERSONAL.index(new.personal) < PERSONAL.index(old.personal):
        yield f'"personal" falls from {old.personal} to {new.personal}'
    if SENSITIVE.index(new.sensitive) < SENSITIVE.index(old.sensitive):
        yield f'"sensitive" falls from {old.sensitive} to {new.sensitive}'
    if new.mask not in {old.mask, "drop"} and new.mask not in _NARROWER.get(old.mask, ()):
        verb = "is lifted" if new.mask == "none" else "shows what was hidden: it goes"
        yield f'"mask" {verb} from {old.mask} to {new.mask}'


def _wrong(field: Mapping[str, Any]) -> list[str]:
    missing = [name for name in _VOCABULARY if name not in field]
    if not _label(field.get("zh")):
        missing.insert(0, "zh")
    wrong = [f"missing: {', '.join(missing)}"] if missing else []
    for name, words in _VOCABULARY.items():
        if name in field and field[name] not in words:
            wrong.append(f'"{name}" is {str(field[name])[:40]!r}; expected one of {", ".join(words)}')
    if not wrong and field["personal"] == "N" and field["sensitive"] != "N":
        wrong.append('"sensitive" is set but "personal" is N; sensitive personal information is personal: P or D')
    return wrong


def _label(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


_Held = Mapping[str, str]  # what the field that holds a record says, on the scales
_Walked = tuple[str, str, tuple[str, ...], dict[str, Any]]  # path, JSON path, former paths, field as it is in force


def _fields(record: Mapping[str, Any], prefix: str, at: str, held: _Held) -> Iterator[_Walked]:
    """Walk a record's fields and those of the records defined within, depth first, in order."""
    stated = {name: record[name] for name in INHERITED if name in record}
    for index, field in enumerate(record.get("fields", ())):
        path = prefix + field["name"]
        here = f"{at}.fields[{index}]"
        in_force = _strictest(stated | field, held)
        yield path, here, tuple(prefix + alias for alias in field.get("aliases", ())), in_force
        yield from _within(field["type"], f"{path}.", f"{here}.type", in_force)


def _within(node: Any, prefix: str, at: str, held: _Held) -> Iterator[_Walked]:
    if isinstance(node, list):
        for index, branch in enumerate(node):
            yield from _within(branch, prefix, f"{at}[{index}]", held)
    elif isinstance(node, dict):
        kind = node.get("type")
        if kind in ("record", "error"):
            yield from _fields(node, prefix, at, held)
        elif kind == "array":
            yield from _within(node["items"], prefix, f"{at}.items", held)
        elif kind == "map":
            yield from _within(node["values"], prefix, f"{at}.values", held)
        elif isinstance(kind, (dict, list)):
            yield from _within(kind, prefix, f"{at}.type", held)


def _strictest(field: dict[str, Any], held: _Held) -> dict[str, Any]:
    """Raise what a field says to what the field that holds its record says (GB/T 43697-2024: the higher wins)."""
    raised = {
        name: held[name]
        for name, scale in _SCALES.items()
        if held.get(name) in scale and field.get(name) in scale and scale.index(field[name]) < scale.index(held[name])
    }
    return field | raised
