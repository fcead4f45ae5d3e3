"""A gateway with another release window, which the product does not have: for the control of the revocation race.

python -m tests.kit.faults.release_window SECONDS serve --data DIR --role gateway
"""

import sys

from exchange import cli
from exchange.server import composition

if __name__ == "__main__":
    composition.RELEASE_WINDOW = float(sys.argv.pop(1))  # type: ignore[misc]
    cli.main()
