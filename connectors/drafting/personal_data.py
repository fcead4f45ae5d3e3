"""Guesses at personal data in columns, from their names and values: proposals for a person to confirm. Pure.

A guess is never a decision. It is written so that the registry refuses it (`CONFIRM G4`), until a person who knows the
data has put the word away. Where nothing is found, the proposal is the careful one of what is not known: a person's
data, hidden. Values are counted and forgotten; none is part of a guess.

    values   most of the texts pass the rule for identity, mobile or credit code numbers (`registry.avro.field_rules`)
    names    the names and Chinese labels of the bundled record types (`schemas.library`), then words within a name
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from registry.avro.field_rules import Rule, Verdict
from schemas import library

__all__ = ["CONFIRM", "Classification", "guess"]

CONFIRM = "CONFIRM "
"""Begins each value that a person has to confirm."""

_DISTINCT = 8  # characters of a name that says what it means
_MOST = 0.8  # of the texts pass a rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A proposal: the attributes of `registry.governance.classification`, a rule of the field, its name, and why."""

    zh: str
    level: str
    personal: str
    sensitive: str
    mask: str
    check: str = ""
    field: str = ""
    because: str


_UNKNOWN = Classification(
    zh="", level="G3", personal="P", sensitive="N", mask="drop", because="nothing is known of it; careful until it is"
)
_BY_RULE = (
    (
        "cn_id18",
        Classification(
            zh="公民身份号码", field="id_number", level="G4", personal="D", sensitive="s", mask="keep_3_4", because=""
        ),
    ),
    (
        "cn_mobile",
        Classification(
            zh="手机号", field="mobile_phone", level="G3", personal="D", sensitive="N", mask="phone_3_4", because=""
        ),
    ),
    (
        "uscc",
        Classification(
            zh="统一社会信用代码", field="uscc", level="G1", personal="N", sensitive="N", mask="none", because=""
        ),
    ),
)
_BY_WORD: Sequence[tuple[str, tuple[str, str, str, str]]] = (
    (r"监护|guardian|未成年|minor|child|儿童|子女", ("G4", "D", "S", "drop")),
    (r"病|诊断|医疗|健康|残疾|disab|diagnos|medical|health|illness", ("G4", "P", "S", "drop")),
    (r"宗教|民族|政治|religio|ethnic|politic", ("G4", "P", "S", "drop")),
    (r"银行|账号|卡号|bank|iban|account_?no|card_?no", ("G4", "D", "S", "keep_3_4")),
    (r"指纹|人脸|相片|照片|finger|face|biometr|photo|portrait", ("G4", "P", "S", "drop")),
    (r"身份证|证件号|护照|id_?no\b|id_?num|id_?card|idcard|sfz|passport|identity", ("G4", "D", "s", "keep_3_4")),
    (r"手机|电话|联系方式|phone|mobile|\btel|cell", ("G3", "D", "N", "phone_3_4")),
    (r"企业名|单位名|机构名|entity_?name|company|organi[sz]ation", ("G1", "N", "N", "none")),
    (r"姓名|full_?name|holder_?name|person_?name|\bxm\b|applicant|owner_?name", ("G3", "D", "N", "name_first")),
    (r"出生|birth|\bcsrq\b|\bdob\b", ("G3", "P", "N", "year_only")),
    (r"地址|住址|住所|address|\baddr", ("G3", "P", "N", "addr_district")),
    (r"邮箱|e_?mail|微信|wechat|\bqq\b", ("G3", "D", "N", "drop")),
    (r"行踪|轨迹|经度|纬度|longitude|latitude|\blng\b|\blat\b|gps", ("G4", "P", "S", "geo_3")),
    (r"收入|工资|金额|income|salary|wage|amount|fee", ("G3", "P", "N", "band")),
    (r"区划|division|district|region", ("G2", "P", "N", "div_city")),
)


def guess(name: str, texts: Sequence[str]) -> Classification:
    """Return the proposal for a column.

    Args:
        name: of the column.
        texts: some of its values that are not empty.
    """
    for rule, found in _BY_RULE:
        passed = sum(Rule(rule, rule, ()).check_text(text) is not Verdict.INVALID for text in texts)
        if texts and passed >= _MOST * len(texts):
            because = f"{passed:,} of the first {len(texts):,} values pass {rule}"
            return replace(found, check=rule if passed == len(texts) else "", because=because)
    known = _library().get(_plain(name))
    # A short word, such as `amount`, means something else elsewhere: it does not open what it names.
    if known is not None and (known.mask != "none" or len(name) >= _DISTINCT or not name.isascii()):
        return known
    lowered = name.lower()
    for word, (level, personal, sensitive, mask) in _BY_WORD:
        match = re.search(word, lowered)
        if match:
            return Classification(
                zh="",
                level=level,
                personal=personal,
                sensitive=sensitive,
                mask=mask,
                because=f"its name holds {match[0]!r}",
            )
    return _UNKNOWN


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name).lower()


@cache
def _library() -> Mapping[str, Classification]:
    """Return the fields of the bundled record types by name and Chinese label; of those that differ the strictest."""
    found: dict[str, Classification] = {}
    for record in library.names():
        if not record.startswith("base/"):
            continue
        for field in json.loads(library.text(record))["fields"]:
            for name in (field["name"], field.get("zh", "")):
                proposal = _classified(field, f"named as {field['name']} of {record}")
                before = found.get(_plain(name))
                if name and (before is None or (proposal.level, proposal.personal) > (before.level, before.personal)):
                    found[_plain(name)] = proposal
    return found


def _classified(field: Mapping[str, Any], because: str) -> Classification:
    rules = field.get("check", "")
    return Classification(
        zh=str(field.get("zh", "")),
        level=str(field.get("level", _UNKNOWN.level)),
        personal=str(field.get("personal", _UNKNOWN.personal)),
        sensitive=str(field.get("sensitive", _UNKNOWN.sensitive)),
        mask=str(field.get("mask", _UNKNOWN.mask)),
        check=rules if isinstance(rules, str) else "",
        field=str(field["name"]),
        because=because,
    )
