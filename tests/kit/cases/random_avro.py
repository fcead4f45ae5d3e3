"""Random Avro schemas and data, and a naive encoder that shares nothing with the product.

`random_record` gives a schema as JSON, `random_value` a value of a type in plain Python, `encode` its bytes by the
letter of the specification. Values: a record is a dict, a union (branch, value), a map a list of pairs, a decimal an
unscaled int, an enum its symbol, float and double their bytes, everything else what one expects.

The generators take a `random.Random`, so that a property test gives them one seeded by hypothesis:

    @given(st.randoms(use_true_random=False))
    def test_x(rng): schema = random_record(rng)
"""

import random
import struct
from typing import Any

__all__ = ["POPULATION", "encode", "id18", "population", "random_datum", "random_record", "random_value", "write_long"]

_WORDS = ["", "a", "ward 6", "王小明", "北京市朝阳区", "x" * 70, "é", "\U0001f600", "\x00", "110105"]
_EDGES = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31)]
_DAYS = (-719_162, 2_932_896)
_SECONDS = (-719_162 * 86_400, 2_932_897 * 86_400 - 1)


class _Names:
    def __init__(self) -> None:
        self.count = 0

    def next(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def random_record(rng: random.Random, *, depth: int = 3, fields: int = 6, recursive: bool = False) -> dict[str, Any]:
    """Return a record schema; with `recursive`, one with a field that refers to the record itself."""
    names = _Names()
    record = _record(rng, names, depth, max(1, rng.randint(1, fields)))
    if recursive:
        inner: Any = ["null", record["name"]]
        if rng.random() < 0.5:
            inner = {"type": rng.choice(["array", "map"]), "items": record["name"], "values": record["name"]}
        record["fields"].insert(rng.randint(0, len(record["fields"])), {"name": "again", "type": inner})
    return record


def _record(rng: random.Random, names: _Names, depth: int, count: int) -> dict[str, Any]:
    fields = [{"name": f"f{index}", "type": _type(rng, names, depth)} for index in range(count)]
    return {"type": "record", "name": names.next("R"), "fields": fields}


def _leaf(rng: random.Random, names: _Names) -> Any:
    precision = rng.choice([1, 5, 18, 19, 38, 39, 76])
    scale = rng.randint(0, precision)
    return rng.choice(
        [
            "boolean",
            "int",
            "long",
            "float",
            "double",
            "string",
            "string",
            "bytes",
            {"type": "int", "logicalType": "date"},
            {"type": "int", "logicalType": "time-millis"},
            {"type": "long", "logicalType": "time-micros"},
            {"type": "long", "logicalType": "timestamp-millis"},
            {"type": "long", "logicalType": "timestamp-micros"},
            {"type": "long", "logicalType": "timestamp-nanos"},
            {"type": "long", "logicalType": "local-timestamp-millis"},
            {"type": "long", "logicalType": "local-timestamp-micros"},
            {"type": "string", "logicalType": "uuid"},
            {"type": "enum", "name": names.next("E"), "symbols": [f"S{i}" for i in range(rng.choice([1, 2, 70]))]},
            {"type": "fixed", "name": names.next("F"), "size": rng.choice([1, 4, 8, 12, 16, 20, 3])},
            {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale},
            {
                "type": "fixed",
                "name": names.next("D"),
                "size": rng.choice([4, 8, 12, 16]),
                "logicalType": "decimal",
                "precision": 9,
                "scale": 2,
            },
        ]
    )


def _type(rng: random.Random, names: _Names, depth: int, inside_union: bool = False) -> Any:
    roll = rng.random()
    if depth == 0 or roll < 0.45:
        return _leaf(rng, names)
    if roll < 0.65 and not inside_union:
        inner = _type(rng, names, depth - 1, inside_union=True)
        return ["null", inner] if rng.random() < 0.7 else [inner, "null"]
    if roll < 0.75 and not inside_union:
        return _union(rng, names, depth)
    if roll < 0.85:
        return {"type": "array", "items": _type(rng, names, depth - 1)}
    if roll < 0.92:
        return {"type": "map", "values": _type(rng, names, depth - 1)}
    return _record(rng, names, depth - 1, rng.randint(1, 3))


def _union(rng: random.Random, names: _Names, depth: int) -> list[Any]:
    branches: list[Any] = []
    kinds: set[str] = set()
    for _ in range(rng.randint(1, 5)):
        branch = "null" if rng.random() < 0.2 else _type(rng, names, depth - 1, inside_union=True)
        kind = branch if isinstance(branch, str) else branch.get("name", branch["type"])
        if kind not in kinds:  # one branch a type, named types apart
            kinds.add(kind)
            branches.append(branch)
    return branches


def _definitions(avro_type: Any) -> dict[str, Any]:
    """Return every named type that a type defines, by name."""
    found: dict[str, Any] = {}
    todo = [avro_type]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            todo.extend(each)
        elif isinstance(each, dict):
            if "name" in each:
                found[each["name"]] = each
            todo.extend([field["type"] for field in each.get("fields", [])])
            todo.extend(each[part] for part in ("items", "values") if part in each)
    return found


def random_value(  # noqa: PLR0911 - one way out a type
    rng: random.Random, avro_type: Any, named: dict[str, Any] | None = None, depth: int = 0
) -> Any:
    """Return a value of a type."""
    named = named if named is not None else _definitions(avro_type)
    if isinstance(avro_type, list):
        short = [i for i, branch in enumerate(avro_type) if branch == "null"] if depth > 4 else []
        branch = rng.choice(short or range(len(avro_type)))
        return branch, random_value(rng, avro_type[branch], named, depth + 1)
    if isinstance(avro_type, str) and avro_type in named:
        return random_value(rng, named[avro_type], named, depth + 1)
    kind = avro_type if isinstance(avro_type, str) else avro_type["type"]
    more = avro_type if isinstance(avro_type, dict) else {}
    count = 0 if depth > 4 else rng.choice([0, 0, 1, 2, 3])
    match kind:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "int" | "long":
            return _integer(rng, kind, more.get("logicalType", ""))
        case "float":
            return struct.pack("<I", rng.choice([0, 0x7FC00001, 0x7F800001, 0xFF800000, rng.getrandbits(32)]))
        case "double":
            return struct.pack("<Q", rng.choice([0, 0x7FF8000000000001, 0x7FF0000000000001, rng.getrandbits(64)]))
        case "string":
            return rng.choice(_WORDS)
        case "bytes" | "fixed" if more.get("logicalType") == "decimal":
            limit = 10 ** rng.randint(0, more["precision"])
            return rng.randint(1 - limit, limit - 1)
        case "bytes":
            return rng.randbytes(rng.choice([0, 1, 5, 70]))
        case "fixed":
            return rng.randbytes(more["size"])
        case "enum":
            return rng.choice(more["symbols"])
        case "array":
            return [random_value(rng, more["items"], named, depth + 1) for _ in range(count)]
        case "map":
            return [(rng.choice(_WORDS), random_value(rng, more["values"], named, depth + 1)) for _ in range(count)]
        case _:
            return {field["name"]: random_value(rng, field["type"], named, depth + 1) for field in more["fields"]}


def _integer(rng: random.Random, kind: str, logical: str) -> int:
    if logical == "date":
        return rng.choice([0, *_DAYS, rng.randint(*_DAYS)])
    if logical.startswith("time-"):
        return rng.randint(0, 86_400 * (1_000 if logical.endswith("millis") else 1_000_000) - 1)
    if logical.endswith(("millis", "micros")):
        unit = 1_000 if logical.endswith("millis") else 1_000_000
        return rng.choice([0, rng.randint(_SECONDS[0] * unit, _SECONDS[1] * unit)])
    edges = _EDGES if kind == "int" else [*_EDGES, 2**63 - 1, -(2**63), 2**53 + 1]
    bits = 31 if kind == "int" else 63
    return rng.choice([*edges, rng.randint(-(2**bits), 2**bits - 1)])


def write_long(number: int) -> bytes:
    """Zig-zag, then seven bits a byte, lowest first."""
    number = number * 2 if number >= 0 else -number * 2 - 1
    out = []
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def encode(  # noqa: PLR0911 - one way out a type
    avro_type: Any, value: Any, named: dict[str, Any] | None = None
) -> bytes:
    """Encode a value by the letter of Avro 1.12, "Binary Encoding"; blocks as one, numbers in their shortest form."""
    named = named if named is not None else _definitions(avro_type)
    if isinstance(avro_type, list):
        return write_long(value[0]) + encode(avro_type[value[0]], value[1], named)
    if isinstance(avro_type, str) and avro_type in named:
        return encode(named[avro_type], value, named)
    kind = avro_type if isinstance(avro_type, str) else avro_type["type"]
    more = avro_type if isinstance(avro_type, dict) else {}
    match kind:
        case "null":
            return b""
        case "boolean":
            return bytes([value])
        case "int" | "long":
            return write_long(value)
        case "float" | "double":
            return value
        case "string":
            return write_long(len(value.encode())) + value.encode()
        case "fixed" if more.get("logicalType") == "decimal":
            return value.to_bytes(more["size"], "big", signed=True)
        case "bytes" if more.get("logicalType") == "decimal":
            size = 1
            while not -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
                size += 1
            return write_long(size) + value.to_bytes(size, "big", signed=True)
        case "bytes":
            return write_long(len(value)) + value
        case "fixed":
            return value
        case "enum":
            return write_long(more["symbols"].index(value))
        case "array":
            items = b"".join(encode(more["items"], item, named) for item in value)
            return (write_long(len(value)) + items if value else b"") + b"\0"
        case "map":
            items = b"".join(encode("string", key) + encode(more["values"], item, named) for key, item in value)
            return (write_long(len(value)) + items if value else b"") + b"\0"
        case _:
            return b"".join(encode(field["type"], value[field["name"]], named) for field in more["fields"])


def random_datum(rng: random.Random, schema: dict[str, Any]) -> bytes:
    """Return the Avro bytes of a random record of a schema."""
    return encode(schema, random_value(rng, schema))


# --- a record as large, and with as many fields, as a population register's -----------------------------------------

_DATE = {"type": "int", "logicalType": "date"}
_ID_TYPE = {"type": "enum", "name": "IdType", "symbols": ["ric18", "passport", "foreign_pr", "other"]}

POPULATION: dict[str, Any] = {
    "type": "record",
    "name": "population",
    "key": ["id_number"],
    "fields": [
        {"name": "id_type", "type": _ID_TYPE},
        {"name": "id_number", "type": "string", "check": {"rule": "cn_id18", "when": {"id_type": ["ric18"]}}},
        {"name": "full_name", "type": "string", "check": "not_empty"},
        {"name": "former_name", "type": ["null", "string"], "default": None},
        {"name": "sex_code", "type": "string", "codes": ["0", "1", "2", "9"]},
        {"name": "birth_date", "type": _DATE},
        {"name": "ethnicity_code", "type": "string"},
        {"name": "nationality_code", "type": "string"},
        {"name": "household_division_code", "type": "string"},
        {"name": "household_address", "type": "string"},
        {"name": "residence_address", "type": ["null", "string"], "default": None},
        {"name": "marital_status_code", "type": ["null", "string"], "default": None},
        {"name": "education_code", "type": ["null", "string"], "default": None},
        {"name": "mobile_phone", "type": ["null", "string"], "default": None, "check": "cn_mobile"},
        {"name": "guardian_id_number", "type": ["null", "string"], "default": None, "check": "cn_id18"},
        {"name": "is_minor_under_14", "type": "boolean"},
        {"name": "death_flag", "type": "boolean"},
        {"name": "death_date", "type": ["null", _DATE], "default": None},
        {"name": "disability_level_code", "type": ["null", "string"], "default": None},
        {"name": "portrait_digest", "type": ["null", "string"], "default": None},
    ],
}


def id18(rng: random.Random) -> str:
    """Return a citizen identity number whose date is real and whose check character fits."""
    head = f"{rng.choice(['110105', '440305', '330113'])}{rng.randint(1930, 2015)}"
    head += f"{rng.randint(1, 12):02}{rng.randint(1, 28):02}{rng.randint(0, 999):03}"
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(head))
    return head + "10X98765432"[total % 11]


def population(rng: random.Random) -> dict[str, Any]:
    """Return a person as a value of POPULATION, of some 270 bytes."""
    return {
        "id_type": "ric18",
        "id_number": id18(rng),
        "full_name": rng.choice(["王小明", "李四", "欧阳娜娜"]),
        "former_name": (0, None),
        "sex_code": rng.choice(["1", "2"]),
        "birth_date": rng.randint(-10_000, 15_000),
        "ethnicity_code": f"{rng.randint(1, 56):02}",
        "nationality_code": "CHN",
        "household_division_code": rng.choice(["110105", "440305"]),
        "household_address": f"北京市朝阳区某某街道某某路{rng.randint(1, 999)}号院四号楼",
        "residence_address": (1, f"北京市朝阳区某某街道某某路{rng.randint(1, 999)}号院四号楼"),
        "marital_status_code": (1, "20"),
        "education_code": (1, "31"),
        "mobile_phone": (1, f"1{rng.randint(3, 9)}{rng.randint(0, 999_999_999):09}"),
        "guardian_id_number": (0, None),
        "is_minor_under_14": False,
        "death_flag": False,
        "death_date": (0, None),
        "disability_level_code": (0, None),
        "portrait_digest": (1, f"sha256:{rng.getrandbits(220):055x}"),
    }
