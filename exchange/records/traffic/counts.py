"""Metrics by resource and grant: what is published, released, withdrawn and refused.

A label is a topic's name or a grant's id, never what a caller made up: a topic gets one when something was appended to
it, a grant when it was read from the store. Beyond the bound a counter counts under `other`, and a grant has no lag of
its own. No label is a person's.
"""

from typing import Final

from exchange import metrics
from exchange.records.traffic.bounded_label import BoundedLabel
from exchange.records.traffic.grant_lags import GrantLags
from schemas.errors import Reason
from schemas.names import Topic

__all__ = ["TRAFFIC", "Traffic"]

_RESOURCES = 1_000
_GRANTS = 2_000


class Traffic:
    """Counts what one process does, by resource and grant."""

    def __init__(self) -> None:
        self._resources = BoundedLabel(_RESOURCES)
        self._grants = BoundedLabel(_GRANTS)
        self.lags = GrantLags()

    def published(self, topic: Topic, records: int, voids: int) -> None:
        """Count what was appended: records in all, and the voids among them."""
        resource = self._resources.of(str(topic))
        metrics.RESOURCE_RECORDS.labels(resource, "published").inc(records - voids)
        metrics.RESOURCE_RECORDS.labels(resource, "voided").inc(voids)

    def batch_refused(self, topic: str, reason: Reason) -> None:
        """Count a batch that was refused; *topic* is what its connector named."""
        metrics.RESOURCE_REFUSED.labels(self._resources.known(topic), reason).inc()

    def released(self, grant_id: str, topic: Topic, records: int, withdrawn: int) -> None:
        """Count a release: records in all, and the withdrawals among them."""
        resource, grant = self._resources.of(str(topic)), self._grants.of(grant_id)
        for what, count in (("released", records - withdrawn), ("withdrawn", withdrawn)):
            metrics.RESOURCE_RECORDS.labels(resource, what).inc(count)
            metrics.GRANT_RECORDS.labels(grant, what).inc(count)

    def denied(self, grant_id: str, reason: Reason) -> None:
        """Count a call under a grant of the store that was denied."""
        metrics.GRANT_REFUSED.labels(self._grants.of(grant_id), reason).inc()


TRAFFIC: Final = Traffic()
"""Of this process, as its metrics are."""
