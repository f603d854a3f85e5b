"""Bytes on disk: shards, checksums, ledgers, dataset directories. SPEC.md is their contract.

Knows Arrow; knows nothing of keys, caches or training.
"""
