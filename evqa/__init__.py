"""evqa: evidence-backed video question answering.

A model watches a video, answers a question, and must show *when* (time segments) and *where* (object masks) the proof
is. This package holds the ST-Evidence benchmark, the scores, and a runner that loses nothing. Importing it is cheap;
everything below is loaded on first use::

    import evqa

    rows = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
    scores = evqa.scoring.score(predictions, rows)

After ``import evqa``, ``datasets.load_dataset("evqa/st_evidence", ...)`` and
``evaluate.load("evqa/st_evidence_metrics")`` know our names, without a network.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evqa import _hooks

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    from evqa import (
        adapters,
        corpora,
        engine,
        errors,
        masks,
        parsing,
        predictions,
        report,
        runlog,
        scoring,
        segmentation,
        segmenters,
        segments,
        types,
        video,
    )
    from evqa.types import Prediction

__version__ = "0.1.0"

_MODULES = frozenset(
    {
        "adapters", "corpora", "engine", "errors", "masks", "parsing", "predictions", "report", "runlog", "scoring",
        "segmentation", "segmenters", "segments", "types", "video",
    }
)  # fmt: skip

__all__ = ["Prediction", "load_dataset", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"evqa.{name}")
    if name == "Prediction":
        from evqa.types import Prediction

        return Prediction
    raise AttributeError(f"module 'evqa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_dataset(
    name: str,
    config: str | None = None,
    *,
    data_dir: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    **options: Any,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Load one of our corpora, without relying on the hook into ``datasets.load_dataset``.

    Args:
        name: ``"evqa/st_evidence"`` or ``"st_evidence"``; ``evqa data list`` lists all.
        config: One of the corpus' configs; see its module in :mod:`evqa.corpora`.
        data_dir: Folder of the published files. Without it the official release is downloaded from the Hub.
        split: Split or slice, as in ``datasets.load_dataset``; all splits by default.
        streaming: Read rows as they are asked for, without building a cache.
        options: Further options of the corpus (``on_error="skip"``, ...), and of ``datasets``: ``cache_dir``,
            ``num_proc``, ``download_mode``.

    Returns:
        What ``datasets.load_dataset`` would return.

    Raises:
        DataError: No such corpus, or a row that cannot be read; names entry and file.
        MissingDataError: Files are not where they should be; lists where we looked.
    """
    from evqa.corpora import load

    return load(name, config, data_dir=data_dir, split=split, streaming=streaming, **options)


_hooks.install()
