"""Requests of the demonstration: how they are decided on by law, one of each share type, and what silence is worth.

The reply that is overdue takes ten working days, which nobody waits for in a demonstration: the pool's own timer runs
once with its clock moved ahead. Everything else is what people do over HTTP.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from exchange.client import Identity, PoolClient
from exchange.config import Config
from exchange.demo.departments import CivilAffairs, HumanResources, PublicSecurity
from exchange.demo.screen import Screen
from exchange.server.composition import App
from schemas.errors import PoolError

__all__ = ["tell_requests"]

_AHEAD = timedelta(days=30)
_LAW = "政务数据共享条例 第二十一条"
_REASON = "出生日期与本次办理的事项无关"
_MISSING = ["使用依据未写明条款", "未说明由哪个科室使用"]


def tell_requests(
    data: Path, screen: Screen, labour: HumanResources, police: PublicSecurity, civil: CivilAffairs
) -> bool:
    """Show the step; return whether everything was decided as the law says."""
    screen.heading("11", "Requests and the law", "依法办理")
    closed = police.offer_closed()
    screen.refused("what is not shared 不予共享", _refusal(lambda: labour.ask(closed, ["number"])))
    free = labour.ask(civil.topic, ["uscc", "entity_name"])
    screen.line(f"{civil.topic}, shared without conditions 无条件共享: a reply is due {_due(labour, free)}")
    screen.line(f"  its head signs: {civil.approve(free)}")

    bound = labour.ask(police.topic, ["birth_date"])
    screen.line(f"{police.topic}, shared under conditions 有条件共享: a reply is due {_due(labour, bound)}")
    screen.line(f"  {police.name} tells once what is missing 补正: {'; '.join(_MISSING)}")
    police.decide(bound, "need_more", missing=_MISSING)
    supplement = {"legal_basis": "中华人民共和国社会保险法 第七十四条第二款", "scenario": "由待遇科核验"}
    labour.head.post(f"/requests/{bound}/resubmission", supplement)
    screen.line(f"  {labour.name} supplies it; the clock begins again, due {_due(labour, bound)}")
    again: Callable[[], object] = lambda: police.decide(bound, "need_more", missing=["还缺"])  # noqa: E731
    screen.refused("a second list", _refusal(again))
    screen.refused("a refusal without a clause", _refusal(lambda: police.decide(bound, "reject", reason=_REASON)))
    police.decide(bound, "reject", reason=_REASON, clause=_LAW, ground="out_of_duty")
    said = _seen(labour, bound)["refusal"]
    screen.line(f"  {police.name} refuses: {said['reason']}; {said['clause']}; {said['ground_zh']} {said['ground']}")
    return _overdue(data, screen, labour, police)


def _overdue(data: Path, screen: Screen, labour: HumanResources, police: PublicSecurity) -> bool:
    waiting = labour.ask(police.topic, ["sex_code"])
    screen.line(f"another request, to which nobody replies; the pool's timer runs as in {_AHEAD.days} days:")
    app = App.open(Config.load(data), own_database=False, now=lambda _: datetime.now(UTC) + _AHEAD)
    try:
        app.pool.request_clocks.run()
    finally:
        app.close()
    seen = _seen(labour, waiting)
    last = seen["history"][-1]
    screen.line(
        f"  {last['event']}, a violation by {police.name} ({last.get('violation')}); it is {seen['state']} still"
    )
    with PoolClient(Identity.load(labour.identity)) as pool:
        fetch: Callable[[], object] = lambda: pool.fetch(waiting, purpose=labour.purpose, case=labour.case)  # noqa: E731
        screen.refused("under a request whose reply is overdue", _refusal(fetch))
    if (last["event"], last.get("violation"), seen["state"]) != ("overdue", "Art. 39(4)", "submitted"):
        screen.failed("an overdue reply has to be recorded, and to open nothing")
        return False
    screen.passed("silence is recorded, and grants nothing")
    return True


def _seen(labour: HumanResources, request_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = labour.head.get(f"/requests/{request_id}")
    return answer


def _due(labour: HumanResources, request_id: str) -> str:
    """Return the last day of a reply: the deadline is the end of that day, in Shanghai."""
    until = datetime.fromisoformat(_seen(labour, request_id)["due_at"])
    return f"by {(until - timedelta(seconds=1)).date().isoformat()}"


def _refusal(act: Callable[[], object]) -> str:
    try:
        act()
    except PoolError as error:
        return f"{error.reason}: {error.message}"
    return ""
