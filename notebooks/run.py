"""Executes notebooks from their first cell to their last, and fails if a cell does.

python notebooks/run.py                # all beside this file
python notebooks/run.py one.ipynb

Each runs in a temporary folder; the files themselves are not changed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_SECONDS_PER_CELL = 300


def main(names: list[str]) -> int:
    paths = [Path(name) for name in names] or sorted(Path(__file__).parent.glob("*.ipynb"))
    if not paths:
        print("There are no notebooks.", file=sys.stderr)
        return 1
    failed = [path for path in paths if not _execute(path)]
    return 1 if failed else 0


def _execute(path: Path) -> bool:
    notebook = nbformat.read(path, as_version=4)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="easydata-notebook-") as folder:
        # Neither history nor settings of the user, so that it runs alike everywhere.
        environment = {**os.environ, "IPYTHONDIR": folder, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        client = NotebookClient(
            notebook,
            timeout=_SECONDS_PER_CELL,
            kernel_name="python3",
            # Without its warning that it listens on a socket of this machine.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            print(f"{path.name}: a cell failed\n{error}", file=sys.stderr)
            return False
    print(f"{path.name}: {cells} cells ran in {time.perf_counter() - start:.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
