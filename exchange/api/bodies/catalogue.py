"""Bodies of the catalogue: entries, what a resource keeps, schemas."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from exchange.api.bodies.base import Body, check_characters
from registry.directory.model import CatalogueEntry, KeptHistory, ShareType
from schemas.access import Level
from schemas.canonical import Json
from schemas.names import Topic

__all__ = ["DaysBody", "EntryBody", "HistoryBody", "HistoryField", "SchemaBody", "TimesBody", "entry_json"]


class TimesBody(Body):
    """How exactly the times of a resource's records are delivered."""

    round_to: str = Field(description="step, such as 15m, 1h or 1d; the times are rounded down to it, and stay so")


class DaysBody(Body):
    """Days for which records are kept."""

    days: int


HistoryField = Literal["all", "latest"] | DaysBody


class HistoryBody(Body):
    """What a resource keeps (保存期限): `all`, `latest`, or `{"days": n}`."""

    history: HistoryField

    def to_history(self) -> KeptHistory:
        """Return it as the catalogue has it.

        Raises:
            InvalidError: REQUEST_INVALID, for another number of days than 1 to 36,500.
        """
        return _history(self.history)


class EntryBody(Body):
    """A catalogue entry to draft (decree 809, Art. 13 to 15)."""

    topic: str
    title: str
    abstract: str = ""
    code: str
    share_type: ShareType
    share_scope: str = ""
    use_purpose: str = ""
    refuse_reason: str = ""
    legal_basis: str = ""
    level: str = Field(pattern="^(G[1-4]|IMP)$")
    times: TimesBody | None = None
    history: HistoryField = "all"

    def to_entry(self, provider: str) -> CatalogueEntry:
        """Return the entry of a provider.

        Raises:
            InvalidError: NAME_INVALID or REQUEST_INVALID.
        """
        members = self.model_dump(exclude={"topic", "level", "times", "history"})
        return CatalogueEntry(
            topic=Topic.parse(self.topic),
            level=Level[self.level],
            provider=provider,
            history=_history(self.history),
            round_times_to="" if self.times is None else self.times.round_to,
            **members,
        )


class SchemaBody(BaseModel):
    """An Avro schema, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    text: str

    @field_validator("text")
    @classmethod
    def _has_characters(cls, text: str) -> str:
        return check_characters(text, "text")


def entry_json(entry: CatalogueEntry) -> dict[str, Json]:
    """Return a catalogue entry's document."""
    return {
        "topic": str(entry.topic),
        "version": entry.version,
        "title": entry.title,
        "abstract": entry.abstract,
        "provider": entry.provider,
        "code": entry.code,
        "share_type": str(entry.share_type),
        "share_scope": entry.share_scope,
        "use_purpose": entry.use_purpose,
        "refuse_reason": entry.refuse_reason,
        "legal_basis": entry.legal_basis,
        "level": entry.level.name,
        "zone": str(entry.zone),
        "state": str(entry.state),
        "history": {"days": entry.history.days} if entry.history.days is not None else str(entry.history),
        **({"times": {"round_to": entry.round_times_to}} if entry.round_times_to else {}),
    }


def _history(field: HistoryField) -> KeptHistory:
    if isinstance(field, DaysBody):
        return KeptHistory(days=field.days)
    return KeptHistory(latest=field == "latest")
