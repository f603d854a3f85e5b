"""What every engine promises."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from easydata import EasyDataError
from easydata.engine import Engine, ProcessEngine, RayEngine, SerialEngine
from tests.rays import small_ray

from . import tasks


class EngineContract:
    """Bind it to an engine of at most two tasks at a time with a fixture `engine`."""

    def test_results_come_in_the_order_of_the_tasks(self, engine):
        # The first tasks take longest.
        given = list(range(40, 0, -1))
        assert list(engine.map(tasks.busy, given)) == [(n, sum(range(n * 1000))) for n in given]

    def test_no_tasks_give_no_results(self, engine):
        assert list(engine.map(tasks.double, [])) == []

    def test_large_tasks_and_results_pass(self, engine):
        payload = os.urandom(3 << 20)
        assert list(engine.map(tasks.double, [payload] * 5)) == [payload * 2] * 5

    def test_arrays_that_come_back_can_be_written_to(self, engine):
        for array in engine.map(tasks.double, [np.arange(100_000)] * 3):
            array[0] = 7
            assert array.sum() == 7 + 99_999 * 100_000

    def test_the_state_of_a_function_travels(self, engine):
        assert len(list(engine.map(tasks.Meet(1, releases_gil=False), range(5)))) == 5

    def test_tasks_are_drawn_a_bounded_number_ahead(self, engine):
        drawn = 0

        def endless():
            nonlocal drawn
            while True:
                drawn += 1
                yield drawn

        results = engine.map(tasks.double, endless())
        assert drawn == 0
        for taken in range(1, 50):
            assert next(results) == 2 * taken
            assert drawn - taken <= 2 * 3

    def test_an_exception_surfaces_in_its_place(self, engine):
        results = engine.map(tasks.fail_at_three, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="three"):
            next(results)

    def test_an_exception_of_the_tasks_iterator_surfaces(self, engine):
        def given():
            yield 1
            raise EasyDataError("the file ended")

        with pytest.raises(EasyDataError, match="the file ended"):
            list(engine.map(tasks.double, given()))

    def test_a_map_does_not_see_what_an_earlier_one_left(self, engine):
        with pytest.raises(KeyError):
            list(engine.map(tasks.fail_at_three, range(100)))
        left = engine.map(tasks.double, range(50))
        assert next(left) == 0
        for _ in range(2):
            assert list(engine.map(tasks.double, range(100, 150))) == list(range(200, 300, 2))


class TestSerialEngine(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        with SerialEngine() as engine:
            yield engine


class TestProcessEngine(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        with ProcessEngine(2) as engine:
            yield engine


class TestRayEngine(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        with small_ray(), RayEngine(2) as engine:
            yield engine
