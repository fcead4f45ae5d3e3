"""Gapless sequences: the numbers of audit entries, 1, 2, 3 … without a hole even where transactions fail (ADR 0022).

An entry that was deleted before it reached the signed log would leave no trace in any tree; in a gapless sequence it
leaves a hole. A sequence of the database cannot do this, since a transaction that rolls back loses its numbers. One
counter for all would make each transaction wait for the one before. So a process has several sequences, each with a
row in `audit_line`, and a transaction has one of them for itself, from its first entry until it ends. As many
sequences exist as transactions have run side by side.

The process keeps the counters in memory. The statement that stores entries (`exchange.audit.postgres`) moves the
counter of the row only if the row is where this process left it. A row that another program has changed fails one act,
and its sequence is never used again: no number is given twice.

                acquire                         entries are stored: n more numbers
    FREE at c ───────────> IN USE, current = c ────────────────────────────────────> IN USE, current = c + n
        ^                                                                                   │
        │                                                          the transaction ends     │
        ├── committed: FREE at c + n <──────────────────────────────────────────────────────┤
        └── rolled back: FREE at c <────────────────────────────────────────────────────────┤
                                                                                            │
    ABANDONED, never used again <── outcome unknown; row changed by another program; ───────┘
                                    or rolled back before its row was ever committed

A sequence whose transaction ended with an unknown outcome is abandoned because its next number is unknown: c + 1 and
c + n + 1 would both be guesses, and one of them makes a hole or a repeat.
"""

import threading

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange.audit.store import not_opened
from registry.database.unit_of_work import Outcome, PostgresUnitOfWork
from schemas.errors import ConflictError, Reason

__all__ = ["GaplessSequence", "GaplessSequences"]

_INSERT = sa.text("INSERT INTO audit_line (process, line, counter) VALUES (:process, :number, 0)")


class GaplessSequence:
    """One sequence of a process, used by at most one transaction at a time.

    Attributes:
        number: 1, 2, 3 … within the process.
        committed: its last number that a commit has stored; None while no commit has stored its row.
        current: its last number within the transaction that uses it.
        tampered: another program has changed its row.
    """

    __slots__ = ("committed", "current", "number", "tampered")

    def __init__(self, number: int, committed: int | None) -> None:
        self.number = number
        self.committed = committed
        self.current = committed or 0
        self.tampered = False


class GaplessSequences:
    """The sequences of the processes that were opened here, and which transaction uses which. Thread-safe."""

    def __init__(self) -> None:
        self._processes: dict[str, _FreeSequences] = {}
        self._in_use: dict[tuple[PostgresUnitOfWork, str], GaplessSequence] = {}

    def open(self, work: PostgresUnitOfWork, process: str) -> None:
        """Register a process by the row of its first sequence; it may write entries once *work* is committed.

        Raises:
            ConflictError: ALREADY_EXISTS, another start has registered under this name.
        """
        try:
            work.connection.execute(_INSERT, {"process": process, "number": 1})
        except sa_exc.IntegrityError as error:
            raise ConflictError(
                Reason.ALREADY_EXISTS, f"a process named {process!r} already writes entries; give each start a new name"
            ) from error
        self._processes[process] = _FreeSequences()

        def completed(outcome: Outcome) -> None:
            if outcome is not Outcome.COMMITTED:
                del self._processes[process]

        work.on_completion(completed)

    def acquire(self, work: PostgresUnitOfWork, process: str) -> GaplessSequence:
        """Return the sequence of a process that *work* uses, from its first entry until its end.

        Raises:
            CorruptError: LOG_CORRUPT, the process was never opened.
        """
        in_use = self._in_use.get((work, process))
        if in_use is not None:
            return in_use
        free = self._processes.get(process)
        if free is None:
            raise not_opened(process)
        sequence = self._in_use[work, process] = free.take()

        def completed(outcome: Outcome) -> None:
            del self._in_use[work, process]
            free.release(sequence, outcome)

        work.on_completion(completed)
        if sequence.committed is None:
            work.connection.execute(_INSERT, {"process": process, "number": sequence.number})
        return sequence


class _FreeSequences:
    """The sequences of one process that no transaction uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = [GaplessSequence(1, 0)]
        self._highest = 1

    def take(self) -> GaplessSequence:
        """Return the sequence released last, so that few are used; a new one where none is free."""
        with self._lock:
            if self._free:
                return self._free.pop()
            self._highest += 1
            return GaplessSequence(self._highest, None)

    def release(self, sequence: GaplessSequence, outcome: Outcome) -> None:
        """Take a sequence back at the end of its transaction, or abandon it."""
        if outcome is Outcome.COMMITTED:
            sequence.committed = sequence.current
        if outcome is Outcome.UNKNOWN or sequence.committed is None or sequence.tampered:
            return
        sequence.current = sequence.committed
        with self._lock:
            self._free.append(sequence)
