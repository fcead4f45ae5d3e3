"""Identifiers in canonical form, handles, components."""

import hashlib
import hmac

import pytest

from exchange.hub.fold.identity import (
    BUCKETS,
    MOST_IDENTIFIERS,
    Handle,
    Link,
    SubjectKind,
    bucket_of,
    components,
    handle_of,
    identifier,
)
from schemas.errors import InvalidError, Reason

KEY = bytes(range(32))
NUMBER = "11010519491231002X"


def handle(number: int) -> Handle:
    return Handle(bytes([number]) * 16)


def link(one: int, other: int, *citizens: int) -> Link:
    return Link.of(handle(one), handle(other), citizen=one in citizens, other_citizen=other in citizens)


@pytest.mark.parametrize(
    "written", [NUMBER, " 11010519491231002x ", "110105-19491231-002x", "１１０１０５１９４９１２３１００２Ｘ"]
)
def test_writings_of_one_number_have_one_handle(written: str) -> None:
    assert handle_of(KEY, identifier("ric18", written)) == handle_of(KEY, identifier("ric18", NUMBER))


def test_the_handle_is_the_hmac_of_version_type_and_number() -> None:
    message = b"1ric18\x1f" + NUMBER.encode()
    assert handle_of(KEY, identifier("ric18", NUMBER)) == hmac.new(KEY, message, hashlib.sha256).digest()[:16]


def test_a_number_of_another_type_or_country_is_another_subject() -> None:
    handles = {handle_of(KEY, identifier(name, "E12345678")) for name in ("passport:FRA", "passport:DEU")}
    handles |= {handle_of(KEY, identifier(name, NUMBER)) for name in ("ric18", "hk_macau_tw_residence", "foreign_pr")}
    assert len(handles) == 5
    assert all(0 <= bucket_of(one) < BUCKETS for one in handles)


@pytest.mark.parametrize(
    ("type_", "number"),
    [
        ("ric18", "11010519491231002"),
        ("ric18", "1101051949123100XX"),
        ("ric15", "110105491231002"),
        ("passport", "E12345678"),
        ("passport:fr", "E12345678"),
        ("uscc:FRA", "91350211M000100Y43"),
        ("uscc", "91350211M000100Y4"),
        ("address_code", ""),
    ],
)
def test_what_is_no_identifier_is_refused_without_its_number(type_: str, number: str) -> None:
    with pytest.raises(InvalidError) as caught:
        identifier(type_, number)
    assert caught.value.reason is Reason.IDENTIFIER_INVALID
    assert not number or number not in str(caught.value)


def test_an_identifier_shows_its_kind_and_hides_its_number() -> None:
    assert identifier("passport:FRA", "E12345678").kind is SubjectKind.PERSON
    assert identifier("uscc", "91350211M000100Y43").kind is SubjectKind.ORGANISATION
    assert identifier("parcel", "370102001001").kind is SubjectKind.PLACE
    assert NUMBER not in repr(identifier("ric18", NUMBER))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 32"):
        handle_of(b"short", identifier("ric18", NUMBER))


def test_the_citizen_number_represents_its_component_or_else_the_least_handle() -> None:
    assert components([link(1, 2), link(2, 3, 3)]).of(handle(1)) == handle(3)
    assert components([link(2, 1), link(3, 2)]).of(handle(3)) == handle(1)
    assert components([]).members(handle(7)) == {handle(7)}


def test_two_citizen_numbers_or_too_many_identifiers_are_not_joined() -> None:
    two = components([link(1, 2, 1), link(2, 3, 3)])
    assert two.representative == {}
    assert two.conflicts == {frozenset({handle(1), handle(2), handle(3)})}
    chain = [link(number, number + 1) for number in range(MOST_IDENTIFIERS)]
    assert components(chain).representative == {}
    assert len(components(chain[:-1]).representative) == MOST_IDENTIFIERS
