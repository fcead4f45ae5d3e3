"""Generator of invented persons and organisations with valid check digits, for demonstration and tests.

None of them exists. The generator is seeded, so that a run can be repeated and the delivered rows compared with the
generated ones. Identity numbers follow GB 11643 (ISO 7064 MOD 11-2), credit codes GB 32100 over GB 11714.
"""

import random
from collections.abc import Iterator
from datetime import date, timedelta

__all__ = ["DISTRICTS", "credit_codes", "organisations", "persons"]

_NAMES = {
    "330102": "上城区",
    "330105": "拱墅区",
    "330106": "西湖区",
    "330108": "滨江区",
    "330110": "余杭区",
    "330112": "临安区",
}
DISTRICTS = tuple(_NAMES)
"""County-level divisions of one city (GB/T 2260)."""

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"
_USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
_SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余"
_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红文辉建国宁婷宇浩然子涵欣怡梓轩一诺"
_STREETS = ("文晖路", "体育场路", "延安路", "天目山路", "江南大道", "莫干山路", "秋涛路", "环城北路")
_FIRST_BIRTH = date(1936, 1, 1)
_DAYS = (date(2024, 12, 31) - _FIRST_BIRTH).days
_TODAY = date(2026, 1, 1)


def persons(count: int, seed: int = 809) -> Iterator[dict[str, object]]:
    """Return *count* persons as rows of the population record type (20 fields), each with a number of its own."""
    draw = random.Random(seed)  # noqa: S311 - invented people need no secrets
    taken: set[str] = set()
    while len(taken) < count:
        district = draw.choice(DISTRICTS)
        born = _FIRST_BIRTH + timedelta(days=draw.randrange(_DAYS))
        serial = draw.randrange(1000)
        number = _with_check(f"{district}{born:%Y%m%d}{serial:03d}")
        if number in taken:
            continue
        taken.add(number)
        yield _person(draw, number, district, born, serial)


def organisations(count: int, seed: int = 716) -> Iterator[dict[str, object]]:
    """Return *count* social organisations as rows of the legal entity record type."""
    draw = random.Random(seed)  # noqa: S311 - invented organisations need no secrets
    taken: set[str] = set()
    while len(taken) < count:
        district = draw.choice(DISTRICTS)
        code = _credit_code(draw, district)
        if code in taken:
            continue
        taken.add(code)
        founded = date(1995, 1, 1) + timedelta(days=draw.randrange(11_000))
        kind = draw.choice(("志愿者协会", "养老服务中心", "慈善基金会", "社区服务社"))
        yield {
            "uscc": code,
            "uscc_check": "pass",
            "entity_name": f"{draw.choice(_SURNAMES)}{draw.choice(_GIVEN)}{kind}{len(taken):04d}",
            "entity_type_code": draw.choice(("5100", "5200", "5300")),
            "registration_authority": "民政局",
            "registration_status": draw.choice(("active", "active", "active", "cancelled")),
            "established_date": founded,
            "registered_capital": f"{draw.randrange(1, 500)}.{draw.randrange(10**6):06d}",
            "capital_currency": "CNY",
            "registered_address": f"{draw.choice(_STREETS)}{draw.randrange(1, 900)}号",
            "legal_rep_name": _name(draw),
            "abnormal_list_flag": draw.random() < 0.02,
        }


def _person(draw: random.Random, number: str, district: str, born: date, serial: int) -> dict[str, object]:
    age = (_TODAY - born).days // 365
    died = born + timedelta(days=draw.randrange(60 * 365, 90 * 365)) if draw.random() < 0.02 else None
    if died is not None and died >= _TODAY:
        died = None
    return {
        "id_type": "ric18",
        "id_number": number,
        "full_name": _name(draw),
        "former_name": _name(draw) if draw.random() < 0.03 else None,
        "sex_code": "1" if serial % 2 else "2",
        "birth_date": born,
        "ethnicity_code": draw.choice(("01",) * 12 + ("03", "11", "15")),
        "nationality_code": "CHN",
        "household_division_code": district,
        "household_address": _address(draw, district),
        "residence_address": _address(draw, draw.choice(DISTRICTS)) if draw.random() < 0.6 else None,
        "marital_status_code": draw.choice(("10", "20", "40")) if age > 22 else None,
        "education_code": draw.choice(("10", "20", "30", "40", "60", "70")) if age > 16 else None,
        "mobile_phone": f"1{draw.choice('3589')}{draw.randrange(10**9):09d}" if age > 10 else None,
        "guardian_id_number": _guardian(draw, district, born) if age < 14 else None,
        "is_minor_under_14": age < 14,
        "death_flag": died is not None,
        "death_date": died,
        "disability_level_code": draw.choice("1234") if draw.random() < 0.02 else None,
        "portrait_digest": draw.randbytes(32).hex() if age >= 1 else None,
    }


def _address(draw: random.Random, district: str) -> str:
    house = f"{draw.choice(_STREETS)}{draw.randrange(1, 999)}号{draw.randrange(1, 30)}幢"
    door = f"{draw.randrange(1, 5)}单元{draw.randrange(1, 19)}0{draw.randrange(1, 5)}室"
    return f"浙江省杭州市{_NAMES[district]}{house}{door}"


def _guardian(draw: random.Random, district: str, born: date) -> str:
    parent = born - timedelta(days=draw.randrange(22 * 365, 40 * 365))
    return _with_check(f"{district}{parent:%Y%m%d}{draw.randrange(1000):03d}")


def _name(draw: random.Random) -> str:
    return draw.choice(_SURNAMES) + "".join(draw.choices(_GIVEN, k=draw.choice((1, 2, 2))))


def _with_check(digits: str) -> str:
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=True))
    return digits + _CHECKS[total % 11]


def _credit_code(draw: random.Random, district: str) -> str:
    serial = f"{draw.randrange(10**8):08d}"
    total = sum(weight * int(digit) for weight, digit in zip(_ORGANISATION_WEIGHTS, serial, strict=True))
    inner = 11 - total % 11
    body = f"51{district}{serial}" + {10: "X", 11: "0"}.get(inner, str(inner))  # 5 = 民政, 1 = 社会团体
    outer = sum(_USCC_ALPHABET.index(sign) * pow(3, place, 31) for place, sign in enumerate(body))
    return body + _USCC_ALPHABET[-outer % 31]


def credit_codes(seed: int = 51) -> Iterator[str]:
    """Return credit codes with valid check digits, endlessly."""
    draw = random.Random(seed)  # noqa: S311 - invented organisations need no secrets
    while True:
        yield _credit_code(draw, draw.choice(DISTRICTS))
