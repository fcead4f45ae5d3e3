"""A view as one would write it down: on dicts, record after record, by fastavro. Shares nothing with the product.

A filter is a nested tuple over raw Avro values (a date is its day number, a decimal its unscaled int):
("eq" | "ne" | "prefix", field, value), ("in", field, values), ("range", field, low, high), ("exists", field),
("and" | "or", parts), ("not", part).
"""

import datetime as dt
import io
import math

import fastavro

EPOCH = dt.date(1970, 1, 1).toordinal()
HEAD_TAIL_LEAST_FILL = {
    "keep_3_4": (3, 4, 11, "*"),
    "phone_3_4": (3, 4, 11, "*"),
    "name_first": (1, 0, 2, "*"),
    "div_city": (4, 0, 6, "0"),
}


def naive_view(rows, writers, reader, view, masks, keep):
    """Return (delivered dicts, state of each row) for framed rows; `writers` by id, no logical types."""
    delivered, states = [], []
    for row in rows:
        if not row:
            states.append("void")
            continue
        writer = writers[int.from_bytes(row[1:5], "big")]
        record = fastavro.schemaless_reader(io.BytesIO(row[5:]), writer, reader)
        written = {field["name"] for field in writer["fields"]}
        if keep is None or truth(keep, {name: record[name] for name in record if name in written}) is True:
            states.append("delivered")
            delivered.append({name: mask(masks.get(name), record[name]) for name in view})
        else:
            states.append("unmatched")
    return delivered, states


def truth(keep, record):  # noqa: PLR0911 - one return a form
    """Return True, False or None (unknown)."""
    form, *rest = keep
    if form in ("and", "or"):
        parts = [truth(part, record) for part in rest[0]]
        stop = form == "or"
        return stop if stop in parts else None if None in parts else not stop
    if form == "not":
        inner = truth(rest[0], record)
        return None if inner is None else not inner
    value = record.get(rest[0])
    if form == "exists":
        return value is not None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = int.from_bytes(value, "big", signed=True)
    match form, *rest[1:]:
        case "eq", other:
            return value == other
        case "ne", other:
            return value != other
        case "in", others:
            return value in others
        case "prefix", start:
            return value.startswith(start)
        case "range", low, high:
            return (low is None or value >= low) and (high is None or value < high)


def mask(rule, value):
    """Return what is shown of a value; a date is its day number."""
    if rule is None or value is None:
        return value
    if rule == "year_only":
        return dt.date.fromordinal(value + EPOCH).replace(month=1, day=1).toordinal() - EPOCH
    head, tail, least, fill = HEAD_TAIL_LEAST_FILL[rule]
    if len(value) < least:
        return "*" * len(value)
    return value[:head] + fill * (len(value) - head - tail) + value[len(value) - tail :]
