"""Rule profiles: limits as data with their clauses, precedence, extensions; what is refused, by file and line."""

from datetime import datetime
from pathlib import Path
from textwrap import dedent

import pytest

from exchange.deadlines.clock import SHANGHAI, AfterPause, Limit, Unit
from exchange.deadlines.in_force import RulesInForce, ShippedRules
from exchange.deadlines.profile import Basis, RuleBook, RuleId, RuleProfile
from exchange.deadlines.profile_yaml import parse_profile
from exchange.deadlines.shipped import (
    DEFAULT_PROFILES,
    SHIPPED_PROFILES,
    shipped_calendar,
    shipped_profile,
    shipped_rules,
)
from registry.database.unit_of_work import MemoryReader
from schemas.access import Role
from schemas.errors import ConflictError, InvalidError, Reason

RECEIVED = datetime(2026, 11, 30, 9, tzinfo=SHANGHAI)
INVENTED = dedent("""\
    profile: island
    version: 3
    title: {en: Measures of an island, zh: 某岛办法}
    rules:
      reply.conditional:
        text: {en: the reply, zh: 答复}
        starts: {en: receipt, zh: 收到}
        limit: 3 working days
        extension:
          most: 2
          times: 2
          consent: data_authority
          clause: {en: Art. 4, zh: 第四条}
        pause:
          then: continue
          clause: {en: Art. 5, zh: 第五条}
          basis: text
        clause: {en: Art. 3, zh: 第三条}
        basis: text
    """)


def invented(text: str = INVENTED) -> RuleProfile:
    return parse_profile(text, name="island.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        invented(text)
    assert caught.value.reason is Reason.CONFIG_INVALID
    return caught.value.message.split("\n")


def line_of(text: str) -> int:
    """Return the number of the line of the invented profile that begins so."""
    return next(n for n, line in enumerate(INVENTED.splitlines(), 1) if line.strip().startswith(text))


@pytest.mark.parametrize(
    ("rule", "limit", "extension", "clause"),
    [
        (RuleId.REPLY_UNCONDITIONAL, "1 working day", None, "decree 809 Art. 21"),
        (RuleId.REPLY_CONDITIONAL, "10 working days", 10, "decree 809 Art. 21"),
        (RuleId.DELIVERY, "20 working days", None, "decree 809 Art. 22"),
        (RuleId.CATALOGUE_UPDATE, "10 working days", 5, "decree 809 Art. 17"),
        (RuleId.CATALOGUE_REVIEW, "2 working days", None, "decree 809 Art. 17"),
        (RuleId.CORRECTION, "10 working days", None, "decree 809 Art. 26"),
        (RuleId.USE_RECORDS, "3 years", None, "decree 809 Art. 29"),
        (RuleId.SUPPLEMENT_NOTICE, "7 working days", None, "by analogy with the Regulations on open government"),
        (RuleId.DISCLOSURE_REPLY, "20 working days", 20, "Regulations on open government information Art. 33"),
        (RuleId.DISCLOSURE_CONSULTATION, "15 working days", None, "Regulations on open government information Art. 32"),
        (RuleId.DISCLOSURE_PROACTIVE, "20 working days", None, "Regulations on open government information Art. 26"),
        (RuleId.RISK_ASSESSMENT, "1 year", None, "Regulations on network data security Art. 33"),
        (RuleId.PUBLICITY_LEAST, "3 months", None, "rules on the publicity"),
        (RuleId.PUBLICITY_MOST, "3 years", None, "rules on the publicity"),
    ],
)
def test_the_rules_of_a_pool_that_has_chosen_none(rule: RuleId, limit: str, extension: int | None, clause: str) -> None:
    ruling = shipped_rules().rule(rule)
    assert str(ruling.rule.limit) == limit
    assert (ruling.rule.extension and ruling.rule.extension.most) == extension
    assert ruling.rule.clause.en.startswith(clause)


def test_every_shipped_rule_speaks_both_languages_and_is_read_by_somebody_or_says_that_it_is_not() -> None:
    for name in SHIPPED_PROFILES:
        profile = shipped_profile(name)
        assert profile.profile == name
        for rule in profile.rules.values():
            for words in (rule.text, rule.starts, rule.clause):
                assert words.en.isascii()
                assert not words.zh.isascii()
    assert {rule.basis for rule in shipped_profile("gf2016-51").rules.values()} == {Basis.EXCERPT, Basis.ASSUMED}


def test_the_first_profile_that_speaks_of_a_rule_goes_before() -> None:
    book = RuleBook([shipped_profile("gf2016-51"), shipped_profile("809")])
    assert book.rule(RuleId.CATALOGUE_UPDATE).profile.profile == "gf2016-51"
    assert book.rule(RuleId.CATALOGUE_UPDATE).rule.limit == Limit(15, Unit.WORKING_DAYS)
    assert book.rule(RuleId.DELIVERY).profile.profile == "809"
    assert shipped_rules().rule(RuleId.CATALOGUE_UPDATE).profile.profile == "809"
    assert {ruling.id for ruling in shipped_rules().rulings()} == set(RuleId) - {RuleId.CONFORMITY}


def test_a_rule_that_no_profile_has_is_said() -> None:
    with pytest.raises(ConflictError, match=r"none of the profiles 809, gf2016-51, general has the rule reply.conform"):
        shipped_rules().rule(RuleId.CONFORMITY)
    with pytest.raises(ValueError, match="each once"):
        RuleBook([shipped_profile("809"), shipped_profile("809")])
    with pytest.raises(ValueError, match="one or more"):
        RuleBook([])


def test_another_profile_changes_deadlines_with_no_code_touched() -> None:
    calendar, default = shipped_calendar(), ShippedRules().rules(MemoryReader())
    local = RulesInForce(RuleBook([invented(), *default.book.profiles]), calendar)
    assert default.due(RuleId.REPLY_CONDITIONAL, RECEIVED).day.isoformat() == "2026-12-14"
    assert local.due(RuleId.REPLY_CONDITIONAL, RECEIVED).day.isoformat() == "2026-12-03"
    assert local.due(RuleId.DELIVERY, RECEIVED) == default.due(RuleId.DELIVERY, RECEIVED)
    assert local.rule(RuleId.REPLY_CONDITIONAL).clock(RECEIVED).after_pause is AfterPause.CONTINUE
    assert default.rule(RuleId.REPLY_CONDITIONAL).clock(RECEIVED).after_pause is AfterPause.RESTART
    longer = invented(INVENTED.replace("3 working days", "4 working days").replace("version: 3", "version: 4"))
    later = RulesInForce(RuleBook([longer]), calendar)
    assert later.due(RuleId.REPLY_CONDITIONAL, RECEIVED).day.isoformat() == "2026-12-04"
    assert later.rule(RuleId.REPLY_CONDITIONAL).noted()["profile_version"] == 4


def test_the_entry_of_a_decision_names_the_rule_the_profile_and_its_version() -> None:
    ruling = RuleBook([invented()]).rule(RuleId.REPLY_CONDITIONAL)
    assert ruling.noted() == {
        "rule": "reply.conditional",
        "profile": "island",
        "profile_version": 3,
        "profile_digest": invented().digest,
    }
    assert invented(INVENTED.replace("3 working", "4 working")).digest != invented().digest
    assert invented("# a comment\n" + INVENTED).digest == invented().digest


def test_extensions_are_those_of_the_rule_and_come_in_time() -> None:
    calendar, ruling = shipped_calendar(), RuleBook([invented()]).rule(RuleId.REPLY_CONDITIONAL)
    assert ruling.rule.extension is not None
    assert ruling.rule.extension.consent is Role.DATA_AUTHORITY
    clock, now = ruling.clock(RECEIVED), datetime(2026, 12, 1, tzinfo=SHANGHAI)
    once = ruling.extended(clock, 1, at=now, calendar=calendar)
    assert once.extension == 1
    twice = ruling.extended(once, 1, at=now, calendar=calendar, times=1)
    with pytest.raises(ConflictError, match=r"extended 2 times already; Art. 4 allows 2"):
        ruling.extended(twice, 1, at=now, calendar=calendar, times=2)
    with pytest.raises(InvalidError, match=r"got an extension of 2; Art. 4 allows 2 working days in all, and 1 were"):
        ruling.extended(once, 2, at=now, calendar=calendar, times=1)
    with pytest.raises(InvalidError, match="got an extension of 0"):
        ruling.extended(clock, 0, at=now, calendar=calendar)
    with pytest.raises(ConflictError, match=r"ended at 2026-12-04T00:00:00\+08:00; an extension is granted before"):
        ruling.extended(clock, 1, at=datetime(2026, 12, 4, tzinfo=SHANGHAI), calendar=calendar)
    delivery = shipped_rules().rule(RuleId.DELIVERY)
    with pytest.raises(ConflictError, match=r"knows no extension \(decree 809 Art. 22\)"):
        delivery.extended(delivery.clock(RECEIVED), 1, at=now, calendar=calendar)


def test_a_rule_without_a_clause_is_refused_by_line() -> None:
    without = INVENTED.replace("    clause: {en: Art. 3, zh: 第三条}\n", "")
    assert faults(without) == [f'island.yaml:{line_of("reply.conditional")}:3: the key "clause" is missing']
    half = INVENTED.replace("{en: Art. 4, zh: 第四条}", "{en: Art. 4}")
    assert faults(half) == [f'island.yaml:{line_of("clause")}:7: the key "zh" is missing']
    empty = INVENTED.replace("zh: 第三条", 'zh: ""')
    assert faults(empty)[0].startswith(f"island.yaml:{line_of('clause: {en: Art. 3')}:")


def test_an_unknown_key_or_rule_is_refused_by_line_with_what_was_meant() -> None:
    assert faults(INVENTED.replace("    starts:", "    start:")) == [
        f'island.yaml:{line_of("reply")}:3: the key "starts" is missing',
        f'island.yaml:{line_of("starts")}:5: unknown key "start" - did you mean "starts"?',
    ]
    assert faults(INVENTED.replace("reply.conditional", "reply.conditonal")) == [
        f'island.yaml:{line_of("reply")}:3: unknown rule "reply.conditonal" - did you mean "reply.conditional"?'
    ]
    assert faults(INVENTED + "  reply.conditional: {}\n")[0].startswith("island.yaml:20:3: found duplicate key")
    assert faults("profile: [")[0].startswith("island.yaml:")
    assert faults("nothing")[0].startswith("island.yaml:1:1: expected keys `profile:`")
    assert "expected 100000 at most" in faults("#" * 100_001)[0]


@pytest.mark.parametrize(
    "limit", ["ten working days", "10", "0 working days", "10 workdays", "-1 days", "1.5 days", "99999 days"]
)
def test_a_limit_of_another_form_is_refused_by_line(limit: str) -> None:
    (fault,) = faults(INVENTED.replace("3 working days", limit))
    assert fault.startswith(f"island.yaml:{line_of('limit')}:5: limit: ")


@pytest.mark.parametrize(
    ("key", "text"),
    [("most", "most: 0"), ("times", "times: 13"), ("consent", "consent: mayor"), ("then", "then: stop")],
)
def test_a_value_that_no_rule_has_is_refused_by_line(key: str, text: str) -> None:
    old = next(line.strip() for line in INVENTED.splitlines() if line.strip().startswith(f"{key}:"))
    (fault,) = faults(INVENTED.replace(old, text))
    assert fault.startswith(f"island.yaml:{line_of(key)}:7: {key}: ")


def test_a_profile_that_contradicts_itself_is_refused_by_line() -> None:
    rule = "".join(
        f"    {line}\n"
        for line in (
            "text: {en: a, zh: 一}",
            "starts: {en: b, zh: 二}",
            "limit: LIMIT",
            "basis: text",
            "clause: {en: Art. 1, zh: 第一条}",
        )
    )
    longer = INVENTED + "  reply.unconditional:\n" + rule.replace("LIMIT", "4 working days")
    (fault,) = faults(longer)
    assert fault == (
        "island.yaml:23:5: reply.unconditional has 4 working days, reply.conditional has 3 working days; expected the "
        "first not to be longer"
    )
    assert invented(longer.replace("4 working days", "24 hours"))
    publicity = INVENTED + "".join(
        f"  publicity.{name}:\n" + rule.replace("LIMIT", limit)
        for name, limit in (("least", "4 years"), ("most", "36 months"))
    )
    assert faults(publicity)[0].startswith("island.yaml:23:5: publicity.least has 4 years, publicity.most has 36")
    yearly = INVENTED.replace("3 working days", "1 year")
    assert faults(yearly)[0] == (
        f"island.yaml:{line_of('pause')}:5: a limit of 1 year never stands still; expected no pause, or a limit in "
        "days or hours"
    )
    hours = INVENTED.replace("3 working days", "3 hours\n    to_workday: true")
    assert "a limit in hours is exact" in faults(hours)[0]


def test_profiles_are_followed_in_their_order() -> None:
    assert [one.profile for one in shipped_rules().profiles] == list(DEFAULT_PROFILES)


def test_the_example_of_the_how_to_is_a_profile() -> None:
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "keep-the-calendar.md").read_text(encoding="utf-8")
    block = page[page.index("    profile: our-city") : page.index("\nA limit is a number of")]
    assert parse_profile(dedent(block), name="x").profile == "our-city"


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        ("rules: &all {x: *all}\n", "island.yaml:1:8: got an anchor or an alias"),
        ("a: &a [1]\nb: [*a, *a]\n", "island.yaml:1:4: got an anchor or an alias"),
        ("<<: {profile: x}\n", "island.yaml:1:1: got a merge key"),
        ("profile: !!set {a, b}\n", "island.yaml:1:10: got a tag"),
        ("profile: !!python/object/apply:os.system [x]\n", "island.yaml:1:10: got a tag"),
        (f"rules: {'[' * 20_000}", "island.yaml:1:27: got more than 20 levels"),
        (f"rules: {'{a: ' * 900}1{'}' * 900}", "island.yaml:1:84: got more than 20 levels"),
        ("\n".join(" " * at + "a:" for at in range(400)), "island.yaml:21:21: got more than 20 levels"),
        ("profile: 2027-02-31\n", "island.yaml:1:1: a date that there is not"),
        ("profile: 2027-01-01T00:00:00+99:99\n", "island.yaml:1:1: a date that there is not"),
        (f"version: {'9' * 5_000}\n", "island.yaml:1:1: a date that there is not, or a number of thousands"),
    ],
)
def test_what_yaml_has_and_a_profile_needs_not_is_refused_and_ends_no_program(hostile: str, expected: str) -> None:
    (fault,) = faults(hostile)
    assert fault.startswith(expected)
