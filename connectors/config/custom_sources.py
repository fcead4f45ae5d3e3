"""Sources of other packages: entry points of the group `exchange_pool.sources` (Python Packaging, "Entry points").

A department's own reader is a package that is installed beside this one. It names a function:

    [project.entry-points."exchange_pool.sources"]
    xml-export = "our_register:make_source"

    def make_source(options: Mapping[str, object], dataset: str) -> SnapshotSource: …

which builds the source of one publication from `source.options`, and from `table:` of the publication where it has one.
Nothing is loaded but what an administrator has installed; `lint` says what there is.
"""

import difflib
from importlib.metadata import EntryPoint, entry_points

from schemas.errors import InvalidError, Reason

__all__ = ["GROUP", "find_source"]

GROUP = "exchange_pool.sources"


def find_source(name: str) -> EntryPoint:
    """Return the entry point of a source; it is not loaded.

    Raises:
        InvalidError: CONFIG_INVALID, none is installed under this name.
    """
    found = {each.name: each for each in entry_points(group=GROUP)}
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1, cutoff=0.6)
        known = f"there are {', '.join(sorted(found))}" if found else "there is none"
        meant = f' - did you mean "{close[0]}"?' if close else ""
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"no source is installed under the name {name[:40]!r}; {known}{meant} Install the package that has it, "
            f"with an entry point in {GROUP}",
        )
    return found[name]
