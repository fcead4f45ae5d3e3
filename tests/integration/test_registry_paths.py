"""The ways round a refusal: references, ids, deletion, import, and names that no store could hold."""

import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import pytest

from registry.database.unit_of_work import MemoryDatabase, Reader
from registry.subjects.memory import MemorySubjects
from registry.subjects.model import GLOBAL, Content, Settings
from registry.subjects.store import MAX_GAPS, MAX_IMPORTED_ID
from schemas.access import Action
from schemas.errors import ConflictError, InvalidError, Reason
from tests.kit.cases.registry import Store, Subjects, memory_store
from tests.kit.world.registry_served import World, put

pytestmark = pytest.mark.postgres
SECRET = json.dumps({"type": "record", "name": "Secret", "fields": [{"name": "hidden_field", "type": "string"}]})
REFERRING = json.dumps({"type": "record", "name": "Own", "fields": [{"name": "c", "type": "Secret"}]})


@pytest.fixture
def secret(world: World, subject: str) -> Iterator[str]:
    """A subject that the caller may not read, with a version."""
    name = f"secret-{subject}"
    assert world.http.post(f"/subjects/{name}/versions", json={"schema": SECRET}).status_code == 200
    world.access.hidden = "secret"
    yield name
    world.access.hidden = " "


def referring(secret: str) -> dict[str, object]:
    return {"schema": REFERRING, "references": [{"name": "Secret", "subject": secret, "version": 1}]}


@pytest.mark.parametrize(
    "path",
    [
        "/subjects/{}/versions",
        "/subjects/{}",
        "/compatibility/subjects/{}/versions",
        "/compatibility/subjects/{}/versions/latest",
    ],
)
def test_to_refer_to_a_schema_is_to_read_it(world: World, secret: str, subject: str, path: str) -> None:
    answer = world.http.post(path.format(subject), json=referring(secret))
    assert answer.status_code == 403
    assert "hidden_field" not in answer.text
    assert (Action.SCHEMA_REGISTER, subject) not in [entry[1:3] for entry in world.access.entries]
    world.access.hidden = " "
    assert world.http.delete(f"/subjects/{secret}").status_code == 200, "nobody has pinned it"


def test_what_a_schema_refers_to_is_not_written_out_for_who_may_not_read_it(
    world: World, secret: str, subject: str
) -> None:
    world.access.hidden = " "
    schema_id = world.http.post(f"/subjects/{subject}/versions", json=referring(secret)).json()["id"]
    for path in (f"/subjects/{subject}/versions/1", f"/schemas/ids/{schema_id}"):
        assert "hidden_field" in world.http.get(path, params={"format": "resolved"}).text
        world.access.hidden = "secret"
        assert world.http.get(path, params={"format": "resolved"}).status_code == 403
        assert "hidden_field" not in world.http.get(path).text
        world.access.hidden = " "


def nested(world: World, secret: str, subject: str) -> dict[str, object]:
    """A schema that refers to the secret one through a version, the second of its subject, that anybody may read."""
    world.access.hidden = " "
    through = f"through-{subject}"
    world.http.put(f"/config/{through}", json={"compatibility": "NONE"})
    plain = json.dumps({"type": "record", "name": "Plain", "fields": []})
    assert put(world, through, plain).status_code == 200
    assert world.http.post(f"/subjects/{through}/versions", json=referring(secret)).status_code == 200
    fields = [{"name": "o", "type": "Own"}, {"name": "p", "type": "Plain"}]
    references = [{"name": "n", "subject": through, "version": number} for number in (2, 1)]
    return {"schema": json.dumps({"type": "record", "name": "Outer", "fields": fields}), "references": references}


def test_to_refer_to_a_schema_is_to_read_what_it_refers_to(world: World, secret: str, subject: str) -> None:
    body = nested(world, secret, subject)
    world.access.hidden = "secret"
    paths = (
        f"/subjects/{subject}/versions",
        f"/subjects/{subject}",
        f"/compatibility/subjects/{subject}/versions",
    )
    for path in paths:
        assert world.http.post(path, json=body).status_code == 403, path
    world.access.hidden = " "
    schema_id = world.http.post(paths[0], json=body).json()["id"]
    other = json.dumps({"type": "record", "name": "Secret", "fields": [{"name": "k", "type": "int"}]})
    probe = {"schema": REFERRING.replace('"Secret"', other)}
    for hidden, status in (("secret", 403), (" ", 200)):
        world.access.hidden = hidden
        for path in (
            f"/subjects/{subject}/versions/1?format=resolved",
            f"/schemas/ids/{schema_id}?format=resolved",
        ):
            answer = world.http.get(path)
            assert (answer.status_code, "hidden_field" in answer.text) == (status, status == 200), path
        world.http.put(f"/config/through-{subject}", json={"compatibility": "FULL"})
        answer = world.http.post(f"/compatibility/subjects/through-{subject}/versions/latest", json=probe)
        assert (answer.status_code, "hidden_field" in answer.text) == (status, status == 200)
        verdict = {"is_compatible": False}
        plain = f"/compatibility/subjects/through-{subject}/versions/latest?verbose=false"
        assert world.http.post(plain, json=probe).json() == verdict


def test_an_alias_names_no_subject_that_the_caller_may_not_see(world: World, secret: str, subject: str) -> None:
    world.access.hidden = " "
    assert put(world, subject, '"int"').status_code == 200
    for name in (f"secret-nick-{subject}", f"nick-{subject}"):
        world.http.put(f"/config/{name}", json={"alias": subject})
    path = f"/schemas?aliases=true&subjectPrefix={subject}"
    assert world.http.get(path).json()[0]["aliases"] == [f"nick-{subject}", f"secret-nick-{subject}"]
    world.access.hidden = "secret"
    assert world.http.get(path).json()[0]["aliases"] == [f"nick-{subject}"]


def test_an_id_names_no_subject_that_the_caller_may_not_see(world: World, secret: str, subject: str) -> None:
    schema_id = world.http.post(f"/subjects/{subject}/versions", json={"schema": SECRET}).json()["id"]
    assert world.http.get(f"/schemas/ids/{schema_id}/subjects").json() == [subject]
    assert world.http.get(f"/schemas/ids/{schema_id}/versions").json() == [{"subject": subject, "version": 1}]
    shown = world.http.get(f"/schemas/ids/{schema_id}", params={"includeSubjects": True}).json()
    assert shown["subjects"] == [subject]


@pytest.mark.parametrize(
    "body",
    [
        {"schema": 'syntax = "proto3"; // \0', "schemaType": "PROTOBUF"},
        {"schema": '"int"', "metadata": {"properties": {"a": "\0"}}},
    ],
)
def test_a_text_that_no_store_could_hold_is_told_so(world: World, subject: str, body: dict[str, object]) -> None:
    answer = world.http.post(f"/subjects/{subject}/versions", json=body)
    assert answer.status_code == 422
    assert world.http.post(f"/subjects/{subject}/versions", json={"schema": '"int"'}).status_code == 200


def test_a_schema_may_speak_of_the_character_that_it_cannot_hold(world: World, subject: str) -> None:
    fields = [{"name": "b", "type": {"type": "fixed", "name": "F", "size": 1}, "default": "\0", "doc": "\0"}]
    schema = json.dumps({"type": "record", "name": "R", "zh": "\0", "fields": fields})
    answer = world.http.post(f"/subjects/{subject}/versions", json={"schema": schema})
    assert answer.status_code == 200, answer.text
    assert world.http.get(f"/subjects/{subject}/versions/1").json()["schema"] == schema


def test_a_name_of_thousands_of_characters_is_told_so(world: World) -> None:
    name = quote("年" * 2000, safe="")
    for method, path in (("PUT", f"/config/{name}"), ("DELETE", f"/subjects/{name}"), ("GET", f"/mode/{name}")):
        assert world.http.request(method, path, json={"compatibility": "NONE"}).status_code == 422


# --- without HTTP ----------------------------------------------------------------------------------------------


def service(*, governed: bool = False) -> Subjects:
    store = memory_store()
    return Subjects(store, governed=lambda _: governed)


def classified(level: str) -> Content:
    field = {
        "name": "n",
        "type": "string",
        "level": level,
        "personal": "N",
        "sensitive": "N",
        "mask": "none",
        "zh": "名",
    }
    return Content(text=json.dumps({"type": "record", "name": "R", "zh": "人", "fields": [field]}))


def test_deleting_is_no_way_round_an_approval() -> None:
    subjects = service(governed=True)
    subjects.register("gov", classified("G3"))
    with pytest.raises(ConflictError) as lowered:
        subjects.register("gov", classified("G1"))
    assert lowered.value.reason is Reason.CLASSIFICATION_LOWERED
    subjects.delete("gov")
    for purge in (
        lambda: subjects.delete("gov", permanent=True),
        lambda: subjects.delete_version("gov", 1, permanent=True),
    ):
        with pytest.raises(ConflictError, match="versions are kept"):
            purge()
    with pytest.raises(ConflictError) as again:
        subjects.register("gov", classified("G1"))
    assert again.value.reason is Reason.CLASSIFICATION_LOWERED


def test_an_import_cannot_use_up_the_ids() -> None:
    subjects = service()
    subjects.configuration.set_mode("imp", "IMPORT")
    for schema_id in (2**31 - 1, MAX_GAPS + 1):
        with pytest.raises(InvalidError, match="at most"):
            subjects.register("imp", Content(text='"int"'), schema_id=schema_id)
    assert subjects.register("imp", Content(text='"int"'), schema_id=MAX_GAPS).schema_id == MAX_GAPS
    assert subjects.register("other", Content(text='"long"')).schema_id == MAX_GAPS + 1


def test_imports_one_after_another_cannot_use_up_the_ids() -> None:
    subjects = service()
    subjects.configuration.set_mode(GLOBAL, "IMPORT")

    def use_up() -> None:
        for step in itertools.count():
            content = Content(text=json.dumps({"type": "fixed", "name": "F", "size": step}))
            subjects.register(f"imp{step}", content, schema_id=subjects.highest_id() + MAX_GAPS)

    with pytest.raises(InvalidError, match=f"expected {MAX_IMPORTED_ID} at most"):
        use_up()
    highest = subjects.highest_id()
    assert MAX_IMPORTED_ID - MAX_GAPS < highest < MAX_IMPORTED_ID
    subjects.configuration.set_mode(GLOBAL, "READWRITE")
    assert subjects.register("other", Content(text='"long"')).schema_id == highest + 1


def test_a_registry_that_could_not_read_its_aliases_reads_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = service()
    store, configuration = subjects.store, subjects.configuration
    configuration.configure("nick", {"alias": "real"})
    real = store.part.configurations

    def away(_: object) -> object:
        raise ConnectionError

    monkeypatch.setattr(store.part, "configurations", away)
    with pytest.raises(ConnectionError):
        configuration.resolve_alias("nick")
    monkeypatch.setattr(store.part, "configurations", real)
    assert configuration.resolve_alias("nick") == "real"


def test_who_waits_for_the_settings_keeps_nobody_else_waiting() -> None:
    entered, leave, now = threading.Event(), threading.Event(), [0.0]

    class Slow(MemorySubjects):
        """Keeps one thread waiting, as a store without a free connection does."""

        def configurations(self, reader: Reader) -> Mapping[str, Settings]:
            if threading.current_thread().name == "waits":
                entered.set()
                assert leave.wait(20)
            return super().configurations(reader)

    configuration = Subjects(Store(Slow(), MemoryDatabase()), clock=lambda: now[0]).configuration
    configuration.configure("nick", {"alias": "real"})
    configuration.configure("other", {"normalize": True})
    assert configuration.resolve_alias("nick") == "real"
    now[0] = 5.0
    waits = threading.Thread(target=configuration.resolve_alias, args=("nick",), name="waits")
    waits.start()
    others = threading.Thread(
        target=lambda: seen.append((configuration.normalizes("other"), configuration.resolve_alias("nick")))
    )
    seen: list[tuple[bool, str]] = []
    try:
        assert entered.wait(20)
        others.start()
        others.join(5)
        assert seen == [(True, "real")]
        configuration.configure("nick", {"alias": "other"})
        assert configuration.resolve_alias("nick") == "other", "what was changed here is seen at once"
    finally:
        leave.set()
        waits.join(20)
    assert configuration.resolve_alias("nick") == "other", "and stays seen"
