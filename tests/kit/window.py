"""A gateway with another release window, which the product does not have: for the control of the revocation race.

python -m tests.kit.window SECONDS serve --data DIR --role gateway
"""

import sys

from exchange import app, cli

if __name__ == "__main__":
    app.RELEASE_WINDOW = float(sys.argv.pop(1))  # type: ignore[misc]
    cli.main()
