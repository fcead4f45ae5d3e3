"""Schema library: the Avro record types that ship with the pool, by name.

    base    the eight record types of the base libraries and of the examples (基础库), for departments to publish
            under as they are or to copy
    pool    the pool's own documents as Avro, for export

Only the text is returned; the registry's parser parses it. So this package needs the standard library alone.
"""

from importlib.resources import files

from schemas.errors import InvalidError, Reason

__all__ = ["names", "text"]

_FOLDERS = ("base", "pool")


def names() -> list[str]:
    """Return every bundled name, sorted, as `folder/name`, such as `base/population`."""
    found = []
    for name in _FOLDERS:
        folder = files("schemas") / "avro" / name
        if folder.is_dir():
            found += [f"{name}/{item.name[:-5]}" for item in folder.iterdir() if item.name.endswith(".avsc")]
    return sorted(found)


def text(name: str) -> str:
    """Return the .avsc text of a bundled record type.

    Args:
        name: `base/population`, or `population` for short: a name without a folder is looked up in both.

    Raises:
        InvalidError: NOT_FOUND; the message lists what there is.
    """
    for full in names():
        if name in (full, full.partition("/")[2]):
            return (files("schemas") / "avro" / f"{full}.avsc").read_text(encoding="utf-8")
    raise InvalidError(Reason.NOT_FOUND, f"got the record type {name[:80]!r}; expected one of {', '.join(names())}")
