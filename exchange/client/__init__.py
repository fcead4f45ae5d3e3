"""Client library of the pool for a department's machine: enrol, publish, fetch, commit, over gRPC with mutual TLS.

The client pulls; flow control and revocation are therefore the caller's next call. Every error that leaves this
package is a `PoolError`; `retry_after` says when to try again. Nothing of the pool's server is imported here. The calls
and what they promise: `exchange.client.port`.

    identity = Identity.load(Path("/etc/pool/civil-affairs"))
    with PoolClient(identity) as pool:
        for receipt in pool.publish(topic, batches):
            ledger.remember(receipt)
"""

from exchange.client.calls import PROGRAM, PoolClient
from exchange.client.enrol import enrol, renew
from exchange.client.identity import Identity
from exchange.client.messages import BatchRefusedError, FetchResult, Hello, LaneHead, RowRefusal, Subscription
from exchange.client.port import Pool

__all__ = [
    "PROGRAM",
    "BatchRefusedError",
    "FetchResult",
    "Hello",
    "Identity",
    "LaneHead",
    "Pool",
    "PoolClient",
    "RowRefusal",
    "Subscription",
    "enrol",
    "renew",
]
