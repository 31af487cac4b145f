"""``evqa compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evqa.cli.common import EXIT_INCOMPLETE, distinct_names, load_references, reference_arguments

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="systems in one table: intervals, paired tests against the first, chance and oracle"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders or prediction files")
    parser.add_argument("--name", action="append", help="what to call a run, in order; default: its folder's name")
    reference_arguments(parser)
    parser.add_argument("--protocol", choices=("strict", "evqa-v1"), default="strict", help="default: %(default)s")
    parser.add_argument("--format", choices=("text", "markdown", "latex", "json"), default="text")
    parser.add_argument("--latex", dest="format", action="store_const", const="latex", help="--format latex")
    parser.add_argument("--metrics", metavar="A,B,...", help="what to show, or all (default: the main ones)")
    parser.add_argument("--no-bounds", action="store_true", help="without the rows chance and oracle")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there and not to the terminal")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from evqa._files import write_atomic
    from evqa.errors import DataError
    from evqa.predictions import load_predictions
    from evqa.report.comparison import compare_systems
    from evqa.scoring import metric_names

    rows, task, _ = load_references(arguments, arguments.runs)
    task = task or "gen"
    names = arguments.name or distinct_names(arguments.runs)
    if len(names) != len(arguments.runs) or len(set(names)) != len(names):
        raise DataError(f"--name is given {len(names)} times for {len(arguments.runs)} runs, or twice the same")
    metrics = arguments.metrics and arguments.metrics.split(",")
    if metrics == ["all"]:
        metrics = list(metric_names(task, arguments.protocol))
    exact = arguments.protocol == "evqa-v1"
    systems = {name: load_predictions(path, exact=exact) for name, path in zip(names, arguments.runs, strict=True)}
    table = compare_systems(
        systems, rows, arguments.protocol, task=task, metrics=metrics, bounds=not arguments.no_bounds,
        bootstrap=arguments.bootstrap,
    )  # fmt: skip
    text = table.render(arguments.format)
    if arguments.out:
        write_atomic(arguments.out, text)
    else:
        print(text, end="")
    return 0 if all(table.systems[name].complete for name in names) else EXIT_INCOMPLETE
