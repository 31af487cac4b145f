"""``evqa demo`` and ``evqa run``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import evqa
from evqa._options import parse_options
from evqa.cli.common import (
    EXIT_INTERRUPTED,
    REFERENCES,
    execution_arguments,
    execution_options,
    finish,
    folder_of,
    load,
    positive,
)
from evqa.errors import AdapterError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands."""
    demo = commands.add_parser("demo", help="run, score and show the sample benchmark; needs no data and no network")
    demo.add_argument("--out", default="runs/demo", type=Path, help="folder for runs and page (default: %(default)s)")
    demo.add_argument("--task", choices=("gen", "mcq"), default="gen")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run a model over a benchmark; the same command again continues it")
    run.add_argument("--model", required=True, metavar="ADAPTER[:MODEL]", help="see evqa data adapters; or my_model.py")
    run.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the adapter")
    run.add_argument("--base-url", metavar="URL", help="server of an adapter that asks one: the option base_url")
    run.add_argument("--engine", choices=("transformers", "vllm"), help="of a local model: the option engine")
    run.add_argument(
        "--trust-remote-code", action="store_const", const=True,
        help="run code that comes with the model; also needs --option revision=COMMIT",
    )  # fmt: skip
    run.add_argument("--data", default="evqa/st_evidence", metavar="DATA", help=REFERENCES)
    run.add_argument("--data-dir", type=Path, help="folder of the published files, for a corpus by name")
    run.add_argument("--split", default="test", help="split or slice, such as test[:100] (default: %(default)s)")
    run.add_argument("--task", choices=("gen", "mcq"), default="gen")
    run.add_argument("--out", required=True, type=Path, help="run folder")
    run.add_argument("--limit", type=positive, help="only the first so many entries")
    execution_arguments(run)
    run.add_argument(
        "--max-cost", type=float, metavar="AMOUNT", help="stop when the run has cost so much; needs prices"
    )
    run.add_argument("--dry-run", action="store_true", help="print the first request of one entry and send nothing")
    run.set_defaults(command=_run)


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
    from evqa.engine import View, run

    flags = {name: getattr(arguments, name) for name in ("base_url", "engine", "trust_remote_code")}
    options = {name: value for name, value in flags.items() if value is not None}
    adapter = load_adapter(arguments.model, **options, **parse_options(arguments.option))
    name, rows = load(arguments.data, arguments.data_dir, arguments.split, arguments.task)
    if arguments.dry_run:
        entry = adapter.prepare(View(adapter, rows)[0], arguments.task)
        print(json.dumps(adapter.show_request(entry, arguments.task), indent=1, ensure_ascii=False, default=str))
        return 0
    if arguments.max_cost is not None and not adapter.has_prices:
        raise AdapterError("--max-cost needs the prices of the model: --option prices=FILE")
    result = run(
        adapter, rows, arguments.out, task=arguments.task, data_name=name, limit=arguments.limit,
        notes={"data_dir": folder_of(arguments.data, arguments.data_dir)}, max_cost=arguments.max_cost,
        **execution_options(arguments),
    )  # fmt: skip
    adapter.close()
    return finish(result, arguments.out)
