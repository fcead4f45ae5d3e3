"""The table of alarms: each names a metric that exists and a section that says what to do, and is raised when it is."""

import io
import re
from typing import Any

import prometheus_client
import promql_parser
import pytest
from ruamel.yaml import YAML

from exchange import metrics
from exchange.monitoring.alarms import ALARMS, Alarm, Level, Missing, Rise, Sample, Severity, open_alarms
from exchange.monitoring.prometheus_rules import expression, rules, runbook_table, with_table
from tests.docs.pages import ROOT, anchors

RUNBOOK = ROOT / "docs" / "runbook.md"


def labels_by_metric() -> dict[str, tuple[str, ...]]:
    found = {}
    for name in metrics.__all__:
        metric = getattr(metrics, name)
        suffix = "_total" if isinstance(metric, prometheus_client.Counter) else ""
        found[metric.describe()[0].name + suffix] = tuple(metric._labelnames)
    return found


def parsed_rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = YAML(typ="safe").load(io.StringIO(rules()))["groups"][0]["rules"]
    return found


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_an_alarm_names_a_metric_with_its_labels_and_a_section_of_the_runbook(alarm: Alarm) -> None:
    known = labels_by_metric()
    assert alarm.condition.metric in known
    if isinstance(alarm.condition, Level | Rise) and alarm.condition.label:
        assert alarm.condition.label in known[alarm.condition.metric]
        assert alarm.condition.values
    if isinstance(alarm.condition, Level):
        assert (alarm.condition.above is None) != (alarm.condition.below is None)
    assert alarm.section in anchors(RUNBOOK)
    assert re.fullmatch(r"[A-Z].*[^.]", alarm.meaning)


def test_the_file_and_the_page_are_made_from_the_table() -> None:
    assert (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8") == rules()
    page = RUNBOOK.read_text(encoding="utf-8")
    assert runbook_table() in page
    assert with_table(page) == page
    with pytest.raises(ValueError, match="lacks the lines"):
        with_table(page.replace("<!-- end of alarms -->", ""))


def test_the_rules_are_yaml_that_prometheus_would_read() -> None:
    found = parsed_rules()
    assert [rule["alert"] for rule in found] == [alarm.name for alarm in ALARMS]
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in set(Severity)


@pytest.mark.parametrize("rule", parsed_rules(), ids=lambda rule: str(rule["alert"]))
def test_every_expression_is_promql(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])


def test_a_mistake_in_an_expression_is_found() -> None:
    with pytest.raises(ValueError, match="expected type matrix"):
        promql_parser.parse("increase(m) > 5")


def test_conditions_in_promql() -> None:
    several = Level(metric="m", above=0, label="reason", values=("a", "b"))
    assert expression(several) == 'm{reason=~"a|b"} > 0'
    assert expression(Level(metric="m", below=0.02)) == "m < 0.02"
    one = Rise(metric="m", within=300, above=5, label="reason", values=("a",))
    assert expression(one) == 'sum(increase(m{reason="a"}[5m])) > 5'
    assert expression(Missing(metric="m")) == "absent(m)"


def alarm(condition: Level | Rise | Missing) -> Alarm:
    return Alarm(name="A", meaning="It is so", condition=condition, lasts=0, severity=Severity.WARNING, section="s")


def raised(condition: Level | Rise | Missing, *samples: Sample) -> list[dict[str, str]]:
    return [dict(one.labels) for one in open_alarms(samples, [alarm(condition)])]


def test_one_look_finds_levels_and_what_is_missing_but_no_rate() -> None:
    low, high = Sample("m", {"check": "a"}, 1.0), Sample("m", {"check": "b"}, 3.0)
    assert raised(Level(metric="m", above=2), low, high) == [{"check": "b"}]
    assert raised(Level(metric="m", below=2), low, high) == [{"check": "a"}]
    assert raised(Level(metric="m", above=0, label="check", values=("a",)), low, high) == [{"check": "a"}]
    assert raised(Level(metric="other", above=0), low) == []
    assert raised(Missing(metric="other"), low) == [{}]
    assert raised(Missing(metric="m"), low) == []
    assert raised(Rise(metric="m", within=60), high) == []


def test_a_value_that_is_unknown_raises_nothing() -> None:
    unknown = Sample("m", {}, float("nan"))
    assert raised(Level(metric="m", above=0), unknown) == []
    assert raised(Level(metric="m", below=1), unknown) == []


def test_a_backup_that_never_was_is_too_old() -> None:
    found = list(open_alarms([Sample("pool_serving", {}, 1.0), Sample("pool_backup_age_seconds", {}, float("inf"))]))
    assert [one.alarm.name for one in found] == ["PoolBackupOld"]
