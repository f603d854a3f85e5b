"""Samples of several sources read as one, against each source by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
from easydata.loader.merging import group_by_source, merge_rows, ranks_in_source
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.loader.regions import Regions
from easydata.loader.rows import Pieces, Rows
from easydata.loader.samples import ConcatSamples
from easydata.loader.stored_samples import StoredSamples
from easydata.loader.walk import MixtureWalk, Place

from .sources import Numbers

SEQ_LEN = 32


class Scattered(ArrayTokens):
    """Tokens that lie in memory in regions of so many tokens each, the last first."""

    def __init__(self, tokens: npt.NDArray[Any], region: int) -> None:
        super().__init__(tokens)
        self.first_tokens = np.append(np.arange(0, len(tokens), region), len(tokens))
        self.parts = np.split(tokens, self.first_tokens[1:-1])[::-1]
        self.memory = np.concatenate(self.parts)
        sizes = np.array([len(part) for part in self.parts])
        self.starts = (sizes.cumsum() - sizes)[::-1]

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        runs = Regions(self.first_tokens).split(starts, lengths)
        itemsize = self.memory.itemsize
        addresses = self.memory.ctypes.data + (self.starts[runs.regions] + runs.starts) * itemsize
        return Pieces(addresses, runs.lengths * itemsize, runs.counts, self.memory)


def tokens(num_samples: int, *, first: int, dtype: Any = np.uint16) -> npt.NDArray[Any]:
    return np.arange(first, first + num_samples * SEQ_LEN).astype(dtype)


def check(mixture: Mixture, columns: list[str], length: int = 60) -> None:
    """Every sample that the mixture reads is that of its source."""
    sources, samples = mixture.start().take(length)
    batch = mixture.read(sources, samples)
    assert list(batch) == columns
    located = mixture.locate(sources, samples)
    for start, stop in ((0, length), (0, 1), (7, 7), (5, 40), (length - 1, length)):
        part = located.read(start, stop)
        for name in columns:
            assert np.array_equal(part[name], batch[name][start:stop])
            assert part[name].dtype == batch[name].dtype
        assert not part["input_ids"].size or part["input_ids"].ctypes.data % 64 == 0
        assert part["input_ids"].flags.writeable
    by_number = [*mixture.sources.values()]
    for row, (source, sample) in enumerate(zip(sources.tolist(), samples.tolist(), strict=True)):
        for name, array in by_number[source].read(np.array([sample])).items():
            assert np.array_equal(batch[name][row], array[0]), (row, name)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every copy."""
    found: list[int] = []
    real = Rows.copy

    def counted(self: Rows, start: int, stop: int) -> npt.NDArray[Any]:
        found.append(stop - start)
        return real(self, start, stop)

    monkeypatch.setattr(Rows, "copy", counted)
    return found


@pytest.mark.parametrize("regions", [(0, 0, 0), (0, 40, 0), (50, 40, 7)])
def test_one_copy_of_all_sources(regions: tuple[int, ...], copies: list[int]) -> None:
    sources = {}
    for number, (name, region) in enumerate(zip("abc", regions, strict=True)):
        array = tokens(20 + number, first=10_000 * number)
        data = Scattered(array, region) if region else ArrayTokens(array)
        sources[name] = ConcatSamples(data, SEQ_LEN)
    mixture = Mixture(sources, weights=[0.5, 0.3, 0.2])
    chosen, samples = mixture.start().take(48)
    located = mixture.locate(chosen, samples)
    copies.clear()
    located.read(3, 40)
    assert copies == [37]
    check(mixture, ["input_ids"])


def test_neighbours_of_one_source_are_copied_too() -> None:
    array = tokens(50, first=0)
    mixture = Mixture({"a": ConcatSamples(ArrayTokens(array), SEQ_LEN)}, shuffle=False)
    check(mixture, ["input_ids"], 50)
    first = next(iter(DataLoader(mixture, 4)))["input_ids"]
    first[:] = 7
    assert not (array[: 4 * SEQ_LEN] == 7).all()


def documents(number: int, dtype: Any = np.uint16) -> ArrayTokens:
    lengths = np.random.default_rng(number).integers(0, SEQ_LEN, 60)
    return ArrayTokens(np.arange(lengths.sum(), dtype=dtype) + 5000 * number, lengths)


ALL = ["input_ids", "segment_ids", "positions", "document_ids", "loss_mask"]


@pytest.mark.parametrize("strategy", ["concat", "best_fit", "pad"])
@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"include_segment_ids": False}, ["input_ids", "loss_mask"]),
        ({}, ["input_ids", "segment_ids", "positions", "loss_mask"]),
        ({"include_document_ids": True}, ALL),
    ],
)
def test_every_array_is_made_once_for_all_sources(
    strategy: str, options: dict[str, Any], columns: list[str], copies: list[int]
) -> None:
    sources = {
        name: pack(documents(number), SEQ_LEN, strategy, pad_token_id=3, **options)
        for number, name in enumerate("abc")
    }
    mixture = Mixture(sources)
    located = mixture.locate(*mixture.start().take(48))
    copies.clear()
    located.read(3, 40)
    assert copies == [37] * len({*columns} - {"document_ids"})
    check(mixture, columns)


def test_arrays_of_several_kinds_and_types() -> None:
    narrow, wide = (pack(documents(1, kind), SEQ_LEN, pad_token_id=3) for kind in ("u2", "u4"))
    columns = [name for name in ALL if name != "document_ids"]
    check(Mixture({"a": narrow, "b": wide}), columns)

    class Read:
        """Packed samples of which nobody knows where they lie."""

        num_samples, seq_len, fingerprint = narrow.num_samples, SEQ_LEN, "read"
        read = staticmethod(narrow.read)

    check(Mixture({"a": Read(), "b": narrow}), columns)


def test_stored_samples_and_packed_ones(tmp_path: Any) -> None:
    rows = [{"text": f"a{i} " * (3 + i * 5 % 11)} for i in range(90)]
    options: dict[str, Any] = {"tokenizer": "bytes"}
    stored = StoredSamples(
        ed.build(rows, out=tmp_path / "a", seq_len=64, pack="concat", segment_ids=True, **options)
    )
    packed = pack(ed.build(rows, out=tmp_path / "b", **options), 64, "concat")
    for sources in ({"a": stored, "b": packed}, {"b": packed, "a": stored}):
        check(Mixture(sources), ["input_ids", "segment_ids", "positions"], 30)


def test_the_types_of_a_batch_do_not_depend_on_which_sources_are_in_it() -> None:
    class Wide(Numbers):
        """Packed samples with other types."""

        def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
            ids = super().read(samples)["input_ids"]
            mask = np.ones(ids.shape, np.uint8)
            return {
                "input_ids": ids,
                "segment_ids": np.ones(ids.shape, np.int64),
                "positions": np.zeros(ids.shape, np.int32),
                "loss_mask": mask,
            }

    packed = pack(documents(1, Numbers(1).dtype), SEQ_LEN, pad_token_id=3)
    mixture = Mixture({"a": packed, "b": Wide(30, seq_len=SEQ_LEN)})
    for sources in ([0, 0], [1, 1], [0, 1]):
        batch = mixture.read(np.array(sources), np.arange(2))
        assert batch["segment_ids"].dtype == np.int64
        assert batch["positions"].dtype == np.int32
        assert batch["loss_mask"].dtype == np.uint8


def test_sources_of_several_kinds_and_types() -> None:
    located = ConcatSamples(ArrayTokens(tokens(30, first=0)), SEQ_LEN)
    wide = ConcatSamples(ArrayTokens(tokens(30, first=70_000, dtype=np.uint32)), SEQ_LEN)
    check(Mixture({"a": located, "b": wide}), ["input_ids"])
    check(Mixture({"a": located, "b": Numbers(30, seq_len=SEQ_LEN)}), ["input_ids"])
    check(Mixture({"a": Numbers(30, seq_len=SEQ_LEN), "b": wide}), ["input_ids"])


def test_stored_samples(tmp_path: Any, copies: list[int]) -> None:
    datasets = {}
    for name in "ab":
        rows = [{"text": f"{name}{i} " * (3 + i * 5 % 11)} for i in range(90)]
        datasets[name] = ed.build(
            rows, tokenizer="bytes", out=tmp_path / name, seq_len=64, pack="concat"
        )
    loader = DataLoader(datasets, 6, columns=["input_ids"])
    mixture = loader._source
    assert isinstance(mixture, Mixture)
    copies.clear()
    assert len(next(iter(loader))["input_ids"]) == 6
    assert copies == [6]
    check(mixture, ["input_ids"])


@pytest.mark.parametrize("pack", ["concat", "best_fit"])
def test_every_array_of_stored_samples_is_copied_once(
    tmp_path: Any, copies: list[int], pack: str
) -> None:
    datasets = {}
    for name in "abc":
        rows = [{"text": f"{name}{i} " * (3 + i * 5 % 11)} for i in range(90)]
        datasets[name] = ed.build(
            rows,
            tokenizer="bytes",
            out=tmp_path / name,
            seq_len=64,
            pack=pack,
            segment_ids=True,
            pad_token=None if pack == "concat" else 0,
        )
    mixture = Mixture({name: StoredSamples(dataset) for name, dataset in datasets.items()})
    columns = ["input_ids", "segment_ids", "positions"] + ["loss_mask"] * (pack == "best_fit")
    located = mixture.locate(*mixture.start().take(40))
    copies.clear()
    batch = located.read(3, 40)
    assert copies == [37] * len(columns)
    assert all(array.ctypes.data % 64 == 0 for array in batch.values())
    assert pack == "concat" or batch["loss_mask"].dtype == np.bool_
    check(mixture, columns)


def test_stored_arrays_of_several_types(tmp_path: Any) -> None:
    """Where the types differ, each batch has those that hold all values."""
    rows = [{"text": "some text " * 40}]
    options: dict[str, Any] = {"tokenizer": "bytes", "seq_len": 64, "segment_ids": True}
    narrow = ed.build(rows, out=tmp_path / "a", dtype="uint16", **options)
    wide = ed.build(rows, out=tmp_path / "b", dtype="uint32", **options)
    mixture = Mixture({"a": StoredSamples(narrow), "b": StoredSamples(wide)})
    check(mixture, ["input_ids", "segment_ids", "positions"], 8)
    for sources in ([0, 0], [1, 1], [0, 1]):
        assert mixture.read(np.array(sources), np.arange(2))["input_ids"].dtype == np.uint32


def test_what_the_rows_lie_in_is_kept_alive() -> None:
    def located() -> Any:
        sources = {
            name: ConcatSamples(ArrayTokens(tokens(500, first=number)), SEQ_LEN)
            for number, name in enumerate("ab")
        }
        mixture = Mixture(sources, shuffle=False)
        return mixture.locate(*mixture.start().take(1000))

    found = located()
    junk = [np.full(500 * SEQ_LEN, 9, np.uint16) for _ in range(20)]
    ids = found.read(0, 1000)["input_ids"]
    expected = np.stack([tokens(500, first=number).reshape(500, SEQ_LEN) for number in (0, 1)], 1)
    assert np.array_equal(ids, expected.reshape(1000, SEQ_LEN))
    assert len(junk) == 20


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), max_size=40), st.integers(0, 3))
def test_grouping(drawn: list[int], more: int) -> None:
    count = max(drawn, default=0) + 1 + more
    sources = np.array(drawn, np.int32)
    order, firsts = group_by_source(sources, count)
    found = [order[firsts[i] : firsts[i + 1]].tolist() for i in range(count)]
    assert found == [[at for at, s in enumerate(drawn) if s == i] for i in range(count)]
    ranks = [drawn[:at].count(source) for at, source in enumerate(drawn)]
    assert ranks_in_source(sources, count).tolist() == ranks


def test_more_sources_than_16_bits_count() -> None:
    sources = np.array([65_536, 0, 65_537, 65_536, 1])
    order, firsts = group_by_source(sources, 65_538)
    assert order.tolist() == [1, 4, 0, 3, 2]
    assert (firsts[1], firsts[2], firsts[65_536], firsts[65_537], firsts[65_538]) == (1, 2, 2, 4, 5)


def test_rows_merge_whatever_pieces_they_are_of() -> None:
    memory = [np.arange(start, start + 40, dtype=np.int32) for start in (0, 100, 200)]

    def rows(array: Any, cuts: list[tuple[int, int]], first_piece: list[int] | None) -> Rows:
        addresses = np.array([array.ctypes.data + 4 * first for first, _ in cuts])
        sizes = np.array([4 * (stop - first) for first, stop in cuts])
        pieces = None if first_piece is None else np.array(first_piece)
        options: dict[str, Any] = {"num_items": 4, "dtype": array.dtype, "owner": array}
        return Rows(addresses, sizes, first_piece=pieces, **options)

    parts = [
        rows(memory[0], [(8, 12), (0, 4)], None),
        rows(memory[1], [(1, 2), (7, 10), (20, 24), (3, 5), (3, 5)], [0, 2, 3, 5]),
        rows(memory[2], [(9, 13)], [0, 1]),
    ]
    merged = merge_rows(parts, np.array([5, 1, 3, 0, 2, 4]))
    assert merged.num_rows == 6
    assert merged.copy(0, 6).tolist() == [
        [120, 121, 122, 123],
        [0, 1, 2, 3],
        [103, 104, 103, 104],
        [101, 107, 108, 109],
        [209, 210, 211, 212],
        [8, 9, 10, 11],
    ]
    assert merged.copy(2, 4).tolist() == merged.copy(0, 6)[2:4].tolist()
    assert isinstance(merged.owner, list)
    assert all(one is array for one, array in zip(merged.owner, memory, strict=True))


@settings(max_examples=40)
@given(st.data())
def test_some_samples_of_a_stretch(data: st.DataObject) -> None:
    """Each host and worker locates its own."""
    count = data.draw(st.integers(1, 9))
    bases = [1000 * number for number in range(count)]
    sources = {str(base): Numbers(data.draw(st.integers(1, 20)), base=base) for base in bases}
    mixture = Mixture(sources, seed=data.draw(st.integers(0, 9)))
    walk = MixtureWalk(mixture, None, Place(0, dict.fromkeys(sources, 0)))
    walk.take(data.draw(st.integers(0, 50)))
    run = mixture.start(walk._run.counts)
    length = data.draw(st.integers(1, 60))
    stretch = walk.take(length)
    chosen = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    ids = stretch.locate(chosen).read(0, len(chosen))["input_ids"][:, 0]
    which, samples = run.take(length)
    assert ids.tolist() == (np.array(bases)[which] + samples)[chosen].tolist()


def test_sources_that_a_batch_has_nothing_of_are_left_alone() -> None:
    located: list[int] = []

    class Located(Numbers):
        def locate(self, samples: npt.NDArray[np.int64]) -> Any:
            located.append(self.base)
            arrays = self.read(samples)
            return type("", (), {"read": lambda _, i, j: {"input_ids": arrays["input_ids"][i:j]}})()

    mixture = Mixture({str(i): Located(9, base=10 * i) for i in range(300)}, seed=1)
    which, samples = mixture.start().take(5)
    ids = mixture.read(which, samples)["input_ids"][:, 0]
    assert ids.tolist() == (10 * which + samples).tolist()
    assert sorted(located) == sorted({*(10 * which).tolist()})
