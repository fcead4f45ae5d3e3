"""Fair queue: round robin over departments, and over the connectors and accounts of each. Pure.

    slots     calls that run at once, in all
    share     of these, calls of one department
    limit     calls of one department that wait

A call runs at once where a slot is free and its department has fewer than its share. Otherwise it waits; whenever a
slot is given back, it goes to the department whose turn it is, and there to the connector whose turn it is. So

* no department that may run is passed over more often than there are others that wait (`next`);
* no slot is free while a department that has fewer than its share waits (work conserving);
* where one department alone fills its queue, another's calls run at once, as long as slots are free.

Turns are counted, not times: what a call costs is known only when it has ended, and the share bounds what a department
can cost the others meanwhile.

    queue = FairQueue[str](16, 4, 1_000)
    if not queue.take(flow):
        queue.wait(flow, "call")                raises Full
    ...
    queue.give_back(flow.department)
    call = queue.next()                         None where nobody may run; call again until it is
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["FairQueue", "Flow", "Full", "RoundRobin", "Ticket"]

_T = TypeVar("_T")


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
        self._items: dict[str, OrderedDict[str, OrderedDict[int, _T]]] = {}
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
        members.setdefault(member, OrderedDict())[self._number] = item
        self._counts[department] += 1
        if department not in self._held:
            self._ready.setdefault(department)
        return Ticket(flow, self._number)

    def pop(self) -> tuple[str, _T] | None:
        """Take the next item, and return it with its department; None where there is none."""
        if not self._ready:
            return None
        department, _ = self._ready.popitem(last=False)
        members = self._items[department]
        member, items = members.popitem(last=False)
        _, item = items.popitem(last=False)
        if items:
            members[member] = items
        if members:
            self._ready[department] = None
        self._counted_down(department)
        return department, item

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
        share: of these, calls of one department.
        limit: calls of one department that wait.
    """

    def __init__(self, slots: int, share: int, limit: int) -> None:
        self._slots = slots
        self._share = min(share, slots)
        self._limit = limit
        self._total = 0
        self._running: dict[str, int] = {}
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
        running = self._running.get(department, 0)
        # A department that waits while a slot is free has its share, so nobody is overtaken here.
        if self._total >= self._slots or running >= self._share:
            return False
        self._take(department, running)
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

    def give_back(self, department: str) -> None:
        """Give back the slot of a call that has ended; `next` then says who gets it."""
        self._total -= 1
        running = self._running[department] - 1
        if running:
            self._running[department] = running
        else:
            del self._running[department]
        if running == self._share - 1:
            self._waiting.let(department)

    def next(self) -> _T | None:
        """Take a slot for the call whose turn it is, and return it; None where no slot is free, or nobody may run."""
        if self._total >= self._slots:
            return None
        found = self._waiting.pop()
        if found is None:
            return None
        department, item = found
        self._take(department, self._running.get(department, 0))
        return item

    def _take(self, department: str, running: int) -> None:
        self._total += 1
        self._running[department] = running + 1
        if running + 1 == self._share:
            self._waiting.hold(department)
