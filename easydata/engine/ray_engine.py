"""Workers that are actors of a Ray cluster: of this machine, or of many.

Ray starts a dead actor again and repeats its tasks, so a task must not mind being run twice.
Tasks, results and functions travel pickled by value where they are code of the user's script,
which other processes could not import.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from easydata._optional import require
from easydata.engine.ray_worker import RayWorker
from easydata.errors import EasyDataError, UsageError, WorkerError

__all__ = ["RayEngine"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_log = logging.getLogger("easydata")
_TASKS_AHEAD = 3  # for each worker: one in work and two waiting hide the way to it
_RETRIES = 3  # further attempts at a task whose worker died
_RESTARTS = 20  # of a worker, whatever it died of; one that dies as it starts must end sometime
_PATIENCE_SECONDS = 10.0  # before asking whether what is waited for can still come
_STEPS = 10_000  # Ray counts resources in ten-thousandths
_NODE_GROUP = "ray.io/node-group"  # a label that autoscalers give to the nodes they start


class RayEngine:
    """Runs a number of tasks at a time in workers of a Ray cluster.

    Leaving the context ends the workers, and Ray too if this engine started or joined it.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        resources_per_worker: Mapping[str, float] | None = None,
        use_gpu: bool = False,
        object_store_memory: int | None = None,
        address: str | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        """Start nothing yet: workers start with the first tasks, or with `start`.

        Args:
            num_workers: how many tasks to run at a time, each in a process of its own.
            resources_per_worker: what a worker reserves: `CPU` (1 if not given), `GPU`, `memory`
                in bytes, or resources that the cluster declares by other names.
            use_gpu: a worker reserves one GPU, unless `resources_per_worker` says how many.
            object_store_memory: bytes of shared memory of the Ray that is started here.
            address: of the cluster to join. By default Ray as this process has initialised it,
                else the cluster that the environment variable RAY_ADDRESS names, else a new one
                on this machine.
            modules: names of what a worker imports as soon as it starts.

        Raises:
            UsageError: a number is out of range.
        """
        if num_workers < 1:
            raise UsageError(f"num_workers is {num_workers}; it must be at least 1.")
        if object_store_memory is not None and object_store_memory <= 0:
            raise UsageError(
                f"object_store_memory is {object_store_memory}; it is a number of bytes above 0."
            )
        gpu = {"GPU": 1.0} if use_gpu else {}
        self._num_workers = num_workers
        self._needs = _check_resources({"CPU": 1.0, **gpu, **(resources_per_worker or {})})
        self._object_store_memory = object_store_memory
        self._address = address
        self._modules = tuple(modules)
        self._is_ours = False
        self._workers: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._waiting: deque[_Submitted] = deque()

    def start(self) -> None:
        """Start Ray if it does not run, and the workers: they import while this one prepares.

        Raises:
            MissingDependencyError: Ray is not installed.
            UsageError: the cluster cannot hold so many workers, or does not answer.
        """
        if self._workers:
            return
        ray = _ray()
        if ray.is_initialized():
            self._warn_of_no_effect()
        else:
            self._join(ray)
        self._check_room(ray)
        needs = dict(self._needs)
        actor = ray.remote(RayWorker).options(
            num_cpus=needs.pop("CPU"),
            num_gpus=needs.pop("GPU", 0),
            memory=int(needs.pop("memory", 0)) or None,
            resources=needs,
            max_restarts=_RESTARTS,
            max_task_retries=_RETRIES,
        )
        path = [folder or str(Path.cwd()) for folder in sys.path]
        self._workers = [actor.remote(path, self._modules) for _ in range(self._num_workers)]
        self._starting = {worker.ready.remote(): worker for worker in self._workers}

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
    ) -> Iterator[Result]:
        """See `Engine.map`. The function may also be a lambda or code of the user's script.

        A task whose worker dies is run again, a bounded number of times.

        Raises:
            UsageError: the function cannot be pickled; and as `start`.
            WorkerError: a worker died again and again, or could not load the function.
        """
        if self._waiting:
            self._kill_workers()  # what an earlier map left in work ends with them
        waiting = self._waiting
        reference = None
        for task in tasks:
            if reference is None:
                self.start()
                ray = _ray()
                reference = _put(ray, function)
            workers = self._started_workers(ray)
            waiting.append(_submit(ray, _least_busy(ray, workers, waiting), reference, task))
            while len(waiting) >= len(workers) * _TASKS_AHEAD:
                yield self._result(ray, waiting.popleft())
        while waiting:
            yield self._result(ray, waiting.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kill_workers()
        if self._is_ours:
            self._is_ours = False
            _ray().shutdown()

    def _join(self, ray: Any) -> None:
        """Initialise Ray, with a cluster of its own if there is none to join."""
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options |= {
                "include_dashboard": False,
                "object_store_memory": self._object_store_memory,
            }
        _check_reachable(address)
        try:
            with warnings.catch_warnings():
                # Ray forks to start its programs, and runs nothing else in the child.
                warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
                ray.init(address, **options)
        except ConnectionError as error:
            raise _no_answer(address, error) from error
        self._is_ours = True
        if address != "local" and self._object_store_memory is not None:
            _log.warning(
                "object_store_memory=%d has no effect: the cluster at %s runs already.",
                self._object_store_memory,
                address,
            )

    def _warn_of_no_effect(self) -> None:
        given = {"address": self._address, "object_store_memory": self._object_store_memory}
        names = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        if names and not self._is_ours:
            _log.warning(
                "%s: no effect, as this process has initialised Ray already.", ", ".join(names)
            )

    def _check_room(self, ray: Any) -> None:
        """Do nothing if all workers together fit the cluster's nodes, or it may get more nodes.

        Raises:
            UsageError: they will never fit.
        """
        nodes = [node for node in ray.nodes() if node["Alive"]]
        room = sum(self._room_on(node["Resources"]) for node in nodes)
        # Ray has no public way to ask for its autoscaler.
        may_grow = any(_NODE_GROUP in node.get("Labels", {}) for node in nodes)
        if may_grow or room >= self._num_workers:
            return
        total = sum((Counter(node["Resources"]) for node in nodes), Counter[str]())
        have = {name: total[name] for name in self._needs}
        remedy = f"Pass num_workers={room}, or reserve less" if room else "Reserve less"
        raise UsageError(
            f"{self._num_workers} Ray workers that reserve {_words(self._needs)} each do not fit "
            f"the cluster, which has {_words(have)} on {len(nodes)} nodes: there is room for "
            f"{room}. {remedy} with resources_per_worker."
        )

    def _room_on(self, resources: Mapping[str, float]) -> int:
        """How many workers fit a node on which nothing else runs."""
        return min(
            (
                round(resources.get(name, 0) * _STEPS) // round(amount * _STEPS)
                for name, amount in self._needs.items()
                if amount
            ),
            default=self._num_workers,
        )

    def _started_workers(self, ray: Any) -> list[Any]:
        """Workers that run, at least one: others may have to wait for room in the cluster."""
        is_told = False
        while len(self._starting) == len(self._workers):
            found, _ = ray.wait(list(self._starting), timeout=_PATIENCE_SECONDS)
            self._forget_starting(found)
            if not found:
                self._check_room(ray)
                if not is_told:
                    _log.warning("%s", self._waiting_line(ray))
                is_told = True
        if self._starting:
            count = len(self._starting)
            found, _ = ray.wait(list(self._starting), num_returns=count, timeout=0)
            self._forget_starting(found)
        starting = set(self._starting.values())
        return [worker for worker in self._workers if worker not in starting]

    def _forget_starting(self, references: Iterable[Any]) -> None:
        for reference in references:
            del self._starting[reference]

    def _waiting_line(self, ray: Any) -> str:
        free = ray.available_resources()
        return (
            f"Waiting for room in the Ray cluster: {self._num_workers} workers reserve "
            f"{_words(self._needs)} each; free are "
            f"{_words({name: free.get(name, 0) for name in self._needs})}."
        )

    def _result(self, ray: Any, submitted: _Submitted) -> Any:
        if submitted.error is not None:
            raise submitted.error
        reference = submitted.reference
        while not ray.wait([reference], timeout=_PATIENCE_SECONDS)[0]:
            self._check_room(ray)  # a lost node may have taken the room of the worker with it
        try:
            reply = ray.get(reference)
        except ray.exceptions.RayError as error:
            text = " ".join(str(error).split())
            raise WorkerError(
                f"A Ray worker died, and trying again did not help: {text} If memory ran out, use "
                "fewer workers, or reserve memory with resources_per_worker. "
                "Run again to continue from the finished parts."
            ) from error
        succeeded, value = pickle.loads(reply)
        if not succeeded:
            raise value
        return value

    def _kill_workers(self) -> None:
        workers, self._workers = self._workers, []
        waiting, self._waiting = self._waiting, deque()
        starting, self._starting = self._starting, {}
        if not workers or not _ray().is_initialized():
            return
        for reference in (*starting, *(item.reference for item in waiting)):
            if reference is not None:  # else Ray would say that it tries these again
                _ray().cancel(reference)
        for worker in workers:
            _ray().kill(worker)


class _Submitted(NamedTuple):
    """A task on its way.

    Attributes:
        worker: to which it was given.
        reference: where its result will be.
        error: it could not be sent because of this.
    """

    worker: Any
    reference: Any
    error: Exception | None


def _put(ray: Any, function: Any) -> Any:
    """A reference to the pickled function."""
    try:
        return ray.put(ray.cloudpickle.dumps(function))
    except EasyDataError:
        raise  # it says more than a pickle could
    except Exception as error:
        raise UsageError(
            f"{function!r} cannot be sent to Ray workers: {error}. Let it make what cannot be "
            "pickled when it is first called."
        ) from error


def _submit(ray: Any, worker: Any, reference: Any, task: object) -> _Submitted:
    try:
        payload = ray.cloudpickle.dumps(task)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the task's
        return _Submitted(worker, None, error)
    return _Submitted(worker, worker.run.remote([reference], payload), None)


def _least_busy(ray: Any, workers: Sequence[Any], waiting: Iterable[_Submitted]) -> Any:
    """The worker with the fewest unfinished tasks."""
    given = {item.reference: item.worker for item in waiting if item.reference is not None}
    if not given:
        return workers[0]
    references = list(given)
    _, unfinished = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    load = Counter(given[reference] for reference in unfinished)
    return min(workers, key=lambda worker: load[worker])


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        UsageError: nobody listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # "local" or "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"No Ray cluster answers at {address}: {error}. "
        "Check address and RAY_ADDRESS; without both, Ray starts on this machine."
    )


def _check_resources(amounts: Mapping[str, float]) -> Mapping[str, float]:
    for name, amount in amounts.items():
        steps = amount * _STEPS
        if not 0 <= steps < float("inf") or abs(steps - round(steps)) > 1e-6 * max(steps, 1):
            rule = f"at least 0, in steps of {1 / _STEPS}"
        elif name == "GPU" and amount > 1 and amount != int(amount):
            rule = "a part of one GPU, or a whole number of them"
        else:
            continue
        raise UsageError(f"resources_per_worker has {name}={amount}; it must be {rule}.")
    return amounts


def _words(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={amount:g}" for name, amount in amounts.items())


def _ray() -> Any:
    return require("ray", extra="ray", purpose="RayEngine")
