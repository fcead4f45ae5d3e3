"""Roles of the pool's processes (`pool serve --role`)."""

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """What a process does."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    SEQUENCER = "sequencer"
