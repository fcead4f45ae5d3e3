"""Limit of failed authentications, by source address and by account: a delay that grows with each failure. Pure.

    free failures   10 of a key are without consequence
    then            each further one doubles a delay in which the key's attempts are refused unseen: 0.25 s … 5 s
    forgotten       when the key has not failed for 10 minutes

A token that was right lately passes whatever others fail behind the same address: one proxy may stand for a whole
department. A right token that is new waits for the delay at most, 5 s, and it does not matter from where others fail.
So nobody is shut out: tokens are 256 random bits, and the limit need not be stricter to make guessing hopeless.

Memory is bounded: of each kind the 10,000 keys that failed last are remembered. Who has more addresses than that gets
more attempts, and no other gets fewer.
"""

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["FREE", "LONGEST", "FailureLimiter", "source_of"]

FREE: Final = 10
"""Failures of a key without consequence."""
FIRST: Final = 0.25  # seconds
LONGEST: Final = 5.0
"""The longest delay, in seconds."""
FORGOTTEN: Final = 600.0  # seconds
KNOWN: Final = 86_400.0  # seconds for which a token counts as right lately
CAPACITY: Final = 10_000
_IPV6_SITE = 64  # bits that one subscriber has


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    until: float


class FailureLimiter:
    """Counts failures by key, and says how long a key's next attempt has to wait. Thread-safe.

    Args:
        clock: seconds, monotonic.
        capacity: keys, and right tokens, that are remembered.
    """

    def __init__(self, clock: Callable[[], float], *, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._right: OrderedDict[bytes, float] = OrderedDict()

    def wait(self, keys: Sequence[str], proof: bytes) -> float:
        """Return the seconds that an attempt has to wait, at most `LONGEST`; 0 = it may be made now.

        Args:
            keys: of the attempt: its source, its account.
            proof: digest of the token that is presented; empty where there is none.
        """
        now = self._clock()
        with self._lock:
            if proof and now < self._right.get(proof, 0.0):
                return 0.0
            return max((self._wait(key, now) for key in keys), default=0.0)

    def failed(self, keys: Sequence[str]) -> None:
        """Count a failure of each key."""
        now = self._clock()
        with self._lock:
            for key in keys:
                before = self._failures.pop(key, None)
                count = 1 if before is None or now - before.last >= FORGOTTEN else before.count + 1
                # The exponent is bounded, or the power would overflow after a thousand failures.
                delay = 0.0 if count <= FREE else min(FIRST * 2.0 ** min(count - FREE - 1, 30), LONGEST)
                self._failures[key] = _Failures(count, now, now + delay)
                _bound(self._failures, self._capacity)

    def succeeded(self, proof: bytes) -> None:
        """Remember a right token, so that it does not wait for what others fail."""
        now = self._clock()
        with self._lock:
            self._right.pop(proof, None)
            self._right[proof] = now + KNOWN
            _bound(self._right, self._capacity)

    def size(self) -> int:
        """Return how many keys and tokens are remembered."""
        with self._lock:
            return len(self._failures) + len(self._right)

    def _wait(self, key: str, now: float) -> float:
        failures = self._failures.get(key)
        return 0.0 if failures is None else max(0.0, failures.until - now)


def source_of(address: str) -> str:
    """Return the source of an address as the limiter counts it: an IPv4 address, or the /64 of an IPv6 one.

    Args:
        address: of the connection, never what a header claims; with or without a port, gRPC's `ipv4:…:port` too.
    """
    text = address.removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_SITE), strict=False))
    return str(found)


def _bound(table: "OrderedDict[str, _Failures] | OrderedDict[bytes, float]", capacity: int) -> None:
    while len(table) > capacity:
        table.popitem(last=False)
