"""Remedies: for what `pool-connect check` finds at the pool, the commands and settings to paste. Pure.

What the database lacks has its statements in `connectors.sources.postgres.readiness`.
"""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from schemas.errors import Reason

__all__ = ["NEW_REQUEST", "enrol_again", "has_ended", "mend_declaration"]


NEW_REQUEST = ("pool request submit REQUEST.yaml", "grant: ID  # of the new grant, once it is approved")
"""What gives a subscription another grant."""


def has_ended(certificate: bytes, now: datetime) -> bool:
    """Return whether a certificate (PEM) has ended; False where it cannot be read."""
    try:
        return now > x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        return False


def enrol_again(department: str, connector: str, identity: Path) -> Sequence[str]:
    """Return the commands after which a connector has a certificate again: at the pool, then on this machine.

    Its signing key and its batches' numbers go on: it is the same connector.
    """
    return (
        f"pool department invite {shlex.quote(department)} --connector {shlex.quote(connector)}",
        "pool connector confirm PROPOSAL",
        f"pool-connect enrol - --identity {shlex.quote(str(identity))} --connector {shlex.quote(connector)}",
    )


def mend_declaration(reason: Reason, grant: str) -> Sequence[str]:
    """Return what to do about a subscription that the pool refuses; nothing where the message has said it."""
    show = f"pool grant show {shlex.quote(grant)}"
    if reason in {Reason.PURPOSE_MISMATCH, Reason.PURPOSE_MISSING}:
        return (show, "purpose: PURPOSE  # as it shows")
    if reason in {Reason.CASE_MISMATCH, Reason.CASE_MISSING, Reason.CASE_FORM_MISMATCH}:
        return (show, "case: CASE  # as it shows, under this grant")
    if reason is Reason.GRANT_EXPIRED:
        return NEW_REQUEST
    if reason in {Reason.GRANT_NOT_ACTIVE, Reason.GRANT_SUSPENDED}:
        return (show,)
    return ()
