"""Random resources, their older versions, grants and records: the cases of the views' property test."""

import copy
import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from schemas.access import AllOf, AnyOf, Compare, Exists, MaskRule, Member, Not, Prefix, Range
from schemas.record import frame
from tests.kit.cases.random_avro import encode, random_record, random_value

TEXTS = [
    "11010519491231002X",
    "13812345678",
    "王小明",
    "欧阳娜娜",
    "110105",
    "110105001001",
    "\U00020bb7野家",
    "",
    "a",
    "é",
]
TEXT_MASKS = [MaskRule.KEEP_3_4, MaskRule.PHONE_3_4, MaskRule.NAME_FIRST, MaskRule.DIV_CITY]
NO_DEFAULT = object()
SCALES = {"timestamp-millis": 3, "timestamp-micros": 6, "local-timestamp-millis": 3, "local-timestamp-micros": 6}


@dataclass
class Family:
    """A resource in its newest version, the versions that wrote its records, and the records, framed; b"" is a void."""

    resource: dict
    writers: dict
    rows: list
    samples: dict  # field → raw values that occur


@dataclass
class Asked:
    """A grant: fields, masks, filter; and the same filter over raw values, for the naive view."""

    fields: tuple
    masks: tuple
    row_filter: object
    raw_filter: object


def family(rng, per_writer):
    resource = ordered(random_record(rng, depth=2, fields=8))
    resource["name"] = "resource"
    while len(resource["fields"]) < 4:
        name = f"f{len(resource['fields'])}"
        resource["fields"].append({"name": name, "type": rng.choice(["string", "long", ["null", "string"]])})
    for place in range(2):  # what masks and filters are most used on
        resource["fields"].append({"name": f"text{place}", "type": rng.choice(["string", ["null", "string"]])})
    resource["fields"].append({"name": "born", "type": rng.choice([date(), ["null", date()]])})
    rng.shuffle(resource["fields"])
    for field in resource["fields"]:
        field["zh"] = "字段"
        default = default_of(rng, field["type"])
        if default is not NO_DEFAULT and rng.random() < 0.5:
            field["default"] = default
    writers = {32_895 + place: older(rng, resource) for place in range(rng.randint(1, 2))}
    writers[3] = resource
    rows, samples = [], {}
    for id_, writer in writers.items():
        for _ in range(per_writer):
            value = random_value(rng, writer)
            for field in writer["fields"]:
                if field["name"].startswith("text") and value[field["name"]] not in (None, (0, None)):
                    text = rng.choice(TEXTS)
                    value[field["name"]] = text if isinstance(field["type"], str) else (1, text)
                samples.setdefault(field["name"], []).append(bare(value[field["name"]], field["type"]))
            rows.append(frame(id_, encode(writer, value)))
    rows += [b""] * rng.randint(0, 3)
    rng.shuffle(rows)
    return Family(resource, writers, rows, samples)


RANK = {"int": 0, "long": 1, "float": 2, "double": 3, "string": 4, "bytes": 5}


def ordered(avro):
    """Order the branches of unions, and part string from bytes.

    fastavro reads a value into the first branch that takes its type, the product into the value's own: only where the
    narrowest comes first are the two the same.
    """
    if isinstance(avro, list):
        branches = sorted((ordered(branch) for branch in avro), key=lambda branch: RANK.get(kind_of(branch), -1))
        kinds = [kind_of(branch) for branch in branches]
        return [branch for branch in branches if kind_of(branch) != "bytes" or "string" not in kinds]
    if isinstance(avro, dict):
        inner = {key: ordered(avro[key]) for key in ("type", "items", "values") if key in avro}
        if "fields" in avro:
            inner["fields"] = [ordered(field) for field in avro["fields"]]
        return {**avro, **inner}
    return avro


def kind_of(avro):
    return avro if isinstance(avro, str) else avro["type"]


def date():
    return {"type": "int", "logicalType": "date"}


def bare(value, avro):
    return value[1] if isinstance(avro, list) else value


def default_of(rng, avro):  # noqa: PLR0911 - one return a case
    if isinstance(avro, list):
        return default_of(rng, avro[0])
    match avro if isinstance(avro, str) else avro["type"]:
        case "null":
            return None
        case "string":
            return rng.choice(TEXTS) if avro == "string" else NO_DEFAULT
        case "int" | "long":
            return rng.choice([0, -7, 2**31 - 1]) if isinstance(avro, str) else 86_399
        case "double":
            return rng.choice([0.5, 3])
        case "boolean":
            return rng.random() < 0.5
        case "enum":
            return rng.choice(avro["symbols"])
        case "array":
            return []
        case "map":
            return {}
    return NO_DEFAULT


def older(rng, resource):
    """Return a version that the resource's can read: fewer fields, narrower types, other order, fields of its own."""
    old = copy.deepcopy(resource)
    fields = [
        {"name": field["name"], "type": narrower(rng, field["type"])}
        for field in old["fields"]
        if not (rng.random() < 0.25 and ("default" in field or nullable(field["type"])))
    ]
    fields.append({"name": "gone", "type": "string"})
    rng.shuffle(fields)
    return {"type": "record", "name": "resource", "fields": fields}


def nullable(avro):
    return isinstance(avro, list) and "null" in avro


def narrower(rng, avro):  # noqa: PLR0911 - one return a case
    if rng.random() < 0.5:
        return avro
    if avro == "long":
        return "int"
    if avro == "double":
        return rng.choice(["int", "float"])
    if isinstance(avro, list):
        if "null" in avro and len(avro) == 2:
            inner = narrower(rng, next(branch for branch in avro if branch != "null"))
            return rng.choice([inner, ["null", inner], [inner, "null"]])
        return [branch for branch in avro if rng.random() < 0.8] or avro[:1]
    if isinstance(avro, dict):
        match avro["type"]:
            case "enum" if len(avro["symbols"]) > 1:
                symbols = rng.sample(avro["symbols"], rng.randint(1, len(avro["symbols"])))
                return {**avro, "symbols": symbols}
            case "array":
                return {**avro, "items": narrower(rng, avro["items"])}
            case "map":
                return {**avro, "values": narrower(rng, avro["values"])}
            case "record":
                kept = [{**field, "type": narrower(rng, field["type"])} for field in avro["fields"]]
                rng.shuffle(kept)
                return {**avro, "fields": kept}
    return avro


def asked(rng, family_):
    fields = family_.resource["fields"]
    granted = rng.sample(fields, rng.randint(1, len(fields)))
    masks = []
    for field in granted:
        inner = (
            next((b for b in field["type"] if b != "null"), None) if isinstance(field["type"], list) else field["type"]
        )
        if isinstance(field["type"], list) and (len(field["type"]) != 2 or "null" not in field["type"]):
            continue
        if inner == "string" and rng.random() < 0.5:
            masks.append((field["name"], rng.choice(TEXT_MASKS)))
        elif inner == date() and rng.random() < 0.6:
            masks.append((field["name"], MaskRule.YEAR_ONLY))
        elif rng.random() < 0.05 and len(masks) + 1 < len(granted):
            masks.append((field["name"], MaskRule.DROP))
    row_filter, raw = random_filter(rng, family_, 3) if rng.random() < 0.85 else (None, None)
    return Asked(tuple(field["name"] for field in granted), tuple(masks), row_filter, raw)


def random_filter(rng, family_, depth):  # noqa: PLR0911 - one return a case
    roll = rng.random()
    if depth and roll < 0.4:
        parts = [random_filter(rng, family_, depth - 1) for _ in range(rng.randint(1, 3))]
        kind, name = rng.choice([(AllOf, "and"), (AnyOf, "or"), (AnyOf, "or")])
        return kind(tuple(part for part, _ in parts)), (name, [raw for _, raw in parts])
    if depth and roll < 0.6:
        part, raw = random_filter(rng, family_, depth - 1)
        return Not(part), ("not", raw)
    field = rng.choice(family_.resource["fields"])
    name = field["name"]
    inner = field["type"]
    if isinstance(inner, list):
        inner = next((b for b in inner if b != "null"), "null") if len(inner) == 2 and "null" in inner else None
    values = [
        literal(value, inner)
        for value in rng.sample(family_.samples.get(name, []), min(4, len(family_.samples.get(name, []))))
    ]
    values = [value for value in values if value is not None]
    if not values or rng.random() < 0.1:
        return Exists(name), ("exists", name)
    (said, meant), ordered = values[0], sorted(values, key=lambda pair: pair[1])
    match rng.randint(0, 4):
        case 0:
            return Compare("eq", name, said), ("eq", name, meant)
        case 1:
            return Compare("ne", name, said), ("ne", name, meant)
        case 2 if not is_enum(inner) and not isinstance(meant, bool):
            (low, raw_low), (high, raw_high) = ordered[0], ordered[-1]
            low, raw_low = (low, raw_low) if rng.random() < 0.6 or raw_low == raw_high else (None, None)
            high, raw_high = (high, raw_high) if (raw_low is None or raw_high > raw_low) else (None, None)
            return Range(name, low, high), ("range", name, raw_low, raw_high)
        case 3 if inner in ("string", {"type": "string", "logicalType": "uuid"}) and said:
            return Prefix(name, said[:2]), ("prefix", name, meant[:2])
    return Member(name, tuple(s for s, _ in values)), ("in", name, [m for _, m in values])


def is_enum(avro):
    return isinstance(avro, dict) and avro["type"] == "enum"


def literal(value, avro):  # noqa: PLR0911 - one return a case
    """Return how a filter says a raw value, and the raw value as the naive view compares it; None where it cannot."""
    if value is None or avro is None:
        return None
    logical = avro.get("logicalType", "") if isinstance(avro, dict) else ""
    match avro if isinstance(avro, str) else avro["type"]:
        case "string" | "enum" | "boolean":
            return value, value
        case "int" | "long" if not logical:
            return (value if abs(value) < 2**53 else str(value)), value
        case "int" if logical == "date":
            return dt.date.fromordinal(value + 719_163).isoformat(), value
        case "long" if logical in SCALES:
            places = SCALES[logical]
            seconds, rest = divmod(value, 10**places)
            text = (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()[
                :19
            ] + f".{rest:0{places}}"
            return text + ("" if logical.startswith("local") else "Z"), value
        case "bytes" | "fixed" if logical == "decimal" and avro["precision"] < 28:
            return f"{Decimal(value).scaleb(-avro['scale']):f}", value
    return None


def plain(avro):
    """Return a schema without logical types, for fastavro to read raw values."""
    if isinstance(avro, list):
        return [plain(branch) for branch in avro]
    if isinstance(avro, dict):
        kept = {key: value for key, value in avro.items() if key not in {"logicalType", "precision", "scale"}}
        for key in ("type", "items", "values"):
            if key in kept and not isinstance(kept[key], str):
                kept[key] = plain(kept[key])
        if "fields" in kept:
            kept["fields"] = [plain(field) for field in kept["fields"]]
        return kept
    return avro
