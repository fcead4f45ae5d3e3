"""Access list of a role: which secret keys its processes read. Values alone, without the keys or their files."""

from dataclasses import dataclass

__all__ = ["SecretsOfRole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsOfRole:
    """What a role reads: K_topic of every resource, K_grant of every grant, K_audit of every epoch, and named keys."""

    topic: bool = False
    grant: bool = False
    audit: bool = False
    named: frozenset[str] = frozenset()
