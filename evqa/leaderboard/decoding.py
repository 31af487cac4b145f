"""Runs in a child process: turns somebody's Parquet file into records, under limits on memory, time and disk.

    python -m evqa.leaderboard.decoding predictions.parquet records.jsonl

Prints ``{"rows": n, "problems": [...]}``. A file that needs more than the limits ends this process, and nothing else.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["decode", "limit"]

MOST_MEMORY = 6 << 30  # of address space; pyarrow alone maps more than one GiB
MOST_SECONDS = 900
MOST_RECORD_BYTES = 8 << 30
MOST_ROWS = 200_000
MOST_PROBLEMS = 50
_BATCH = 8


def limit() -> None:
    """Bound what this process may take; where the system knows no such limits the parent's time limit remains."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        resource.RLIMIT_AS: MOST_MEMORY,
        resource.RLIMIT_CPU: MOST_SECONDS,
        resource.RLIMIT_FSIZE: MOST_RECORD_BYTES,
    }
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def decode(source: str, target: str) -> dict[str, Any]:
    """Write the rows of a Parquet file as records, and list what is wrong with them.

    Args:
        source: ``predictions.parquet``, as anybody may have made it.
        target: The records, one JSON object a line.

    Returns:
        ``rows`` and ``problems``, at most :data:`MOST_PROBLEMS` and a last line that says how many more.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from evqa.errors import EvqaError
    from evqa.leaderboard.submission import record, schema

    problems: list[str] = []
    count = rows = 0

    def problem(text: str) -> None:
        nonlocal count
        count += 1
        if count <= MOST_PROBLEMS:
            problems.append(text)

    try:
        file = parquet.ParquetFile(source, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20)
    except (pa.ArrowException, OSError, ValueError) as error:
        return {"rows": 0, "problems": [f"predictions.parquet is no Parquet file ({_line(error)})"]}
    if wrong := _schema_problems(file.schema_arrow, schema()):
        return {"rows": 0, "problems": wrong}
    if file.metadata.num_rows > MOST_ROWS:
        return {"rows": 0, "problems": [f"{file.metadata.num_rows:,} rows; at most {MOST_ROWS:,} are read"]}
    seen: set[str] = set()
    with open(target, "w", encoding="utf-8") as out:
        try:
            for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
                for row in batch.to_pylist():
                    rows += 1
                    try:
                        said = record(row)
                    except EvqaError as error:
                        problem(f"row {rows}: {error}")
                        continue
                    if said.entry_id in seen:
                        problem(f"row {rows}: the entry {said.entry_id!r} stands twice")
                    seen.add(said.entry_id)
                    out.write(json.dumps(said.to_json(), ensure_ascii=True) + "\n")
        except (pa.ArrowException, OSError, ValueError) as error:
            problem(f"the rows after row {rows} cannot be read ({_line(error)})")
    if count > MOST_PROBLEMS:
        problems.append(f"and {count - MOST_PROBLEMS} more problems")
    return {"rows": rows, "problems": problems}


def _schema_problems(found: Any, wanted: Any) -> list[str]:
    problems = [f"the column {name!r} is missing" for name in wanted.names if name not in found.names]
    problems += [f"unknown column {name[:60]!r}" for name in found.names if name not in wanted.names]
    for name in wanted.names:
        if found.names.count(name) > 1:
            problems.append(f"the column {name!r} stands twice")
        elif name in found.names and not found.field(name).type.equals(wanted.field(name).type):
            problems.append(f"the column {name!r} is {found.field(name).type}, it must be {wanted.field(name).type}")
    return problems


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    limit()
    print(json.dumps(decode(sys.argv[1], sys.argv[2])))
