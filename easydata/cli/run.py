"""`easydata run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from easydata.pipeline import Pipeline

__all__ = ["run_command"]


def run_command(
    config: Annotated[
        Path,
        typer.Argument(help="A YAML or JSON file.", show_default=False, metavar="PIPELINE"),
    ],
    describe: Annotated[
        bool, typer.Option("--describe", help="Only show what it would do.")
    ] = False,
) -> None:
    """Run a pipeline: tokenize what is not cached yet, then mix, pack and save as configured.

    \b
    easydata run pipeline.yaml
    easydata run pipeline.yaml --describe

    It ends with the tree of its stages, with counts and cache hits. Run again it does nothing.
    """
    pipeline = Pipeline.from_config(config).source()
    if not describe:
        pipeline.build()
    typer.echo(str(pipeline))
