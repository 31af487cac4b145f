"""``evqa report`` and ``evqa figure``: the evidence, to look at and to print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evqa.cli.common import distinct_names, load_references, reference_arguments
from evqa.errors import DataError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    report = commands.add_parser("report", help="write a page that shows the evidence; opens without a server")
    report.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders or prediction files")
    report.add_argument("--out", type=Path, help="folder of the page (default: RUN/report)")
    report.add_argument("--masks", type=Path, help="folder of mask PNGs, for one prediction file")
    report.add_argument("--clip-mb", type=float, default=16, metavar="MB",
                        help="larger clips are made smaller; 0 leaves clips out (default: %(default)s)")  # fmt: skip
    reference_arguments(report)
    report.set_defaults(command=_report)

    figure = commands.add_parser("figure", help="one entry as PDF and PNG for a paper: frames, masks, time line")
    figure.add_argument("run", metavar="RUN", type=Path, help="run folder or prediction file")
    figure.add_argument("entry", metavar="ENTRY", help="id of the entry, as the evidence page shows it")
    figure.add_argument("--with", dest="more", metavar="RUN", type=Path, action="append", default=[],
                        help="a further run, as a strip of its own; may be repeated")  # fmt: skip
    figure.add_argument("--frames", type=int, default=5, help="frames of the strip (default: %(default)s)")
    figure.add_argument("--out", type=Path, help="file; .pdf and .png are written (default: ENTRY in this folder)")
    figure.add_argument("--masks", type=Path, help="folder of mask PNGs, for one prediction file")
    reference_arguments(figure)
    figure.set_defaults(command=_figure)


def _report(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import write_report

    rows, task, _ = load_references(arguments, arguments.runs)
    names = distinct_names(arguments.runs)
    runs = {
        name: load_predictions(path, masks=arguments.masks) for name, path in zip(names, arguments.runs, strict=True)
    }
    first = arguments.runs[0]
    out = arguments.out or (first / "report" if first.is_dir() else first.with_name(f"{first.stem}_report"))
    page = write_report(
        runs, rows, out, task=task or "gen", title=f"Evidence: {', '.join(names)}", bootstrap=arguments.bootstrap,
        clip_budget=round(1e6 * arguments.clip_mb),
    )  # fmt: skip
    print(page.resolve().as_uri())
    return 0


def _figure(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import write_figure

    paths = [arguments.run, *arguments.more]
    rows, _, _ = load_references(arguments, paths)
    try:
        place = list(rows["entry_id"]).index(arguments.entry)
    except ValueError:
        raise DataError("the references hold no such entry", entry=arguments.entry) from None
    runs = {
        name: load_predictions(path, masks=arguments.masks)
        for name, path in zip(distinct_names(paths), paths, strict=True)
    }
    out = arguments.out or Path("".join(c if c.isalnum() or c in "-_" else "_" for c in arguments.entry))
    for path in write_figure(runs, rows[place], out, frames=arguments.frames):
        print(path)
    return 0
