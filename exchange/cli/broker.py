"""Commands `pool broker …`: compare stored records with the log, export the schemas topic, renew generations.

`verify` compares every stored batch with the root in its entry, on either broker.

Kafka can lose the end of a committed transaction (KAFKA-20734) without leaving a gap in the offsets. The receipts
say which records must be there; `check` compares them with what a read-committed consumer finds.

`schemas` reads the topic of schemas alone, so that a registry whose database is lost can be restored from it.

`apply` is for Kafka, and for the operator: it lets the topics keep what the catalogue says, and carries out erasures,
which the gateway's certificate may not do.

`renew-generations` is for a restore of the records: consumers' positions from before it are then refused.

What the commands do is in `exchange.cli.stored_records`, which is loaded when one of them runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.output import CommandGroup
from exchange.cli.run import Data

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    broker = typer.Typer(cls=CommandGroup)
    broker.command("verify")(verify)
    broker.command("check")(check)
    broker.command("schemas")(schemas)
    broker.command("apply")(apply)
    broker.command("renew-generations")(renew_generations)
    app.add_typer(broker, name="broker", help="The broker behind the pool: Kafka or PostgreSQL.")


def check(
    data: Data,
    batches: Annotated[int, typer.Option(min=1, help="number of latest batches of each lane to compare")] = 1000,
    lane: Annotated[str | None, typer.Option(help="one lane, DEPARTMENT/CONNECTOR/TOPIC")] = None,
) -> None:
    """Compare the receipts with the records that a read-committed consumer finds. The pool may be running.

    Ends with 1 and names each batch that was acknowledged and is not whole.
    """
    from exchange.cli import stored_records

    stored_records.check(data, batches, lane)


def verify(
    data: Data,
    topic: Annotated[str | None, typer.Option(help="one topic, such as residents.v1")] = None,
    key: Annotated[
        str | None, typer.Option(help="the log's public key, or the file with it; DIR/log.pub if not given")
    ] = None,
    since: Annotated[Path | None, typer.Option(help="a checkpoint kept outside the pool")] = None,
) -> None:
    """Compare every stored batch with the root in its entry of the log. The pool must be running, or its database.

    The log is verified first. Ends with 1 and names what is missing, changed or of no entry.
    """
    from exchange.cli import stored_records

    stored_records.verify(data, topic, key, since)


def schemas(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="file to write; standard output if not given")] = None,
) -> None:
    """Write the records of the schemas topic, one a line, for `pool-schema import`. Needs no database.

    A file is written whole or not at all; on standard output, an error means that lines are missing.
    """
    from exchange.cli import stored_records

    stored_records.write_schemas(data, out)


def apply(
    data: Data,
    certificate: Annotated[Path, typer.Option(help="PEM file of the operator's certificate for Kafka")],
    key: Annotated[Path, typer.Option(help="PEM file of its key")],
) -> None:
    """Let Kafka follow what was decided: what topics keep, and confirmed erasures. The pool may be running.

    The values of an erasure are gone from Kafka's segments when this ends. Ends with 1 where something is left.
    """
    from exchange.cli import stored_records

    stored_records.apply(data, certificate, key)


def renew_generations(data: Data) -> None:
    """Raise every topic's generation after a restore of its records. The pool must not be running.

    A position that a consumer was given before is then refused (`topic_generation_changed`) and its target is filled
    again. Without it, the position would be taken for one of the restored records.
    """
    from exchange.cli import stored_records

    stored_records.renew_generations(data)
