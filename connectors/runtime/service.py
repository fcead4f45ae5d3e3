"""Main loop of a connector: each publication and each subscription in a thread of its own, until done or stopped.

A stream that fails permanently does not end the others; the exit code is that of the worst. SIGTERM and SIGINT set one
event: each stream finishes the batches in flight, records what was acknowledged, and ends with 0. Meanwhile the pool is
told what the streams do (`connectors.runtime.reporting`).
"""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import FrameType

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.config.source_models import PoolSourceConfig
from connectors.config.subscription_models import SubscribeConfig
from connectors.runtime import assembly, change_streams, pool_streams
from connectors.runtime.exit_codes import ExitCode, exit_code_for
from connectors.runtime.passes import Passes
from connectors.runtime.reporting import Reporter, StreamKey
from schemas.errors import PoolError, Reason, UnavailableError
from schemas.process import allocator

__all__ = ["run", "stop_on_signals"]

_RENEWAL_INTERVAL = 3600.0  # seconds between two checks of the certificate's age


def stop_on_signals(stop: threading.Event) -> None:
    """Register handlers: SIGTERM and SIGINT end the streams after the batches in flight."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def run(
    config: ConnectorConfig, context: assembly.RuntimeContext, *, once: bool, refresh: Callable[[], None]
) -> ExitCode:
    """Run every stream.

    Args:
        config: of the connector.
        context: the pool, the signing key, the stop event and the progress reporter.
        once: end when what the sources have now is done.
        refresh: renews the certificate when it is time; called before each run of a publication, and every hour.
    """
    # With the interpreter's own threshold of 700 objects a fifth of the processor time was the collector's.
    allocator.freeze_startup_objects()
    with (
        Reporter(config, context.pool.report, context.clock, context.notify) as reporter,
        pool_streams.connected(config, context) as other,
    ):
        jobs: list[tuple[list[StreamKey], Callable[[], ExitCode]]] = [
            (
                [("publish", each.resource)],
                partial(_publish, config, each, context, reporter, once=once, refresh=refresh),
            )
            for each in config.publish
            if each.mode != "cdc" and each.draw is None
        ]
        by_log = change_streams.sections(config)
        if by_log:  # all publications of changes are one stream
            changes = partial(change_streams.run, config, context, once=once, refresh=refresh)
            jobs.append(([("publish", each.resource) for each in by_log], changes))
        jobs += [
            (
                [("publish", each.resource)],
                partial(pool_streams.run, config, each, context, other, once=once, refresh=refresh),
            )
            for each in config.publish
            if each.draw is not None
        ]
        jobs += [
            ([("subscribe", each.grant)], partial(_subscribe, config, each, context, once=once))
            for each in config.subscribe
        ]
        # A subscription is one long run, and a connector may have nothing else: a timer renews its certificate.
        _start_renewal(context, refresh)
        if other is not None:
            _start_renewal(context, other.refresh)
        with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="stream") as threads:
            futures = [threads.submit(_exit_code_of, job, streams, context, reporter) for streams, job in jobs]
            return max(future.result() for future in futures)


def _start_renewal(context: assembly.RuntimeContext, refresh: Callable[[], None]) -> None:
    threading.Thread(target=_renew_periodically, args=(context, refresh), name="renewal", daemon=True).start()


def _renew_periodically(context: assembly.RuntimeContext, refresh: Callable[[], None]) -> None:
    while not context.stop.wait(_RENEWAL_INTERVAL):
        try:
            refresh()
        except PoolError as error:
            context.notify(f"certificate: {error.reason}: {error.message}")


def _exit_code_of(
    job: Callable[[], ExitCode], streams: list[StreamKey], context: assembly.RuntimeContext, reporter: Reporter
) -> ExitCode:
    reason = Reason.INTERNAL.value
    try:
        code = job()
        reason = ""
    except PoolError as error:
        context.notify(f"{error.reason}: {error.message}")
        code = exit_code_for(error)
        reason = error.reason.value
        if context.stop.is_set() and code is ExitCode.AWAY:
            code, reason = ExitCode.OK, ""
    finally:
        reporter.stream_ended(streams, reason)
    return code


def _publish(
    config: ConnectorConfig,
    section: PublishConfig,
    context: assembly.RuntimeContext,
    reporter: Reporter,
    *,
    once: bool,
    refresh: Callable[[], None],
) -> ExitCode:
    ledger = assembly.open_ledger(config, section.resource, context.clock)
    try:
        stream = replace(context, notify=lambda text: context.notify(f"{section.resource}: {text}"))
        publisher = assembly.publisher(config, section, ledger, stream)
        source = config.source
        poll = 0.0 if source is None or isinstance(source, PoolSourceConfig) else source.poll
        passes = Passes(section, poll, ledger, context.clock)
        while once or not passes.wait(context.stop, stream.notify):
            try:
                refresh()
            except UnavailableError as error:
                stream.notify(error.message)  # the run itself waits for the pool
            begun = context.clock()
            for each in publisher.run():
                stream.notify(
                    f"{each.portion}: {each.read:,} rows read = {each.published:,} published + "
                    f"{each.quarantined:,} quarantined + {each.unchanged:,} unchanged; {each.voided:,} voided"
                )
            publisher.quarantine.purge(timedelta(seconds=section.quarantine.keep), context.clock())
            reporter.run_ended()
            if context.stop.is_set():
                break
            passes.note(begun)
            if once:
                break
        publisher.source.close()
        return ExitCode.QUARANTINE if publisher.quarantine.file_count() else ExitCode.OK
    finally:
        ledger.close()


def _subscribe(
    config: ConnectorConfig, section: SubscribeConfig, context: assembly.RuntimeContext, *, once: bool
) -> ExitCode:
    ledger = assembly.open_ledger(config, section.grant, context.clock)
    try:
        stream = replace(context, notify=lambda text: context.notify(f"{section.grant}: {text}"))
        subscriber = assembly.subscriber(config, section, ledger, stream)
        done = subscriber.run(once=once)
        stream.notify(
            f"{done.read:,} records received: {done.published:,} written, {done.voided:,} withdrawn, "
            f"{done.unchanged:,} overtaken, {done.quarantined:,} rejected by the target"
        )
        subscriber.sink.close()
        return ExitCode.QUARANTINE if done.quarantined else ExitCode.OK
    finally:
        ledger.close()
