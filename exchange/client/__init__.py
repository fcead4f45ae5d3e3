"""What a department's machine needs of the pool: enrol, publish, fetch, commit, resume, over gRPC with mutual TLS.

The client pulls; flow control and revocation are therefore the caller's next call. Every error that leaves this
package is a `PoolError`; `retry_after` says when to try again. Nothing of the pool's server is imported here.

    identity = Identity.load(Path("/etc/pool/civil-affairs"))
    with PoolClient(identity) as pool:
        for receipt in pool.publish(topic, batches):
            ledger.remember(receipt)
"""

from exchange.client.calls import PoolClient
from exchange.client.enrol import enrol, renew
from exchange.client.identity import Identity
from exchange.client.messages import BatchRefusedError, Fetched, Hello, RowRefusal, Standing, Subscription

__all__ = [
    "BatchRefusedError",
    "Fetched",
    "Hello",
    "Identity",
    "PoolClient",
    "RowRefusal",
    "Standing",
    "Subscription",
    "enrol",
    "renew",
]
