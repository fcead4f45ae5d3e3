"""The record types that ship with the pool, by name.

    base    the eight record types of the base libraries and of the examples (基础库), for departments to publish
            under as they are or to copy
    pool    the pool's own documents as Avro, for export

Only the text is given: whoever wants a parsed schema asks the registry's parser, so that this package keeps to
the standard library.
"""

from importlib.resources import files

from schemas.errors import InvalidError, Reason

__all__ = ["names", "text"]

_ROOMS = ("base", "pool")


def names() -> list[str]:
    """Return every bundled name, sorted, as `room/name`, such as `base/population`."""
    found = []
    for room in _ROOMS:
        folder = files("schemas") / "avro" / room
        if folder.is_dir():
            found += [f"{room}/{item.name[:-5]}" for item in folder.iterdir() if item.name.endswith(".avsc")]
    return sorted(found)


def text(name: str) -> str:
    """Return the .avsc text of a bundled record type.

    Args:
        name: `base/population`, or `population` for short: a name without a room is looked for in every room.

    Raises:
        InvalidError: NOT_FOUND; the message lists what there is.
    """
    for full in names():
        if name in (full, full.partition("/")[2]):
            return (files("schemas") / "avro" / f"{full}.avsc").read_text(encoding="utf-8")
    raise InvalidError(Reason.NOT_FOUND, f"got the record type {name[:80]!r}; expected one of {', '.join(names())}")
