"""Trains a small transformer in JAX, stops it, and goes on in another process: not a bit differs.

    python examples/train_jax.py              # about a minute on two cores
    python examples/train_jax.py --quick      # the same in miniature
    python examples/train_jax.py --torch      # and the same batches as tensors of PyTorch

The corpus is that of the demo, Python's own sources, here byte by byte and in paragraphs. Three
processes train the same model: the first without a stop; the second stops halfway, at a checkpoint;
the third goes on from there. Their losses must be equal to the last bit, which they are only if the
third sees the batches that the second would have seen next.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import easydata as ed

COLUMNS = ("input_ids", "segment_ids", "positions", "labels")
VOCAB_SIZE = 258  # bytes, and two special tokens
RATE, WARMUP_STEPS, DECAY = 3e-3, 10, 0.1

Params = dict[str, Any]
Batch = dict[str, jax.Array]


class Size(NamedTuple):
    """How large model, batches and run are."""

    width: int = 96
    layers: int = 3
    heads: int = 4
    batch_size: int = 8
    seq_len: int = 256
    steps: int = 40


QUICK = Size(width=32, layers=1, heads=2, batch_size=4, seq_len=64, steps=6)


class State(NamedTuple):
    """All that a step changes; `mean` and `square` are AdamW's."""

    params: Params
    mean: Params
    square: Params
    step: jax.Array


# --- The model: a decoder with rotary positions, in which documents do not see one another.


def init(size: Size) -> State:
    """Before the first step."""
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(random.normal(0, scale, (rows, columns)), jnp.float32)

    width = size.width
    params = {
        "embed": matrix(VOCAB_SIZE, width, 0.02),
        "layers": [
            {
                "qkv": matrix(width, 3 * width, width**-0.5),
                "out": matrix(width, width, width**-0.5),
                "up": matrix(width, 4 * width, width**-0.5),
                "down": matrix(4 * width, width, (4 * width) ** -0.5),
            }
            for _ in range(size.layers)
        ],
    }
    mean, square = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    return State(params, mean, square, jnp.asarray(0))


def loss_of(params: Params, batch: Batch, heads: int) -> jax.Array:
    """Mean cross-entropy of the tokens that have a label."""
    segments = batch["segment_ids"]
    length = segments.shape[1]
    is_seen = segments[:, :, None] == segments[:, None, :]
    is_seen &= jnp.tril(jnp.ones((length, length), bool))
    x = params["embed"][batch["input_ids"]]
    for layer in params["layers"]:
        x += attend(normed(x) @ layer["qkv"], batch["positions"], is_seen, heads) @ layer["out"]
        x += jax.nn.gelu(normed(x) @ layer["up"]) @ layer["down"]
    scores = jax.nn.log_softmax(normed(x) @ params["embed"].T)
    labels = batch["labels"]
    chosen = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen, where=labels >= 0) / jnp.sum(labels >= 0)


def attend(qkv: jax.Array, positions: jax.Array, is_seen: jax.Array, heads: int) -> jax.Array:
    """Attention of [batch, length, 3 * width] to what is seen of itself."""
    q, k, v = jnp.split(qkv.reshape(*qkv.shape[:2], heads, -1), 3, axis=-1)
    weights = jnp.einsum("bqhd,bkhd->bhqk", rotated(q, positions), rotated(k, positions))
    weights = jnp.where(is_seen[:, None], weights / q.shape[-1] ** 0.5, -jnp.inf)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(weights), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def rotated(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary embedding (arXiv 2104.09864, section 3.4.2), of the positions in each document."""
    half = x.shape[-1] // 2
    angles = positions[..., None, None] * 10_000.0 ** (-jnp.arange(half) / half)
    one, other = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], axis=-1)


def normed(x: jax.Array) -> jax.Array:
    """RMS normalisation, without a scale to learn."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


@functools.partial(jax.jit, static_argnames="heads", donate_argnames="state")
def train_step(state: State, batch: Batch, *, heads: int) -> tuple[State, jax.Array]:
    """One step of AdamW (arXiv 1711.05101) on one batch."""
    loss, grads = jax.value_and_grad(loss_of)(state.params, batch, heads)
    step = state.step + 1
    rate = RATE * jnp.minimum(1.0, step / WARMUP_STEPS)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mean, grads)
    square = jax.tree.map(lambda s, g: 0.95 * s + 0.05 * g * g, state.square, grads)

    def changed(p: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        m, s = m / (1 - 0.9**step), s / (1 - 0.95**step)
        return p - rate * (m / (jnp.sqrt(s) + 1e-8) + DECAY * p)

    return State(jax.tree.map(changed, state.params, mean, square), mean, square, step), loss


# --- Batches and checkpoints


def make_loader(data: Path, size: Size) -> ed.DataLoader:
    """The same batches in the same order in every process."""
    return ed.DataLoader(
        ed.open_dataset(data),
        size.batch_size,
        size.seq_len,
        pack="best_fit",
        columns=COLUMNS,
        pad_token_id=0,
        seed=1,
    )


def save(folder: Path, state: State, loader_state: dict[str, Any]) -> None:
    """Parameters and optimizer as arrays, the loader's state as JSON; all of it or nothing."""
    temporary = folder / ".new"
    temporary.mkdir(parents=True)
    np.savez(temporary / "state.npz", *map(np.asarray, jax.tree.leaves(state)))
    (temporary / "loader.json").write_text(json.dumps(loader_state))
    temporary.rename(folder / f"step-{int(state.step):06}")


def restore(folder: Path, empty: State) -> tuple[State, dict[str, Any] | None]:
    """What the latest checkpoint holds; of none, the state before the first step."""
    checkpoints = sorted(folder.glob("step-*"))
    if not checkpoints:
        return empty, None
    with np.load(checkpoints[-1] / "state.npz") as arrays:
        leaves = [jnp.asarray(arrays[name]) for name in arrays.files]
    state = jax.tree.unflatten(jax.tree.structure(empty), leaves)
    return state, json.loads((checkpoints[-1] / "loader.json").read_text())


def train(data: Path, folder: Path, size: Size, until: int) -> None:
    """Train from the latest checkpoint in `folder` on; leave one behind, and print the losses."""
    state, loader_state = restore(folder, init(size))
    batches = iter(make_loader(data, size).to_jax(dtype=jnp.int32))
    if loader_state is not None:
        batches.load_state_dict(loader_state)
    losses = []
    for _ in range(int(state.step), until):
        # Nothing here waits for the step, so the next batch is on its way while it runs.
        state, loss = train_step(state, next(batches), heads=size.heads)
        losses.append(loss)
    save(folder, state, batches.state_dict())
    print(json.dumps([float(loss).hex() for loss in losses]))


# --- The three processes


def main() -> int:
    """Run all of it; what does not hold ends the example with exit code 1."""
    given = parse_arguments()
    size = QUICK if given.quick else Size()
    data = given.out / "dataset"
    if given.folder is not None:
        train(data, given.folder, size, given.until)
        return 0
    ds = ed.build(
        str(given.corpus / given.pattern),
        tokenizer="bytes",
        out=data,
        type="text",
        text_rows="paragraph",
        on_error="skip",
        overwrite=True,
    )
    print(f"Corpus: {len(ds):,} paragraphs, {ds.num_tokens:,} tokens, in {data}")
    half = size.steps // 2
    folders = [given.out / name for name in ("whole", "halves")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    whole = train_in_a_process(folders[0], size.steps)
    stopped = train_in_a_process(folders[1], half)
    resumed = train_in_a_process(folders[1], size.steps)

    print("\nstep  without a stop  stopped, gone on")
    for step, (one, other) in enumerate(zip(whole, stopped + resumed, strict=True), 1):
        if step in {1, half, half + 1, size.steps}:
            print(f"{step:>4}  {one:<14.9f}  {other:.9f}{', gone on' * (step > half)}")
    check(whole == stopped + resumed, "the losses of all steps are equal to the last bit")
    check(whole[-1] < whole[0], "the loss falls")
    if given.torch:
        compare_with_torch(make_loader(data, size), size.steps)
    return 0


def train_in_a_process(folder: Path, until: int) -> list[float]:
    """The losses of the steps from the latest checkpoint on, trained in a new process."""
    start = time.perf_counter()
    command = [sys.executable, *sys.argv, f"--folder={folder}", f"--until={until}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    losses = [float.fromhex(loss) for loss in json.loads(done.stdout)]
    seconds = time.perf_counter() - start
    print(f"A process trained {len(losses)} steps, up to {until}, in {seconds:.0f} s", flush=True)
    return losses


def compare_with_torch(loader: ed.DataLoader, count: int) -> None:
    """The batches that JAX trained on, once more as tensors: PyTorch indexes with int64."""
    import torch

    for arrays, batch in zip(itertools.islice(loader.to_jax(), count), loader, strict=False):
        for name in COLUMNS:
            tensor = torch.from_numpy(batch[name].astype(np.int64))
            if not np.array_equal(tensor.numpy(), arrays[name]):
                check(False, f"{name} is the same in PyTorch")
    check(True, f"PyTorch has the same {count} batches")


def check(holds: bool, what: str) -> None:
    """End the example with exit code 1 unless `holds`."""
    if not holds:
        raise SystemExit(f"   ✗ this does not hold: {what}")
    print(f"   ✓ {what}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains in JAX, and resumes bit for bit.")
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("--corpus", type=Path, default=library, help="a folder of text files")
    parser.add_argument("--pattern", default="*.py", help="which of its files")
    parser.add_argument("--out", type=Path, default=Path(".demo/training"), help="where to work")
    parser.add_argument("--quick", action="store_true", help="a tiny model, a few steps")
    parser.add_argument("--torch", action="store_true", help="compare with tensors of PyTorch")
    # Of the processes that it starts.
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ed.EasyDataError as error:
        sys.exit(f"   ✗ {error}")
