"""A pool's identity room for tests: its store, on either adapter, and what a department does with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.identity.authority import Authority, CertificateAuthenticator
from exchange.identity.enrolment import CertificateStatus, Connectors, EnrolledConnector, Enrolment
from exchange.identity.store import IdentityStore
from registry.database.unit_of_work import Database
from schemas.access import Actor
from schemas.invitation import Invitation
from tests.kit.cases.grants import CONSUMER, NOW
from tests.kit.world.certificates import a_request, p256

DAY = timedelta(days=1)


@dataclass
class Home:
    store: IdentityStore
    db: Database
    authority: Authority

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment(self.authority, self.store)

    def invite(self, department: str = CONSUMER, connector: str | None = None, at: datetime = NOW) -> str:
        with self.db.begin() as work:
            token = self.enrolment.invite(
                work, department=department, connector=connector, address="localhost:7444", by="officer", at=at
            )
        return Invitation.decode(token).secret

    def enrol(self, secret: str, connector: str = "benefits", at: datetime = NOW, **changes: Any) -> EnrolledConnector:
        key = ed25519.Ed25519PrivateKey.generate()
        request = a_request(p256())
        arguments = {
            "secret": secret,
            "connector": connector,
            "request": request,
            "signing_key": key.public_key().public_bytes_raw(),
            "signing_proof": key.sign(request),
            "at": at,
        }
        with self.db.begin() as work:
            return self.enrolment.enrol(work, **(arguments | changes))

    def status(self, enrolled: EnrolledConnector) -> CertificateStatus:
        with self.db.begin() as work:
            return Connectors(self.store).status(work, enrolled.serial)

    def actor(self, enrolled: EnrolledConnector, at: datetime = NOW) -> Actor:
        return CertificateAuthenticator("city-pool", enrolled.authority).authenticate(enrolled.certificate, at)

    def revoke(self, **which: Any) -> list[str]:
        arguments = {"department": CONSUMER, "at": NOW, "by": "officer", "because": "the machine was stolen"}
        with self.db.begin() as work:
            return sorted(self.enrolment.revoke(work, **(arguments | which)))
