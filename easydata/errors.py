"""Every error that easydata raises on purpose.

    EasyDataError
    ├── UsageError               an argument is wrong or contradicts another (also a ValueError)
    ├── MissingDependencyError   an optional package is not installed (also an ImportError)
    ├── SourceError              the input text
    │   ├── SourceNotFoundError  no such file, empty glob, folder without known files
    │   └── BadRowError          one row of one file: broken, missing field, wrong type
    ├── TokenizerError           a tokenizer does not load, or does what cannot be cached
    ├── DatasetError             a dataset directory
    │   ├── NotADatasetError     the directory holds something else, or nothing complete
    │   ├── CorruptShardError    bytes on disk are not the bytes that were written
    │   └── FormatVersionError   written by a newer easydata
    ├── OutputExistsError        `out` already holds something that must not be replaced
    ├── UnsupportedValueError    a cache cannot hold the value exactly (also a TypeError)
    ├── StorageError             the disk is full, read-only or fails (also an OSError)
    └── WorkerError              a worker process died

A message says what was found, in which object, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BadRowError",
    "CorruptShardError",
    "DatasetError",
    "EasyDataError",
    "FormatVersionError",
    "MissingDependencyError",
    "NotADatasetError",
    "OutputExistsError",
    "SourceError",
    "SourceNotFoundError",
    "StorageError",
    "TokenizerError",
    "UnsupportedValueError",
    "UsageError",
    "WorkerError",
]


class EasyDataError(Exception):
    """Base of every error in this module."""


class UsageError(EasyDataError, ValueError):
    """An argument is wrong, or two arguments contradict each other."""


class MissingDependencyError(EasyDataError, ImportError):
    """A feature needs an optional package; the message names the extra to install."""


class SourceError(EasyDataError):
    """The input cannot be read as what it should be."""


class SourceNotFoundError(SourceError):
    """A path, pattern or folder names no input."""


class BadRowError(SourceError):
    """One row of the input is broken; the message names its file and line."""


class TokenizerError(EasyDataError):
    """A tokenizer cannot be loaded, identified or used."""


class DatasetError(EasyDataError):
    """A dataset directory cannot be opened or read."""


class NotADatasetError(DatasetError):
    """A path holds no complete easydata dataset."""


class CorruptShardError(DatasetError):
    """Bytes on disk differ from those that were written."""


class FormatVersionError(DatasetError):
    """A file was written in a newer format than this version reads."""


class OutputExistsError(EasyDataError):
    """The output path holds something that would be lost."""


class UnsupportedValueError(EasyDataError, TypeError):
    """A value, or a part of it, cannot be stored so that the same value comes back."""


class StorageError(EasyDataError, OSError):
    """The file system refused to write: full, read-only, or failing. Has an `errno`."""

    def __str__(self) -> str:
        return str(self.args[-1])


class WorkerError(EasyDataError):
    """A worker process ended before its work was done."""
