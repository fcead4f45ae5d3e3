"""Directory values: departments and catalogue entries, with the rules of their sharing attributes. Pure.

A department's internal id is in every row, leaf and certificate; its name and its unified social credit code are
attributes with a history, because departments merge and are renamed.

A catalogue entry (政务信息资源目录) describes one resource in one major version of its schema. Its sharing attribute
obeys the State Council's regulation on sharing government data (decree 809):

    unconditional   shared as it is: no condition may be added                               Art. 14, 15
    conditional     scope of sharing and purpose of use are mandatory                        Art. 15
    none            the reason and its legal basis are mandatory: a law, an administrative   Art. 14, 15
                    regulation or a decision of the State Council
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from registry.avro.field_rules import Rule, Verdict
from registry.directory.government_level import DepartmentKind, GovernmentLevel, Zone
from schemas.access import Level
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "PUBLIC_STATES",
    "CatalogueEntry",
    "Department",
    "DepartmentKind",
    "DepartmentStatus",
    "EntryState",
    "GovernmentLevel",
    "KeptHistory",
    "ShareType",
    "Zone",
    "is_uscc",
]

_DIVISION = re.compile(r"\d{6}(?:\d{3}(?:\d{3})?)?", re.ASCII)  # GB/T 2260; 9 and 12 digits for township and village
_NATIONAL = re.compile(r"[123]\d{2}\d{3}\d*/\d+", re.ASCII)  # compilation guide of 2017: 类 项 目 细目 / serial
_USCC = Rule("uscc", "uscc", ())
_STEP = re.compile(r"([1-9]\d{0,3})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_STEP = 31 * 86_400  # seconds
_MAX_DAYS = 36_500
_ALONE = frozenset({DepartmentKind.CONTRACTOR, DepartmentKind.PUBLIC})
_MAX_TEXT = 2000  # characters of a title, a condition or a reason


class DepartmentStatus(StrEnum):
    """Status of a department; only an active one may act, and a merged one names its successor."""

    ACTIVE = "active"
    MERGED = "merged"
    ABOLISHED = "abolished"


class ShareType(StrEnum):
    """Sharing attribute (共享属性): 无条件共享, 有条件共享, 不予共享."""

    UNCONDITIONAL = "unconditional"
    CONDITIONAL = "conditional"
    NONE = "none"


class EntryState(StrEnum):
    """State of an entry. Records are accepted and granted only while it is published."""

    DRAFT = "draft"
    PUBLISHED = "published"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


PUBLIC_STATES: Final = frozenset({EntryState.PUBLISHED, EntryState.SUSPENDED})
"""States in which every department may see an entry; one in another state is its provider's and the authority's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Department:
    """One version of a department.

    Attributes:
        id: internal id, forever. version: 1, 2, 3 …
        uscc: unified social credit code (统一社会信用代码), 18 characters.
        name, short_name: in Chinese, such as 某市公安局 and 公安局.
        division_code: administrative division (GB/T 2260), 6, 9 or 12 digits.
        zone: network zone; its connectors' calls come from there.
        successor: id of the department that took over, for a merged one.
        parent: id of the department above it (`registry.directory.hierarchy`); of a contractor, of the one that
            commissioned it; None = the top of a tree.
        kinds: what it does in the pool, each once; a department of before this field provides and consumes.
        contract_ends: when the contract of a contractor ends, aware; from then on nobody acts for it.
        office_head, office_deputy: accounts of the head of its sharing office (共享工作机构, decree 809, Art. 11)
            and of the deputy; empty = not named.
        security_officer: account of its security officer; empty = not named.

    Raises:
        InvalidError: NAME_INVALID, for a malformed code or name; REQUEST_INVALID, for kinds that do not go together, a
            contractor without a department above it or an end, or an end for another.
    """

    id: str
    version: int = 1
    uscc: str
    name: str
    short_name: str
    level: GovernmentLevel
    division_code: str
    zone: Zone = Zone.DEFAULT
    status: DepartmentStatus = DepartmentStatus.ACTIVE
    successor: str | None = None
    parent: str | None = None
    kinds: tuple[DepartmentKind, ...] = (DepartmentKind.PROVIDER, DepartmentKind.CONSUMER)
    contract_ends: datetime | None = None
    office_head: str = ""
    office_deputy: str = ""
    security_officer: str = ""

    def __post_init__(self) -> None:
        if not is_uscc(self.uscc):
            raise InvalidError(
                Reason.NAME_INVALID,
                "got a credit code that fails its check digits; expected the 18 characters of GB 32100: compare "
                "it with the certificate",
            )
        if not _DIVISION.fullmatch(self.division_code):
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the division code {self.division_code[:20]!r}; expected 6, 9 or 12 digits (GB/T 2260)",
            )
        for what, text in (("name", self.name), ("short name", self.short_name)):
            _check_text(text, f"a department's {what}")
        if (self.status is DepartmentStatus.MERGED) != (self.successor is not None):
            raise InvalidError(
                Reason.REQUEST_INVALID, "a merged department, and only a merged one, names its successor"
            )
        self._check_kinds()

    def _check_kinds(self) -> None:
        kinds = {*self.kinds}
        if not kinds or len(kinds) != len(self.kinds) or (kinds & _ALONE and len(kinds) > 1):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the kinds {', '.join(self.kinds) or 'none'}; expected at least one, each once, and contractor "
                "and public each alone",
            )
        if self.is_contractor and (self.parent is None or self.contract_ends is None):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                "got a contractor without the department that commissioned it, or without an end of its contract; "
                "state both (decree 809, Art. 36)",
            )
        if self.contract_ends is not None and (not self.is_contractor or self.contract_ends.utcoffset() is None):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                "got the end of a contract for a department that is no contractor, or without an offset from UTC; "
                "expected an aware time, for a contractor alone",
            )

    @property
    def is_contractor(self) -> bool:
        """Whether it works for the department above it under a contract (受托方)."""
        return DepartmentKind.CONTRACTOR in self.kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHistory:
    """What a resource's topic keeps (保存期限): every record, those of some days, or the latest of each key.

    Attributes:
        days: records older than this are removed; None = no limit of time.
        latest: earlier records of a key are removed when there is a later one, some time after it.

    Raises:
        InvalidError: REQUEST_INVALID, for both at once, or another number than 1 to 36,500 days.
    """

    days: int | None = None
    latest: bool = False

    def __post_init__(self) -> None:
        if self.latest and self.days is not None:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                "got `latest` and a number of days; expected one of them: the latest record of a key is its present "
                "state, and would be gone when the days are over",
            )
        if self.days is not None and not 1 <= self.days <= _MAX_DAYS:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got {self.days} days of history; expected 1 to {_MAX_DAYS}, or `all`"
            )

    def __str__(self) -> str:
        return "latest" if self.latest else "all" if self.days is None else f"{self.days} days"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One version of a catalogue entry: an information resource (信息资源) in one major version of its schema.

    Attributes:
        topic: name and major; never changes. version: 1, 2, 3 … of this entry.
        title: Chinese name. abstract: a short description of what it holds.
        provider: id of the department that offers it.
        code: national resource code, such as `101001/000001`.
        share_type: see ShareType.
        share_scope, use_purpose: conditions, for `conditional`.
        refuse_reason, legal_basis: for `none`.
        level: grade of the resource; at least that of its highest field.
        history: what its topic keeps.
        zone: network zone; a draft has that of its provider.
        round_times_to: step to which the times of its records are rounded down when they are delivered, such as `15m`
            or `1d`; empty = they are exact. It never changes: a record's time is the same at every replay.

    Raises:
        InvalidError: NAME_INVALID or REQUEST_INVALID, saying what is missing or not allowed.
    """

    topic: Topic
    version: int = 1
    title: str
    abstract: str = ""
    provider: str
    code: str
    share_type: ShareType
    share_scope: str = ""
    use_purpose: str = ""
    refuse_reason: str = ""
    legal_basis: str = ""
    level: Level
    zone: Zone = Zone.DEFAULT
    round_times_to: str = ""
    history: KeptHistory = KeptHistory()
    state: EntryState = EntryState.DRAFT

    def __post_init__(self) -> None:
        _ = self.time_step
        _check_text(self.title, "an entry's title")
        if not _NATIONAL.fullmatch(self.code):
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the national resource code {self.code[:40]!r}; expected class, item, sub-item and serial, such "
                "as '101001/000001'",
            )
        mandatory = {
            ShareType.UNCONDITIONAL: (),
            ShareType.CONDITIONAL: ("share_scope", "use_purpose"),
            ShareType.NONE: ("refuse_reason", "legal_basis"),
        }[self.share_type]
        for name in ("share_scope", "use_purpose", "refuse_reason", "legal_basis"):
            given = bool(getattr(self, name).strip())
            if given != (name in mandatory):
                which = f"{name} is {'given' if given else 'missing'}"
                rule = "needs it" if name in mandatory else "must not have it"
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"{which}; an entry with share_type {self.share_type} {rule} (decree 809, Art. 15)",
                )

    @property
    def time_step(self) -> int:
        """Microseconds to which the times of its records are rounded down when they are delivered; 0 = exact.

        Raises:
            InvalidError: REQUEST_INVALID, the step is none.
        """
        if not self.round_times_to:
            return 0
        step = _STEP.fullmatch(self.round_times_to)
        seconds = int(step[1]) * _SECONDS[step[2]] if step is not None else 0
        if not 0 < seconds <= _LONGEST_STEP:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the step {self.round_times_to[:20]!r}; expected seconds, minutes, hours or days, 31 days at "
                "most, such as '15m' or '1d'",
            )
        return seconds * 1_000_000

    def is_visible_to(self, viewer: str | None) -> bool:
        """Return whether a department sees it: its own in every state, those of others while they are in force.

        Args:
            viewer: internal id of the department, empty for an account without one; None = who sees every entry.
        """
        return viewer in {None, self.provider} or self.state in PUBLIC_STATES

    @property
    def subject(self) -> str:
        """Subject under which the schemas of its records are registered."""
        return self.topic.subject


def is_uscc(code: str) -> bool:
    """Return whether text is a unified social credit code (GB 32100); early lawful codes pass too, as elsewhere."""
    return _USCC.check_text(code) is not Verdict.INVALID


def _check_text(text: str, what: str) -> None:
    if not text.strip() or len(text) > _MAX_TEXT:
        raise InvalidError(
            Reason.NAME_INVALID, f"{what} is empty or longer than {_MAX_TEXT} characters; expected some words"
        )
