"""``evqa submit`` and ``evqa leaderboard``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from evqa.cli.common import EXIT_ERROR, EXIT_INCOMPLETE, load
from evqa.errors import DataError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    submit = commands.add_parser("submit", help="make and check a submission to a leaderboard")
    actions = submit.add_subparsers(required=True, metavar="ACTION")
    packing = actions.add_parser("pack", help="write a run as a submission: one zip file")
    packing.add_argument("run", metavar="RUN", type=Path, help="run folder")
    packing.add_argument("--system", required=True, help="the name in the table")
    packing.add_argument("--out", required=True, type=Path, metavar="FILE.zip")
    for name, text in (
        ("authors", "who"),
        ("url", "https://..."),
        ("description", "what it is"),
        ("model", "its model"),
    ):
        packing.add_argument(f"--{name}", help=text)
    packing.set_defaults(command=_pack)
    checking = actions.add_parser("validate", help="score a submission anew and say exactly what is wrong with it")
    checking.add_argument("submission", metavar="FILE.zip", type=Path)
    checking.add_argument("--json", type=Path, metavar="FILE", help="write the result, for evqa leaderboard")
    checking.add_argument("--references", metavar="DATA", help="default: the benchmark that the submission names")
    checking.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    checking.add_argument("--split", help="split or slice of the references")
    checking.add_argument("--bootstrap", type=int, default=1000, help="resamplings (default: %(default)s)")
    checking.set_defaults(command=_validate)

    board = commands.add_parser("leaderboard", help="write a page with the results of evqa submit validate --json")
    board.add_argument("results", nargs="*", metavar="RESULT.json", type=Path)
    board.add_argument("--out", required=True, type=Path, help="folder of the page")
    board.add_argument("--title", default="Leaderboard")
    board.add_argument("--task", choices=("gen", "mcq"), action="append", help="tasks of the baselines (default: gen)")
    board.add_argument("--references", metavar="DATA", help="benchmark for the rows chance and oracle")
    board.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    board.add_argument("--split", default="test", help="split of the references (default: %(default)s)")
    board.set_defaults(command=_leaderboard)


def _pack(arguments: argparse.Namespace) -> int:
    from evqa.leaderboard import pack
    from evqa.runlog import RunLog

    log = RunLog.open(arguments.run)
    about = {name: getattr(arguments, name) for name in ("authors", "url", "description", "model")}
    manifest = log.manifest
    path = pack(
        log.predictions(),
        arguments.out,
        system=arguments.system,
        task=manifest["task"],
        benchmark=manifest["data"],
        **about,
    )
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from evqa.corpora.base import CORPORA, corpus_name
    from evqa.leaderboard import check
    from evqa.leaderboard.checking import write_result
    from evqa.leaderboard.submission import read_manifest

    try:
        manifest = read_manifest(arguments.submission)
    except DataError as error:
        return _refused([error.message])
    named = manifest["benchmark"]
    # What a submission names is loaded only if it is one of our corpora: it may not point to a folder of this machine.
    if arguments.references is None and corpus_name(named["name"]) not in CORPORA:
        return _refused([f"the benchmark {named['name']!r} is none of evqa's; say what to score against: --references"])
    if arguments.split is None and not re.fullmatch(r"\w+(\[\d*%?:?\d*%?\])?", named["split"]):
        return _refused([f"the split {named['split']!r} cannot be read; say which with --split"])
    data = arguments.references or f"{named['name']}:{named['config']}"
    _, rows = load(data, arguments.data_dir, arguments.split or named["split"], manifest["task"])
    verdict = check(arguments.submission, rows, bootstrap=arguments.bootstrap)
    if not verdict.accepted:
        return _refused(verdict.errors)
    for note in verdict.notes:
        print(f"note: {note}")
    for protocol, scores in verdict.result["scores"].items():
        print(f"{protocol} {scores['version']}")
        for name, value in scores["numbers"].items():
            low, high = scores["intervals"].get(name, (value, value))
            print(f"  {name:20} {value:6.1f}  [{low:.1f}, {high:.1f}]")
    print(f"accepted: {manifest['system']}, {verdict.result['counts']['num_samples']} entries")
    print(f"predictions sha256:{verdict.result['predictions_sha256']}")
    print(f"references  sha256:{verdict.result['references_sha256']}")
    if arguments.json:
        write_result(verdict.result, arguments.json)
    return EXIT_INCOMPLETE if verdict.result["counts"]["num_failed"] else 0


def _refused(errors: list[str]) -> int:

    for error in errors:
        print(f"refused: {error}")
    return EXIT_ERROR


def _leaderboard(arguments: argparse.Namespace) -> int:
    from evqa.leaderboard import baseline_results, read_result, write_board

    baselines = []
    if arguments.references:
        for task in arguments.task or ["gen"]:
            _, rows = load(arguments.references, arguments.data_dir, arguments.split, task)
            baselines += baseline_results(rows, task)
    page = write_board(
        [read_result(path) for path in arguments.results], arguments.out, baselines=baselines, title=arguments.title
    )
    print(page.resolve().as_uri())
    return 0
