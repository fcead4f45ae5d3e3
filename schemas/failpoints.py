"""Failpoints: named points at which a process kills itself, for fault injection in tests and for nothing else.

    failpoints.reached("after_broker_commit")      in the program, at the point
    POOL_FAILPOINTS=after_broker_commit:kill:0.02  in the test's environment

Killing at random moments does not test the worst ones: the time between two durable steps is microseconds. Each of
them therefore has a name, and a test can make its process die exactly there.

It gives no new right. The one action is SIGKILL to the own process, which anyone who sets its environment could send
anyway. Nothing is armed unless both the environment names it and the program's own configuration says
`failpoints = true`; the environment alone is an error at start, so that a variable left over in production stops the
program at its start and not at some later time. An armed process writes so to standard error when it starts, and
again when it fires. Unarmed, a point costs one look-up in an empty dictionary.

    after_produce               records are with the broker, the transaction is open        gateway
    after_broker_commit         records are visible, neither entry nor receipt is written   gateway
    after_entry                 entry and receipt of a publication are durable              gateway
    before_response             the acknowledgement is about to leave                       gateway
    after_release_entry         the entry of a release is durable                           gateway
    before_release              the released bytes are about to leave                       gateway
    between_rows_and_position   position and rows of a sink, one of the two written         connector
    hub_before_claims           keys and batch numbers are written                          hub
    hub_before_golden           claims are written, the subjects folded                     hub
    hub_before_conflicts        golden records are written                                  hub
    hub_before_position         conflicts are written                                       hub
    hub_before_commit           the position is moved, nothing is committed                 hub
    hub_after_commit            the step is committed, the pool not told                    hub
"""

import os
import random
import signal
from collections.abc import Mapping

from schemas.errors import InvalidError, Reason

__all__ = ["NAMES", "VARIABLE", "arm", "reached"]

VARIABLE = "POOL_FAILPOINTS"
NAMES = frozenset(
    {
        "after_produce",
        "after_broker_commit",
        "after_entry",
        "before_response",
        "after_release_entry",
        "before_release",
        "between_rows_and_position",
        "hub_before_claims",
        "hub_before_golden",
        "hub_before_conflicts",
        "hub_before_position",
        "hub_before_commit",
        "hub_after_commit",
    }
)

_STDERR = 2
_armed: dict[str, float] = {}
_random = random.SystemRandom()


def arm(*, allowed: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Arm the failpoints that the environment names; once, when the program starts.

    Args:
        allowed: whether the program's own configuration says `failpoints = true`.
        environment: POOL_FAILPOINTS holds `name:kill:probability`, separated by commas.

    Raises:
        InvalidError: CONFIG_INVALID, when the variable is set and the configuration does not allow it, or it names
            an unknown point, another action than `kill`, or no probability from 0 to 1.
    """
    _armed.clear()
    text = environment.get(VARIABLE, "")
    if not text:
        return
    if not allowed:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{VARIABLE} is set: it makes this program kill itself, for fault tests. Its configuration does not say "
            "`failpoints = true`, so nothing was started; unset the variable",
        )
    _armed.update(_read(part) for part in text.split(","))
    _write_stderr(f"FAILPOINTS ARE ARMED, this process will kill itself: {text}")


def reached(name: str) -> None:
    """Kill this process if the failpoint is armed, with its probability."""
    if _armed and _random.random() < _armed.get(name, 0.0):
        _write_stderr(f"FAILPOINT {name}: SIGKILL")
        os.kill(os.getpid(), signal.SIGKILL)


def _read(part: str) -> tuple[str, float]:
    name, _, rest = part.strip().partition(":")
    action, _, number = rest.partition(":")
    try:
        probability = float(number)
    except ValueError:
        probability = -1.0
    if name not in NAMES or action != "kill" or not 0 <= probability <= 1:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{VARIABLE}: got {part!r}; expected NAME:kill:PROBABILITY with NAME one of {', '.join(sorted(NAMES))}",
        )
    return name, probability


def _write_stderr(text: str) -> None:
    # Unbuffered: after the signal nothing is flushed any more.
    os.write(_STDERR, f"{text}\n".encode())
