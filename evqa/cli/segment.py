"""``evqa segment``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evqa._options import parse_options
from evqa.cli.common import execution_arguments, execution_options, finish, load_references, reference_arguments

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "segment", help="step two: turn a run's referring expressions into masks, as a run of its own"
    )
    parser.add_argument("predictions", metavar="RUN", type=Path, help="run folder or prediction file")
    parser.add_argument("--segmenter", required=True, metavar="NAME[:MODEL]", help="see evqa data segmenters")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the segmenter")
    parser.add_argument(
        "--mode", choices=("separate", "concat"), default="separate",
        help="each expression on its own, or all of an entry in one sentence (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", default="every:1", metavar="POLICY",
        help="frames to segment; those between get the mask of the nearest (default: %(default)s, all)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="run folder (default: RUN-NAME-MODE)")
    reference_arguments(parser, intervals=False)
    execution_arguments(parser)
    parser.set_defaults(command=_segment)


def _segment(arguments: argparse.Namespace) -> int:
    from evqa.engine import run
    from evqa.errors import DataError
    from evqa.segmentation import SegmentationStep
    from evqa.segmenters import load_segmenter

    source = arguments.predictions
    rows, task, made_on = load_references(arguments, [source], limited=False)
    if task == "mcq":
        raise DataError("MCQ predictions hold no referring expressions", file=source)
    segmenter = load_segmenter(arguments.segmenter, **parse_options(arguments.option))
    step = SegmentationStep(segmenter, source, mode=arguments.mode, frames=arguments.frames)
    limit = made_on.pop("limit", None)
    if missing := step.missing(list(rows["entry_id"])[:limit]):
        raise DataError(f"{len(missing)} entries are not in it, {missing[0]!r} first: finish it first", file=source)
    name = source.resolve().name if source.is_dir() else source.stem
    out = arguments.out or source.with_name(f"{name}-{segmenter.name}-{arguments.mode}")
    notes = {"data_dir": made_on.pop("data_dir", None), "source": str(source.resolve())}
    result = run(step, rows, out, data_name=made_on, notes=notes, limit=limit, **execution_options(arguments))
    step.close()
    return finish(result, out)
