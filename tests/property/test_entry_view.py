"""What a reader sees of an entry: never a range, for whoever is neither provider nor auditor, whatever the entry."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exchange.audit.store import EntryParty
from exchange.control.entry_view import EVERYTHING, RANGES, entry_view
from schemas.access import Action
from schemas.audit import folded_data, to_leaf
from schemas.canonical import canonical
from schemas.merkle import leaf_hash
from tests.kit.cases.audit import CONSUMER, PROVIDER, Entries

NAMES = st.sampled_from([*sorted(RANGES), "at", "count", "root", "generation", "again", "withdrawn_count", "new_field"])
VALUES = st.one_of(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=4), st.text(max_size=20))
ACTIONS = st.sampled_from([*Action, "exchange:records:someday"])
RESOURCES = st.sampled_from(["population.v1", "population.v1-value", "credit.v1", "", CONSUMER])
CONSUMERS = EntryParty(department=CONSUMER, resources=frozenset({CONSUMER, "other.v1"}))
PROVIDERS = EntryParty(department=PROVIDER, resources=frozenset({PROVIDER, "population.v1", "population.v1-value"}))


@given(ACTIONS, RESOURCES, st.dictionaries(NAMES, VALUES, max_size=8))
def test_whoever_owns_no_resource_never_sees_a_range(action: str, resource: str, data: dict[str, Any]) -> None:
    entry = json.loads(to_leaf(Entries().make(action, resource=resource, data=data)))
    view = entry_view(entry, EntryParty(department=CONSUMER, resources=frozenset()))
    shown = view.entry.get("data", {})
    assert not RANGES & shown.keys()
    if action in {Action.FETCH, Action.COMMIT, "exchange:records:someday"}:
        assert not {"at", "new_field"} & shown.keys()
    assert all(entry["data"][name] == value for name, value in shown.items())
    assert {f"data.{name}" for name in entry.get("data", {}).keys() - shown.keys()} == {*view.withheld} - {"salt"}
    # With the salt and the hash, what is left out could be guessed; without anything left out, the leaf is the entry.
    assert ("salt" in view.entry) == (not view.withheld)
    assert ("salt" in view.withheld) == bool(view.withheld)
    if not view.withheld:
        assert leaf_hash(canonical(view.entry)) == leaf_hash(canonical(entry))


@given(ACTIONS, RESOURCES, st.dictionaries(NAMES, VALUES, max_size=8))
def test_a_provider_sees_all_of_what_is_about_its_resources_and_an_auditor_all(
    action: str, resource: str, data: dict[str, Any]
) -> None:
    entry = json.loads(to_leaf(Entries().make(action, resource=resource, data=data)))
    assert entry_view(entry, EVERYTHING).entry == entry
    about = resource in PROVIDERS.resources and action.startswith(("exchange:", "registry:", "identity:department:"))
    if about:
        assert entry_view(entry, PROVIDERS).entry == entry


def test_a_consumer_sees_of_a_release_count_and_root() -> None:
    entry = json.loads(to_leaf(Entries().fetch(3, 9)))
    view = entry_view(entry, CONSUMERS)
    assert view.entry["data"] == {"generation": 1, "count": 6, "root": "00" * 32}
    assert view.withheld == ("data.delivered", "data.from", "data.to", "salt")
    assert {**entry, "data": 0, "salt": 0} == {**view.entry, "data": 0, "salt": 0}


def test_folded_denials_are_shown() -> None:
    entry = json.loads(to_leaf(Entries().make(Action.FETCH, data=folded_data(count=3, since=1))))
    assert entry_view(entry, CONSUMERS).entry == entry
