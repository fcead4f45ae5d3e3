"""Documents of the rules of deadlines: years, days, profiles, rules, changes, and one deadline."""

from exchange.control.rules import ComputedDeadline, ProfileInUse
from exchange.deadlines.calendar import ArrangedYear, NamedDay
from exchange.deadlines.changes import RuleChange
from exchange.deadlines.profile import Rule, Ruling, Words
from schemas.canonical import Json

__all__ = ["change_json", "deadline_json", "profile_json", "profile_row", "ruling_json", "year_json", "year_row"]


def year_row(arranged: ArrangedYear) -> dict[str, Json]:
    """Return a year in a list: how many days its notice names."""
    return {
        "year": arranged.year,
        "holidays": sum(not one.is_workday for one in arranged.days),
        "workdays": sum(one.is_workday for one in arranged.days),
        "notices": [*sorted({one.notice for one in arranged.days})],
    }


def year_json(arranged: ArrangedYear, version: str) -> dict[str, Json]:
    """Return a year with its days; *version* of the whole calendar."""
    return {**year_row(arranged), "days": [_day(one) for one in arranged.days], "calendar": version}


def _day(named: NamedDay) -> Json:
    return {"date": named.date.isoformat(), "is_workday": named.is_workday, "notice": named.notice, "confirmed": True}


def profile_row(one: ProfileInUse) -> dict[str, Json]:
    """Return a profile in a list."""
    profile, place, shipped = one
    return {
        "profile": profile.profile,
        "version": profile.version,
        "place": place,
        "shipped": shipped,
        "names": _words(profile.title),
        "rules": len(profile.rules),
        "digest": profile.digest,
    }


def profile_json(one: ProfileInUse) -> dict[str, Json]:
    """Return a profile with its rules."""
    profile = one[0]
    return {
        **profile_row(one),
        "rules": [ruling_json(Ruling(key, rule, profile)) for key, rule in profile.rules.items()],
    }


def ruling_json(ruling: Ruling) -> dict[str, Json]:
    """Return a rule with the profile that it is of."""
    rule, profile = ruling.rule, ruling.profile
    return {
        "rule": str(ruling.id),
        "limit": str(rule.limit),
        "extension": _extension(rule),
        "after_pause": None if rule.pause is None else str(rule.pause.then),
        "profile": profile.profile,
        "profile_version": profile.version,
        "basis": str(rule.basis),
        "clause": _words(rule.clause),
        "text": _words(rule.text),
        "starts": _words(rule.starts),
    }


def _extension(rule: Rule) -> Json:
    if rule.extension is None:
        return None
    more = rule.extension
    return {"most": more.most, "times": more.times, "consent": str(more.consent), "clause": _words(more.clause)}


def _words(words: Words) -> dict[str, Json]:
    return {"en": words.en, "zh": words.zh}


def change_json(change: RuleChange, *, content: bool = False) -> dict[str, Json]:
    """Return a change; with what it says if asked."""
    return {
        "id": change.id,
        "kind": str(change.kind),
        "subject": change.subject,
        "state": str(change.state),
        "proposed_by": change.proposed_by,
        "proposed_at": change.proposed_at.isoformat(),
        "decided_by": change.decided_by,
        "decided_at": None if change.decided_at is None else change.decided_at.isoformat(),
        "reason": change.reason,
        "digest": change.digest,
        **({"content": change.content} if content else {}),
    }


def deadline_json(one: ComputedDeadline) -> dict[str, Json]:
    """Return a deadline with the rule and the calendar that it follows from."""
    return {
        "day": one.due.day.isoformat(),
        "due_at": one.due.at.isoformat(),
        "provisional": one.due.provisional,
        "due": str(one.state),
        "started_at": one.clock.started_at.isoformat(),
        "granted": one.clock.extension,
        **ruling_json(one.ruling),
        "calendar": one.calendar,
    }
