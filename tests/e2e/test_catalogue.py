"""A catalogue entry's whole life, as its people live it: by command and by HTTP, against a pool as processes."""

import json
from collections.abc import Iterator
from datetime import datetime, time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rdflib import DCAT, RDF, Graph

from exchange.deadlines.clock import SHANGHAI
from exchange.deadlines.in_force import ShippedRules
from exchange.deadlines.profile import RuleId
from schemas import library
from schemas.errors import InvalidError, PoolError, Reason, RefusedError
from tests.kit.cases.catalogue import metadata
from tests.kit.world.world import Office, World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),  # of rdflib's own
]

TOPIC = "population.v1"
FILED = {"reason": "职责调整", "filing": "备案〔2026〕1号"}
TODAY = datetime.now(SHANGHAI).date().isoformat()


class City:
    """A pool, a provider with its offices, a consumer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.provider, self.consumer = world.department("公安局"), world.department("人社局")
        self.editor, self.head = map(self.provider.account, ("catalogue_editor", "sharing_office_head"))

    def pool(self, office: Office | None, role: str, *words: str, check: bool = True, group: str = "catalogue") -> str:
        """Run `pool catalogue`, or another group, as an account; return what it prints, errors too."""
        name = "authority-1" if office is None else f"{role}-{office.id[-6:]}".replace("_", "-")
        token = self.world.folder / "token"
        token.write_text(self.world.people.tokens[name])
        options = ("--data", str(self.world.data), "--token-file", str(token))
        done = self.world.programs.run("pool", group, *options, *words, check=check)
        return done.stdout + done.stderr

    def as_editor(self, *words: str) -> str:
        return self.pool(self.provider, "catalogue_editor", *words)

    def as_head(self, *words: str) -> str:
        return self.pool(self.provider, "sharing_office_head", *words)


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        yield City(world)


def refused(reason: Reason, act: Any) -> PoolError:
    with pytest.raises(PoolError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value


def document(folder: Path, **changes: Any) -> Path:
    path = folder / "entry.json"
    path.write_text(json.dumps({"topic": TOPIC, "metadata": metadata(**changes).to_document()}, ensure_ascii=False))
    return path


def test_an_entry_lives_from_its_draft_to_its_end(city: City, tmp_path: Path) -> None:
    faulty = document(tmp_path, title_en="", share_scope="", pia_id="")
    found = city.pool(city.provider, "catalogue_editor", "check", str(faulty), check=False)
    assert [line.split("\t")[0] for line in found.splitlines()] == ["title_en", "share_scope", "pia_id"]
    assert "809 Art. 15" in found
    city.as_editor("draft", str(document(tmp_path)))
    shown = city.editor.get(f"/catalogue/records/{TOPIC}")
    assert (shown["state"], shown["code"], shown["faults"]) == ("draft", "101001/000001", [])
    assert f"{TOPIC}: dept_review" in city.as_editor("submit", TOPIC)
    refused(Reason.ROLE_MISSING, lambda: city.editor.post(f"/catalogue/{TOPIC}/approval"))
    assert TOPIC in city.as_head("records", "--state", "dept_review")
    assert f"{TOPIC}: authority_review" in city.as_head("approve", TOPIC)

    refused(Reason.SUBJECT_UNKNOWN, lambda: city.world.root.post(f"/catalogue/{TOPIC}/publication"))
    assert city.editor.get(f"/catalogue/records/{TOPIC}")["state"] == "authority_review", "act and entry are one"
    city.editor.post(f"/catalogue/{TOPIC}/schemas", {"text": library.text("population")})
    city.pool(None, "", "publish", TOPIC)
    assert city.world.root.get("/catalogue")[0]["state"] == "published"

    refused(Reason.TRANSITION_NOT_ALLOWED, lambda: city.world.root.post(f"/catalogue/{TOPIC}/archival"))
    grant = city.consumer.request(TOPIC, ["full_name"])
    city.provider.approve(grant)
    sink = city.consumer.enrol("sink")
    terms = {"purpose": "eligibility", "case": "STANDING-1"}
    with city.world.client(sink) as client:
        assert client.fetch(grant, **terms) is not None
        city.as_head("suspend", TOPIC, "--filing", FILED["filing"], "--reason", FILED["reason"])
        with pytest.raises(RefusedError) as caught:
            client.fetch(grant, **terms)
        assert caught.value.reason is Reason.RESOURCE_NOT_PUBLISHED
        city.pool(None, "", "resume", TOPIC, "--reason", "整改完成")
        assert client.fetch(grant, **terms) is not None

    city.consumer.account("catalogue_editor")
    assert city.pool(city.consumer, "catalogue_editor", "notices") == ""
    announce = ("announce", TOPIC, "--from", TODAY, "--filing", FILED["filing"], "--reason", FILED["reason"])
    assert city.consumer.id in city.as_head(*announce), "who is told"
    assert TOPIC in city.pool(city.consumer, "catalogue_editor", "notices")
    assert city.pool(city.provider, "catalogue_editor", "notices") == ""
    assert f"{TOPIC}: archived" in city.pool(None, "", "retire", TOPIC, "--reason", "职责取消")
    assert city.world.root.get("/catalogue")[0]["state"] == "archived"
    acts = [row.split("\t")[1] for row in city.as_editor("versions", TOPIC).splitlines()]
    assert acts == ["describe", "submit", "approve", "publish", "suspend", "resume", "announce", "retire"]


def test_an_update_has_its_clock_and_the_authority_consents_to_more_time_once(city: City, tmp_path: Path) -> None:
    topic = "movers.v1"
    city.provider.offer(topic, library.text("population"))
    today = datetime.now(SHANGHAI).date()
    city.as_editor("change", topic, "--on", today.isoformat(), "--reason", "职责调整")
    rules = ShippedRules().rules(None)  # type: ignore[arg-type] - what is shipped needs no database
    clock = rules.rule(RuleId.CATALOGUE_UPDATE).clock(datetime.combine(today, time.min, SHANGHAI))
    for expected in (clock.due(rules.calendar), clock.extended_by(5).due(rules.calendar)):
        record = city.editor.get(f"/catalogue/records/{topic}")
        assert expected is not None
        assert (record["due_on"], record["due"]) == (expected.day.isoformat(), "normal")
        assert record["due_on"] in city.as_editor("records", "--state", "updating")
        if not record["change"]["extended"]:
            city.pool(None, "", "extend", topic, "--reason", "情况复杂")
    again = partial(city.world.root.post, f"/catalogue/{topic}/extension", {"reason": "再次"})
    refused(Reason.TRANSITION_NOT_ALLOWED, again)
    body = metadata(class_code=record["code"].partition("/")[0], code=record["code"])
    city.editor.post(f"/catalogue/{topic}/metadata", body.to_document())
    city.as_head("submit", topic)
    waiting = city.world.root.list("/catalogue/records", {"state": "authority_review"})
    assert [one["due_on"] for one in waiting if one["topic"] == topic] != [expected.day.isoformat()], "2 working days"
    city.pool(None, "", "publish", topic)
    assert city.editor.get(f"/catalogue/records/{topic}")["due"] is None


def test_each_act_has_its_entry_and_each_version_names_it(city: City) -> None:
    versions = city.editor.list(f"/catalogue/records/{TOPIC}/versions")
    entries = {one["entry"]["id"]: one["entry"] for one in city.world.root.list("/audit/entries", {"resource": TOPIC})}
    for version in versions:
        entry = entries[version["act"]["entry"]]
        assert entry["actor"]["id"] == version["act"]["by"]
        assert (entry["data"]["event"], entry["data"]["state"]) == (version["act"]["event"], version["state"])
    denied = [entry for entry in entries.values() if entry.get("reason") == "role_missing"]
    assert denied, "what is refused is in the log too"


def test_who_wrote_or_consented_does_not_publish_under_another_account(city: City) -> None:
    topic = "firms.v1"
    people = city.world.people
    editor = people.account(city.world, "zhang", "catalogue_editor", city.provider.id, staff_number="P-1")
    head = people.account(city.world, "zhang-2", "sharing_office_head", city.provider.id, staff_number="P-1")
    editor.post(f"/catalogue/{topic}/metadata", metadata().to_document())
    editor.post(f"/catalogue/{topic}/submission")
    refused(Reason.SAME_PERSON, lambda: head.post(f"/catalogue/{topic}/approval"))
    city.head.post(f"/catalogue/{topic}/approval")


def test_a_department_sees_its_own_drafts_and_of_others_what_is_in_force(city: City) -> None:
    other = city.consumer.account("sharing_office_head")
    assert other.list("/catalogue/records") == []
    for hidden in ("firms.v1", TOPIC):  # in review, archived
        refused(Reason.RESOURCE_UNKNOWN, partial(other.get, f"/catalogue/records/{hidden}"))
        refused(Reason.RESOURCE_UNKNOWN, partial(other.get, f"/catalogue/records/{hidden}/versions"))
    refused(Reason.NOT_FOUND, lambda: other.get("/catalogue/records/movers.v1/versions"))
    assert other.get("/catalogue/records/movers.v1")["metadata"]["title_en"] == "Natural persons"
    refused(Reason.OTHER_DEPARTMENT, lambda: other.post("/catalogue/firms.v1/submission"))
    refused(Reason.OTHER_DEPARTMENT, lambda: other.post("/catalogue/firms.v1/return", {"reason": "x"}))


def test_metadata_with_faults_is_refused_element_by_element(city: City) -> None:
    body = {**metadata().to_document(), "share_scope": "", "level": "G9"}
    error = refused(Reason.REQUEST_INVALID, lambda: city.editor.post("/catalogue/new.v1/metadata", body))
    assert isinstance(error, InvalidError)
    assert error.details.keys() == {"share_scope", "level"}
    with_number = {**metadata().to_document(), "abstract": "如 11010519491231002X"}
    refused(Reason.PERSONAL_NUMBER, lambda: city.editor.post("/catalogue/new.v1/metadata", with_number))


def test_one_data_element_has_one_source_department(city: City, tmp_path: Path) -> None:
    root, mine, theirs = city.world.root, "ids.v1", "their-ids.v1"
    element = {"code": "DE00001", "zh": "公民身份号码", "en": "Identity number", "type": "text", "length": 18}
    refused(Reason.ROLE_MISSING, lambda: city.editor.post("/elements", element))
    file = tmp_path / "element.json"
    file.write_text(json.dumps({**element, "level": "G4", "personal": "D", "mask": "keep_3_4"}))
    assert json.loads(city.pool(None, "", "define", str(file), group="element"))["version"] == 1
    item = {"name": "公民身份号码", "type": "text", "element": "DE00001", "source": True}
    body = {**metadata().to_document(), "items": [item]}
    for topic, office in ((mine, city.provider), (theirs, city.consumer)):
        editor, head = map(office.account, ("catalogue_editor", "sharing_office_head"))
        editor.post(f"/catalogue/{topic}/metadata", body)
        editor.post(f"/catalogue/{topic}/schemas", {"text": library.text("population")})
        editor.post(f"/catalogue/{topic}/submission")
        head.post(f"/catalogue/{topic}/approval")
    root.post(f"/catalogue/{mine}/publication")
    refused(Reason.ELEMENT_CONTESTED, lambda: root.post(f"/catalogue/{theirs}/publication"))
    assert "contested\tDE00001" in city.pool(None, "", "duplicates", group="element")
    lead = {"department": city.provider.id, "reason": "户籍登记职责"}
    refused(Reason.ROLE_MISSING, lambda: city.head.post("/elements/DE00001/lead", lead))
    city.pool(
        None, "", "lead", "DE00001", "--department", city.provider.id, "--reason", "户籍登记职责", group="element"
    )
    refused(Reason.ELEMENT_HAS_LEAD, lambda: root.post(f"/catalogue/{theirs}/publication"))
    shown = city.editor.get("/elements/DE00001")
    assert (shown["lead"], shown["sources"]) == (city.provider.id, [mine])
    changed = root.post("/elements/DE00001/lead", {"department": city.consumer.id, "reason": "职责划转"})
    assert changed["no_source"] == [mine]
    root.post(f"/catalogue/{theirs}/publication")
    rows = [one for one in city.editor.list("/duplicates") if one["element"] == "DE00001"]
    assert [(one["kind"], [entry["topic"] for entry in one["entries"]]) for one in rows] == [("against_lead", [mine])]
    denied = root.list("/audit/entries", {"resource": theirs})
    reasons = {one["entry"]["data"].get("failed") for one in denied}
    assert {"element_contested", "element_has_lead"} <= reasons, "each refusal is in the log"


def test_fields_name_their_data_elements_and_fit_them(city: City, tmp_path: Path) -> None:
    dictionary = tmp_path / "elements.json"
    dictionary.write_text(city.pool(None, "", "list", "--json", group="element"))
    topic = "ids.v1"
    named = json.loads(library.text("population"))
    number = next(one for one in named["fields"] if one["name"] == "id_number")
    number |= {"element": "DE00001"}
    unfit = {
        **named,
        "fields": [one | ({"element": "DE1"} if one["name"] == "full_name" else {}) for one in named["fields"]],
    }
    files = []
    for name, schema in (("fit", named), ("unfit", unfit)):
        files.append(tmp_path / f"{name}.avsc")
        files[-1].write_text(json.dumps(schema, ensure_ascii=False))
    lint = partial(city.world.programs.run, "pool-schema", "lint", "--elements", str(dictionary), check=False)
    assert lint(str(files[0])).returncode == 0
    assert "DE1 is not in the dictionary" in lint(str(files[1])).stdout
    refused(
        Reason.ELEMENT_UNFIT, lambda: city.editor.post(f"/catalogue/{topic}/schemas", {"text": files[1].read_text()})
    )
    gaps = {one["path"] for one in city.editor.list("/element-gaps", {"limit": 7}) if one["topic"] == topic}
    assert "id_number" in gaps
    city.as_editor("schema", topic, str(files[0]))
    shown = city.pool(city.provider, "catalogue_editor", "show", "DE00001", group="element")
    assert f"{topic}-value\tid_number\t2" in shown
    after = [one for one in city.editor.list("/element-gaps") if one["topic"] == topic]
    assert {one["path"] for one in after} == gaps - {"id_number"}
    assert city.editor.list("/element-gaps", {"limit": 3}) == city.editor.list("/element-gaps")
    assert topic not in {one["topic"] for one in city.consumer.account("catalogue_editor").list("/element-gaps")}


def test_the_catalogue_in_force_is_exported_as_dcat_part_by_part(city: City, tmp_path: Path) -> None:
    records = {one["topic"]: one for one in city.world.root.list("/catalogue/records")}
    expected = {
        topic for topic, one in records.items() if one["in_force"] and one["state"] not in {"suspended", "archived"}
    }
    assert len(expected) >= 2
    for name in ("catalogue.ttl", "catalogue.jsonld"):
        city.as_editor("export", str(tmp_path / name))
        text = (tmp_path / name).read_text()
        found = Graph().parse(data=text, format="turtle" if name.endswith("ttl") else "json-ld")
        topics = {str(one).rpartition("/")[2] for one in found.subjects(RDF.type, DCAT.Dataset)}
        assert topics == expected, "those in force, and no draft, suspended or archived one"
    parts = [*city.editor.texts("/catalogue/dcat", {"limit": 1})]
    assert len(parts) == len(expected)
    assert len({*Graph().parse(data="\n".join(parts)).subjects(RDF.type, DCAT.Dataset)}) == len(expected)


def test_the_catalogue_is_searched_in_both_languages_and_by_facet(city: City) -> None:
    found = city.as_editor("search", "自然人")
    assert "ids.v1" in found
    assert "firms.v1" in found, "a draft's title too, as the list shows it to its department"
    assert "ids.v1" in city.as_editor("search", "natural", "persons")
    assert city.as_editor("search", "自然人", "--state", "archived").startswith("population.v1")
    assert "state\tarchived\t1" in city.as_editor("search", "自然人", "--facets")
    parts = city.editor.list("/catalogue/search", {"q": "自然人", "limit": 1})
    exact = [one["topic"] for one in city.editor.list("/catalogue/search", {"q": "firms"})]
    assert exact[0] == "firms.v1"
    assert len(parts) == len(city.editor.list("/catalogue/search", {"q": "自然人"}))
    refused(Reason.REQUEST_INVALID, lambda: city.editor.get("/catalogue/search", {"q": "!!"}))
