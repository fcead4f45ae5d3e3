"""Where the database names departments, reviewed table by table: what a succession moves, and what stays as history.

A table that is new is in none of these, and `tests/architecture/test_department_tables.py` says so: decide whether a
row of it makes a department an active party. If it does, `exchange.control.succession` moves it, and it is in FOLLOWS.
"""

from typing import Final

FOLLOWS: Final = {
    "access_grant": "state IN ('submitted', 'supplement', 'approved', 'active', 'suspended', 'in_dispute')",
    "correction_notice": "acknowledged_at IS NULL",
    "correction_ticket": "state IN ('opened', 'verifying', 'corrected')",
    "duty_item": "active",
    "identity_account": "revoked_at IS NULL",
    "identity_certificate": "revoked_at IS NULL",
    "registry_catalogue": "state <> 'archived'",
    "registry_catalogue_record": "state NOT IN ('archived', 'withdrawn')",
    "registry_catalogue_search": "state <> 'archived'",
    "registry_data_element": "true",
    "registry_department": "body::jsonb ->> 'status' = 'active'",
    "registry_element_source": "true",
    "share_request": "state NOT IN ('completed', 'expired', 'rejected', 'terminated', 'withdrawn')",
}
"""Table → which of its rows make a department an active party: after a succession none of them names the former."""

HISTORY: Final = {
    "access_grant_version": "earlier versions say who was the party then",
    "audit_entry": "the log is never changed",
    "audit_receipt": "lanes name who published a batch; receipts are signed",
    "broker_lane": "lanes name who published; nobody continues the lane of a department that ended",
    "hub_rules": "who had to agree then; what waits for a department that ended is rejected, and proposed again",
    "identity_invitation": "of a department that ended, it enrols nobody",
    "identity_proposal": "of a department that ended, it is not confirmed any more",
    "identity_report": "what a connector said last",
    "identity_signing_key": "batches that the department signed are verified by it",
    "kpi_fact": "figures, counted from the log: what a department did stays its own",
    "kpi_grant": "figures, counted from the log",
    "kpi_resource": "figures, counted from the log",
    "kpi_span": "figures, counted from the log",
    "kpi_sum": "figures, counted from the log",
    "registry_approval": "texts of those who asked",
    "registry_catalogue_record_version": "earlier versions",
    "registry_catalogue_version": "earlier versions",
    "registry_department_version": "earlier versions",
    "supervision_event": "what the log shows of a department, when it was so",
    "violation_case": "who broke a rule stays who broke it; its successor is heard (ADR 0111)",
}
"""Table → why a row may name a department that has ended."""

NAMES_NONE: Final = frozenset(
    {
        "access_delivered",
        "access_position",
        "access_predicate",
        "access_purpose",
        "access_quota",
        "audit_checkpoint",
        "audit_line",
        "audit_process",
        "broker_partition",
        "broker_receipt",
        "broker_stretch",
        "broker_topic",
        "deadline_rule_change",
        "erasure_request",
        "erasure_retraction",
        "erasure_retraction_version",
        "hub_batch",
        "hub_claim",
        "hub_conflict",
        "hub_golden",
        "hub_item",
        "hub_key",
        "hub_link",
        "hub_mark",
        "hub_position",
        "hub_resource",
        "identity_account_use",
        "kpi_progress",
        "registry_element_use",
        "registry_outbox",
        "registry_reference",
        "registry_schema",
        "registry_subject",
        "registry_version",
        "violation_log_position",
    }
)
"""Tables in which no department is named."""
