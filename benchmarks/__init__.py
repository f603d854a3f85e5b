"""Benchmarks: one question per script, both sides measured in one run on the same data.

python -m benchmarks                       # all of them; minutes
python -m benchmarks loader size           # some
python -m benchmarks --quick --json out/   # tiny data: shows that they run, says nothing of speed
"""
