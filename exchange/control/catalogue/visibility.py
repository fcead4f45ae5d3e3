"""Visibility of catalogue entries: which of them, and which versions of their metadata, an actor sees. Pure.

An entry in force is for everybody: it is announced (decree 809, Art. 12 and 16). A draft, one in review and one that
has ended are the business of its provider, of the data authority that reviews it, and of auditors.
"""

from typing import Final

from schemas.access import Actor, Role

__all__ = ["viewer_of"]

_SEE_ALL: Final = frozenset({Role.DATA_AUTHORITY, Role.AUDITOR})


def viewer_of(actor: Actor) -> str | None:
    """Return for whom an actor looks (`CatalogueEntry.is_visible_to`): its department; None = it sees every entry."""
    return None if actor.role in _SEE_ALL else actor.department
