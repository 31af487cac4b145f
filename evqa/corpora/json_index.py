"""Large JSON files, read a member at a time.

``mask_dict.json`` of a video segmentation corpus holds hundreds of megabytes of masks, of which a row needs a few
kilobytes. Parsed at once it becomes several times as many bytes of Python objects, in every process that has it. Here
one pass over the text finds where each member stands, without parsing any (:func:`index_members`); a member is parsed
when it is asked for (:func:`read_span`). An index is small enough to be handed to other processes row by row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evqa.errors import DataError

__all__ = ["Span", "index_elements", "index_members", "read_span"]

_CHUNK = 1 << 23
_QUOTE, _COMMA, _COLON = b'",:'
_OPEN, _CLOSE = b"[{", b"]}"

_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(_OPEN)] = 1
_STEP[list(_CLOSE)] = -1
_MARK = np.zeros(256, dtype=bool)
_MARK[[*_OPEN, *_CLOSE, _COMMA, _COLON]] = True


class Span(NamedTuple):
    """Bytes ``[start, end)`` of a file."""

    start: int
    end: int


def read_span(file: str | os.PathLike, span: Span) -> Any:
    """Parse one member.

    Raises:
        DataError: The text there is not JSON: the file is damaged, or has changed since it was indexed.
    """
    try:
        return json.loads(_bytes(file, span))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=file) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not readable as JSON at byte {span.start} ({error})", file=file) from None


def index_members(file: str | os.PathLike, span: Span | None = None) -> dict[str, Span]:
    """Key -> where its value stands, of the JSON object that a file, or a part of it, holds.

    Raises:
        DataError: There is no such file; it is cut off; it does not hold an object; or a key stands twice, of which
            ``json.load`` would silently keep the last.
    """
    found: dict[str, Span] = {}
    for key, value in _items(Path(file), span, "{"):
        name = read_span(file, key) if key is not None else None
        if not isinstance(name, str):
            raise DataError(f"not readable as JSON at byte {value.start} (a member without a key)", file=file)
        if name in found:
            raise DataError(f"the key {name!r} stands twice", file=file)
        found[name] = value
    return found


def index_elements(file: str | os.PathLike, span: Span | None = None) -> np.ndarray:
    """Where each element stands, of the JSON array that a file, or a part of it, holds; raises as above.

    Returns:
        int64 ``[elements, 2]``: start and end of each.
    """
    places = (place for _, value in _items(Path(file), span, "[") for place in value)
    return np.fromiter(places, dtype=np.int64).reshape(-1, 2)


def _bytes(file: str | os.PathLike, span: Span) -> bytes:
    with open(file, "rb") as handle:
        handle.seek(span.start)
        return handle.read(span.end - span.start)


def _items(file: Path, span: Span | None, kind: str) -> Iterator[tuple[Span | None, Span]]:
    """Key (in an object) and value of each item."""
    try:
        size = file.stat().st_size
    except OSError:
        raise DataError("there is no such file", file=file) from None
    span = span or Span(0, size)
    start = key = None
    closed = empty = False
    first = True
    for mark, place in _marks(file, span):
        if mark in _OPEN:
            if chr(mark) != kind or _bytes(file, Span(span.start, place)).strip():
                break
            start = place + 1
        elif mark == _COLON and key is None and kind == "{":
            key, start = Span(start, place), place + 1
        elif mark == _COLON:
            raise DataError(f"not readable as JSON at byte {place} (a colon too many)", file=file)
        else:
            value = Span(start, place)
            closed = mark in _CLOSE
            # "{}" and "[ ]" have one item of nothing but space; so has a file with a stray comma. Any other item is
            # long, or found out when it is parsed.
            if key is None and (place - start < 4 or (first and closed)):
                empty = not _bytes(file, value).strip()
            if not empty:
                yield key, value
            elif not (closed and first):
                raise DataError(f"not readable as JSON at byte {place} (a comma too many)", file=file)
            key, start, first, empty = None, place + 1, False, False
    if start is None:
        what = "an object" if kind == "{" else "an array"
        raise DataError(f"not readable as JSON: {what} is needed{', the file is empty' if not size else ''}", file=file)
    if not closed or _bytes(file, Span(start, span.end)).strip():
        raise DataError("not readable as JSON; is it cut off?", file=file)


def _marks(file: Path, span: Span) -> Iterator[tuple[int, int]]:
    """The brackets of the outermost container, and the commas and colons directly inside it, with their places."""
    depth, in_string, place = 0, False, span.start
    with open(file, "rb") as handle:
        handle.seek(span.start)
        held = b""
        while block := handle.read(min(_CHUNK, span.end - place - len(held))):
            text = held + block
            # An escape must not be torn apart: of an odd number of backslashes at the end, one waits.
            tail = len(text) - len(text.rstrip(b"\\"))
            held = text[-1:] if tail % 2 else b""
            text = text[:-1] if tail % 2 else text
            # Same length, but every quote that is left begins or ends a string.
            text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
            codes = np.frombuffer(text, dtype=np.uint8)
            # Parity of the quotes so far; a sum of bytes keeps its parity when it overflows.
            inside = np.cumsum(codes == _QUOTE, dtype=np.uint8)
            inside = (inside & 1) != in_string
            marks = np.flatnonzero(_MARK[codes] & ~inside)
            steps = _STEP[codes[marks]]
            levels = depth + np.cumsum(steps, dtype=np.int64)
            outer = np.where(steps < 0, levels == 0, levels == 1)
            for number in marks[outer].tolist():
                yield text[number], place + number
            in_string = bool(inside[-1]) if len(inside) else in_string
            depth = int(levels[-1]) if len(levels) else depth
            place += len(text)
