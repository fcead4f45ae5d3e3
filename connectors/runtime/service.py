"""Running a connector: each publication and each subscription in a thread of its own, until all are done or stopped.

A stream that fails permanently does not take the others with it; the exit code is that of the worst. SIGTERM and SIGINT
set one event: each stream finishes the batches that are in flight, remembers what was acknowledged, and ends with 0.
"""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import FrameType

from connectors.config.config import ConnectorConfig, PublishConfig, SubscribeConfig
from connectors.runtime import assembly
from connectors.runtime.exit_codes import Exit, exit_of
from schemas.errors import PoolError, UnavailableError

__all__ = ["run", "stop_on_signals"]

_RENEWAL = 3600.0  # seconds between two looks at the certificate's age


def stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT end the streams after the batches in flight."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, ask)


def run(config: ConnectorConfig, link: assembly.RuntimeContext, *, once: bool, refresh: Callable[[], None]) -> Exit:
    """Run every stream.

    Args:
        config: of the connector.
        link: the pool, our signature, stop and voice.
        once: end when what is there now is done.
        refresh: called before each pass of a publication, and every hour: renews the certificate when it is time.
    """
    jobs: list[Callable[[], Exit]] = [
        *(partial(_publish, config, each, link, once=once, refresh=refresh) for each in config.publish),
        *(partial(_subscribe, config, each, link, once=once) for each in config.subscribe),
    ]
    # A subscription is one long pass, and a connector may have nothing else: time alone renews its certificate.
    threading.Thread(target=_keep_fresh, args=(link, refresh), name="renewal", daemon=True).start()
    with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="stream") as threads:
        futures = [threads.submit(_guarded, job, link) for job in jobs]
        return max(future.result() for future in futures)


def _keep_fresh(link: assembly.RuntimeContext, refresh: Callable[[], None]) -> None:
    while not link.stop.wait(_RENEWAL):
        try:
            refresh()
        except PoolError as error:
            link.say(f"certificate: {error.reason}: {error.message}")


def _guarded(job: Callable[[], Exit], link: assembly.RuntimeContext) -> Exit:
    try:
        return job()
    except PoolError as error:
        link.say(f"{error.reason}: {error.message}")
        return Exit.OK if link.stop.is_set() and exit_of(error) is Exit.AWAY else exit_of(error)


def _publish(
    config: ConnectorConfig,
    entry: PublishConfig,
    link: assembly.RuntimeContext,
    *,
    once: bool,
    refresh: Callable[[], None],
) -> Exit:
    ledger = assembly.open_ledger(config, entry.resource, link.clock)
    try:
        mine = replace(link, say=lambda text: link.say(f"{entry.resource}: {text}"))
        publisher = assembly.publisher(config, entry, ledger, mine)
        poll = config.source.poll if config.source else 0.0
        while True:
            try:
                refresh()
            except UnavailableError as error:
                mine.say(error.message)  # the pass itself waits for the pool
            for each in publisher.run():
                mine.say(
                    f"{each.portion}: {each.read:,} rows read = {each.published:,} published + "
                    f"{each.quarantined:,} quarantined + {each.unchanged:,} unchanged; {each.voided:,} voided"
                )
            publisher.quarantine.forget(timedelta(seconds=entry.quarantine.keep), link.clock())
            if once or link.stop.wait(poll):
                break
        publisher.source.close()
        return Exit.QUARANTINE if publisher.quarantine.files() else Exit.OK
    finally:
        ledger.close()


def _subscribe(config: ConnectorConfig, entry: SubscribeConfig, link: assembly.RuntimeContext, *, once: bool) -> Exit:
    ledger = assembly.open_ledger(config, entry.grant, link.clock)
    try:
        mine = replace(link, say=lambda text: link.say(f"{entry.grant}: {text}"))
        subscriber = assembly.subscriber(config, entry, ledger, mine)
        done = subscriber.run(once=once)
        mine.say(
            f"{done.read:,} records received: {done.published:,} written, {done.voided:,} withdrawn, "
            f"{done.unchanged:,} overtaken, {done.quarantined:,} refused by the target"
        )
        subscriber.sink.close()
        return Exit.QUARANTINE if done.quarantined else Exit.OK
    finally:
        ledger.close()
