"""The commands that make something to be shown to others: ``evqa figure``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evqa.errors import DataError

__all__ = ["add_sharing_commands"]


def add_sharing_commands(commands: Any, reference_arguments: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the commands to a parser.

    Args:
        commands: What ``ArgumentParser.add_subparsers`` gave.
        reference_arguments: Adds the options that say what is right.
    """
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


def _figure(arguments: argparse.Namespace) -> int:
    from evqa.cli import _distinct_names, _references
    from evqa.predictions import load_predictions
    from evqa.report import write_figure

    paths = [arguments.run, *arguments.more]
    rows, _ = _references(arguments, paths)
    try:
        place = list(rows["entry_id"]).index(arguments.entry)
    except ValueError:
        raise DataError("the references hold no such entry", entry=arguments.entry) from None
    runs = {
        name: load_predictions(path, masks=arguments.masks)
        for name, path in zip(_distinct_names(paths), paths, strict=True)
    }
    out = arguments.out or Path("".join(c if c.isalnum() or c in "-_" else "_" for c in arguments.entry))
    for path in write_figure(runs, rows[place], out, frames=arguments.frames):
        print(path)
    return 0
