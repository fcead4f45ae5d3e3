"""Fair queue: round robin over departments, and over the connectors and accounts of each. Pure.

    slots       calls that run at once, in all
    share       of these, calls of one department that is alone
    contended   of these, calls of one department beside others
    limit       calls of one department that wait

A department is alone while no other has a call that runs, nor had one in the last second. A call runs at once where a
slot is free and its department has fewer than it may have. Otherwise it waits; whenever a slot is given back, it goes
to the department whose turn it is, and there to the connector whose turn it is. So

* no department that may run is passed over more often than there are others that wait (`next`);
* no call waits while a slot is free, unless its department has as many running as it may have beside others;
* where departments call at the same time, each has at most `contended` calls running, however many of its calls wait:
  a call meets no more than that of each other department;
* where one department alone fills its queue, another's calls run at once, as long as slots are free. The first of them
  meets `share` calls that run already.

Callers that are not known yet take turns as one department, and leave the others' shares as they are: anybody can be
one. A group of several departments' calls (`group`) has `share` always.

Turns are counted, not times: what a call costs is known only when it has ended, and the share bounds what a department
can cost the others meanwhile.

    queue = FairQueue[str](16, 4, 1_000, contended=1, clock=time.monotonic)
    if not queue.take(flow):
        queue.wait(flow, "call")                raises Full
        call = queue.next()                     None where nobody may run; call again until it is
    ...
    queue.give_back(flow)
    call = queue.next()                         as above
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

__all__ = ["ALONE_SECONDS", "GROUP", "UNKNOWN", "FairQueue", "Flow", "Full", "RoundRobin", "Ticket"]

_T = TypeVar("_T")
UNKNOWN: Final = "unknown"
"""Department and kind of the callers that are not known yet."""
GROUP: Final = "group"
"""Kind of what is done for several departments together."""
ALONE_SECONDS: Final = 1.0
"""Since the last call of another department, until a department is alone."""
_LAST: Final = 2  # departments whose last ends are known: the latest that is not the one asked about


class Flow(NamedTuple):
    """Whose call it is.

    Attributes:
        department: whose turn and share count.
        member: connector, account or source of it, which take turns within.
        kind: of callers, for metrics; none is identified by it.
    """

    department: str
    member: str = ""
    kind: str = "department"


class Full(Exception):  # noqa: N818 - a result, not a defect
    """As many calls of the department wait as may."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What waits, so that it can be taken out."""

    flow: Flow
    number: int


class RoundRobin(Generic[_T]):
    """Items by department and member; each step takes the oldest item of the next member of the next department.

    Departments can be held back: their items stay, and are passed over. No step looks at what it does not take.
    """

    def __init__(self) -> None:
        self._items: dict[str, OrderedDict[str, OrderedDict[int, tuple[Flow, _T]]]] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()  # departments in the order of their turns
        self._held: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._number = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return self._counts.total()

    def count(self, department: str) -> int:
        """Return how many items of a department wait."""
        return self._counts.get(department, 0)

    def add(self, flow: Flow, item: _T) -> Ticket:
        """Add an item behind those of its member."""
        department, member, _ = flow
        self._number += 1
        members = self._items.setdefault(department, OrderedDict())
        members.setdefault(member, OrderedDict())[self._number] = flow, item
        self._counts[department] += 1
        if department not in self._held:
            self._ready.setdefault(department)
        return Ticket(flow, self._number)

    def pop(self) -> tuple[Flow, _T] | None:
        """Take the next item, and return it with its flow; None where there is none."""
        if not self._ready:
            return None
        department, _ = self._ready.popitem(last=False)
        members = self._items[department]
        member, items = members.popitem(last=False)
        _, (flow, item) = items.popitem(last=False)
        if items:
            members[member] = items
        if members:
            self._ready[department] = None
        self._counted_down(department)
        return flow, item

    def discard(self, ticket: Ticket) -> bool:
        """Take an item out; return False where it is not there any more."""
        department, member, _ = ticket.flow
        members = self._items.get(department)
        items = None if members is None else members.get(member)
        if members is None or items is None or ticket.number not in items:
            return False
        del items[ticket.number]
        if not items:
            del members[member]
        if not members:
            self._ready.pop(department, None)
        self._counted_down(department)
        return True

    def hold(self, department: str) -> None:
        """Pass over a department's items until `let`."""
        self._held.add(department)
        self._ready.pop(department, None)

    def let(self, department: str) -> None:
        """Put a department at the end of the turns again."""
        self._held.discard(department)
        if department in self._items:
            self._ready.setdefault(department)

    def _counted_down(self, department: str) -> None:
        self._counts[department] -= 1
        if not self._counts[department]:
            del self._counts[department], self._items[department]


class FairQueue(Generic[_T]):
    """The slots, and what waits for one. Not thread-safe: it belongs to one event loop.

    Args:
        slots: calls that run at once.
        share: of these, calls of one department that is alone.
        limit: calls of one department that wait.
        contended: of the slots, calls of one department beside others; no more than *share*.
        clock: seconds, monotonic.
    """

    def __init__(self, slots: int, share: int, limit: int, *, contended: int, clock: Callable[[], float]) -> None:
        self._slots = slots
        self._share = min(share, slots)
        self._contended = min(contended, self._share)
        self._limit = limit
        self._clock = clock
        self._total = 0
        self._running: dict[str, int] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()  # department → when its last call ended, the last ones
        self._waiting = RoundRobin[_T]()

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return self._total

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    def count(self, department: str) -> tuple[int, int]:
        """Return how many calls of a department run, and how many wait."""
        return self._running.get(department, 0), self._waiting.count(department)

    def take(self, flow: Flow) -> bool:
        """Take a slot, if the call may run at once; return whether it was taken."""
        department = flow[0]
        if self._total >= self._slots:
            return False
        running = self._running.get(department, 0)
        # A department that waits while a slot is free has its share, so nobody is overtaken here; of one that has been
        # alone since, those that wait come first.
        if running >= self._least(flow) and (
            running >= self._share or self._waiting.count(department) or not self._is_alone(department)
        ):
            return False
        self._take(flow, running)
        return True

    def wait(self, flow: Flow, item: _T) -> Ticket:
        """Let a call wait, for which `take` found no slot.

        Raises:
            Full: as many of its department wait as may.
        """
        if self._waiting.count(flow.department) >= self._limit:
            raise Full
        return self._waiting.add(flow, item)

    def discard(self, ticket: Ticket) -> bool:
        """Take a call out of the queue; return False where it has a slot already."""
        return self._waiting.discard(ticket)

    def give_back(self, flow: Flow) -> None:
        """Give back the slot of a call that has ended; `next` then says who gets it."""
        department = flow.department
        self._total -= 1
        running = self._running[department] - 1
        if running:
            self._running[department] = running
        else:
            del self._running[department]
        if department != UNKNOWN:
            self._ended[department] = self._clock()
            self._ended.move_to_end(department)
            if len(self._ended) > _LAST:
                self._ended.popitem(last=False)
        if running == self._least(flow) - 1:
            self._waiting.let(department)

    def next(self) -> _T | None:
        """Take a slot for the call whose turn it is, and return it; None where no slot is free, or nobody may run."""
        if self._total >= self._slots:
            return None
        found = self._waiting.pop()
        if found is None:
            found = self._pop_of_one_alone()
        if found is None:
            return None
        flow, item = found
        self._take(flow, self._running.get(flow.department, 0))
        return item

    def _pop_of_one_alone(self) -> tuple[Flow, _T] | None:
        """Take the next call of a department that is alone, and has more than it may have beside others."""
        for department, running in self._running.items():
            if running < self._share and self._waiting.count(department) and self._is_alone(department):
                self._waiting.let(department)
                return self._waiting.pop()
        return None

    def _take(self, flow: Flow, running: int) -> None:
        department = flow[0]
        self._total += 1
        self._running[department] = running + 1
        if running + 1 >= self._least(flow):
            self._waiting.hold(department)

    def _least(self, flow: Flow) -> int:
        """Return how many calls a department may have beside others."""
        return self._share if flow.kind == GROUP else self._contended

    def _is_alone(self, department: str) -> bool:
        """Return whether no other department that is known has a call, nor had one in the last second."""
        if len(self._running) - (department in self._running) - (UNKNOWN in self._running and department != UNKNOWN):
            return False
        last = next((at for one, at in reversed(self._ended.items()) if one != department), None)
        return last is None or self._clock() - last >= ALONE_SECONDS
