"""Search service: entries of the catalogue by words in Chinese and English, and by facet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.control.catalogue.visibility import viewer_of
from registry.catalogue.search import Facets, Hit, SearchIndex, SearchQuery, query_words
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database
from registry.directory.catalogue import Catalogue
from registry.directory.model import CatalogueEntry
from schemas.access import Action, Actor
from schemas.errors import CorruptError, InvalidError, Reason

__all__ = ["CatalogueSearch", "FoundEntries"]


@dataclass(frozen=True, slots=True)
class FoundEntries:
    """A page of hits with their entries. `next`: hit behind which the next page begins; None = there is none."""

    entries: Sequence[tuple[Hit, CatalogueEntry]]
    next: Hit | None


class CatalogueSearch:
    """Search of the catalogue; every account may, in what it sees. The index finds, the catalogue says what is found.

    Args:
        database: of the pool.
        enforcer: enforces and records.
        attributes: standing of actors.
        catalogue: of entries.
        index: of their texts.
    """

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        catalogue: Catalogue,
        index: SearchIndex,
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._catalogue = catalogue
        self._index = index

    def find(
        self,
        actor: Actor,
        call: RequestContext,
        text: str,
        limits: Mapping[str, str],
        *,
        after: Hit | None = None,
        limit: int = MAX_PAGE,
    ) -> FoundEntries:
        """Return entries that have every word and every facet's value, the best first; an empty text has no word.

        Raises:
            RefusedError: the actor may not read the catalogue.
            InvalidError: see `query_words`.
        """
        query = self._query(actor, call, text, limits, after=after, limit=limit)
        with self._database.read() as reader:
            hits = self._index.find(reader, query)
            found = []
            for hit in hits:
                try:
                    found.append((hit, self._catalogue.visible(reader, hit.topic, query.viewer)))
                except CorruptError:
                    continue  # reported; `GET /v1/catalogue` names it as damaged
                except InvalidError as error:
                    if error.reason is not Reason.RESOURCE_UNKNOWN:
                        raise
        return FoundEntries(found, hits[-1] if len(hits) >= limit else None)

    def facets(self, actor: Actor, call: RequestContext, text: str, limits: Mapping[str, str]) -> Facets:
        """Return how many such entries there are, by facet and value.

        Raises:
            RefusedError: the actor may not read the catalogue.
            InvalidError: see `query_words`.
        """
        query = self._query(actor, call, text, limits)
        with self._database.read() as reader:
            return self._index.facets(reader, query)

    def _query(
        self,
        actor: Actor,
        call: RequestContext,
        text: str,
        limits: Mapping[str, str],
        *,
        after: Hit | None = None,
        limit: int = MAX_PAGE,
    ) -> SearchQuery:
        decision = decide_control(actor, Action.CATALOGUE_READ, standing=self._attributes.standing(actor))
        self._enforcer.admit(actor, Action.CATALOGUE_READ, "search", call, decision)
        words = query_words(text) if text.strip() else ()
        return SearchQuery(words=words, limits=limits, viewer=viewer_of(actor), after=after, limit=limit)
