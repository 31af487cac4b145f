"""Published tables: CSV files whose cells hold Python literals, and JSON files."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa import segments as seg
from evqa.errors import DataError
from evqa.scoring.answers import match_candidate
from evqa.types import Segment

__all__ = ["QUESTION_COLUMNS", "Cells", "read_csv", "read_json"]

#: Our name of a column -> the names under which question tables publish it.
QUESTION_COLUMNS: dict[str, tuple[str, ...]] = {
    "entry_id": ("entry_id",),
    "video_id": ("video_id", "video"),
    "video_path": ("video_path",),
    "question": ("question",),
    "candidates": ("candidates", "options"),
    "answer": ("answer",),
    "segments": ("segment", "temporal_evidence", "segments"),
}

# Longer than any honest cell; the parser's memory grows much faster than its input.
_MAX_LITERAL = 200_000


def read_csv(path: Path, *, columns: Mapping[str, Collection[str]], optional: Collection[str] = ()) -> list[Cells]:
    """Read a CSV file.

    Args:
        path: UTF-8, with or without a byte order mark.
        columns: Our name of a column -> the names it is published under.
        optional: Those of our names that may be absent.

    Returns:
        One :class:`Cells` per row, in order. A row with too few or too many cells, without an id or with an id that
        stood before is returned too, and raises when it is read, so that one bad row can be skipped.

    Raises:
        DataError: Empty, no header, a missing column; the message names file and column.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise DataError("the file is empty", file=path)
            names = _resolve(header, columns, optional, path)
            rows: list[Cells] = []
            seen: set[str] = set()
            for cells in reader:
                if not cells:
                    continue
                row = Cells(dict(zip(header, cells, strict=False)), names, path, reader.line_num)
                if len(cells) != len(header):
                    row.fault = f"the row has {len(cells)} cells where the header has {len(header)}"
                elif not row.entry:
                    row.fault = "the row has no entry_id"
                elif row.entry in seen:
                    row.fault = "the entry_id stands twice"
                seen.add(row.entry)
                rows.append(row)
            return rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"not readable as CSV ({error})", file=path) from None


def _resolve(
    header: Sequence[str], columns: Mapping[str, Collection[str]], optional: Collection[str], path: Path
) -> dict[str, str]:
    names: dict[str, str] = {}
    for ours, published in columns.items():
        found = [name for name in published if name in header]
        if found:
            names[ours] = found[0]
        elif ours not in optional:
            raise DataError(
                f"no column {' or '.join(map(repr, published))}; the columns are {', '.join(header)}", file=path
            )
    return names


class Cells:
    """One row of a CSV file, and the reading of its cells."""

    def __init__(self, cells: dict[str, str], names: Mapping[str, str], path: Path, line: int):
        self._cells = cells
        self._names = names
        self.path = path
        self.line = line
        #: What is wrong with the row as a whole.
        self.fault: str | None = None

    @property
    def entry(self) -> str:
        """The entry's id."""
        return self._cells.get(self._names["entry_id"], "").strip()

    def check(self) -> None:
        """Raise ``DataError`` if the row as a whole is unusable."""
        if self.fault:
            raise self.error(self.fault)

    def error(self, message: str) -> DataError:
        """An error that names this row."""
        return DataError(f"{message} (line {self.line})", entry=self.entry or None, file=self.path)

    def text(self, name: str, default: str = "") -> str:
        """A cell as it stands; ``default`` if the table lacks the column."""
        return self._cells[self._names[name]] if name in self._names else default

    def literal(self, name: str) -> Any:
        """A cell that holds a Python literal; ``None`` if it is empty or the column is absent.

        Raises:
            DataError: Not a literal.
        """
        text = self.text(name).strip()
        if not text:
            return None
        if len(text) > _MAX_LITERAL:
            raise self.error(f"{name} is {len(text)} characters long, which no honest cell is")
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise self.error(f"{name} is not a Python literal: {text[:60]!r}") from None

    def candidates(self) -> list[str]:
        """The options; numbers and booleans become text.

        Raises:
            DataError: Not a list of plain values, or empty.
        """
        options = self.literal("candidates")
        if (
            not isinstance(options, (list, tuple))
            or not options
            or not all(isinstance(option, (str, int, float)) for option in options)
        ):
            raise self.error(f"candidates must be a list of options, got {str(options)[:60]!r}")
        return [str(option) for option in options]

    def segments(self) -> list[Segment]:
        """The temporal evidence.

        Raises:
            DataError: Not ``[[start, end], ...]`` in seconds.
        """
        value = self.literal("segments")
        found, problems = seg.read(value)
        if problems:
            raise self.error(f"temporal evidence cannot be read: {'; '.join(problems)}")
        return found

    def answer(self, candidates: Sequence[str]) -> tuple[str, int | None]:
        """The right option's text and index; the index is ``None`` where no option is spelled like the answer."""
        text = self.text("answer").strip()
        texts = [candidate.strip() for candidate in candidates]
        if text in texts:
            return text, texts.index(text)
        # A lone letter here is an option's text that is missing, not a label: answers are published as text.
        return text, match_candidate(text, candidates) if len(text) > 1 else None

    def others(self, used: Iterable[str] = ()) -> str:
        """Every column that has no place of its own, as a JSON object."""
        known = set(self._names.values()) | set(used)
        return json.dumps({key: value for key, value in self._cells.items() if key not in known}, ensure_ascii=False)


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file that must hold an object (``dict``) or a list.

    Raises:
        DataError: Missing, damaged, or something else.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            value = json.load(handle)
    except FileNotFoundError:
        raise DataError("there is no such file", file=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"not readable as JSON ({error}); is it cut off?", file=path) from None
    if not isinstance(value, kind):
        raise DataError(f"a JSON {kind.__name__} is needed, this is a {type(value).__name__}", file=path)
    return value
