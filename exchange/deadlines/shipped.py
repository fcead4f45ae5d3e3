"""Calendar and rule profiles that come with the program, read from its data files when they are first asked for.

    working_days.csv     the years 2004 to 2026, from the package chinesecalendar 1.11.0 (a test compares them)
    fixed_holidays.csv   holidays of a fixed date, for years that no notice has arranged yet
    809.yaml …           a profile each

They are the pool's until the data authority confirms other years and profiles, and beside these afterwards.
"""

from functools import cache
from importlib.resources import files
from typing import Final

from exchange.deadlines.calendar import Calendar
from exchange.deadlines.calendar_csv import fixed_holidays_of, parse_years
from exchange.deadlines.profile import RuleBook, RuleProfile
from exchange.deadlines.profile_yaml import parse_profile

__all__ = ["DEFAULT_PROFILES", "SHIPPED_PROFILES", "shipped_calendar", "shipped_profile", "shipped_rules"]

SHIPPED_PROFILES: Final = ("809", "gf2016-51", "general", "city-example")
DEFAULT_PROFILES: Final = ("809", "gf2016-51", "general")
"""Profiles that a pool follows where nobody has chosen others, the first with the highest precedence."""


@cache
def shipped_calendar() -> Calendar:
    """Return the working days that come with the program."""
    return Calendar(
        parse_years(_read("working_days.csv"), name="working_days.csv"),
        fixed_holidays=fixed_holidays_of(_read("fixed_holidays.csv")),
    )


@cache
def shipped_profile(name: str) -> RuleProfile:
    """Return a profile of `SHIPPED_PROFILES`."""
    return parse_profile(_read(f"{name}.yaml"), name=f"{name}.yaml")


@cache
def shipped_rules() -> RuleBook:
    """Return the rules of a pool that has chosen none."""
    return RuleBook([shipped_profile(name) for name in DEFAULT_PROFILES])


def _read(name: str) -> str:
    return (files("exchange.deadlines") / "data" / name).read_text(encoding="utf-8")
