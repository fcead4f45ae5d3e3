"""Notes of a source: what it has to know after a crash. Each publication's ledger keeps them."""

from typing import Protocol

__all__ = ["Notes"]


class Notes(Protocol):
    """Durable values by name (`connectors.state.ledger`)."""

    def meta(self, name: str) -> str:
        """Return a value; empty when there is none."""
        ...

    def set_meta(self, **values: str) -> None:
        """Store values, all or none."""
        ...
