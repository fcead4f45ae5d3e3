"""Part of the demonstration: a consumer doubts a value, its source corrects it, and the consumer is told (校核)."""

import json
import time
from pathlib import Path
from typing import Final

from exchange.demo.departments import HumanResources, PublicSecurity
from exchange.demo.programs import Programs
from exchange.demo.screen import Screen
from schemas.errors import ConflictError

__all__ = ["correct_a_value"]

_TOLD_WITHIN: Final = 60.0  # seconds from the correction on


def correct_a_value(
    screen: Screen, programs: Programs, folder: Path, police: PublicSecurity, labour: HumanResources, grant_id: str
) -> bool:
    """Let Human Resources doubt a name, and Public Security correct it; return whether that went as it should."""
    screen.heading("7", "A value is corrected", "校核")
    key, before = next((key, row) for key, row in labour.delivered().items() if row[1].startswith("欧"))
    claim = {"claimed": "", "claim_evidence": "本人持户口簿原件，姓氏与系统不符"}
    body = {"grant": grant_id, "record_key": key, "field": "full_name", **claim}
    ticket = str(labour.head.post("/corrections", body)["id"])
    shown = police.head.get(f"/corrections/{ticket}")
    screen.line(f"{labour.name} doubts a name; {police.name} has to answer until {shown['due_at'][:10]}")
    query = {"grant": grant_id, "record_key": key}
    screen.line(f"meanwhile the value is served as disputed: {', '.join(_disputed(labour, query))}")
    police.head.post(f"/corrections/{ticket}/acceptance")
    record = json.loads(police.head.get(f"/corrections/{ticket}/claim")["record"])
    screen.refused("an answer without a correct record", _answer(police, ticket))

    number = str(record["id_number"])
    programs.connect("correct", str(police.config), "--key-file", "-", stdin=number)
    police.correct_name(number)
    programs.connect("run", str(police.config), "--once")
    police.head.post(f"/corrections/{ticket}/correction", {})
    screen.line(f"{police.name} corrects its database; its connector publishes the record as a correction")

    notice = _notice(labour, ticket)
    if notice is None:
        screen.failed(f"nobody is told of the correction within {_TOLD_WITHIN:.0f} s")
        return False
    labour.head.post(f"/correction-notices/{notice['id']}/acknowledgement")
    screen.line(f"who received the old value is told: {labour.name}, by release {notice['release'][-12:]} of the log")
    labour.fetch_all(folder, programs, grant_id)
    after = labour.delivered()[key]
    if after[1] == before[1] or _disputed(labour, query):
        screen.failed("the correct value did not arrive, or is still disputed")
        return False
    screen.passed(f"the consumer's table has the correct value: {before[1]} → {after[1]}")
    return True


def _disputed(labour: HumanResources, query: dict[str, str]) -> list[str]:
    return list(labour.head.get("/corrections/disputed", query)["fields"])


def _answer(police: PublicSecurity, ticket: str) -> str:
    try:
        police.head.post(f"/corrections/{ticket}/correction", {})
    except ConflictError as error:
        return f"{error.reason}: {error.message}"
    return ""


def _notice(labour: HumanResources, ticket: str) -> dict[str, str] | None:
    until = time.monotonic() + _TOLD_WITHIN
    while time.monotonic() < until:
        found: list[dict[str, str]] = labour.head.get("/correction-notices", {"ticket": ticket})
        if found:
            return found[0]
        time.sleep(0.3)
    return None
