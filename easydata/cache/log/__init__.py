"""Entries in append-only files of Arrow record batches."""
