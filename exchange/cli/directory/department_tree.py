"""Tree of departments for a terminal: each under the one above it. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exchange.cli.output import is_damaged

__all__ = ["describe_tree", "tree_of"]

_MEMBERS = ("id", "short_name", "level", "division_code", "kinds", "zone")


def tree_of(departments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the active departments, each with those under it in `under`.

    One whose superior is not among them, since it ended or its row is damaged, is at the top.
    """
    active = {one["id"]: one for one in departments if not is_damaged(one) and one["status"] == "active"}
    nodes = {key: {name: one[name] for name in _MEMBERS} | {"under": []} for key, one in active.items()}
    top: list[dict[str, Any]] = []
    for key in sorted(nodes, key=lambda one: (nodes[one]["division_code"], nodes[one]["short_name"], one)):
        above = nodes.get(active[key]["parent"] or "")
        (top if above is None else above["under"]).append(nodes[key])
    return top


def describe_tree(tree: Iterable[Mapping[str, Any]], depth: int = 0) -> Iterator[str]:
    """Return a line for each department, indented by the number of those above it."""
    for one in tree:
        kinds = ", ".join(one["kinds"])
        yield f"{'  ' * depth}{one['short_name']}  {one['level']} {one['division_code']}  {kinds}  ({one['id']})"
        yield from describe_tree(one["under"], depth + 1)
