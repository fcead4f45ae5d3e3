"""Worker processes: every way in which one can go wrong, done to real processes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import psutil
import pytest

from exchange.access.view.view import ViewSpec
from exchange.engines import process_pool, worker_process
from exchange.engines.process_pool import ProcessPool, TaskSpec
from exchange.engines.worker_process import Status
from exchange.records.engine_tasks import apply_view, check_batch
from exchange.records.submission import CheckedRecords
from registry.avro.parser import parse
from schemas.access import Compare, MaskRule
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.record import Operation, Packed, frame, leaf_hashes
from tests.kit.patience import PATIENCE
from tests.kit.world.publisher import checkable

MANY = 1_000


def task(name, definition=b""):
    return TaskSpec.of(f"tests.kit.faults.engine_tasks:{name}", definition)


def pid_of(workers):
    return int(workers.run(task("echo"), [], records=MANY)[1])


@pytest.fixture(scope="module")
def one():
    """One process, for tests that do it no harm."""
    with ProcessPool(1, deadline=PATIENCE) as workers:
        yield workers


def refused(kind, reason, call):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value


def path_of(path):
    return str(path).encode()


def until(condition, seconds=PATIENCE):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_a_task_runs_in_another_process_on_the_bytes_that_it_is_given(one):
    definition, pid, *parts = one.run(task("echo", b"text"), [b"", b"a" * 5_000_000, b"b"], records=MANY)
    assert (definition, parts) == (b"text", [b"", b"a" * 5_000_000, b"b"])
    assert int(pid) != os.getpid()


def test_a_few_records_are_worked_in_the_calling_thread(one):
    assert int(one.run(task("echo"), [], records=29)[1]) == os.getpid()
    assert int(one.run(task("echo"), [], records=30)[1]) != os.getpid()


def test_without_processes_everything_is_worked_in_the_calling_thread():
    with ProcessPool(0) as workers:
        assert int(workers.run(task("echo"), [], records=MANY)[1]) == os.getpid()
        refused(InvalidError, Reason.RECORD_INVALID, lambda: workers.run(task("refuse"), [], records=MANY))
    refused(UnavailableError, Reason.SHUTTING_DOWN, lambda: workers.run(task("echo"), [], records=1))


def test_a_definition_travels_and_is_compiled_once(one, monkeypatch):
    sent = []
    original = worker_process.send
    monkeypatch.setattr("exchange.engines.process_pool.send", lambda *a, **k: (sent.append(a[1]), original(*a, **k)))
    counts = [one.run(task("counted", b"once"), [], records=MANY) for _ in range(3)]
    assert counts == [[b"1"]] * 3
    assert sent == [Status.UNKNOWN] + [Status.OK] * 3


def test_a_process_that_has_dropped_a_task_is_sent_it_again(one):
    assert one.run(task("counted", b"first"), [], records=MANY) == [b"1"]
    for number in range(300):
        one.run(task("counted", b"%d" % number), [], records=MANY)
    assert one.run(task("counted", b"first"), [], records=MANY) == [b"2"]


def test_an_error_of_the_pool_arrives_as_it_was_raised(one):
    error = refused(InvalidError, Reason.RECORD_INVALID, lambda: one.run(task("refuse"), [], records=MANY))
    assert (error.message, error.details) == ("got 1; expected 2", {"rows": "3"})


@pytest.mark.parametrize("name", ["fail", "panic"])
def test_any_other_error_is_told_by_its_type_alone(one, name):
    before = pid_of(one)
    error = refused(UnavailableError, Reason.INTERNAL, lambda: one.run(task(name), [], records=MANY))
    assert "110101199003071234" not in str(error) + str(error.details)
    assert pid_of(one) == before


@pytest.mark.parametrize("name", ["eat", "eat_arrow"])
def test_work_that_takes_too_much_memory_is_invalid_and_harms_nobody(name):
    with ProcessPool(1, memory=200 << 20) as workers:
        before = pid_of(workers)
        assert workers.run(task(name), [b"1000000"], records=MANY) == [b"\0"] or name == "eat_arrow"
        refused(InvalidError, Reason.BATCH_TOO_LARGE, lambda: workers.run(task(name), [b"400000000"], records=MANY))
        assert pid_of(workers) == before


def test_a_process_imports_nothing_from_the_folder_in_which_the_pool_was_started(tmp_path, monkeypatch):
    (tmp_path / "exchange").mkdir()
    (tmp_path / "exchange" / "__init__.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with ProcessPool(1, deadline=PATIENCE) as workers:
        assert workers.run(task("limits"), [], records=MANY) == [b"(0, 0)", b"0"]


def test_no_core_file_is_left_and_a_panic_is_cheap(one):
    assert one.run(task("limits"), [], records=MANY) == [b"(0, 0)", b"0"]


@pytest.mark.parametrize("name", ["sleep", "spin"])
def test_work_beyond_its_deadline_ends_its_own_process_and_no_other(name, tmp_path):
    replaced = []
    workers = ProcessPool(2, deadline=PATIENCE, replaced=replaced.append)
    with workers, ThreadPoolExecutor(2) as threads:
        slow = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: len(workers._idle) == 1)
        work = threads.submit(workers.run, task(name), [b"600"], records=MANY, deadline=0.4)
        refused(UnavailableError, Reason.OVERLOADED, lambda: work.result(PATIENCE))
        (tmp_path / "go").touch()
        assert int(slow.result()[0]) != os.getpid()
        assert replaced == ["deadline"]
        pids = set()
        until(lambda: pids.add(pid_of(workers)) or len(pids) == 1)  # the next call finds a process again
        until(lambda: len(workers._idle) == 2)


def test_a_stopped_process_is_replaced_at_the_deadline():
    with ProcessPool(1, deadline=PATIENCE) as workers:
        pid = pid_of(workers)
        os.kill(pid, signal.SIGSTOP)
        big = [b"x" * 8_000_000]  # more than a socket holds: the sender waits as well
        refused(UnavailableError, Reason.OVERLOADED, lambda: workers.run(task("echo"), big, records=MANY, deadline=0.3))
        assert pid_of(workers) != pid
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGABRT", "SIGSEGV"])
def test_a_batch_whose_process_died_is_tried_once_more(how, tmp_path):
    replaced = []
    with ProcessPool(1, deadline=PATIENCE, replaced=replaced.append) as workers:
        once = [how.encode(), str(tmp_path / "died").encode()]
        assert workers.run(task("die"), once, records=MANY) == [b"survived"]
        assert replaced == ["died"]


def test_a_batch_of_which_two_processes_died_is_invalid():
    replaced = []
    with ProcessPool(1, deadline=PATIENCE, replaced=replaced.append) as workers:
        error = refused(
            InvalidError, Reason.RECORD_INVALID, lambda: workers.run(task("die"), [b"SIGABRT", b""], records=MANY)
        )
        assert "two engine processes" in str(error)
        assert replaced == ["died", "died"]
        assert pid_of(workers) != os.getpid()


def test_more_calls_than_may_wait_are_refused_at_once(tmp_path):
    with ProcessPool(1, deadline=PATIENCE, queue=1) as workers, ThreadPoolExecutor(2) as threads:
        working = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: not workers._idle)
        waiting = threads.submit(workers.run, task("sleep"), [b"0"], records=MANY)
        until(lambda: workers._waiting == 1)
        error = refused(UnavailableError, Reason.OVERLOADED, lambda: workers.run(task("echo"), [], records=MANY))
        assert not waiting.done(), "at once, and not when a process is free"
        assert error.retry_after == 1.0
        (tmp_path / "go").touch()
        assert working.result()
        assert waiting.result()


def test_a_call_waits_no_longer_than_its_deadline_for_a_process(tmp_path):
    with ProcessPool(1, deadline=PATIENCE) as workers, ThreadPoolExecutor(1) as threads:
        working = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: not workers._idle)
        refused(UnavailableError, Reason.OVERLOADED, lambda: workers.run(task("echo"), [], records=MANY, deadline=0.2))
        (tmp_path / "go").touch()
        assert working.result()


def test_calls_that_wait_for_one_process_come_one_after_the_other():
    with ProcessPool(1, deadline=PATIENCE) as workers, ThreadPoolExecutor(6) as threads:
        start = time.monotonic()
        calls = [threads.submit(workers.run, task("sleep"), [b"0.05"], records=MANY) for _ in range(6)]
        assert len({bytes(call.result()[0]) for call in calls}) == 1
        assert time.monotonic() - start < PATIENCE - 1  # a wake-up that is lost would wait for the deadline


def test_a_process_that_is_free_too_late_for_a_call_goes_to_the_next_one(tmp_path, monkeypatch):
    # A hundredth of its time is too much to wait: 0.3 s for the late call, 36 s for the next one.
    monkeypatch.setattr(process_pool, "_MIN_SHARE", 0.99)
    replaced = []
    workers = ProcessPool(1, deadline=3600, replaced=replaced.append)
    with workers, ThreadPoolExecutor(3) as threads:
        working = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: not workers._idle)
        late = threads.submit(workers.run, task("sleep"), [b"600"], records=MANY, deadline=30)
        until(lambda: workers._waiting == 1)
        next_ = threads.submit(workers.run, task("echo"), [b"x"], records=MANY)
        until(lambda: workers._waiting == 2)
        time.sleep(0.5)
        (tmp_path / "go").touch()
        error = refused(UnavailableError, Reason.OVERLOADED, late.result)
        assert "shortly before" in str(error)
        assert next_.result(PATIENCE)
        assert working.result()
        assert replaced == []


def test_closing_refuses_those_who_wait(tmp_path):
    workers = ProcessPool(1)
    with ThreadPoolExecutor(3) as threads:
        working = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: not workers._idle)
        waiting = threads.submit(workers.run, task("echo"), [], records=MANY)
        until(lambda: workers._waiting == 1)
        threads.submit(workers.close, PATIENCE)
        refused(UnavailableError, Reason.SHUTTING_DOWN, waiting.result)
        assert not working.done()
        (tmp_path / "go").touch()
        assert working.result()


def test_closing_lets_calls_end_and_refuses_new_ones(tmp_path):
    workers = ProcessPool(1)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(workers.run, task("hold"), [path_of(tmp_path / "go")], records=MANY)
        until(lambda: not workers._idle)
        closing = threading.Thread(target=workers.close, args=(PATIENCE,))
        closing.start()
        until(lambda: workers._closed)
        refused(UnavailableError, Reason.SHUTTING_DOWN, lambda: workers.run(task("echo"), [], records=MANY))
        (tmp_path / "go").touch()
        pid = int(working.result()[0])
        closing.join()
    assert not psutil.pid_exists(pid)
    workers.close()


def test_closing_is_patient_only_so_long():
    before = worker_processes()
    workers = ProcessPool(1)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(workers.run, task("sleep"), [b"30"], records=MANY)
        until(lambda: not workers._idle)
        workers.close(patience=0.1)
        refused(UnavailableError, Reason.SHUTTING_DOWN, working.result)
    assert worker_processes() == before


def worker_processes():
    return {child.pid for child in psutil.Process().children() if "worker_process" in " ".join(child.cmdline())}


@pytest.mark.parametrize("name", ["echo", "sleep", "spin"])
def test_a_process_ends_when_its_parent_is_killed_whatever_it_is_doing(name):
    script = textwrap.dedent(f"""
        import threading
        from exchange.engines.process_pool import TaskSpec, ProcessPool
        workers = ProcessPool(1, deadline=2)
        echo = TaskSpec.of("tests.kit.faults.engine_tasks:echo", b"")
        pid = int(workers.run(echo, [], records=1000, deadline={PATIENCE})[1])
        work = TaskSpec.of("tests.kit.faults.engine_tasks:{name}", b"")
        threading.Thread(target=workers.run, args=(work, [b"60"]), kwargs={{"records": 1000}}, daemon=True).start()
        print(pid, flush=True)
        threading.Event().wait()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    )
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_an_answer_that_is_none_counts_as_a_death():
    huge = worker_process._HEAD.pack(Status.OK, 1, bytes(32), 0.0) + (2**60).to_bytes(8, "little")
    for answer in (huge, worker_process._HEAD.pack(Status.OK, 2**30, bytes(32), 0.0)):
        ours, theirs = worker_process.socket.socketpair()
        with ours, theirs:
            theirs.sendall(answer)
            with pytest.raises(ConnectionAbortedError):
                worker_process.receive(ours, time.monotonic() + 5)
    for fault in (b"{", b'{"kind": "Reason"}', json.dumps({"kind": "PoolError", "reason": "internal"}).encode()):
        with pytest.raises(ConnectionAbortedError):
            worker_process.decode_error([fault])


# --- the two tasks of the exchange ----------------------------------------------------------------------------------

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "person",
        "key": ["id"],
        "fields": [{"name": "id", "type": "string", "codes": ["a", "b"]}, {"name": "ward", "type": "int"}],
    }
)


def person(id_, ward):
    return frame(7, bytes([2 * len(id_)]) + id_.encode() + bytes([2 * ward]))


@pytest.mark.parametrize("small", [0, 1_000], ids=["in a process", "in the thread"])
def test_a_batch_is_checked_and_a_view_applied(small):
    writers = {7: parse(SCHEMA)}
    output = json.dumps({"type": "record", "name": "v", "fields": [{"name": "id", "type": "string"}]})
    spec = ViewSpec(
        output=output,
        output_id=9,
        masks=(("id", MaskRule.NAME_FIRST),),
        row_filter=Compare("eq", "ward", 6),
        resource=SCHEMA,
    )
    good = [person("a", 6), b"", person("b", 7)]
    with ProcessPool(1, small=small) as workers:
        records, values = checkable(good, [b"c"])
        leaves = leaf_hashes(records.marks, values, records.void_keys, records.valid)
        expected = CheckedRecords(keys=[b"a", b"b"], schema_ids=(7,), leaves=leaves)
        assert check_batch(workers, writers, records, values) == expected
        bad = check_batch(workers, writers, *checkable([*good, person("c", 6), person("a", 6) + b"x"], [b"c"]))
        assert [(row.index, row.field) for row in bad] == [(3, "id"), (4, "")]
        result = apply_view(workers, spec, writers, good)
        assert list(result.values) == [frame(9, b"\x02*")]
        assert (list(result.kept), list(result.voids)) == ([True, False, False], [False, True, False])
        error = refused(
            InvalidError, Reason.SCHEMA_UNKNOWN, lambda: apply_view(workers, spec, writers, [frame(8, b"")])
        )
        assert "8" in str(error)
        refused(InvalidError, Reason.SCHEMA_UNKNOWN, lambda: check_batch(workers, writers, *checkable([frame(8, b"")])))
        for other in (
            replace(records, root=bytes(32)),
            replace(records, marks=bytes([Operation.CORRECT]) + records.marks[1:]),
            replace(records, void_keys=Packed.of([b"d"])),
            replace(records, valid=bytes(47) + b"\1"),
            replace(records, values=Packed.of([good[2], b"", good[0]])),
        ):
            check = partial(check_batch, workers, writers, other, list(other.values))
            refused(InvalidError, Reason.SIGNATURE_INVALID, check)
