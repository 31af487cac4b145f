"""``evqa score`` and ``evqa export``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from evqa.cli.common import EXIT_INCOMPLETE, load_references, reference_arguments
from evqa.errors import DataError, EvqaError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    score = commands.add_parser("score", help="score a run or a prediction file")
    score.add_argument("predictions", metavar="PREDICTIONS", type=Path, help="run folder, .jsonl, or a result .json")
    score.add_argument("--masks", type=Path, metavar="DIR", help="mask PNGs of a .json: DIR/<entry>/masks/%%05d.png")
    reference_arguments(score)
    score.add_argument("--protocol", choices=("strict", "evqa-v1", "both"), default="both", help="default: %(default)s")
    score.add_argument("--by", metavar="COLUMN", help="also break down by a column, or a key of its metadata")
    score.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, entry by entry")
    score.set_defaults(command=_score)

    export = commands.add_parser("export", help="write predictions as the original release's files")
    export.add_argument("predictions", metavar="RUN", type=Path)
    export.add_argument("--to", required=True, type=Path, metavar="FOLDER")
    reference_arguments(export)
    export.set_defaults(command=_export)


def _score(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import breakdown_table, score_table, to_json
    from evqa.scoring import PROTOCOLS, breakdown, score

    rows, task, _ = load_references(arguments, [arguments.predictions])
    results = {}
    for protocol in PROTOCOLS if arguments.protocol == "both" else [arguments.protocol]:
        predictions = load_predictions(arguments.predictions, masks=arguments.masks, exact=protocol == "evqa-v1")
        try:
            results[protocol] = score(predictions, rows, protocol, task=task, bootstrap=arguments.bootstrap)
        except EvqaError as error:
            if arguments.protocol != "both" or protocol == "strict":
                raise
            print(f"evqa: no evqa-v1 scores: {error}", file=sys.stderr)
    print(score_table(results))
    first = next(iter(results.values()))
    if arguments.by:
        groups = breakdown(first, _groups(rows, arguments.by))
        print(f"\nby {arguments.by}, {first.protocol}\n{breakdown_table(groups, first.task, first.protocol)}")
    for entry in [entry for entry in first.entries if entry.problems or entry.status != "ok"][:20]:
        print(f"{entry.entry_id}: {'; '.join([entry.status, *entry.problems])}", file=sys.stderr)
    if arguments.json:
        from evqa._files import write_atomic

        text = [to_json(scores) for scores in results.values()]
        write_atomic(arguments.json, text[0] if len(text) == 1 else "[" + ",\n".join(t.strip() for t in text) + "]\n")
    complete = first.complete and not first.extra and (arguments.protocol != "both" or len(results) == len(PROTOCOLS))
    return 0 if complete else EXIT_INCOMPLETE


def _groups(rows: Any, column: str) -> dict[str, Any]:
    if column in rows.column_names:
        return {row["entry_id"]: row[column] for row in rows.select_columns(["entry_id", column])}
    groups = {
        r["entry_id"]: json.loads(r["metadata"] or "{}").get(column)
        for r in rows.select_columns(["entry_id", "metadata"])
    }
    if all(group is None for group in groups.values()):
        raise DataError(
            f"neither a column nor a key of metadata: {column!r}; columns are {', '.join(rows.column_names)}"
        )
    return groups


def _export(arguments: argparse.Namespace) -> int:
    from evqa.export import export_original
    from evqa.predictions import load_predictions

    rows, task, _ = load_references(arguments, [arguments.predictions])
    print(export_original(load_predictions(arguments.predictions), arguments.to, references=rows, task=task or "gen"))
    return 0
