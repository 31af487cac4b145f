"""What every model adapter is, and how adapters are found by name.

An adapter is one file in this package with a class derived from :class:`Adapter` and the line ``ADAPTER = TheClass``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from evqa._plugins import load_plugin, plugin_names
from evqa.errors import AdapterError
from evqa.types import Prediction

__all__ = ["Adapter", "adapter_names", "frame_policy", "load_adapter"]

#: Columns that say what is right. The engine keeps them from adapters that do not declare ``sees_reference``.
REFERENCE_COLUMNS = frozenset({"answer", "answer_index", "segments", "masks", "temporal_answer", "spatial_answer"})


class Adapter(abc.ABC):
    """Answers benchmark questions.

    Subclasses take their options as keyword arguments of ``__init__`` with defaults; the command line passes them as
    ``--option name=value``.
    """

    #: Name on the command line: the module's name.
    name: ClassVar[str]
    #: Tasks it can do.
    tasks: ClassVar[tuple[str, ...]] = ("gen", "mcq")
    #: Whether it is given the right answers (only an oracle is).
    sees_reference: ClassVar[bool] = False
    #: Whether it looks at the images of the spatial options; decoding them costs time.
    needs_images: ClassVar[bool] = True
    #: How many entries :meth:`predict` is best given at once.
    batch_size: int = 1
    #: How many calls of :meth:`predict` may run at the same time, in threads; for models behind a network.
    concurrency: int = 1
    #: How many processes :meth:`prepare` entries ahead of the model; 0: threads. The adapter is sent there by pickle.
    workers: int = 0
    #: Whether records will say what they cost.
    has_prices: bool = False

    def settings(self) -> dict[str, Any]:
        """Everything about the adapter that can change an answer, JSON-ready: it goes into the run's manifest."""
        return {}

    def prepare(self, row: Mapping[str, Any], task: str) -> Any:
        """Make an entry ready for :meth:`predict`: decode its clip, for example.

        The engine calls this in threads or processes, a few entries ahead of the model, so that decoding and answering
        overlap (:mod:`evqa.prefetch`).

        Args:
            row: A benchmark row (see :class:`evqa.types.Sample`).
            task: ``gen`` or ``mcq``.
        """
        return row

    @abc.abstractmethod
    def predict(self, rows: Sequence[Any], task: str) -> list[Prediction]:
        """Answer entries.

        Args:
            rows: What :meth:`prepare` made of benchmark rows, at most :attr:`batch_size`.
            task: ``gen`` or ``mcq``.

        Returns:
            One prediction per row, in the same order. An entry that cannot be answered is a failure record
            (:meth:`Prediction.failure`), not a made-up answer.

        Raises:
            TransientError: A retry may help; the engine retries.
            SetupError: No entry can be answered; the run stops.
            AdapterError, VideoError, DataError: It cannot be done; the engine records a failure for the entry.
        """

    def spent(self, row: Any) -> dict[str, Any]:
        """What a prepared entry that could not be answered has used, in the terms of ``Prediction.usage``."""
        return {}

    def show_request(self, row: Any, task: str) -> Any:
        """What would be sent to the model first for one prepared entry, JSON-ready; for ``evqa run --dry-run``.

        Raises:
            AdapterError: This adapter sends nothing.
        """
        raise AdapterError(f"adapter {self.name!r} sends no requests")

    def close(self) -> None:  # noqa: B027 - nothing to let go of is the common case
        """Let go of models and connections."""


def frame_policy(text: Any, option: str = "frames") -> Any:
    """A sampling policy of :mod:`evqa.video` from an option's text.

    Raises:
        AdapterError: It is none; names the option.
    """
    from evqa.video import parse_policy

    try:
        return parse_policy(text)
    except ValueError as error:
        raise AdapterError(f"option {option}: {error}") from None


def adapter_names() -> list[str]:
    """Names of the adapters that come with evqa."""
    return plugin_names("adapters")


def load_adapter(spec: str, **options: Any) -> Adapter:
    """Make an adapter.

    Args:
        spec: ``name`` or ``name:model id``; the model id is passed as the option ``model``. A name that ends with
            ``.py`` is the path of a file like those in this package.
        options: Of the adapter.

    Raises:
        AdapterError: No such adapter, or an option that it does not have.
    """
    return load_plugin("adapters", "adapter", spec, options)
