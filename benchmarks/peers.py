"""Makes the virtual environments of the loaders that benchmarks/loader.py compares with.

python -m benchmarks.peers    # .venv-peers and .venv-mosaic: minutes, 3.5 GB

A benchmark runs without them too, and then says which loaders are not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

__all__ = ["OWN", "PeerError", "call", "python_of"]

OWN = "own"  # the environment that this process runs in
_TORCH = "torch==2.13.0"
_PINS = {
    "peers": [
        _TORCH,
        "array_record==0.8.6",
        "grain==0.2.18",
        "litdata==0.2.76",
        "pylance==14.0.2",
        "tensorstore==0.1.86",
    ],
    # It needs an older huggingface_hub than `datasets` does.
    "mosaic": [_TORCH, "mosaicml-streaming==0.13.0"],
}
_AS_HERE = ("datasets", "numpy", "pyarrow")  # of "peers": the same versions as in this process
_MOST_SECONDS = 1200


class PeerError(Exception):
    """A process failed; the message is the last line of its own, which are printed."""


def python_of(environment: str) -> Path | None:
    """The interpreter of an environment, if it has been made."""
    if environment == OWN:
        return Path(sys.executable)
    python = _folder(environment) / "bin" / "python"
    return python if python.exists() else None


def call(python: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns in a process of its own; all of them JSON values.

    Raises:
        PeerError: it failed, or took more than 20 minutes.
    """
    where = [function.__module__, function.__name__, json.dumps(arguments)]
    command = [str(python), "-m", "benchmarks.fresh", *where]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"no answer within {_MOST_SECONDS} s") from error
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise PeerError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _folder(environment: str) -> Path:
    return ROOT / f".venv-{environment}"


def main() -> int:
    same = [f"{name}=={version(name)}" for name in _AS_HERE]
    for environment, pins in _PINS.items():
        folder = _folder(environment)
        print(f"{folder.name}: {' '.join(pins)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        wanted = [*pins, *(same if environment == "peers" else [])]
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted]
        if subprocess.run(install, check=False).returncode:
            print(f"{folder.name} could not be made; see the messages above.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
