"""What workers on Ray do besides: code of scripts, dead workers, and clusters without room."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import ray

from easydata import MissingDependencyError, UsageError, WorkerError
from easydata.engine import RayEngine, ray_engine
from easydata.engine.ray_worker import RayWorker
from tests.rays import small_ray

from . import tasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def running_ray():
    with small_ray():
        yield


@pytest.fixture(scope="module")
def engine(running_ray):
    """Its workers stay from test to test, as processes take seconds to start."""
    with RayEngine(2) as engine:
        yield engine


@pytest.fixture
def free_cores(engine):
    """The workers of the shared engine are gone."""
    engine.__exit__()
    wait_for_cores(2)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(ray_engine, "_PATIENCE_SECONDS", 0.1)


def wait_for_cores(number: int) -> None:
    end = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < number:
        assert time.monotonic() < end, ray.available_resources()


class Loaded:
    """A function that leaves a line in a file whenever a process loads it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __setstate__(self, state):
        self.__dict__ = state
        with self.file.open("a") as lines:
            lines.write(f"{os.getpid()}\n")

    def __call__(self, task):
        return os.getpid()


class DieAt:
    """Notes each attempt at a task, and kills its process at the first ones for task 3.

    With `after` it does so when that file is there.
    """

    def __init__(self, folder: Path, times: int, after: Path | None = None) -> None:
        self.folder = folder
        self.times = times
        self.after = after

    def __call__(self, task):
        with (self.folder / str(task)).open("a") as lines:
            lines.write("attempt\n")
        if task == 3 and self.attempts(3) <= self.times:
            while self.after and not self.after.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    def attempts(self, task) -> int:
        return len((self.folder / str(task)).read_text().splitlines())


def test_lambdas_closures_and_their_exceptions_travel(engine):
    class OwnError(Exception):
        pass

    offset = 5

    def refuse(task):
        raise OwnError(f"not {task + offset}")

    assert list(engine.map(lambda task: task + offset, range(4))) == [5, 6, 7, 8]
    with pytest.raises(OwnError, match="not 12") as caught:
        list(engine.map(refuse, [7]))
    assert "in refuse\n" in "".join(caught.value.__notes__)


def test_what_cannot_be_pickled_is_told_in_its_place(engine):
    with pytest.raises(WorkerError, match="StubbornError: will not travel"):
        list(engine.map(tasks.raise_stubborn, [1]))
    results = engine.map(tasks.double, [1, threading.Lock(), 3])
    assert next(results) == 2
    with pytest.raises(TypeError, match="lock"):
        next(results)
    lock = threading.Lock()
    with pytest.raises(UsageError, match=r"lambda.* cannot be sent to Ray workers: .*lock"):
        list(engine.map(lambda task: lock, [1]))
    with pytest.raises(TypeError, match="lock"):
        list(engine.map(lambda task: threading.Lock(), [1]))


def test_every_worker_is_a_process_that_loads_a_function_once(engine, tmp_path):
    engine.start()
    ray.get([worker.ready.remote() for worker in engine._workers])
    for name in ("one", "two"):
        file = tmp_path / name
        pids = Counter(engine.map(Loaded(file), range(40)))
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert sorted(file.read_text().split()) == sorted(map(str, pids))
    assert len(engine._workers) == 2


def test_workers_have_one_thread_for_the_tokenizer(engine):
    (values,) = engine.map(tasks.environment_and_threads, [0])
    assert values == ("false", "1", 1)


def test_a_task_whose_worker_dies_is_run_again(engine, tmp_path):
    function = DieAt(tmp_path, times=2)
    assert list(engine.map(function, range(12))) == list(range(12))
    assert function.attempts(3) == 3


def test_a_task_that_always_kills_its_worker_is_told(engine, tmp_path):
    # A worker that dies at once may take finished results with it that were not sent yet: if it
    # does so every time, the task that is told is not the one that kills.
    attempts = 0
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        taken = folder / "taken"
        function = DieAt(folder, times=99, after=taken)
        results = engine.map(function, range(12))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        taken.touch()
        with pytest.raises(WorkerError, match=r"Ray worker died.* actor .*Run again to continue"):
            next(results)
        attempts = max(attempts, function.attempts(3))
        if attempts >= 4:  # else Ray counted one that it sent to a worker already dead
            break
    assert attempts == 4


def test_workers_killed_from_outside_are_replaced(engine):
    pids = set(engine.map(tasks.own_pid, range(20)))
    results = engine.map(tasks.busy, range(40))
    assert next(results) == (0, 0)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [task for task, _ in results] == list(range(1, 40))
    assert not pids & set(engine.map(tasks.own_pid, range(20)))


def test_what_workers_cannot_import_is_told(engine, monkeypatch):
    module = type(sys)("only_here")
    exec("def function(task): return task", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(WorkerError, match=r"only_here.*every node.*runtime_env"):
        list(engine.map(module.function, [1]))


def test_a_module_that_is_not_there_is_told(free_cores):
    other = RayEngine(1, modules=["not_a_module"])
    with other, pytest.raises(WorkerError, match="No module named 'not_a_module'"):
        list(other.map(tasks.double, [1]))


def test_modules_are_imported_ahead(free_cores):
    with RayEngine(1, modules=["wave"]) as engine:
        engine.start()
        (worker,) = engine._workers
        assert list(engine.map(tasks.imported, ["wave", "chunk"])) == [True, False]
        assert engine._workers == [worker]


def test_leaving_abandons_the_work_and_no_more(free_cores, tmp_path, capfd):
    marks = [tmp_path / str(number) for number in range(2)]

    def given():
        yield from marks
        while not marks[0].exists():
            threading.Event().wait(0.01)
        raise KeyError("stop")

    with RayEngine(1) as engine, pytest.raises(KeyError, match="stop"):
        list(engine.map(tasks.block_for_ever, given()))
    wait_for_cores(2)
    assert [mark.exists() for mark in marks] == [True, False]
    assert ray.is_initialized()
    assert capfd.readouterr() == ("", "")


def test_a_gpu_each_is_reserved(free_cores):
    with RayEngine(1, use_gpu=True, resources_per_worker={"tool": 0.5, "memory": 1e6}) as engine:
        (found,) = engine.map(lambda task: ray.get_runtime_context().get_assigned_resources(), [0])
        assert found == {"CPU": 1, "GPU": 1, "tool": 0.5, "memory": 1e6}
    with RayEngine(1, use_gpu=True, resources_per_worker={"GPU": 0.5, "CPU": 0}) as engine:
        (found,) = engine.map(lambda task: ray.get_runtime_context().get_assigned_resources(), [0])
        assert found == {"GPU": 0.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"num_workers": 3},
            r"^3 Ray workers .* CPU=1 each .* CPU=2 on 1 nodes: .* for 2\. Pass n",
        ),
        ({"num_workers": 2, "use_gpu": True}, r"CPU=1, GPU=1 each.* GPU=1 on .* for 1\. "),
        ({"num_workers": 1, "resources_per_worker": {"toll": 1}}, "toll=0 on .* for 0. Reserve"),
        ({"num_workers": 4, "resources_per_worker": {"CPU": 0.6}}, "room for 3"),
        ({"num_workers": 1, "resources_per_worker": {"memory": 1e15}}, "memory=1e.15 each"),
    ],
)
def test_what_never_fits_the_cluster_is_told(options, words):
    with RayEngine(**options) as engine, pytest.raises(UsageError, match=words):
        list(engine.map(tasks.double, [1]))


def test_a_worker_must_fit_one_node(monkeypatch):
    nodes = [{"Alive": alive, "Resources": {"CPU": 3.0}} for alive in (True, True, False)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(UsageError, match=r"CPU=2 each .* CPU=6 on 2 nodes: there is room for 2"):
        RayEngine(3, resources_per_worker={"CPU": 2}).start()


def test_a_cluster_that_may_grow_is_waited_for(free_cores, impatient, monkeypatch, caplog):
    grouped = [{**node, "Labels": {"ray.io/node-group": "workers"}} for node in ray.nodes()]
    answers = [grouped, grouped, grouped, ray.nodes()]
    monkeypatch.setattr(ray, "nodes", lambda: answers.pop(0))
    engine = RayEngine(1, resources_per_worker={"later": 1})
    with engine, pytest.raises(UsageError, match="later=0"):  # after all it cannot
        list(engine.map(tasks.double, [1]))
    assert answers == []
    assert [record.getMessage() for record in caplog.records] == [
        "Waiting for room in the Ray cluster: 1 workers reserve CPU=1, later=1 each; "
        "free are CPU=2, later=0."
    ]


@pytest.fixture
def holder():
    """A function that makes an actor, of someone else's, that reserves cores."""

    class Holder:  # not of a module, as Ray by itself does not know where the tests are
        def hold(self):
            pass

    def hold(num_cpus):
        actor = ray.remote(Holder).options(num_cpus=num_cpus).remote()
        ray.get(actor.hold.remote())
        return actor

    return hold


def test_room_that_others_hold_is_waited_for(free_cores, impatient, monkeypatch, holder):
    other = holder(2)
    lines = []

    def warning(pattern, line):
        lines.append(line)
        ray.kill(other)

    monkeypatch.setattr(ray_engine._log, "warning", warning)
    with RayEngine(2) as engine:
        assert list(engine.map(tasks.double, range(3))) == [0, 2, 4]
    assert lines == [
        "Waiting for room in the Ray cluster: 2 workers reserve CPU=1 each; free are CPU=0."
    ]


def test_some_workers_do_the_work_while_others_wait_for_room(free_cores, holder):
    other = holder(1)
    with RayEngine(2) as engine:
        assert len(set(engine.map(tasks.own_pid, range(20)))) == 1
        ray.kill(other)
        results = engine.map(tasks.own_pid, iter(int, 1))
        first = next(results)
        assert next(pid for pid in results if pid != first)  # the second one has started


def test_a_lost_node_is_noticed(free_cores, impatient, monkeypatch, tmp_path):
    def given():
        yield tmp_path / "blocks"
        monkeypatch.setattr(ray, "nodes", list)

    engine = RayEngine(1)
    with engine, pytest.raises(UsageError, match="room for 0"):
        list(engine.map(tasks.block_for_ever, given()))


def test_what_has_no_effect_is_told(free_cores, caplog):
    with RayEngine(1, object_store_memory=10**8, address="somewhere:1") as engine:
        assert list(engine.map(tasks.double, [1])) == [2]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "address='somewhere:1', object_store_memory=100000000: no effect" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": 0}, "num_workers is 0"),
        ({"num_workers": 1, "object_store_memory": 0}, "object_store_memory is 0"),
        ({"num_workers": 1, "resources_per_worker": {"CPU": -1}}, "CPU=-1; it must be at least 0"),
        ({"num_workers": 1, "resources_per_worker": {"a": float("nan")}}, "a=nan"),
        ({"num_workers": 1, "resources_per_worker": {"a": 0.00005}}, "steps of 0.0001"),
        ({"num_workers": 1, "resources_per_worker": {"GPU": 1.5}}, "GPU=1.5; .* whole"),
    ],
)
def test_wrong_numbers_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        RayEngine(**options)


def test_a_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"easydata\[ray\]"):
        RayEngine(1).start()


def test_a_worker_in_this_process(monkeypatch, tmp_path):
    # What workers do is seen by coverage here only: Ray kills them.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    worker = RayWorker([str(tmp_path), sys.path[0]], ["wave"])
    assert sys.path.count(str(tmp_path)) == 1
    assert worker.ready() is None
    double = ray.put(pickle.dumps(tasks.double))
    assert pickle.loads(worker.run([double], pickle.dumps(4))) == (True, 8)
    fail = ray.put(pickle.dumps(tasks.raise_stubborn))
    succeeded, error = pickle.loads(worker.run([fail], pickle.dumps(4)))
    assert not succeeded
    assert isinstance(error, WorkerError)
    missing = ray.put(b"cnot_a_module\nfunction\n.")
    succeeded, error = pickle.loads(worker.run([missing], pickle.dumps(4)))
    assert "every node" in str(error)
    assert "RayWorker" not in "".join(error.__notes__)


SCRIPT = """
import os, sys
import ray
from easydata.engine import RayEngine
from mine import triple
from easydata.errors import UsageError

def double(task):
    return task * 2

with RayEngine(2, object_store_memory=90_000_000) as engine:
    print(list(engine.map(double, range(3))), list(engine.map(triple, range(3))))
    print(ray.cluster_resources()["object_store_memory"])
    env = lambda task: os.environ["RAY_USAGE_STATS_ENABLED"]
    print(set(engine.map(env, range(3))))
print(ray.is_initialized())
os.environ["RAY_ADDRESS"] = sys.argv[1]
with RayEngine(1, object_store_memory=10, resources_per_worker={"tool": 1}) as engine:
    print(list(engine.map(double, range(3))))
try:
    RayEngine(1, address="127.0.0.1:1").start()
except UsageError as error:
    print(error)
"""


def test_a_script_starts_ray_and_joins_another(free_cores, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mine.py").write_text("def triple(task):\n    return task * 3\n")
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "script.py", address]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "[0, 2, 4] [0, 3, 6]",
        "90000000.0",
        "{'0'}",
        "False",
        "[0, 2, 4]",
        "No Ray cluster answers at 127.0.0.1:1: [Errno 111] Connection refused. "
        "Check address and RAY_ADDRESS; without both, Ray starts on this machine.",
    ]
    assert done.stderr == (
        f"object_store_memory=10 has no effect: the cluster at {address} runs already.\n"
    )
    assert ray.is_initialized()
    wait_for_cores(2)
