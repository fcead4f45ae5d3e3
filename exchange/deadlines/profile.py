"""Rule profiles (规则集): limits, extensions and pauses as data, each with its clause. Pure.

A profile is what one law or one local rule says of the pool's deadlines: for each rule that it speaks of the limit,
what starts it, whether it can be extended and with whose consent, how it counts after a pause, and the clause that says
so. A `RuleBook` is the profiles that a pool follows, in the order of their precedence (效力): a rule is the one of the
first profile that has it.

    rules = RuleBook([municipal, decree_809, document_51])
    ruling = rules.rule(RuleId.REPLY_CONDITIONAL)
    clock = ruling.clock(received_at)                  a `Clock`, of which `due(calendar)` is the deadline
    act.note(**ruling.noted())                         rule, profile and version, in the entry of the decision
    clock = ruling.extended(clock, 5, at=now, calendar=calendar)

The code knows the ids of rules, and no limit: another profile changes every deadline with no code touched.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from exchange.deadlines.calendar import Calendar
from exchange.deadlines.clock import AfterPause, Clock, Due, Limit, Unit
from schemas.access import Role
from schemas.canonical import Json, canonical
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = [
    "Basis",
    "Extension",
    "PauseRule",
    "Rule",
    "RuleBook",
    "RuleId",
    "RuleProfile",
    "Ruling",
    "Words",
    "contradictions",
]


class RuleId(StrEnum):
    """A rule that code asks for. Append only: what entries of the log name keeps its meaning."""

    REPLY_UNCONDITIONAL = "reply.unconditional"  # 无条件共享申请的答复
    REPLY_CONDITIONAL = "reply.conditional"  # 有条件共享申请的答复
    CONFORMITY = "reply.conformity"  # 申请合规性审核
    SUPPLEMENT_NOTICE = "supplement.notice"  # 补正通知
    SUPPLEMENT_REPLY = "supplement.reply"  # 补正
    DELIVERY = "delivery"  # 数据提供
    DISPUTE = "dispute"  # 争议协调
    CATALOGUE_UPDATE = "catalogue.update"  # 目录更新
    CATALOGUE_REVIEW = "catalogue.review"  # 目录审核发布
    CORRECTION = "correction"  # 数据校核
    RECTIFICATION = "rectification"  # 整改
    DISPOSAL = "disposal"  # 数据销毁
    USE_RECORDS = "use_records"  # 使用记录保存
    DISCLOSURE_REPLY = "disclosure.reply"  # 依申请公开答复
    DISCLOSURE_SUPPLEMENT = "disclosure.supplement"  # 依申请公开补正通知
    DISCLOSURE_CONSULTATION = "disclosure.consultation"  # 第三方意见征询
    DISCLOSURE_PROACTIVE = "disclosure.proactive"  # 主动公开
    RISK_ASSESSMENT = "risk_assessment"  # 重要数据风险评估
    PUBLICITY_LEAST = "publicity.least"  # 信用信息最短公示期
    PUBLICITY_MOST = "publicity.most"  # 信用信息最长公示期


class Basis(StrEnum):
    """How well a rule is founded: no conformity is claimed for what is not read from the text."""

    TEXT = "text"  # the clause's own text was read
    EXCERPT = "excerpt"  # seen in an excerpt only
    ASSUMED = "assumed"  # a default; the text was not read
    LOCAL = "local"  # a local rule, where the law names no limit


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Text = Annotated[str, Field(min_length=1, max_length=500)]


class Words(_Part):
    """A text in both languages."""

    en: _Text
    zh: _Text


_LIMIT: Final = re.compile(r"(?P<amount>[0-9]{1,5}) (?P<unit>hour|day|working day|month|year)s?")


def _limit(value: object) -> object:
    if isinstance(value, Limit):
        return value
    found = _LIMIT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a limit such as `10 working days`, `24 hours`, `3 months` or `3 years`")
    return Limit(int(found["amount"]), Unit(found["unit"].replace(" ", "_") + "s"))


class Extension(_Part):
    """How a limit can be extended."""

    most: int = Field(ge=1, le=3660)  # in the unit of the limit, all extensions together
    times: int = Field(default=1, ge=1, le=12)
    consent: Role  # whose consent it needs
    clause: Words


class PauseRule(_Part):
    """How a clock counts after a pause."""

    then: AfterPause
    clause: Words
    basis: Basis


class Rule(_Part):
    """What a profile says of one rule."""

    text: Words  # what has to be done until then
    starts: Words  # the event that starts the clock
    limit: Annotated[Limit, BeforeValidator(_limit)]
    extension: Extension | None = None  # None: it cannot be extended
    pause: PauseRule | None = None  # None: its clock never stands still
    to_workday: bool = True  # a last day that is no working day moves to the next one
    clause: Words
    basis: Basis


class RuleProfile(_Part):
    """All that one law or local rule says."""

    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    version: int = Field(ge=1, le=1_000_000)  # one more with every change of a rule
    title: Words
    rules: dict[RuleId, Rule] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, as `sha256:` and 64 hexadecimal digits; comments and order do not matter."""
        content: dict[str, Json] = {
            "profile": self.profile,
            "version": self.version,
            "title": self.title.model_dump(),
            "rules": {str(rule_id): _plain(rule) for rule_id, rule in self.rules.items()},
        }
        return f"sha256:{hashlib.sha256(canonical(content)).hexdigest()}"


def _plain(rule: Rule) -> dict[str, Any]:
    return rule.model_dump(mode="json", exclude={"limit"}) | {"limit": str(rule.limit)}


@dataclass(frozen=True, slots=True)
class Ruling:
    """The rule that holds, with the profile that it is of."""

    id: RuleId
    rule: Rule
    profile: RuleProfile

    def clock(self, started_at: datetime) -> Clock:
        """Return the clock that an event starts; *started_at* aware."""
        return Clock(
            started_at=started_at,
            limit=self.rule.limit,
            after_pause=self.rule.pause.then if self.rule.pause else AfterPause.CONTINUE,
            to_workday=self.rule.to_workday,
        )

    def noted(self) -> dict[str, Json]:
        """Return what the entry of a decision notes: by which rule of which profile it was made."""
        return {
            "rule": str(self.id),
            "profile": self.profile.profile,
            "profile_version": self.profile.version,
            "profile_digest": self.profile.digest,
        }

    def noted_clock(self, due: Due, *, done_at: datetime | None = None) -> dict[str, Json]:
        """Return what an entry notes of a clock of this rule, from which figures and supervision events are made.

        Args:
            due: until when.
            done_at: when it was done what the clock runs for, aware; None while it runs.
        """
        clock: dict[str, Json] = {
            "rule": str(self.id),
            "profile": self.profile.profile,
            "profile_version": self.profile.version,
            "due": due.at.isoformat(),
        }
        if due.provisional:
            clock["provisional"] = True
        return {"clock": clock if done_at is None else {**clock, "late": done_at >= due.at}}

    def extended(self, clock: Clock, amount: int, *, at: datetime, calendar: Calendar, times: int = 0) -> Clock:
        """Return the clock with an extension that is granted at *at*.

        Args:
            clock: this rule's.
            amount: in the unit of the limit.
            at: when; aware.
            calendar: by which it is seen whether the clock still runs.
            times: extensions that were granted before.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, the rule knows no extension, none is left, or the clock has run out.
            InvalidError: REQUEST_INVALID, more than the rule allows, or nothing.
        """
        rule = self.rule.extension
        if rule is None:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the rule {self.id} of profile {self.profile.profile} knows no extension ({self.rule.clause.en})",
            )
        if times >= rule.times:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"it was extended {times} times already; {rule.clause.en} allows {rule.times}",
            )
        if not 1 <= amount <= rule.most - clock.extension:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got an extension of {amount}; {rule.clause.en} allows {Limit(rule.most, self.rule.limit.unit)} in "
                f"all, and {clock.extension} were granted before",
            )
        due = clock.due(calendar)
        if due is not None and at >= due.at:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the limit ended at {due.at.isoformat()}; an extension is granted before that",
            )
        return clock.extended_by(amount)


class RuleBook:
    """The profiles that a pool follows, the first with the highest precedence.

    Raises:
        ValueError: no profile, or one twice.
    """

    def __init__(self, profiles: Sequence[RuleProfile]) -> None:
        names = [one.profile for one in profiles]
        if not names or len(names) != len(set(names)):
            raise ValueError(f"got the profiles {names}; expected one or more, each once")
        self.profiles: Final = tuple(profiles)

    def find(self, rule_id: RuleId) -> Ruling | None:
        """Return the rule that holds; None where no profile speaks of it."""
        for profile in self.profiles:
            if rule_id in profile.rules:
                return Ruling(rule_id, profile.rules[rule_id], profile)
        return None

    def rule(self, rule_id: RuleId) -> Ruling:
        """Return the rule that holds.

        Raises:
            ConflictError: TRANSITION_NOT_ALLOWED, no profile speaks of it.
        """
        ruling = self.find(rule_id)
        if ruling is None:
            followed = ", ".join(one.profile for one in self.profiles)
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"none of the profiles {followed} has the rule {rule_id}; add it to a local profile, with its clause",
            )
        return ruling

    def rulings(self) -> list[Ruling]:
        """Return every rule that holds, in the order of `RuleId`."""
        return [ruling for rule_id in RuleId if (ruling := self.find(rule_id)) is not None]


_ROUGH_DAYS: Final = {Unit.HOURS: 1 / 24, Unit.DAYS: 1.0, Unit.WORKING_DAYS: 1.4, Unit.MONTHS: 30.4, Unit.YEARS: 365.2}

_NOT_LONGER: Final = (
    (RuleId.REPLY_UNCONDITIONAL, RuleId.REPLY_CONDITIONAL),
    (RuleId.CONFORMITY, RuleId.REPLY_CONDITIONAL),
    (RuleId.SUPPLEMENT_NOTICE, RuleId.REPLY_CONDITIONAL),
    (RuleId.DISCLOSURE_SUPPLEMENT, RuleId.DISCLOSURE_REPLY),
    (RuleId.PUBLICITY_LEAST, RuleId.PUBLICITY_MOST),
)
"""Pairs of rules of which the first is never longer than the second: it is a step of it, or its lower bound."""


def contradictions(profile: RuleProfile) -> Iterator[tuple[tuple[str, ...], str]]:
    """Iterate over what contradicts itself in a profile: the path of the key that says it, and why."""
    for rule_id, rule in profile.rules.items():
        if rule.pause is not None and rule.limit.unit in {Unit.MONTHS, Unit.YEARS}:
            yield (
                ("rules", rule_id, "pause"),
                f"a limit of {rule.limit} never stands still; expected no pause, or a limit in days or hours",
            )
        if rule.limit.unit is Unit.HOURS and "to_workday" in rule.model_fields_set and rule.to_workday:
            yield (
                ("rules", rule_id, "to_workday"),
                "a limit in hours is exact and moves to no working day; leave the key out",
            )
    for shorter, longer in _NOT_LONGER:
        first, second = profile.rules.get(shorter), profile.rules.get(longer)
        if first is not None and second is not None and _rough(first.limit) > _rough(second.limit):
            yield (
                ("rules", shorter, "limit"),
                f"{shorter} has {first.limit}, {longer} has {second.limit}; expected the first not to be longer",
            )


def _rough(limit: Limit) -> float:
    return limit.amount * _ROUGH_DAYS[limit.unit]
