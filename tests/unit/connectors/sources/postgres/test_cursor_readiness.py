"""What is said of a cursor column, and with which statement."""

from dataclasses import replace

import pytest

from connectors.sources.postgres.cursor_readiness import CursorFacts, check_cursor
from connectors.sources.postgres.readiness import Verdict

GOOD = CursorFacts(
    schema="public",
    name="social_org",
    owner="civil",
    cursor="updated_at",
    base="timestamptz",
    nullable=False,
    nulls=0,
    key=["org_id"],
    indexes=[["org_id"], ["updated_at", "org_id"]],
    sees_starts=True,
)


def test_nothing_is_said_of_a_cursor_that_is_ready() -> None:
    assert list(check_cursor(GOOD, user="reader")) == []
    assert list(check_cursor(replace(GOOD, indexes=[["updated_at", "org_id", "name"]]), user="reader")) == []


@pytest.mark.parametrize(
    ("facts", "verdict", "statements"),
    [
        (
            replace(GOOD, nullable=True, nulls=3),
            Verdict.FAIL,
            [
                'UPDATE "public"."social_org" SET "updated_at" = now() WHERE "updated_at" IS NULL;',
                'ALTER TABLE "public"."social_org" ALTER COLUMN "updated_at" SET NOT NULL;',
            ],
        ),
        (
            replace(GOOD, nullable=True),
            Verdict.WARN,
            ['ALTER TABLE "public"."social_org" ALTER COLUMN "updated_at" SET NOT NULL;'],
        ),
        (
            replace(GOOD, indexes=[["org_id", "updated_at"], ["updated_at"]]),
            Verdict.FAIL,
            ['CREATE INDEX CONCURRENTLY ON "public"."social_org" ("updated_at", "org_id");'],
        ),
        (replace(GOOD, sees_starts=False), Verdict.WARN, ['GRANT pg_read_all_stats TO "reader";']),
        (replace(GOOD, base=""), Verdict.FAIL, []),
    ],
)
def test_each_finding_has_the_statement_that_mends_it(
    facts: CursorFacts, verdict: Verdict, statements: list[str]
) -> None:
    (found,) = check_cursor(facts, user="reader")
    assert (found.verdict, list(found.statements)) == (verdict, statements)


def test_a_cursor_that_is_a_number_gets_one_where_it_is_null() -> None:
    (found,) = check_cursor(replace(GOOD, base="int8", nulls=1), user="reader")
    assert "= 0 WHERE" in found.statements[0]
