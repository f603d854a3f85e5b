"""A pipeline that is killed at random moments continues, and ends with the same bytes."""

from __future__ import annotations

from .killing import run_with_kills


def test_a_killed_pipeline_ends_with_the_same_bytes(tmp_path):
    assert run_with_kills(tmp_path, kills=5, seed=1) >= 2
