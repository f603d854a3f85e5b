"""Where a loader stands, as a JSON value of constant size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from easydata.errors import FormatVersionError, UsageError
from easydata.loader._checks import check_count
from easydata.loader.walk import Place

__all__ = ["place_of", "state_of"]

_VERSION = 1
_MAX_SAMPLES = 1 << 62
# What fingerprints stand for, of which a message shows nothing else.
_MEANINGS = {
    "tokens": " (the identity of the data)",
    "samples": " (the identity of the data)",
    "sources": " (the identities of the data)",
    "schedule": " (the identity of the weights, whose steps are batches of batch_size)",
}


def state_of(place: Place, order: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a loader that is at this place.

    Args:
        place: samples consumed, by all hosts together.
        order: what the sequence of samples follows from, JSON values by name.
    """
    state = {"version": _VERSION, "samples": place.samples, "order": copy.deepcopy(dict(order))}
    if place.counts is not None:
        state["counts"] = dict(place.counts)
    return state


def place_of(state: object, order: Mapping[str, Any]) -> Place:
    """The place that a state stands for.

    Args:
        state: what `state_of` made, perhaps in another process, or through JSON.
        order: of the loader that is to go on from there.

    Raises:
        FormatVersionError: a newer easydata made it.
        UsageError: it is no state, or that of another sequence of samples; says what differs.
    """
    if not isinstance(state, Mapping) or not {"version", "samples", "order"} <= state.keys():
        raise UsageError(
            f"{_shortened(state)} is no state of a loader; give what its state_dict() returned."
        )
    version = state["version"]
    if version != _VERSION:
        raise FormatVersionError(
            f"the state has version {version!r}, but this easydata knows {_VERSION}; use the "
            "easydata that saved it, or a newer one."
        )
    theirs = state["order"]
    if not isinstance(theirs, Mapping):
        raise UsageError(f"the state's order is {_shortened(theirs)}; it must be a dict.")
    differences = [
        f"{name} was {_shortened(theirs.get(name, 'not there'))} and is "
        f"{_shortened(order.get(name, 'not there'))}{_MEANINGS.get(name, '')}"
        for name in [*order, *sorted(theirs.keys() - order.keys(), key=str)]
        if theirs.get(name) != order.get(name)
    ]
    if differences:
        raise UsageError(
            f"the state belongs to another sequence of samples: {'; '.join(differences)}. Make "
            "the loader as it was when the state was saved, or begin anew without the state."
        )
    samples = check_count(state["samples"], "the state's number of samples", least=0)
    if samples > _MAX_SAMPLES:
        raise UsageError(f"the state is of {samples} samples; there are 2^62 at most.")
    counts = state.get("counts")
    if counts is None and ("sources" not in order or not samples):
        return Place(samples)
    if not isinstance(counts, Mapping):
        raise UsageError(
            f"the state's counts are {_shortened(counts)}; they must be the samples of each "
            "source of the mixture, by name."
        )
    checked = {
        name: check_count(count, f"the state's count of {name!r}", least=0)
        for name, count in counts.items()
    }
    if sum(checked.values()) != samples:
        raise UsageError(
            f"the state's counts add up to {sum(checked.values())}, but it is of {samples} "
            "samples; it was changed since it was saved."
        )
    return Place(samples, checked)


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
