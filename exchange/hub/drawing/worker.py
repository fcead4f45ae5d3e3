"""Worker of the hub: draws each of its resources again and again (consumer loop), each with a state of its own.

What one resource meets does not stop the others:

    pool or database away, a position moved, no rules     tried again, later each time up to a minute
    the pool refuses: suspended, revoked, ended           the same: a grant may be resumed
    retention overtook it, the topic was restored         stopped: what is missing is not passed over in silence
    a row or a record is not what it has to be            stopped, until somebody has looked

A stopped resource is drawn again by a new worker. States hold codes and times, never a value.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from exchange.hub.drawing.step import Step, StepResult
from exchange.hub.fold.claim import Instant
from schemas.errors import ConflictError, CorruptError, GoneError, InvalidError, PoolError, Reason

__all__ = ["DrawState", "ResourceState", "Worker"]

_LEAST: Final = 500_000  # microseconds
_MOST: Final = 60_000_000
_IDLE: Final = 1_000_000
_log = structlog.get_logger()


class DrawState(StrEnum):
    """How it stands with a resource."""

    DRAWING = "drawing"
    IDLE = "idle"  # the end of the topic was reached
    WAITING = "waiting"  # something is away, or it refuses
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceState:
    """State of one resource.

    Attributes:
        state: how it stands.
        reason: code of what it waits for, or was stopped by; empty otherwise.
        due: when it is tried next; None for a stopped one.
        failures: one after another.
        last: when a step succeeded last; None before the first.
        claims: added by this worker.
        unnamed: records that named no subject.
        set_aside: subjects that could not be folded.
    """

    state: DrawState = DrawState.DRAWING
    reason: str = ""
    due: Instant | None = 0
    failures: int = 0
    last: Instant | None = None
    claims: int = 0
    unnamed: int = 0
    set_aside: int = 0


class Worker:
    """Draws resources, one step at a time.

    Args:
        steps: by the name of the resource.
        now: microseconds UTC.
    """

    def __init__(self, steps: Mapping[str, Callable[[], StepResult]], now: Callable[[], Instant]) -> None:
        self._steps = dict(steps)
        self._now = now
        self._states = {name: ResourceState() for name in self._steps}

    @classmethod
    def of(cls, steps: Mapping[str, Step], now: Callable[[], Instant]) -> "Worker":
        """Return a worker of steps."""
        return cls({name: step.run for name, step in steps.items()}, now)

    @property
    def states(self) -> Mapping[str, ResourceState]:
        """State of each resource, as it is now."""
        return dict(self._states)

    def run(self, stop: threading.Event) -> None:
        """Draw until it is told to stop, or every resource is stopped."""
        while not stop.is_set():
            due = self.turn()
            if due is None:
                return
            stop.wait(max(0, due - self._now()) / 1_000_000)

    def turn(self) -> Instant | None:
        """Make a step of each resource that is due; return when the next one is, None where all are stopped."""
        for name, state in self._states.items():
            if state.due is not None and state.due <= self._now():
                self._states[name] = self._stepped(name, state)
        return min((one.due for one in self._states.values() if one.due is not None), default=None)

    def _stepped(self, name: str, before: ResourceState) -> ResourceState:
        try:
            result = self._steps[name]()
        except PoolError as error:
            return self._failed(name, before, error)
        now = self._now()
        return ResourceState(
            state=DrawState.IDLE if result.caught_up else DrawState.DRAWING,
            due=now + (_IDLE if result.caught_up else 0),
            last=now,
            claims=before.claims + result.claims,
            unnamed=before.unnamed + result.unnamed,
            set_aside=before.set_aside + result.set_aside,
        )

    def _failed(self, name: str, before: ResourceState, error: PoolError) -> ResourceState:
        stops = isinstance(error, CorruptError | GoneError | InvalidError) or (
            isinstance(error, ConflictError) and error.reason in _OF_RESTORES
        )
        failed = replace(before, reason=error.reason.value, failures=before.failures + 1)
        if stops:
            _log.error("hub_resource_stopped", resource=name, reason=error.reason.value)
            return replace(failed, state=DrawState.STOPPED, due=None)
        _log.warning("hub_resource_waits", resource=name, reason=error.reason.value, failures=failed.failures)
        pause = min(_MOST, _LEAST << min(before.failures, 10))
        return replace(failed, state=DrawState.WAITING, due=self._now() + pause)


_OF_RESTORES: Final = frozenset({Reason.TOPIC_GENERATION_CHANGED, Reason.GRANT_VIEW_CHANGED})
