"""Remembering what was read last: rows come grouped by video, and share files.

What is remembered must not outlive a build: files may be repaired between two builds of one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["forget", "remembered"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_caches: list[Any] = []


def remembered(maxsize: int) -> Callable[[_Function], _Function]:
    """``functools.lru_cache`` that :func:`forget` empties."""

    def decorate(function: _Function) -> _Function:
        cached = functools.lru_cache(maxsize=maxsize)(function)
        _caches.append(cached)
        return cached  # type: ignore[return-value]

    return decorate


def forget() -> None:
    """Forget everything; called when a build begins."""
    for cached in _caches:
        cached.cache_clear()
