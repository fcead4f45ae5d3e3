"""Schema resolution, reader against writer: where and why one schema cannot read what the other wrote. Pure.

Both schemas are walked in parallel, by the Avro specification's "Schema Resolution", on the schema's JSON itself, so
that each conflict has a JSON path that the author can find. The verdict is never used alone: `compatibility` asks
Avro's library.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NAMED_TYPES", "NamedTypes", "ReadConflict", "explain_conflicts", "full_alias"]

NAMED_TYPES = ("record", "error", "enum", "fixed")
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_PROMOTED = {  # reader's type → writer's types that it also reads
    "long": ("int",),
    "float": ("int", "long"),
    "double": ("int", "long", "float"),
    "string": ("bytes",),
    "bytes": ("string",),
}
_LOGICAL = ("logicalType", "precision", "scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConflict:
    """One conflict: something that a reader cannot read of what a writer wrote.

    Attributes:
        at: JSON path in the reader, such as `$.fields[3].type`. field: dotted name of the field, "" at the top.
        kind: one of avro's incompatibility types, or `reinterpretation`.
        detail: got and expected. library: the message of Avro's own checker.
    """

    at: str
    field: str
    kind: str
    detail: str
    library: str


@dataclass(frozen=True, slots=True)
class NamedTypes:
    """Schema JSON with the types that it defines, by full name."""

    root: Any
    types: Mapping[str, Any]
    namespaces: Mapping[int, str] = field(repr=False)  # id of a defining node → the namespace within it

    @classmethod
    def of(cls, root: Any) -> "NamedTypes":
        """Collect the named types of a valid schema."""
        types: dict[str, Any] = {}
        namespaces: dict[int, str] = {}
        _collect(root, "", types, namespaces)
        return cls(root, types, namespaces)

    def resolve(self, node: Any, namespace: str) -> tuple[Any, str]:
        """Follow a name or a wrapping `{"type": …}` to the type itself; return it and the namespace within it."""
        while True:
            if isinstance(node, str):
                if node in _PRIMITIVES:  # a primitive type has no namespace and is never redefined (Avro 1.12, "Names")
                    return node, namespace
                target = self.types.get(node if "." in node else _join(namespace, node), self.types.get(node))
                if target is None:
                    return node, namespace
                node = target
            elif isinstance(node, dict) and not isinstance(node["type"], str):
                node = node["type"]
            elif isinstance(node, dict):
                kind = node["type"]
                if kind in NAMED_TYPES:
                    return node, self.namespaces[id(node)]
                if kind in ("array", "map") or kind in _PRIMITIVES:
                    return node, namespace
                if kind not in self.types and _join(namespace, kind) not in self.types:
                    return node, namespace
                node = kind
            else:
                return node, namespace

    def fullname(self, node: Mapping[str, Any], namespace: str) -> str:
        """Return the full name of a resolved named type."""
        name: str = node["name"]
        return name if "." in name else _join(namespace, name)


def explain_conflicts(reader: NamedTypes, writer: NamedTypes) -> list[ReadConflict]:
    """Return every conflict between *reader* and *writer*, in the reader's order."""
    return _ConflictWalk(reader, writer).compare(reader.root, "", writer.root, "", "$", "")


def full_alias(alias: str, namespace: str) -> str:
    """Return the full name that an alias stands for: a relative one is in the namespace of its type's name."""
    return alias if "." in alias else _join(namespace, alias)


def _join(namespace: str, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


def _collect(node: Any, namespace: str, types: dict[str, Any], namespaces: dict[int, str]) -> None:
    if isinstance(node, list):
        for branch in node:
            _collect(branch, namespace, types, namespaces)
    elif isinstance(node, dict):
        kind = node.get("type")
        if kind in NAMED_TYPES:
            name = str(node["name"])
            own = name.rpartition(".")[0] if "." in name else str(node.get("namespace", namespace) or "")
            types[_join(own, name.rpartition(".")[2])] = node
            namespaces[id(node)] = own
            for item in node.get("fields", ()):
                _collect(item["type"], own, types, namespaces)
        elif kind == "array":
            _collect(node["items"], namespace, types, namespaces)
        elif kind == "map":
            _collect(node["values"], namespace, types, namespaces)
        elif not isinstance(kind, str):
            _collect(kind, namespace, types, namespaces)


def _kind(node: Any) -> str:
    if isinstance(node, list):
        return "union"
    return str(node["type"]) if isinstance(node, dict) else str(node)


class _ConflictWalk:
    """One comparison. Pairs already compared, or being compared (recursive types), are skipped."""

    def __init__(self, reader: NamedTypes, writer: NamedTypes) -> None:
        self._reader = reader
        self._writer = writer
        self._open: set[tuple[int, int]] = set()
        self._done: dict[tuple[int, int], list[ReadConflict]] = {}

    def compare(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> list[ReadConflict]:
        left, left_ns = self._reader.resolve(left, left_ns)
        right, right_ns = self._writer.resolve(right, right_ns)
        if not isinstance(left, dict) or not isinstance(right, dict) or left["type"] not in NAMED_TYPES:
            return list(self._pair(left, left_ns, right, right_ns, at, name))
        pair = (id(left), id(right))
        if pair in self._open:
            return []
        if pair not in self._done:
            self._open.add(pair)
            self._done[pair] = list(self._pair(left, left_ns, right, right_ns, at, name))
            self._open.discard(pair)
        return self._done[pair]

    def _pair(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> Iterator[ReadConflict]:
        left_kind, right_kind = _kind(left), _kind(right)
        if right_kind == "union":
            for branch in right:
                yield from self.compare(left, left_ns, branch, right_ns, at, name)
        elif left_kind == "union":
            yield from self._union(left, left_ns, right, right_ns, at, name)
        elif left_kind == right_kind:
            yield from _reinterpreted(left, right, at, name)
            yield from self._same(left, left_ns, right, right_ns, at, name)
        elif right_kind in _PROMOTED.get(left_kind, ()):
            yield from _reinterpreted(left, right, at, name)
        else:
            yield ReadConflict(
                at=at,
                field=name,
                kind="type_mismatch",
                detail=f"the reader expects {left_kind}, the writer wrote {right_kind}",
                library=f"reader type: {left_kind} not compatible with writer type: {right_kind}",
            )

    def _union(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> Iterator[ReadConflict]:
        tries = []
        # A branch of the writer's own type takes precedence over promotion, as in Java's and Python's library.
        kinds = [_kind(self._reader.resolve(branch, left_ns)[0]) for branch in left]
        for index, branch in sorted(enumerate(left), key=lambda each: kinds[each[0]] != _kind(right)):
            found = self.compare(branch, left_ns, right, right_ns, f"{at}[{index}]", name)
            if all(item.kind == "reinterpretation" for item in found):
                yield from found
                return
            if kinds[index] == _kind(right):
                tries.append(found)
        if len(tries) == 1:
            # One branch was meant; the conflict within it helps more than "no branch fits".
            yield from tries[0]
            return
        listed = ", ".join(kinds)
        yield ReadConflict(
            at=at,
            field=name,
            kind="missing_union_branch",
            detail=f"the reader's union of {listed} has no branch for what the writer wrote: {_kind(right)}",
            library=f"reader union lacking writer type: {_kind(right).upper()}",
        )

    def _same(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> Iterator[ReadConflict]:
        kind = _kind(left)
        if kind == "array":
            yield from self.compare(left["items"], left_ns, right["items"], right_ns, f"{at}.items", name)
        elif kind == "map":
            yield from self.compare(left["values"], left_ns, right["values"], right_ns, f"{at}.values", name)
        elif kind in NAMED_TYPES:
            yield from self._names(left, left_ns, right, right_ns, at, name)
            if kind == "fixed" and left["size"] != right["size"]:
                yield ReadConflict(
                    at=f"{at}.size",
                    field=name,
                    kind="fixed_size_mismatch",
                    detail=f"the reader expects {left['size']} bytes, the writer wrote {right['size']}",
                    library=f"expected: {right['size']}, found: {left['size']}",
                )
            elif kind == "enum":
                yield from _symbols(left, right, at, name)
            elif kind in ("record", "error"):
                yield from self._fields(left, left_ns, right, right_ns, at, name)

    def _names(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> Iterator[ReadConflict]:
        expected = self._writer.fullname(right, right_ns)
        # As in Java's library: the short names agree, or the reader has the full name as an alias. A relative alias is
        # in the namespace of its name (Avro 1.12, "Aliases").
        aliases = {full_alias(each, left_ns) for each in map(str, left.get("aliases", ()))}
        if left["name"].rpartition(".")[2] != expected.rpartition(".")[2] and expected not in aliases:
            yield ReadConflict(
                at=f"{at}.name",
                field=name,
                kind="name_mismatch",
                detail=f"the reader's {_kind(left)} is called {self._reader.fullname(left, left_ns)}, the writer's "
                f"{expected}; give the reader that name or an alias",
                library=f"expected: {expected}",
            )

    def _fields(self, left: Any, left_ns: str, right: Any, right_ns: str, at: str, name: str) -> Iterator[ReadConflict]:
        written = {item["name"]: item for item in right["fields"]}
        for index, item in enumerate(left["fields"]):
            here = f"{at}.fields[{index}]"
            path = f"{name}.{item['name']}" if name else str(item["name"])
            source = next((written[key] for key in (item["name"], *item.get("aliases", ())) if key in written), None)
            if source is not None:
                yield from self.compare(item["type"], left_ns, source["type"], right_ns, f"{here}.type", path)
            elif "default" not in item:
                yield ReadConflict(
                    at=here,
                    field=path,
                    kind="reader_field_missing_default_value",
                    detail="the reader's field is not in what the writer wrote and has no default; give it one",
                    library=str(item["name"]),
                )


def _symbols(left: Any, right: Any, at: str, name: str) -> Iterator[ReadConflict]:
    extra = sorted(set(right["symbols"]) - set(left["symbols"]))
    if extra and left.get("default") not in left["symbols"]:
        yield ReadConflict(
            at=f"{at}.symbols",
            field=name,
            kind="missing_enum_symbols",
            detail=f"the reader's enum lacks {', '.join(extra)} and has no default symbol",
            library="{" + ", ".join(repr(symbol) for symbol in extra) + "}",
        )


def _reinterpreted(left: Any, right: Any, at: str, name: str) -> Iterator[ReadConflict]:
    """Yield a conflict where a logical type changes its meaning while its bytes stay readable."""
    mine = [left.get(key) if isinstance(left, dict) else None for key in _LOGICAL]
    theirs = [right.get(key) if isinstance(right, dict) else None for key in _LOGICAL]
    if mine[0] == theirs[0] == "decimal":
        changed = (mine[1], mine[2] or 0) != (theirs[1], theirs[2] or 0)
    else:
        changed = mine[0] != theirs[0]
    if changed:
        yield ReadConflict(
            at=at,
            field=name,
            kind="reinterpretation",
            detail=f"the reader takes the bytes for {_logical(left, mine)}, the writer meant {_logical(right, theirs)}",
            library=f"logical type {_logical(left, mine)} against {_logical(right, theirs)}",
        )


def _logical(node: Any, facts: list[Any]) -> str:
    if facts[0] is None:
        return f"plain {_kind(node)}"
    return f"decimal({facts[1]},{facts[2] or 0})" if facts[0] == "decimal" else str(facts[0])
