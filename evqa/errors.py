"""Every error that evqa raises on purpose.

One family, so that callers can catch :class:`EvqaError`, and so that the command line can print one line
instead of a traceback. A message always says *which entry* and *which file* when they are known.
"""

from __future__ import annotations

import os

__all__ = [
    "AdapterError",
    "ArchiveError",
    "DataError",
    "EvqaError",
    "ManifestMismatchError",
    "MaskError",
    "MissingDataError",
    "MissingDependencyError",
    "PredictionError",
    "RunLogError",
    "SetupError",
    "TrainingError",
    "TransientError",
    "VideoError",
]


class EvqaError(Exception):
    """Base of all deliberate errors.

    Args:
        message: One sentence: what is wrong and, where it helps, what to do.
        entry: The id of the benchmark entry or row concerned.
        file: The file or folder concerned.
    """

    def __init__(self, message: str, *, entry: str | None = None, file: str | os.PathLike[str] | None = None):
        super().__init__(message)
        self.message = message
        self.entry = entry
        self.file = None if file is None else os.fspath(file)

    def __str__(self) -> str:
        """The message, followed by entry and file where they are known."""
        where = []
        if self.entry is not None:
            where.append(f"entry {self.entry!r}")
        if self.file is not None:
            where.append(f"file {self.file}")
        return f"{self.message} [{', '.join(where)}]" if where else self.message

    def __reduce__(self):
        """Keep entry and file when the error crosses a process boundary (``num_proc``, data loaders)."""
        return _rebuild, (type(self), self.message, self.entry, self.file, self.__dict__)


def _rebuild(cls, message, entry, file, state):
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class DataError(EvqaError, ValueError):
    """A published or given data file holds something that cannot be read as what it should be."""


class MissingDataError(DataError):
    """A file that the data refers to is not where it should be; the message lists where we looked.

    Not an ``OSError``: ``datasets`` replaces those by one of its own, and entry and file would be lost.
    """


class ArchiveError(DataError):
    """An archive or pickle was refused because reading it could harm this machine."""


class MaskError(DataError):
    """A mask is malformed, or two masks that must have one size do not."""


class VideoError(EvqaError):
    """A clip could not be probed or decoded, or the decoder was stopped after its time limit."""


class PredictionError(DataError):
    """A prediction or a prediction file does not have a known form."""


class RunLogError(EvqaError):
    """A run's log cannot be written, read or continued."""


class ManifestMismatchError(RunLogError):
    """A run was resumed with other settings than it was started with.

    Attributes:
        differences: ``{field: (value in the run, value asked for)}``.
    """

    def __init__(self, message: str, *, differences: dict[str, tuple], file=None):
        super().__init__(message, file=file)
        self.differences = differences


class AdapterError(EvqaError):
    """A model adapter cannot answer this entry, for a reason that a retry will not change."""


class SetupError(AdapterError):
    """A model adapter cannot answer any entry: a wrong key, a model that is not there. The run stops."""


class TransientError(AdapterError):
    """A model adapter failed in a way that may pass: the engine retries it.

    Args:
        retry_after: Seconds to wait before the next try, when the server said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, entry=None, file=None):
        super().__init__(message, entry=entry, file=file)
        self.retry_after = retry_after


class TrainingError(EvqaError):
    """A training run cannot go on; what it has saved is sound."""


class MissingDependencyError(EvqaError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
