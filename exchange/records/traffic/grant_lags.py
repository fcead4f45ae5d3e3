"""Lag of grants: offsets of the topic behind the last fetch, measured at every sweep.

So it rises while the consumer is away. A process that has started knows of no fetch before.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from exchange import metrics
from exchange.broker.port import Broker, Ends
from schemas.errors import PoolError
from schemas.names import Topic
from schemas.record import Positions

__all__ = ["GrantLags"]

_GRANTS = 2_000
_FORGOTTEN = 7 * 86_400.0  # seconds after a grant's last fetch


class GrantLags:
    """Where the last fetches of grants ended. Thread-safe.

    Args:
        bound: grants at most; the one that has not fetched for longest is left out.
        monotonic: seconds.
    """

    def __init__(self, bound: int = _GRANTS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bound = bound
        self._monotonic = monotonic
        self._ends: OrderedDict[str, tuple[Topic, Positions, float]] = OrderedDict()
        self._lock = threading.Lock()

    def fetched(self, grant_id: str, topic: Topic, position: Positions) -> None:
        """Note where a fetch ended: the next offset of every partition."""
        gone: list[str] = []
        with self._lock:
            self._ends[grant_id] = topic, position, self._monotonic()
            self._ends.move_to_end(grant_id)
            while len(self._ends) > self._bound:
                gone.append(self._ends.popitem(last=False)[0])
        self._remove(gone)

    def measure(self, broker: Broker) -> None:
        """Set the lag of each grant: offsets of its topic behind its last fetch, whatever its view shows of them."""
        oldest = self._monotonic() - _FORGOTTEN
        with self._lock:
            gone = [grant_id for grant_id, (_, _, at) in self._ends.items() if at < oldest]
            for grant_id in gone:
                del self._ends[grant_id]
            known = dict(self._ends)
        self._remove(gone)
        ends: dict[Topic, Ends | None] = {}
        for grant_id, (topic, position, _) in known.items():
            if topic not in ends:
                ends[topic] = _ends(broker, topic)
            found = ends[topic]
            if found is not None and len(found.latest) == len(position):
                lag = sum(max(0, last - next_) for last, next_ in zip(found.latest, position, strict=True))
                metrics.GRANT_LAG.labels(grant_id).set(lag)

    @staticmethod
    def _remove(gone: Sequence[str]) -> None:
        for grant_id in gone:
            metrics.GRANT_LAG.remove_by_labels({"grant": grant_id})


def _ends(broker: Broker, topic: Topic) -> Ends | None:
    try:
        return broker.ends(topic)
    except PoolError:  # a topic that is gone, or a broker that does not answer: the lag stays as it was
        return None
