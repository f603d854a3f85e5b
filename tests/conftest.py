"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says nothing of the code where other programs want the same cores.
settings.register_profile("easydata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("easydata")
