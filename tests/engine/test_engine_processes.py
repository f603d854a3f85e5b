"""Work in other processes: order, laziness, errors, and workers that die."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from easydata import EasyDataError, WorkerError
from easydata.engine import Engine, ProcessEngine, SerialEngine
from easydata.engine import processes as processes_module

from . import tasks


@pytest.fixture(params=[SerialEngine, lambda: ProcessEngine(2)], ids=["serial", "processes"])
def engine(request) -> Iterator[Engine]:
    with request.param() as found:
        yield found


@pytest.fixture
def processes() -> Iterator[ProcessEngine]:
    with ProcessEngine(2) as found:
        yield found


def test_results_come_in_the_order_of_the_tasks(engine):
    # The first tasks take longest.
    given = list(range(40, 0, -1))
    assert list(engine.map(tasks.busy, given)) == [(n, sum(range(n * 1000))) for n in given]


def test_no_tasks_give_no_results(engine):
    assert list(engine.map(tasks.double, [])) == []


def test_large_tasks_and_results_pass(engine):
    payload = os.urandom(3 << 20)
    assert list(engine.map(tasks.double, [payload] * 5)) == [payload * 2] * 5


def test_tasks_are_drawn_a_bounded_number_ahead(engine):
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = engine.map(tasks.double, endless())
    for taken in range(1, 50):
        assert next(results) == 2 * taken
        assert drawn - taken <= 2 * 3


def test_an_exception_surfaces_in_its_place(engine):
    results = engine.map(tasks.fail_at_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)


def test_an_exception_of_the_tasks_iterator_surfaces(engine):
    def given():
        yield 1
        raise EasyDataError("the file ended")

    with pytest.raises(EasyDataError, match="the file ended"):
        list(engine.map(tasks.double, given()))


def test_an_exception_tells_where_in_the_worker_it_was_raised(processes):
    with pytest.raises(KeyError) as caught:
        list(processes.map(tasks.fail_at_three, [3]))
    assert "fail_at_three" in "".join(caught.value.__notes__)


def test_an_exception_that_cannot_be_sent_is_told_in_words(processes):
    with pytest.raises(WorkerError, match="StubbornError: will not travel"):
        list(processes.map(tasks.raise_stubborn, [1]))


def test_one_engine_serves_one_map_after_another(processes):
    with pytest.raises(KeyError):
        list(processes.map(tasks.fail_at_three, range(100)))
    # What the first map left in work is not taken for results of this one.
    for _ in range(2):
        assert list(processes.map(tasks.double, range(50))) == list(range(0, 100, 2))
        assert len(children(processes)) == 2


def test_work_is_done_in_as_many_processes_as_asked_for():
    with ProcessEngine(3) as engine:
        pids = set(engine.map(tasks.own_pid, range(60)))
        assert os.getpid() not in pids
        assert pids <= {process.pid for process in children(engine)}
        assert len(children(engine)) == 3


def test_tasks_that_release_the_lock_share_a_process():
    with ProcessEngine(3) as engine:
        # Each waits until three of them run in its process.
        assert len(set(engine.map(tasks.Meet(3), range(30)))) == 1
        assert len(children(engine)) == 1


def test_tasks_that_need_the_lock_share_no_process(processes):
    pids = list(processes.map(tasks.Meet(1, releases_gil=False), range(30)))
    assert pids
    assert len(children(processes)) == 2


@pytest.mark.parametrize(("workers", "threads"), [(4, [4]), (5, [2, 3]), (9, [3, 3, 3])])
def test_processes_get_even_numbers_of_threads(workers, threads):
    with ProcessEngine(workers) as engine:
        list(engine.map(tasks.Meet(1), range(60)))
        assert sorted(worker.threads for worker in engine._workers) == threads


@pytest.mark.parametrize("releases_gil", [False, True])
def test_started_processes_import_ahead_and_are_used(releases_gil):
    with ProcessEngine(2, modules=["tests.engine.tasks", "wave"]) as engine:
        engine.start()
        ahead = [process.pid for process in children(engine)]
        pids = set(engine.map(tasks.Meet(1, releases_gil=releases_gil), range(40)))
        assert {*ahead} <= {process.pid for process in children(engine)}
        assert pids <= {process.pid for process in children(engine)}
        assert len(children(engine)) == (1 if releases_gil else 2)
    with ProcessEngine(1, modules=["wave"]) as engine:
        assert list(engine.map(tasks.imported, ["wave", "chunk"])) == [True, False]


def test_a_task_that_cannot_be_sent_fails_in_its_place(processes):
    results = processes.map(tasks.double, [1, lambda: None, 3])
    assert next(results) == 2
    with pytest.raises((AttributeError, pickle.PicklingError)):
        next(results)


def test_programs_that_a_task_starts_cannot_read_the_tasks(processes):
    assert list(processes.map(tasks.read_input, range(8))) == [b""] * 8


@pytest.mark.parametrize("size", [1, 5 << 20])
def test_a_killed_worker_is_told(size):
    with pytest.raises(WorkerError, match="SIGKILL") as caught, ProcessEngine(2) as engine:
        list(engine.map(tasks.kill_self, [b"x" * size] * 10))
    assert "fewer workers" in str(caught.value)
    assert "Run again to continue" in str(caught.value)


@pytest.mark.parametrize("size", [1, 5 << 20])
def test_workers_killed_from_outside_are_told(size):
    # A large task meets the closed pipe while it is written, a small one perhaps only after.
    with ProcessEngine(2) as engine:
        results = engine.map(tasks.length, [b"x" * size] * 20)
        assert next(results) == size
        for process in children(engine):
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            list(results)


def test_a_worker_that_exits_is_told():
    with pytest.raises(WorkerError, match="exit code 7"), ProcessEngine(1) as engine:
        list(engine.map(tasks.exit_seven, [1]))


def test_what_a_task_prints_goes_to_standard_error(processes, capfd):
    # From Python, from a subprocess, and from C, which all know descriptor 1 only.
    assert list(processes.map(tasks.noisy, range(4))) == list(range(4))
    shown = capfd.readouterr()
    assert shown.out == ""
    for text in ("from print", "from a subprocess", "from the descriptor"):
        assert shown.err.count(text) == 4


def test_a_function_that_cannot_be_imported_is_told(processes, monkeypatch):
    module = type(sys)("only_here")
    exec("def function(task): return task", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(WorkerError, match=r"only_here.* workers=1"):
        list(processes.map(module.function, [1]))


@pytest.mark.parametrize("busy", [False, True], ids=["starting", "busy"])
def test_leaving_early_ends_all_workers(tmp_path, monkeypatch, busy):
    marks = [tmp_path / str(number) for number in range(5)]
    started = []
    start = processes_module._Worker.__init__

    def noted(self, *args):
        start(self, *args)
        started.append(self._process)

    monkeypatch.setattr(processes_module._Worker, "__init__", noted)

    def given():
        yield from marks
        while busy and sum(mark.exists() for mark in marks) < 2:
            wait_a_little(started)
        raise EasyDataError("stop")

    with ProcessEngine(2) as engine:
        results = engine.map(tasks.block_for_ever, given())
        with pytest.raises(EasyDataError, match="stop"):
            list(results)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * len(started)
    assert len(started) == 2 or not busy


def wait_a_little(started):
    """Until a process ends, which none should, or a hundredth of a second."""
    for process in started[:1]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)


def test_workers_have_one_thread_for_the_tokenizer(processes):
    (values,) = processes.map(tasks.environment_and_threads, [0])
    assert values == ("false", "1", 1)


def children(engine: ProcessEngine):
    return [worker._process for worker in engine._workers]
