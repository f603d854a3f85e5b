"""Entry point: runs a command, and turns every expected error into one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console

import easydata
from easydata.cli.build import build_command
from easydata.cli.cache import gc_command, get_command, ls_command, stats_command
from easydata.cli.explain import explain_command
from easydata.cli.inspect import head_command, info_command, verify_command
from easydata.cli.run import run_command
from easydata.errors import EasyDataError

__all__ = ["app", "main"]

# Some versions of typer bring a click of their own, so its errors are found by way of typer.
_CommandLineError: Any = typer.BadParameter.__mro__[2]

EXIT_DAMAGED = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="easydata",
    help="Tokenize text once, keep it in an Arrow cache, feed training loops at memory speed.",
    epilog="Every command takes --debug, which shows the full traceback of an error. "
    "easydata --version tells the version.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("build")(build_command)
app.command("run")(run_command)
app.command("explain")(explain_command)
app.command("info")(info_command)
app.command("head")(head_command)
app.command("verify")(verify_command)
app.command("ls")(ls_command)
app.command("get")(get_command)
app.command("stats")(stats_command)
app.command("gc")(gc_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: `verify` found damage, `get` no entry, `explain` a difference.
    2: an error, said in one line. 130: interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        typer.echo(f"easydata {easydata.__version__}")
        return 0
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    errors = Console(stderr=True, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        code = app(given, prog_name="easydata", standalone_mode=False)
    except EasyDataError as error:
        if debug:
            raise
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False)
        return EXIT_ERROR
    except _CommandLineError as error:
        if not given:
            error.show()  # the help
        else:
            # The first line says what is wrong, others what could be meant.
            text = " ".join(error.format_message().split())
            known = {command.name for command in app.registered_commands}
            where = f"{given[0]} " if given[0] in known else ""
            errors.print(
                f"Error: {text} See: easydata {where}--help",
                style="red",
                markup=False,
                highlight=False,
            )
        return EXIT_ERROR
    except (BrokenPipeError, SystemExit):
        # typer turns the first into the second when it notices it itself.
        # Whoever read the output has seen enough. Python would complain once more on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of the output: what is ours is a StorageError
        if debug:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        errors.print(f"Error: Cannot write the output: {error}", style="red", markup=False)
        return EXIT_ERROR
    if code == EXIT_INTERRUPTED:
        # This is what typer makes of Ctrl-C.
        left = "Finished parts are kept: run the same command again to continue."
        if given[:1] != ["build"]:
            left = "Nothing was left half done."
        errors.print(f"Interrupted. {left}", style="red")
    return code if isinstance(code, int) else 0
