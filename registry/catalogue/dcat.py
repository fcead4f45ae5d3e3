"""DCAT 3 export of the catalogue (W3C), by the application profile DCAT-AP 3.0.1: a graph, as JSON-LD or Turtle. Pure.

    catalogue           dcat:Catalog, its publisher the pool's operator
    department          foaf:Agent
    entry in force      dcat:Dataset, and a dcat:CatalogRecord that says since when it is so
    mode of sharing     dcat:Distribution; of the service interface a dcat:DataService too
    theme, class        skos:Concept of a skos:ConceptScheme
    contact             vcard:Kind: an office

Access rights follow the sharing attribute: PUBLIC where the resource is shared and opened without conditions,
RESTRICTED where it is shared otherwise, NON_PUBLIC where it is not shared. Titles and texts have both languages, as far
as the entry has them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from rdflib import DCAT, DCTERMS, FOAF, RDF, SKOS, XSD, BNode, Graph, Literal, Namespace, URIRef

from registry.catalogue.code_lists import CodeLists, Term
from registry.catalogue.metadata import Metadata
from registry.catalogue.record import CatalogueRecord

__all__ = ["CatalogueDescription", "RdfForm", "catalogue_graph", "serialized"]

_VCARD: Final = Namespace("http://www.w3.org/2006/vcard/ns#")
_AUTHORITY: Final = "http://publications.europa.eu/resource/authority/"
_ACCESS: Final = Namespace(f"{_AUTHORITY}access-right/")
_FREQUENCY: Final = Namespace(f"{_AUTHORITY}frequency/")
_FREQUENCIES: Final = {
    "realtime": "UPDATE_CONT",
    "daily": "DAILY",
    "weekly": "WEEKLY",
    "monthly": "MONTHLY",
    "quarterly": "QUARTERLY",
    "yearly": "ANNUAL",
}


class RdfForm(StrEnum):
    """Form of the export."""

    JSON_LD = "jsonld"
    TURTLE = "turtle"


_MEDIA: Final = {RdfForm.JSON_LD: "json-ld", RdfForm.TURTLE: "turtle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueDescription:
    """What is exported beside the entries.

    Attributes:
        base: address under which the entries are found, ends with `/`; the IRIs begin with it.
        title, description: Chinese and English, in this order.
        publisher: name of who keeps the catalogue.
        departments: internal id → name.
    """

    base: str
    title: tuple[str, str]
    description: tuple[str, str]
    publisher: str
    departments: Mapping[str, str]


def catalogue_graph(description: CatalogueDescription, records: Iterable[CatalogueRecord], lists: CodeLists) -> Graph:
    """Return the catalogue as a graph.

    Args:
        description: of the catalogue.
        records: the versions in force.
        lists: the code lists.
    """
    return _Export(description, lists).run(records)


def serialized(graph: Graph, form: RdfForm) -> str:
    """Return a graph as text, in the same order whenever it is the same."""
    text: str = graph.serialize(format=_MEDIA[form])
    return text


class _Export:
    def __init__(self, description: CatalogueDescription, lists: CodeLists) -> None:
        self._about = description
        self._lists = lists
        self._graph = Graph()
        for prefix, namespace in (("dcat", DCAT), ("dct", DCTERMS), ("foaf", FOAF), ("skos", SKOS), ("vcard", _VCARD)):
            self._graph.bind(prefix, namespace)
        self._catalogue = self._iri("catalogue")

    def run(self, records: Iterable[CatalogueRecord]) -> Graph:
        about = self._about
        self._add(self._catalogue, RDF.type, DCAT.Catalog)
        self._texts(self._catalogue, DCTERMS.title, *about.title)
        self._texts(self._catalogue, DCTERMS.description, *about.description)
        self._add(self._catalogue, DCTERMS.publisher, self._agent("operator", about.publisher))
        self._scheme("themes", "主题", "Themes")
        self._scheme("classes", "信息资源分类", "Classes")
        for record in records:
            self._entry(record)
        return self._graph

    def _entry(self, record: CatalogueRecord) -> None:
        metadata, topic = record.metadata, str(record.topic)
        dataset = self._iri(f"dataset/{topic}")
        agent = self._agent(record.provider, self._about.departments.get(record.provider, record.provider))
        self._add(self._catalogue, DCAT.dataset, dataset)
        self._add(dataset, RDF.type, DCAT.Dataset)
        self._texts(dataset, DCTERMS.title, metadata.title, metadata.title_en)
        self._texts(dataset, DCTERMS.description, metadata.abstract, metadata.abstract_en)
        self._add(dataset, DCTERMS.identifier, Literal(record.code))
        self._add(dataset, DCTERMS.publisher, agent)
        self._add(dataset, DCTERMS.accessRights, _ACCESS[_access(metadata)])
        if metadata.update_cycle in _FREQUENCIES:
            self._add(dataset, DCTERMS.accrualPeriodicity, _FREQUENCY[_FREQUENCIES[metadata.update_cycle]])
        self._add(dataset, DCTERMS.modified, Literal(record.act.at.isoformat(), datatype=XSD.dateTime))
        self._concepts(dataset, metadata)
        self._contact(dataset, metadata)
        for item in metadata.items:
            self._texts(dataset, DCAT.keyword, item.name, item.name_en)
        for mode in metadata.share_modes:
            self._distribution(dataset, topic, mode, metadata)
        self._record(record, dataset)

    def _record(self, record: CatalogueRecord, dataset: URIRef) -> None:
        about = self._iri(f"record/{record.topic}")
        self._add(self._catalogue, DCAT.record, about)
        self._add(about, RDF.type, DCAT.CatalogRecord)
        self._add(about, FOAF.primaryTopic, dataset)
        self._add(about, DCTERMS.modified, Literal(record.act.at.isoformat(), datatype=XSD.dateTime))

    def _distribution(self, dataset: URIRef, topic: str, mode: str, metadata: Metadata) -> None:
        term = self._lists.term("share_modes", mode)
        distribution = self._iri(f"distribution/{topic}/{mode}")
        access = self._iri(f"v1/catalogue/records/{topic}")
        self._add(dataset, DCAT.distribution, distribution)
        self._add(distribution, RDF.type, DCAT.Distribution)
        self._add(distribution, DCAT.accessURL, access)
        if term is not None:
            self._texts(distribution, DCTERMS.title, term.zh, term.en)
        if mode != "api":
            return
        service = self._iri(f"service/{topic}")
        self._add(self._catalogue, DCAT.service, service)
        self._add(distribution, DCAT.accessService, service)
        self._add(service, RDF.type, DCAT.DataService)
        self._texts(service, DCTERMS.title, metadata.title, metadata.title_en)
        self._add(service, DCAT.endpointURL, self._iri("v1/records/fetch"))
        self._add(service, DCAT.servesDataset, dataset)

    def _concepts(self, dataset: URIRef, metadata: Metadata) -> None:
        theme = self._lists.term("themes", metadata.theme)
        if theme is not None:
            self._add(dataset, DCAT.theme, self._concept("themes", theme.id, theme))
        found = self._lists.class_terms(metadata.class_code)
        if found is not None:
            top, item = found
            code = metadata.class_code[:3] if item is not None else top.id
            self._add(dataset, DCAT.theme, self._concept("classes", code, item or top))

    def _concept(self, scheme: str, code: str, term: Term) -> URIRef:
        concept = self._iri(f"{scheme}/{code}")
        self._add(concept, RDF.type, SKOS.Concept)
        self._texts(concept, SKOS.prefLabel, term.zh, term.en)
        self._add(concept, SKOS.inScheme, self._iri(scheme))
        return concept

    def _scheme(self, name: str, zh: str, en: str) -> None:
        scheme = self._iri(name)
        self._add(scheme, RDF.type, SKOS.ConceptScheme)
        self._texts(scheme, DCTERMS.title, zh, en)
        self._add(self._catalogue, DCAT.themeTaxonomy, scheme)

    def _agent(self, name_of: str, name: str) -> URIRef:
        agent = self._iri(f"department/{name_of}")
        self._add(agent, RDF.type, FOAF.Agent)
        self._add(agent, FOAF.name, Literal(name, lang="zh"))
        return agent

    def _contact(self, dataset: URIRef, metadata: Metadata) -> None:
        if not metadata.contact_name:
            return
        contact = BNode(f"contact-{quote(str(dataset), safe='').replace('%', '-')}")
        self._add(dataset, DCAT.contactPoint, contact)
        self._add(contact, RDF.type, _VCARD.Kind)
        self._add(contact, _VCARD.fn, Literal(metadata.contact_name))
        if metadata.contact_phone:
            number = quote("".join(one for one in metadata.contact_phone if one in "+0123456789"))
            self._add(contact, _VCARD.hasTelephone, URIRef(f"tel:{number}"))
        if metadata.contact_email:
            self._add(contact, _VCARD.hasEmail, URIRef(f"mailto:{quote(metadata.contact_email, safe='@')}"))

    def _texts(self, subject: URIRef, predicate: URIRef, zh: str, en: str) -> None:
        for text, language in ((zh, "zh"), (en, "en")):
            if text:
                self._add(subject, predicate, Literal(text, lang=language))

    def _iri(self, path: str) -> URIRef:
        return URIRef(f"{self._about.base}{quote(path)}")

    def _add(self, subject: URIRef | BNode, predicate: URIRef, value: URIRef | BNode | Literal) -> None:
        self._graph.add((subject, predicate, value))


def _access(metadata: Metadata) -> str:
    if metadata.share_type == "none":
        return "NON_PUBLIC"
    if metadata.share_type == metadata.open_type == "unconditional":
        return "PUBLIC"
    return "RESTRICTED"
