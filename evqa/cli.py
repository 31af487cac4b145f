"""The command line: ``evqa demo | run | score | compare | report | export | data``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evqa
from evqa.data_cli import add_data_commands, parse_options
from evqa.errors import AdapterError, DataError, EvqaError

__all__ = ["main"]

EXIT_INCOMPLETE = 1  # it ran, but not every entry was answered and scored
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

_REFERENCES = """NAME or FOLDER, optionally with ":CONFIG". A name such as evqa/st_evidence loads that corpus; a folder
is read in the layout of the ST-Evidence release. Without a config: gen or mcq, as the task wants."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.command(arguments)
    except EvqaError as error:
        print(f"evqa: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("evqa: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, head for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evqa", description="Evidence-backed video question answering: run, score, look.",
        epilog="Exit code: 0 all entries answered and scored, 1 some were not, 2 an error, 130 interrupted.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"evqa {evqa.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run, score and show the sample benchmark; needs no data and no network")
    demo.add_argument("--out", default="runs/demo", type=Path, help="folder for runs and page (default: %(default)s)")
    demo.add_argument("--task", choices=("gen", "mcq"), default="gen")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run a model over a benchmark; the same command again continues it")
    run.add_argument("--model", required=True, metavar="ADAPTER[:MODEL]", help="see evqa data adapters")
    run.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the adapter")
    run.add_argument("--data", default="evqa/st_evidence", metavar="DATA", help=_REFERENCES)
    run.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    run.add_argument("--split", default="test", help="split or slice, such as test[:100] (default: %(default)s)")
    run.add_argument("--task", choices=("gen", "mcq"), default="gen")
    run.add_argument("--out", required=True, type=Path, help="run folder")
    run.add_argument("--limit", type=_positive, help="only the first so many entries")
    run.add_argument("--batch-size", type=_positive, help="entries at a time (default: what the adapter wants)")
    run.add_argument("--retry-failed", action="store_true", help="run entries again whose record is a failure")
    run.add_argument("--retries", type=int, default=3, help="tries after a passing failure (default: %(default)s)")
    run.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only the I-th of N shares, for N machines and one folder"
    )
    run.add_argument(
        "--max-cost", type=float, metavar="AMOUNT", help="stop when the run has cost so much; needs prices"
    )
    run.add_argument("--dry-run", action="store_true", help="print the first request of one entry and send nothing")
    run.set_defaults(command=_run)

    score = commands.add_parser("score", help="score a run or a prediction file")
    _prediction_arguments(score)
    score.add_argument("--protocol", choices=("strict", "evqa-v1", "both"), default="both", help="default: %(default)s")
    score.add_argument("--by", metavar="COLUMN", help="also break down by a column, or a key of its metadata")
    score.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, entry by entry")
    score.set_defaults(command=_score)

    compare = commands.add_parser("compare", help="is B better than A? paired, clustered bootstrap and McNemar")
    compare.add_argument("a", metavar="A", type=Path, help="run folder or prediction file")
    compare.add_argument("b", metavar="B", type=Path)
    _reference_arguments(compare)
    compare.add_argument("--protocol", choices=("strict", "evqa-v1"), default="strict")
    compare.set_defaults(command=_compare)

    report = commands.add_parser("report", help="write a page that shows the evidence; opens without a server")
    report.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders or prediction files")
    report.add_argument("--out", type=Path, help="folder of the page (default: RUN/report)")
    report.add_argument("--masks", type=Path, help="folder of mask PNGs, for one prediction file")
    _reference_arguments(report)
    report.set_defaults(command=_report)

    export = commands.add_parser("export", help="write predictions as the original release's files")
    export.add_argument("predictions", metavar="RUN", type=Path)
    export.add_argument("--to", required=True, type=Path, metavar="FOLDER")
    _reference_arguments(export)
    export.set_defaults(command=_export)

    convert = commands.add_parser("convert", help="a fresh UniPixel checkpoint from Meta's SAM 2.1 and Qwen2.5-VL")
    convert.add_argument("--sam2", required=True, type=Path, metavar="FILE", help="sam2.1_hiera_base_plus.pt, ...")
    convert.add_argument("--qwen", required=True, metavar="MODEL", help="folder or Hub id of Qwen2.5-VL, 3B or 7B")
    convert.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder of the checkpoint")
    convert.add_argument("--sam2-size", metavar="NAME", help="tiny, small, base_plus or large (default: by file name)")
    convert.add_argument("--image-size", type=_positive, default=768, help="SAM 2's square (default: %(default)s)")
    convert.add_argument("--seed", type=int, default=0, help="of the weights that neither has (default: %(default)s)")
    convert.set_defaults(command=_convert)

    add_data_commands(commands)
    return parser


def _convert(arguments: argparse.Namespace) -> int:
    from evqa.models.unipixel import convert_checkpoint

    model, _ = convert_checkpoint(
        arguments.sam2, arguments.qwen, arguments.out, sam2=arguments.sam2_size, image_size=arguments.image_size,
        seed=arguments.seed,
    )  # fmt: skip
    print(f"{arguments.out}: {model.num_parameters():,} parameters, SAM 2 at {arguments.image_size} pixels")
    return 0


def _reference_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--references", metavar="DATA", help=_REFERENCES + " Default: what the run was made on.")
    parser.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    parser.add_argument("--split", help="split or slice of the references")
    parser.add_argument("--task", choices=("gen", "mcq"), help="default: the run's, or what the file holds")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings for intervals (default: %(default)s)")


def _prediction_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", metavar="PREDICTIONS", type=Path, help="run folder, .jsonl, or a result .json")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="mask PNGs of a .json: DIR/<entry>/masks/%%05d.png")
    _reference_arguments(parser)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _shard(text: str) -> tuple[int, int]:
    """``3/8``, the third of eight, as rank and number of ranks."""
    part, slash, parts = text.partition("/")
    if not slash or not part.isdigit() or not parts.isdigit() or not 1 <= int(part) <= int(parts):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, not {text!r}")
    return int(part) - 1, int(parts)


# ---------------------------------------------------------------------------------------- commands
def _demo(arguments: argparse.Namespace) -> int:
    from evqa.adapters import load_adapter
    from evqa.engine import run
    from evqa.report import write_report

    rows = evqa.load_dataset("st_evidence", "sample", split="test")
    runs, results = {}, {}
    for name in ("chance", "oracle"):
        result = run(
            load_adapter(name), rows, arguments.out / name, task=arguments.task,
            data_name={"name": "evqa/st_evidence", "config": "sample", "split": "test"},
        )  # fmt: skip
        if result.interrupted:
            return EXIT_INTERRUPTED
        runs[name] = result.log.predictions()
    for protocol in evqa.scoring.PROTOCOLS:
        for name, predictions in runs.items():
            results[f"{name} {protocol}"] = evqa.scoring.score(predictions, rows, protocol, task=arguments.task)
    print(evqa.report.score_table(results))
    page = write_report(
        runs, rows, arguments.out / "report", task=arguments.task, title="The sample benchmark: floor and ceiling"
    )
    print(f"\nevidence page: {page.resolve().as_uri()}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from evqa.adapters import load_adapter
    from evqa.engine import run

    adapter = load_adapter(arguments.model, **parse_options(arguments.option))
    name, rows = _load(arguments.data, arguments.data_dir, arguments.split, arguments.task)
    if arguments.dry_run:
        entry = adapter.prepare(rows[0], arguments.task)
        print(json.dumps(adapter.show_request(entry, arguments.task), indent=1, ensure_ascii=False, default=str))
        return 0
    if arguments.max_cost is not None and not adapter.has_prices:
        raise AdapterError("--max-cost needs the prices of the model: --option prices=FILE")
    rank, world_size = arguments.shard or (None, None)
    result = run(
        adapter, rows, arguments.out, task=arguments.task, data_name=name, limit=arguments.limit,
        notes={"data_dir": _folder_of(arguments)}, batch_size=arguments.batch_size, retries=arguments.retries,
        retry_failed=arguments.retry_failed, max_cost=arguments.max_cost, rank=rank, world_size=world_size,
    )  # fmt: skip
    adapter.close()
    print(f"{result.done} entries run, {result.skipped} were recorded before, {result.failed} failed: {arguments.out}")
    if result.interrupted:
        print("evqa: interrupted; the same command continues the run", file=sys.stderr)
        return EXIT_INTERRUPTED
    if result.out_of_money:
        print(f"evqa: stopped, the run has cost {result.cost:.2f}; a larger --max-cost continues it", file=sys.stderr)
    return EXIT_INCOMPLETE if result.failed or result.out_of_money else 0


def _folder_of(arguments: argparse.Namespace) -> str | None:
    """Where the data lie, so that scoring can find them again from any folder."""
    folder = Path(arguments.data) if Path(arguments.data).is_dir() else arguments.data_dir
    return None if folder is None else str(folder.resolve())


def _score(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import breakdown_table, score_table, to_json
    from evqa.scoring import PROTOCOLS, breakdown, score

    rows, task = _references(arguments, [arguments.predictions])
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


def _compare(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import compare_table
    from evqa.scoring import compare, score

    rows, task = _references(arguments, [arguments.a, arguments.b])
    scores = [
        score(
            load_predictions(path, exact=arguments.protocol == "evqa-v1"),
            rows,
            arguments.protocol,
            task=task,
            bootstrap=0,
        )
        for path in (arguments.a, arguments.b)
    ]
    print(f"protocol {arguments.protocol}; A = {arguments.a}, B = {arguments.b}; difference is B - A in points\n")
    print(compare_table(compare(*scores, resamples=max(1, arguments.bootstrap) * 10), "A", "B"))
    return 0 if all(one.complete for one in scores) else EXIT_INCOMPLETE


def _report(arguments: argparse.Namespace) -> int:
    from evqa.predictions import load_predictions
    from evqa.report import write_report

    rows, task = _references(arguments, arguments.runs)
    names = _distinct_names(arguments.runs)
    runs = {
        name: load_predictions(path, masks=arguments.masks) for name, path in zip(names, arguments.runs, strict=True)
    }
    first = arguments.runs[0]
    out = arguments.out or (first / "report" if first.is_dir() else first.with_name(f"{first.stem}_report"))
    page = write_report(
        runs, rows, out, task=task or "gen", title=f"Evidence: {', '.join(names)}", bootstrap=arguments.bootstrap
    )
    print(page.resolve().as_uri())
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from evqa.export import export_original
    from evqa.predictions import load_predictions

    rows, task = _references(arguments, [arguments.predictions])
    print(export_original(load_predictions(arguments.predictions), arguments.to, references=rows, task=task or "gen"))
    return 0


# ----------------------------------------------------------------------------------------- helpers
def _load(data: str, data_dir: Path | None, split: str | None, task: str, **options: Any) -> tuple[dict[str, Any], Any]:
    """Rows, and what to call them in a manifest."""
    from datasets import Dataset, DatasetDict

    name, config = data, None
    if not Path(data).is_dir():
        name, _, config = data.partition(":")
    if Path(name).is_dir():
        name, data_dir = "evqa/st_evidence", Path(name)
    config = config or task
    rows = evqa.load_dataset(name, config, data_dir=data_dir and str(data_dir), split=split, **options)
    if isinstance(rows, DatasetDict):
        if len(rows) != 1:
            raise DataError(f"{name}:{config} has the splits {', '.join(rows)}; say which with --split")
        split, rows = next(iter(rows.items()))
    assert isinstance(rows, Dataset)
    return {"name": name, "config": config, "split": split}, rows


def _references(arguments: argparse.Namespace, paths: Sequence[Path]) -> tuple[Any, str | None]:
    """The references to score against, and the task: as asked, or as the run says."""
    from evqa.engine import describe_data
    from evqa.errors import PredictionError
    from evqa.runlog import RunLog

    for path in paths:
        if not path.exists():
            raise PredictionError("there is no such prediction file or run folder", file=path)
    manifests = {path: RunLog.open(path).manifest for path in paths if path.is_dir()}
    manifest = next(iter(manifests.values()), None)
    task = arguments.task or (manifest["task"] if manifest else None)
    if arguments.references is not None:
        _, rows = _load(arguments.references, arguments.data_dir, arguments.split, task or "gen")
    elif manifest is not None:
        made_on, notes = manifest["data"], manifest.get("notes", {})
        folder = arguments.data_dir or notes.get("data_dir")
        data = f"{made_on.get('name')}:{made_on.get('config')}"
        _, rows = _load(data, folder and Path(folder), arguments.split or made_on.get("split"), task or "gen")
    else:
        raise DataError("a prediction file does not say what it was made on: pass --references")
    asked = describe_data(rows)["fingerprint"]
    for path, one in manifests.items():
        if arguments.split is None and one["data"]["fingerprint"] != asked:
            raise DataError("the run was made on other data than these references", file=path)
    limits = {one["data"].get("limit") for one in manifests.values()}
    if len(limits) == 1 and (limit := limits.pop()):
        rows = rows.select(range(min(limit, len(rows))))
    return rows, task


def _groups(rows: Any, column: str) -> dict[str, Any]:
    import json

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


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Short names of runs; longer where the last part alone does not tell them apart."""
    names = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise DataError("the same run is given twice")
    return names


if __name__ == "__main__":
    sys.exit(main())
