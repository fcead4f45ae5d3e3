"""Former name of `exchange.broker.kafka.acls`, for scripts that run `python -m exchange.broker.kafka_acls`."""

import sys

from exchange.broker.kafka.acls import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
