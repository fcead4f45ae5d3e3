"""Over random histories of registering, deleting, purging, importing and restoring, no id ever means two schemas."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.avro.compatibility import Compatibility
from registry.subjects.model import Content
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from tests.kit.cases.registry import Store, Subjects, memory_store, record

NAMES = ("a-value", ":.police:a-value", "b-value")
CONTENTS = 5
HOLDER = "kept"


def content(number: int) -> Content:
    return record("x", name=f"R{number}")


def service(store: Store) -> Subjects:
    return Subjects(store, level=Compatibility.NONE, governed=lambda _: False)


@dataclass
class Model:
    """What was ever told: id → content, forever; and what stands now: subject → number → (id, content, deleted)."""

    meaning: dict[int, int] = field(default_factory=dict)
    held: dict[str, dict[int, tuple[int, int, bool]]] = field(default_factory=lambda: {name: {} for name in NAMES})

    def told(self, schema_id: int, number: int) -> None:
        assert self.meaning.setdefault(schema_id, number) == number, f"{schema_id} means two schemas"


@dataclass
class History:
    """The registry under test beside its model."""

    store: Store = field(default_factory=memory_store)
    model: Model = field(default_factory=Model)

    def __post_init__(self) -> None:
        self.subjects = service(self.store)

    def register(self, name: str, what: int, _: int) -> None:
        found = self.subjects.register(name, content(what))
        held = self.model.held[name]
        live = [number for number, (_, one, gone) in held.items() if one == what and not gone]
        expected = max(live) if live else max(held, default=0) + 1
        assert found.number == expected
        self.model.told(found.schema_id, what)
        held[expected] = (found.schema_id, what, False)

    def delete(self, name: str, _: int, __: int) -> None:
        for number in self.subjects.delete(name):
            schema_id, what, _gone = self.model.held[name][number]
            self.model.held[name][number] = (schema_id, what, True)

    def purge(self, name: str, _: int, __: int) -> None:
        self.subjects.delete(name, permanent=True)
        self.model.held[name].clear()

    def delete_version(self, name: str, _: int, number: int) -> None:
        self.subjects.delete_version(name, number)
        schema_id, what, _gone = self.model.held[name][number]
        self.model.held[name][number] = (schema_id, what, True)

    def purge_version(self, name: str, _: int, number: int) -> None:
        self.subjects.delete_version(name, number, permanent=True)
        del self.model.held[name][number]

    def bring(self, name: str, what: int, number: int) -> None:
        """Import a content under an id and a number of somebody else's choice."""
        schema_id = number * 2 + what % 2
        self.subjects.configuration.set_mode(name, "IMPORT", force=True)
        known = self.model.meaning.get(schema_id, what)
        held = self.model.held[name].get(number, (schema_id, what, False))
        try:
            found = self.subjects.register(name, content(what), schema_id=schema_id, number=number)
        except ConflictError as error:
            if known == what and held[0] == schema_id:
                raise
            if error.reason not in {Reason.ID_TAKEN, Reason.ID_MISMATCH}:
                raise
        else:
            self.model.told(found.schema_id, what)
            assert found.schema_id == schema_id
            self.model.held[name][number] = (schema_id, what, held[2])
        finally:
            self.subjects.configuration.set_mode(name, "READWRITE")

    def restart(self, _: str, __: int, ___: int) -> None:
        self.subjects = service(self.store)

    def restore(self, _: str, __: int, ___: int) -> None:
        """Put everything into an empty registry: versions, and the ids that have none any more."""
        other = memory_store()
        empty = service(other)
        empty.configuration.set_mode("", "IMPORT")
        for schema_id in range(1, self.subjects.highest_id() + 1):
            try:
                known = self.subjects.by_id(schema_id)
            except InvalidError:
                continue
            empty.register(HOLDER, known.content, schema_id=schema_id, number=schema_id)
        for name in NAMES:
            for version in self.store.versions(name):
                found = self.subjects.by_id(version.schema_id).content
                empty.register(name, found, schema_id=version.schema_id, number=version.number)
                if version.deleted:
                    empty.delete_version(name, version.number)
        empty.configuration.set_mode("", "READWRITE")
        if HOLDER in empty.subjects():
            empty.delete(HOLDER)
            empty.delete(HOLDER, permanent=True)
        self.store = other
        self.subjects = service(other)

    def check(self) -> None:
        for name, held in self.model.held.items():
            stands = {item.number: (item.schema_id, item.deleted) for item in self.store.versions(name)}
            assert stands == {number: (schema_id, gone) for number, (schema_id, _, gone) in held.items()}
        for schema_id, what in self.model.meaning.items():
            assert self.subjects.by_id(schema_id).content.text == content(what).text


ACTS = ("register", "register", "delete", "purge", "delete_version", "purge_version", "bring", "restart", "restore")

REFUSALS = {
    Reason.SUBJECT_UNKNOWN,
    Reason.VERSION_UNKNOWN,
    Reason.SUBJECT_DELETED,
    Reason.SUBJECT_NOT_DELETED,
    Reason.VERSION_DELETED,
    Reason.VERSION_NOT_DELETED,
}


@given(
    acts=st.lists(
        st.tuples(st.sampled_from(ACTS), st.sampled_from(NAMES), st.integers(0, CONTENTS - 1), st.integers(1, 6)),
        max_size=30,
    )
)
@settings(max_examples=150)
def test_no_history_makes_an_id_mean_two_schemas(acts: list[tuple[str, str, int, int]]) -> None:
    history = History()
    for act, name, what, number in acts:
        try:
            getattr(history, act)(name, what, number)
        except (InvalidError, ConflictError, RefusedError) as error:
            if error.reason not in REFUSALS:
                raise
        history.check()
