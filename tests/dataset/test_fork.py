"""A child that is forked while the parent reads goes on with the open dataset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# The child is forked while the lock is held, as if by a thread in the middle of a change.
SCRIPT = """
import os, signal, sys
import numpy as np
import easydata as ed

dataset = ed.open_dataset(sys.argv[1])
starts = np.arange(0, dataset.num_tokens - 8, 8)
expected = dataset.tokens(0, 100).tolist(), dataset.gather(starts, 8).tolist()
shards = dataset._shards
with shards._lock:
    shards._open_bytes += 10**9
    child = os.fork()
    if not child:
        signal.alarm(60)
        fresh = ed.open_dataset(sys.argv[1])
        for other in (fresh, dataset):
            assert (other.tokens(0, 100).tolist(), other.gather(starts, 8).tolist()) == expected
            assert other.gather(starts, 7).tolist() == dataset.gather(starts, 7).tolist()
            other.take([0, len(other) - 1])
        if not shards.is_mapped:
            assert shards._open_bytes == sum(b.batch.nbytes for b in shards._open.values())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_lock_that_was_held(folder: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
