"""What `init` writes is what `lint` accepts."""

import pytest

from connectors.config.config import ConnectorConfig
from connectors.config.lint import parse_config
from connectors.drafting.configuration import Answers, write_configuration
from schemas.errors import InvalidError

PUBLISHES = Answers(
    connector="cards", resource="senior-card.v1", kind="sql", url="postgresql://u@h/cards", table="card"
)
FETCHES = Answers(connector="in", grant="g-1", purpose="welfare", kind="files", path="out/")


@pytest.mark.parametrize(
    "answers",
    [
        PUBLISHES,
        Answers(connector="c", resource="x.v1", kind="files", path="drop/"),
        Answers(connector="c", resource="x.v1", kind="sql", url="postgresql://u@h/d", table="t", slot="exchange_t",
                password="${env:P}"),
        FETCHES,
        Answers(connector="c", grant="g", purpose="p", case="案-1", kind="sql", url="postgresql://u@h/d", table="t"),
    ],
)  # fmt: skip
def test_it_is_a_configuration_without_errors(answers: Answers) -> None:
    found = parse_config(write_configuration(answers))
    assert isinstance(found, ConnectorConfig), found
    assert found.connector == answers.connector


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        (Answers(connector="c"), "--resource"),
        (Answers(connector="c", resource="x.v1", grant="g"), "not both"),
        (Answers(connector="c", resource="x.v1", kind="kafka"), "sql or files"),
        (Answers(connector="c", resource="x.v1", kind="sql"), "--url, --table"),
        (Answers(resource="x.v1", kind="files"), "--connector, --path"),
        (Answers(connector="c", grant="g", kind="files", path="out/"), "--purpose"),
    ],
)
def test_missing_answers_are_named_by_their_options(answers: Answers, word: str) -> None:
    with pytest.raises(InvalidError) as error:
        write_configuration(answers)
    assert word in error.value.message


def test_a_password_in_an_answer_is_refused_by_lint() -> None:
    text = write_configuration(
        Answers(connector="c", resource="x.v1", kind="sql", url="postgresql://u:pw@h/d", table="t", password="secret")
    )
    found = parse_config(text)
    assert isinstance(found, list)
    assert len(found) == 2
