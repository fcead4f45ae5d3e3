"""Signing monitor: whether the log is signed up to date, from the state of its store and its folder. Pure.

    log_corrupt     the store is an older copy (the folder, or this process, has seen a later checkpoint), or another
                    tree; or the sequencer in this process has found what contradicts the log
    log_behind      the oldest entry that no checkpoint covers is older than the bound; or nothing is known of the store

Entries without an index are not covered, nor are placed ones beyond the newest checkpoint. The age of the oldest one is
measured by the monotonic clock from the moment at which it was first seen, and only then by its own time: a step of the
machine's clock ages nothing.
"""

from exchange.audit.store import SigningState
from schemas.errors import CorruptError, PoolError, Reason, UnavailableError

__all__ = ["SigningMonitor"]


class SigningMonitor:
    """Follows one store; not thread-safe.

    Args:
        bound: seconds that an entry may wait for its signature.
        monotonic: the time now, in monotonic seconds.
    """

    def __init__(self, bound: float, monotonic: float) -> None:
        self._bound = bound
        self._highest: tuple[int, bytes] = (0, b"")
        self._oldest: tuple[str, float] | None = None  # id, and the monotonic time since when it has waited
        self._answered = monotonic
        self._sequencer: CorruptError | None = None

    def sequencer_reported(self, error: PoolError | None) -> None:
        """Take the outcome of a step of the sequencer in this process; None where it succeeded."""
        if error is None or isinstance(error, CorruptError):
            self._sequencer = error

    def age(self, monotonic: float) -> float:
        """Return the seconds for which the oldest entry has waited, as of the last look; 0 where none waits."""
        return 0.0 if self._oldest is None else max(0.0, monotonic - self._oldest[1])

    def look(self, state: SigningState, folder: int | None, *, now: int, monotonic: float) -> PoolError | None:
        """Return what is wrong with the log, None where nothing is.

        Args:
            state: of the store.
            folder: size of the checkpoint in the log's folder, read before *state*; None where there is none here.
            now: the time, microseconds UTC.
            monotonic: the time, in monotonic seconds.
        """
        self._answered = monotonic
        if state.oldest is None:
            self._oldest = None
        elif self._oldest is None or self._oldest[0] != state.oldest[0]:
            self._oldest = state.oldest[0], monotonic - max(0, now - state.oldest[1]) / 1e6
        size, root = self._highest
        if folder is not None and folder > state.size:
            return _older(f"the log's folder has a checkpoint of {folder} entries", state.size)
        if size > state.size:
            return _older(f"this process has seen a checkpoint of {size} entries", state.size)
        if size == state.size and root != state.root:
            return CorruptError(Reason.LOG_CORRUPT, f"the store's checkpoint of {size} entries is of another tree now")
        self._highest = state.size, state.root
        return self._sequencer or self._behind(monotonic)

    def no_answer(self, monotonic: float) -> PoolError | None:
        """Return what is wrong where the store did not answer: nothing, until the bound is over."""
        silent = monotonic - self._answered
        if silent <= self._bound:
            return self._sequencer or self._behind(monotonic)
        return UnavailableError(
            Reason.LOG_BEHIND, f"for {silent:.0f} s nothing is known of the log; expected {self._bound:.0f} s at most"
        )

    def _behind(self, monotonic: float) -> PoolError | None:
        age = self.age(monotonic)
        if age <= self._bound:
            return None
        return UnavailableError(
            Reason.LOG_BEHIND,
            f"an entry has waited for {age:.0f} s to be signed; expected {self._bound:.0f} s at most: see the "
            "sequencer's log",
        )


def _older(seen: str, size: int) -> CorruptError:
    return CorruptError(
        Reason.LOG_CORRUPT,
        f"{seen}, and the database one of {size}: the database is an older copy. Nothing is signed or released until "
        "two persons have decided (docs/runbook.md)",
    )
