"""Datasets whose tokens are not kept: made while they are read, each time anew."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from easydata._lazy import cached_property
from easydata.build.prepare import check_request, prepare_job
from easydata.build.sources_changed import stamp_text
from easydata.build.streamed import local_engine, stream_batches
from easydata.fingerprint import fingerprint_json
from easydata.format.arrays import number_view
from easydata.loader.protocols import SampleSource
from easydata.pipeline.arguments import build_arguments
from easydata.pipeline.engines import EngineMaker
from easydata.pipeline.inputs import open_inputs
from easydata.pipeline.samples import pad_token_id
from easydata.pipeline.stream_loader import StreamLoader
from easydata.pipeline.stream_samples import StreamedSamples

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig, PipelineConfig
    from easydata.stages import Tokenizer

__all__ = ["TokenStream", "make_stream", "make_stream_loader", "stream_samples"]


class TokenStream:
    """The rows that `build` would store, made whenever they are iterated over. Nothing is written.

    A row is a dict, as that of a `TokenDataset`. It can be read again and again, unless its source
    is an iterator.
    """

    def __init__(
        self,
        name: str,
        sources: Any,
        arguments: Mapping[str, Any],
        *,
        engine: EngineMaker | None = None,
    ) -> None:
        """Load the tokenizer and look at the first rows.

        Args:
            name: of the dataset.
            sources: as for `build`.
            arguments: the other arguments of `build` by name, without `out`.
            engine: gives the engine of one iteration; None: processes of this machine.

        Raises:
            EasyDataError: as `build`, for what is wrong with the arguments.
        """
        self.name = name
        options = {**arguments, "out": None}
        request = check_request(sources, options)
        self._job = prepare_job(request, options)
        self._engine = engine or local_engine(self._job, request)

    def __repr__(self) -> str:
        return f"<TokenStream {self.name!r}: {self.dtype.name}>"

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the columns, without metadata."""
        return self._job.task.schema

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the token ids."""
        return np.dtype(self.schema.field(0).type.value_type.to_pandas_dtype())

    @property
    def tokenizer_facts(self) -> Mapping[str, Any]:
        """What a ledger would record about the tokenizer."""
        return self._job.tokenizer

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the rows go through.

        Raises:
            TokenizerError: a package to load it is missing.
        """
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self._job.task.stage.spec.load()

    @property
    def fingerprint(self) -> str:
        """Identity of what is done to the rows, and of the files as they are now.

        Of objects, no more than their kind is part of it.
        """
        sources = [
            [source.name, source.nbytes, stamp_text(source.stamp())] for source in self._job.sources
        ]
        return fingerprint_json([self._job.recipe.fingerprint, sources])

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """All rows in record batches of `schema`, with 1 row or more; read anew at every call.

        Closing the iterator, or dropping it, ends the processes that work for it.

        Raises:
            BadRowError: a row is broken; names its file and line.
            EasyDataError: as `build`; SourceError if there is not one row, or if the source is an
                iterator and was read before; UsageError for `splits`.
        """
        return stream_batches(self._job, self._engine)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Row by row: tokens as a read-only array of `dtype`, the other columns as Python values.

        Raises:
            EasyDataError: as `batches`.
        """
        tokens, *others = self.schema.names
        for batch in self.batches():
            offsets = number_view(batch.column(0).offsets).tolist()
            ids = number_view(batch.column(0).values)
            for row in range(batch.num_rows):
                values = {tokens: ids[offsets[row] : offsets[row + 1]]}
                yield values | {name: batch[name][row].as_py() for name in others}


def make_stream(
    dataset: DatasetConfig, config: PipelineConfig, *, engine: EngineMaker | None = None
) -> TokenStream:
    """The rows of a dataset that is not cached, as its configuration says.

    Args:
        dataset: which one.
        config: of the whole pipeline.
        engine: gives the engine of one iteration; None: processes of this machine.

    Raises:
        EasyDataError: as `TokenStream`, or there is no such dataset or split.
    """
    sources = open_inputs(dataset, config.source)
    return TokenStream(str(dataset.name), sources, build_arguments(dataset, config), engine=engine)


def stream_samples(
    stream: TokenStream, config: PipelineConfig, *, is_packed: bool
) -> StreamedSamples:
    """The samples of a stream.

    Args:
        stream: its rows.
        config: of the whole pipeline.
        is_packed: False for pieces of the stream of all rows, `seq_length` each.
    """
    return StreamedSamples(
        stream,
        config.pack,
        is_packed=is_packed,
        pad_token_id=pad_token_id(config.pack, stream.tokenizer_facts) if is_packed else None,
        shuffle_buffer_size=config.load.shuffle_buffer_size,
    )


def make_stream_loader(
    samples: StreamedSamples | Mapping[str, StreamedSamples | SampleSource],
    config: PipelineConfig,
) -> StreamLoader:
    """Batches of the samples of one stream, or of several, of which some may be cached.

    Raises:
        UsageError: they cannot be mixed as the configuration says.
    """
    if isinstance(samples, StreamedSamples):
        samples = {str(config.datasets[0].name): samples}
    return StreamLoader(samples, config)
