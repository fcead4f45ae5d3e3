"""DCAT export: it fits the shapes of DCAT-AP 3.0.1, and each shape is red on a planted fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pyshacl import validate
from rdflib import DCAT, DCTERMS, RDF, BNode, Graph, Literal, Namespace, URIRef
from rdflib.compare import isomorphic

from registry.catalogue.code_lists import code_lists
from registry.catalogue.dcat import CatalogueDescription, RdfForm, catalogue_graph, serialized
from registry.catalogue.life_cycle import EntryEvent, ProcedureState
from registry.catalogue.record import CatalogueRecord, EntryAct
from schemas.names import Topic
from tests.kit.cases.catalogue import metadata
from tests.kit.cases.registry import AT

SH = Namespace("http://www.w3.org/ns/shacl#")
SHAPES = Graph().parse(Path(__file__).resolve().parents[3] / "shapes" / "dcat-ap-3.0.1.ttl")
BASE = "https://pool.example/"
ABOUT = CatalogueDescription(
    base=BASE,
    title=("政务信息资源目录", "Catalogue of government information resources"),
    description=("已发布的目录条目", "Published entries"),
    publisher="某市数据局",
    departments={"d-1": "某市公安局"},
)
ACT = EntryAct(event=EntryEvent.PUBLISH, by="authority", at=AT, entry="e")
RECORD = CatalogueRecord(
    topic=Topic.parse("population.v1"),
    version=4,
    in_force=4,
    provider="d-1",
    code="101001/000001",
    state=ProcedureState.PUBLISHED,
    metadata=metadata(code="101001/000001"),
    act=ACT,
)
pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # of rdflib's own
Constraint = tuple[URIRef, URIRef, str, str]  # class, path, minCount or maxCount, its name


def graph(*records: CatalogueRecord) -> Graph:
    return catalogue_graph(ABOUT, records or (RECORD,), code_lists())


def constraints() -> list[Constraint]:
    found = []
    for shape, target in SHAPES.subject_objects(SH.targetClass):
        for one in SHAPES.objects(shape, SH.property):
            path = SHAPES.value(one, SH.path)
            for kind in ("minCount", "maxCount"):
                if (one, SH[kind], None) in SHAPES:
                    name = f"{str(target).rpartition('#')[2] or target}-{str(path).rpartition('/')[2]}-{kind}"
                    found.append((URIRef(str(target)), URIRef(str(path)), kind, name))
    return sorted(found, key=lambda one: one[3])


CONSTRAINTS = constraints()


def findings(data: Graph) -> set[tuple[str, str]]:
    """Return the paths and the constraints that a graph breaks."""
    _, report, _ = validate(data, shacl_graph=SHAPES)
    assert isinstance(report, Graph)
    return {
        (str(report.value(result, SH.resultPath)), str(report.value(result, SH.sourceConstraintComponent)))
        for result in report.subjects(RDF.type, SH.ValidationResult)
    }


def test_the_export_fits_every_shape_and_has_something_for_each() -> None:
    assert findings(graph()) == set()
    for _, target in SHAPES.subject_objects(SH.targetClass):
        assert (None, RDF.type, target) in graph(), target
    assert len(CONSTRAINTS) >= 40


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda one: one[3])
def test_each_mandatory_property_and_each_cardinality_is_red_on_a_planted_fault(constraint: Constraint) -> None:
    target, path, kind, _ = constraint
    planted = graph()
    subject = next(iter(planted.subjects(RDF.type, target)))
    if kind == "minCount":
        assert (subject, path, None) in planted
        planted.remove((subject, path, None))
    else:
        for value in (URIRef("urn:one"), URIRef("urn:two")):
            planted.add((subject, path, value))
    component = f"{SH}{'MinCount' if kind == 'minCount' else 'MaxCount'}ConstraintComponent"
    assert (str(path), component) in findings(planted)


@pytest.mark.parametrize("form", RdfForm)
def test_both_forms_are_the_same_graph(form: RdfForm) -> None:
    text = serialized(graph(), form)
    read = Graph().parse(data=text, format="json-ld" if form is RdfForm.JSON_LD else "turtle")
    assert isomorphic(read, graph())
    if form is RdfForm.JSON_LD:
        assert isinstance(json.loads(text), list | dict)


def test_an_entry_says_what_the_catalogue_says() -> None:
    found = graph()
    dataset = URIRef(f"{BASE}dataset/population.v1")
    assert set(found.objects(dataset, DCTERMS.title)) == {
        Literal("自然人基础信息", lang="zh"),
        Literal("Natural persons", lang="en"),
    }
    assert found.value(dataset, DCTERMS.identifier) == Literal("101001/000001")
    assert len(set(found.objects(dataset, DCAT.distribution))) == 2
    assert found.value(URIRef(f"{BASE}service/population.v1"), DCAT.servesDataset) == dataset
    assert isinstance(found.value(dataset, DCAT.contactPoint), BNode)


@pytest.mark.parametrize(
    ("share_type", "open_type", "expected"),
    [
        ("unconditional", "unconditional", "PUBLIC"),
        ("unconditional", "none", "RESTRICTED"),
        ("conditional", "unconditional", "RESTRICTED"),
        ("conditional", "none", "RESTRICTED"),
        ("none", "none", "NON_PUBLIC"),
    ],
)
def test_access_rights_follow_the_sharing_attribute(share_type: str, open_type: str, expected: str) -> None:
    changed = replace(RECORD, metadata=metadata(share_type=share_type, open_type=open_type))
    rights = graph(changed).value(URIRef(f"{BASE}dataset/population.v1"), DCTERMS.accessRights)
    assert str(rights).endswith(f"/access-right/{expected}")


def test_texts_that_hold_the_syntax_of_the_forms_stay_texts() -> None:
    evil = '"""@en . <urn:x> a <urn:y> .\n\\ \u2028 </script>'
    changed = replace(RECORD, metadata=metadata(title=evil, contact_name=evil, contact_email="a b<c>@x.example"))
    for form in RdfForm:
        text = serialized(graph(changed), form)
        read = Graph().parse(data=text, format="json-ld" if form is RdfForm.JSON_LD else "turtle")
        assert Literal(evil, lang="zh") in set(read.objects(None, DCTERMS.title))
        assert (URIRef("urn:x"), None, None) not in read
