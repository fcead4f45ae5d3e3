"""Whatever way a schema is written, its normal form is one text, says the same, and has one id."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from registry.avro.compatibility import Compatibility, read_conflicts
from registry.avro.parser import parse
from registry.subjects.fingerprint import canonical_schema_text, fingerprint_of
from registry.subjects.model import GLOBAL, Content, SchemaReference
from registry.subjects.normal_form import to_normal_form
from schemas import library
from schemas.errors import InvalidError
from tests.kit.cases.random_avro import random_record
from tests.kit.cases.registry import Subjects, memory_store

_SEEDS = st.integers(min_value=0, max_value=2**32)
_NAMED = ("record", "enum", "fixed")


def service() -> Subjects:
    store = memory_store()
    return Subjects(store, level=Compatibility.NONE, clock=lambda: 0.0, governed=lambda _: False)


def normal(text: str) -> str:
    return to_normal_form(Content(text=text), json.loads(text)).text


def written(rng: random.Random, node: Any, *, redundant: bool) -> Any:
    """Write a schema in another way; *redundant*: with what the key of an id tells apart, too."""
    if isinstance(node, str):
        return {"type": node} if rng.random() < 0.3 and node.islower() and "." not in node else node
    if isinstance(node, list):
        return [written(rng, branch, redundant=redundant) for branch in node]
    members = dict(node)
    for key in ("items", "values"):
        if key in members:
            members[key] = written(rng, members[key], redundant=redundant)
    if isinstance(members.get("fields"), list):
        members["fields"] = [_field(rng, field, redundant=redundant) for field in members["fields"]]
    if members["type"] in _NAMED:
        space, dot, short = members["name"].rpartition(".")
        if dot and rng.random() < 0.5:
            members |= {"name": short, "namespace": space}
    if redundant:
        _say_nothing(rng, members)
        if members.get("logicalType") == "decimal":
            members.setdefault("scale", 0)
    shuffled = list(members.items())
    rng.shuffle(shuffled)
    return dict(shuffled)


def _field(rng: random.Random, field: dict[str, Any], *, redundant: bool) -> dict[str, Any]:
    members = field | {"type": written(rng, field["type"], redundant=redundant)}
    if rng.random() < 0.3:
        members.setdefault("order", "ascending")
    if redundant:
        _say_nothing(rng, members)
    shuffled = list(members.items())
    rng.shuffle(shuffled)
    return dict(shuffled)


def _say_nothing(rng: random.Random, members: dict[str, Any]) -> None:
    if rng.random() < 0.5:
        members.setdefault("doc", "")
    aliases = members.get("aliases")
    if aliases:
        members["aliases"] = [*reversed(aliases), aliases[0]]
    elif "name" in members and rng.random() < 0.5:
        members["aliases"] = []


def schema(seed: int) -> tuple[random.Random, dict[str, Any]]:
    rng = random.Random(seed)
    made = random_record(rng, recursive=rng.random() < 0.5)
    made |= {"name": f"gov.{made['name']}", "aliases": ["b.Old", "a.Old"], "level": "G2", "zh": "某"}
    made["fields"][0] |= {"aliases": ["was", "before"], "doc": "名"}
    try:
        parse(json.dumps(made))
    except InvalidError:
        reject()  # amplifies, as some random records do
    return rng, made


def key_of(text: str) -> bytes:
    return fingerprint_of(canonical_schema_text(Content(text=text), json.loads(text)))


@given(seed=_SEEDS)
@settings(max_examples=150)
def test_every_writing_has_one_normal_form_that_says_the_same(seed: int) -> None:
    rng, made = schema(seed)
    plain = json.dumps(made)
    text = normal(plain)
    for redundant in (False, True):
        other = json.dumps(written(rng, made, redundant=redundant), ensure_ascii=False, indent=rng.choice([None, 2]))
        assert normal(other) == text
    assert normal(text) == text
    assert read_conflicts(text, plain, strict=True) == read_conflicts(plain, text, strict=True) == []
    before, after = parse(plain), parse(text)
    assert [field.type_tree.arrow for field in after.fields] == [field.type_tree.arrow for field in before.fields]
    assert [field.attributes for field in after.fields] == [field.attributes for field in before.fields]
    assert after.attributes == before.attributes


@given(seed=_SEEDS)
@settings(max_examples=40)
def test_texts_that_normalize_equal_get_one_id_and_no_id_changes_its_meaning(seed: int) -> None:
    rng, made = schema(seed)
    texts = [json.dumps(written(rng, made, redundant=redundant)) for redundant in (False, True, True)]
    subjects = service()
    as_they_are = [subjects.register(f"plain{at}", Content(text=text)) for at, text in enumerate(texts)]
    keys = [key_of(text) for text in texts]
    for one, key in zip(as_they_are, keys, strict=True):
        assert (one.schema_id == as_they_are[0].schema_id) is (key == keys[0])
    told = {one.schema_id: subjects.by_id(one.schema_id) for one in as_they_are}
    found = {subjects.register("normal", Content(text=text), normalize=True) for text in texts}
    assert len(found) == 1
    one = found.pop()
    assert one.content.text == normal(texts[0])
    for text in texts:
        assert subjects.find_version("normal", Content(text=text), normalize=True) == one
    for schema_id, before in told.items():
        assert subjects.by_id(schema_id) == before
    for at, text in enumerate(texts):
        assert subjects.version(f"plain{at}", 1).content.text == text


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int", {"type": "int"}),
        ("int", {"type": "int", "doc": ""}),
        (DECIMAL, DECIMAL | {"scale": 0}),
        (
            {"type": "enum", "name": "a.E", "symbols": ["x"]},
            {"symbols": ["x"], "name": "E", "namespace": "a", "type": "enum", "aliases": []},
        ),
    ],
)
def test_redundant_forms_are_dropped(one: Any, other: Any) -> None:
    assert normal(json.dumps(one)) == normal(json.dumps(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("int", ["int"]),
        ("int", {"type": "int", "level": "G3"}),
        ({"type": "int", "doc": "a"}, {"type": "int"}),
        (DECIMAL, DECIMAL | {"scale": 2}),
        ({"type": "int", "scale": 0}, "int"),
        (["null", "int"], ["int", "null"]),
        (
            {"type": "enum", "name": "E", "symbols": ["x", "y"]},
            {"type": "enum", "name": "E", "symbols": ["y", "x"]},
        ),
        ({"type": "enum", "name": "a.E", "symbols": ["x"]}, {"type": "enum", "name": "E", "symbols": ["x"]}),
    ],
)
def test_what_means_something_is_kept(one: Any, other: Any) -> None:
    assert normal(json.dumps(one)) != normal(json.dumps(other))


def test_a_type_without_a_namespace_keeps_none_inside_of_one_that_has() -> None:
    inner = {"type": "record", "name": "In", "namespace": "", "fields": [{"name": "n", "type": "int"}]}
    text = json.dumps({"type": "record", "name": "a.R", "fields": [{"name": "f", "type": inner}]})
    assert [parse(one).fields[0].type["name"] for one in (text, normal(text))] == ["In", "In"]
    assert normal(normal(text)) == normal(text)
    assert key_of(text) == key_of(normal(text))


@pytest.mark.parametrize("name", library.names())
def test_the_normal_form_of_a_base_library_is_classified_as_before(name: str) -> None:
    text = library.text(name)
    before, after = parse(text), parse(normal(text))
    assert [field.attributes for field in after.fields] == [field.attributes for field in before.fields]
    assert (after.key, after.attributes) == (before.key, before.attributes)


# --- through the registry -------------------------------------------------------------------------------------------

PLAIN = Content(text=json.dumps(DECIMAL))
WORDY = Content(text=json.dumps(DECIMAL | {"scale": 0}))


def test_without_it_they_stay_what_they_are() -> None:
    subjects = service()
    assert subjects.register("a", PLAIN).schema_id != subjects.register("a", WORDY).schema_id
    assert subjects.version_numbers("a") == [1, 2]
    assert [subjects.version("a", at).content.text for at in (1, 2)] == [PLAIN.text, WORDY.text]


def test_a_look_up_finds_what_was_registered_before_it_was_normalized() -> None:
    subjects = service()
    wordy = subjects.register("a", WORDY)
    assert subjects.find_version("a", WORDY, normalize=True) == wordy
    normal_ = subjects.register("a", WORDY, normalize=True)
    assert normal_.number == 2
    assert subjects.find_version("a", WORDY, normalize=True) == normal_
    assert subjects.find_version("a", WORDY) == wordy


@pytest.mark.parametrize("scope", [GLOBAL, ":.police:", ":.police:a"])
def test_the_configuration_may_ask_for_it(scope: str) -> None:
    subjects = service()
    subjects.configuration.configure(scope, {"normalize": True})
    made = subjects.register(":.police:a", WORDY)
    assert made.content.text == normal(PLAIN.text)
    assert subjects.find_version(":.police:a", PLAIN) == made
    assert subjects.register(":.police:a", PLAIN) == made
    subjects.configuration.configure(":.police:a", {"normalize": False})
    assert subjects.register(":.police:a", WORDY).number == 2


def test_what_is_imported_is_kept_as_it_is_elsewhere() -> None:
    subjects = service()
    subjects.configuration.configure(GLOBAL, {"normalize": True})
    subjects.configuration.set_mode("a", "IMPORT")
    assert subjects.register("a", WORDY, schema_id=7, number=3, normalize=True).content.text == WORDY.text


def test_references_are_numbered_sorted_and_stand_once() -> None:
    subjects = service()
    for name in ("b", "a"):
        subjects.register(name, Content(text=json.dumps({"type": "fixed", "name": f"x.{name}", "size": 2})))
    text = json.dumps(["x.a", "x.b"])
    latest = (SchemaReference("x.b", "b", -1), SchemaReference("x.a", "a", -1))
    numbered = (SchemaReference("x.a", "a", 1), SchemaReference("x.b", "b", 1), SchemaReference("x.a", "a", 1))
    one = subjects.register("r", Content(text=text, references=latest), normalize=True)
    assert [item.name for item in one.content.references] == ["x.a", "x.b"]
    assert [item.version for item in one.content.references] == [1, 1]
    assert subjects.register("r", Content(text=text, references=numbered), normalize=True) == one
    assert subjects.register("r", Content(text=text, references=numbered)).number == 2


def test_other_types_are_normalized_as_far_as_they_can_be() -> None:
    subjects = service()
    first = Content(schema_type="JSON", text='{"type": "object", "title": "t"}')
    second = Content(schema_type="JSON", text='{"title":"t","type":"object"}')
    made = subjects.register("j", first, normalize=True)
    assert made.content.text == '{"title":"t","type":"object"}'
    assert subjects.register("j", second, normalize=True) == made
    proto = Content(schema_type="PROTOBUF", text="message  M {}")
    assert subjects.register("p", proto, normalize=True).content.text == proto.text


def test_the_normal_form_refers_to_what_was_referred_to_in_whatever_context_it_is_asked_for() -> None:
    subjects = service()
    for name, fields in (("x", []), (":.police:x", [{"name": "hidden", "type": "int"}])):
        subjects.register(name, Content(text=json.dumps({"type": "record", "name": "X", "fields": fields})))
    text = json.dumps({"type": "record", "name": "Own", "doc": "", "fields": [{"name": "x", "type": "X"}]})
    for subject in (":.police:own", "own"):
        found = subjects.register(
            subject, Content(text=text, references=(SchemaReference("X", ":.:x", 1),)), normalize=True
        )
        assert found.content.text != text
        assert found.content.references == (SchemaReference("X", "x", 1, 1),)
        assert "hidden" not in subjects.inlined_text(found.schema_id)


def test_a_decimal_that_is_none_does_not_become_one() -> None:
    text = '{"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0.0}'
    assert json.loads(normal(text))["scale"] == 0.0
    assert parse(normal(text), strict=False).type_tree.arrow == parse(text, strict=False).type_tree.arrow


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9007199254740992.0", "9007199254740993.0"),
        ("0.1", "0.10000000000000000555"),
        ("1e999", "1e1999"),
        ("1e99999999999999999999", "1e99999999999999999998"),
        ("99999999999999999999.98", "99999999999999999999.99"),
    ],
)
def test_two_numbers_of_a_json_schema_are_not_one(one: str, other: str) -> None:
    subjects = service()
    ids = []
    for number in (one, other, f" {one}"):
        content = Content(text=f'{{"title": "t", "maximum": {number}}}', schema_type="JSON")
        ids.append(subjects.register("j", content).schema_id)
        found = subjects.register(f"n{len(ids)}", content, normalize=True).content.text
        assert found in (f'{{"maximum":{number.strip()},"title":"t"}}', '{"maximum":9007199254740992.0,"title":"t"}')
    assert ids[0] == ids[2] != ids[1]


def test_a_json_schema_that_says_two_things_at_once_is_none() -> None:
    with pytest.raises(InvalidError, match="JSON"):
        service().register("j", Content(text='{"maximum": 1, "maximum": 2}', schema_type="JSON"))


@pytest.mark.parametrize("normalize", [False, True])
def test_a_number_out_of_range_has_one_answer_whether_normalized_or_not(normalize: bool) -> None:
    subjects = service()
    content = Content(text='{"type": "record", "name": "R", "fields": [], "most": 1e999}')
    subjects.register("s", Content(text='{"type": "record", "name": "R", "fields": []}'))
    for act in (subjects.register, subjects.find_version):
        with pytest.raises(InvalidError, match="a number that is out of range of double"):
            act("s", content, normalize=normalize)
    with pytest.raises(InvalidError):
        subjects.find_version("s", Content(text='{"type": "record", "name": "R"}'), normalize=True)
