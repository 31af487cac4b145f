"""Corpora: published files as typed rows. One module per corpus; see :mod:`evqa.corpora.base`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evqa.corpora.st_evidence import StEvidence

__all__ = ["StEvidence", "load"]

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    if name == "StEvidence":
        from evqa.corpora.st_evidence import StEvidence

        return StEvidence
    raise AttributeError(f"module 'evqa.corpora' has no attribute {name!r}")


def load(
    name: str,
    config: str | None = None,
    *,
    data_dir: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    cache_dir: str | None = None,
    num_proc: int | None = None,
    download_mode: Any = None,
    **options: Any,
) -> Any:
    """See :func:`evqa.load_dataset`."""
    from evqa.corpora.base import builder_class

    builder = builder_class(name)(config_name=config, data_dir=data_dir, cache_dir=cache_dir, **options)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare(num_proc=num_proc, download_mode=download_mode)
    if skipped := builder.skipped():
        logger.warning("%d rows could not be read and were skipped: %s", len(skipped), _names(skipped))
    return builder.as_dataset(split=split)


def _names(skipped: list[dict[str, Any]], most: int = 10) -> str:
    names = ", ".join(f"{item['entry']} ({item['reason']})" for item in skipped[:most])
    return names + (f" and {len(skipped) - most} more" if len(skipped) > most else "")
