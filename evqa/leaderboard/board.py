"""The leaderboard as a folder with a page: opens from disk, can be put on any web server, asks nobody for anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa._files import cleared, write_atomic
from evqa.errors import DataError
from evqa.scoring.aggregate import metric_groups
from evqa.scoring.protocols import EVQA_V1, PROTOCOLS, STRICT

__all__ = ["BASELINES", "MAIN_METRIC", "SHOWN_METRICS", "baseline_results", "table_rows", "write_board"]

#: The floor and the ceiling of every table.
BASELINES = ("chance", "oracle")
#: What systems are ordered by, per task and protocol.
MAIN_METRIC = {
    ("gen", STRICT): "EBA@0.5",
    ("gen", EVQA_V1): "J&F",
    ("mcq", STRICT): "all_three_accuracy",
    ("mcq", EVQA_V1): "overall_accuracy",
}
#: What a table shows of a task; a protocol may know fewer.
SHOWN_METRICS = {
    "gen": ("EBA@0.3", "EBA@0.5", "Acc@GQA", "accuracy", "mIoU", "t_mean", "J&F"),
    "mcq": ("all_three_accuracy", "overall_accuracy", "qa_accuracy", "temporal_accuracy", "spatial_accuracy"),
}
_ABOUT = {
    STRICT: "every annotated frame, merged segments; ordered by {main}",
    EVQA_V1: "as the original release's evaluator; ordered by {main}",
}
_ASSETS = Path(__file__).parent / "assets"
_PAGE_ASSETS = Path(__file__).parents[1] / "report" / "assets"
_OURS = {"index.html", "assets", "data"}


def baseline_results(references: Any, task: str, *, bootstrap: int = 1000) -> list[dict[str, Any]]:
    """Results of ``chance`` and ``oracle`` on the references: the rows that every table needs."""
    from evqa.adapters import load_adapter
    from evqa.engine import describe_data
    from evqa.leaderboard.checking import result_of
    from evqa.leaderboard.submission import FORMAT

    benchmark = {"name": "", "config": "", "split": "", **describe_data(references)}
    if isinstance(getattr(references, "column_names", None), list):
        unused = [name for name in ("video", "spatial_options") if name in references.column_names]
        references = references.remove_columns(unused)
    rows = list(references)
    out = []
    for name in BASELINES:
        predictions = {said.entry_id: said for said in load_adapter(name).predict(rows, task)}
        manifest = {"format": FORMAT, "system": name, "task": task, "benchmark": benchmark}
        out.append(result_of(manifest, predictions, rows, bootstrap=bootstrap)[0])
    return out


def table_rows(results: Iterable[Mapping[str, Any]], task: str, protocol: str) -> list[dict[str, Any]]:
    """The rows of a table in order: by the main metric, then by name; a rank is shared by equal numbers.

    ``chance`` and ``oracle`` stand in their place by number, without a rank.
    """
    main = MAIN_METRIC[task, protocol]
    rows = []
    for result in results:
        scores = result["scores"].get(protocol)
        if result["manifest"]["task"] == task and scores is not None:
            rows.append({"result": result, "value": scores["numbers"].get(main)})
    rows.sort(
        key=lambda row: (-(row["value"] if row["value"] is not None else -1.0), row["result"]["manifest"]["system"])
    )
    rank, last, counted = 0, None, 0
    for row in rows:
        row["rank"] = None
        if not row["result"].get("baseline"):
            counted += 1
            if row["value"] != last:
                rank, last = counted, row["value"]
            row["rank"] = rank
    return rows


def write_board(
    results: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike,
    *,
    baselines: Sequence[Mapping[str, Any]] = (),
    title: str = "Leaderboard",
) -> Path:
    """Write the page.

    Args:
        results: Of :func:`evqa.leaderboard.check`, all on one benchmark per task.
        folder: Gets the page. A page that is there is replaced; a folder with anything else in it is refused.
        baselines: Of :func:`baseline_results`; shown without a rank.
        title: Heading.

    Returns:
        The path of ``index.html``.

    Raises:
        DataError: Nothing to show, two results of one name, results on different references, or ``folder`` holds
            something else or is being written.
    """
    results = [{**result, "baseline": True} for result in baselines] + [dict(result) for result in results]
    if not results:
        raise DataError("there is no result to show")
    _check_one_benchmark(results)
    with cleared(folder, _OURS, "index.html") as folder:
        shutil.copytree(_ASSETS, folder / "assets", ignore=shutil.ignore_patterns("index.html"))
        for name in ("evqa.css", "dom.js"):
            shutil.copyfile(_PAGE_ASSETS / name, folder / "assets" / name)
        (folder / "data").mkdir()
        text = json.dumps(_board(results, title), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        (folder / "data" / "board.js").write_text(f"evqaBoard.show({text});\n", "ascii")
        # Last: a folder with an index.html is a whole page.
        write_atomic(folder / "index.html", (_ASSETS / "index.html").read_bytes())
    return folder / "index.html"


def _check_one_benchmark(results: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[tuple[str, str], str] = {}
    references: dict[str, tuple[str, str]] = {}
    for result in results:
        system, task = result["manifest"]["system"], result["manifest"]["task"]
        if (task, system) in seen:
            raise DataError(f"two results of task {task} are called {system!r}")
        seen[task, system] = system
        first, digest = references.setdefault(task, (system, result["references_sha256"]))
        if digest != result["references_sha256"]:
            raise DataError(f"{first!r} and {system!r} were scored on different references: they cannot be compared")


def _board(results: Sequence[Mapping[str, Any]], title: str) -> dict[str, Any]:
    tables = []
    for task in sorted({result["manifest"]["task"] for result in results}):
        for protocol in PROTOCOLS:
            rows = table_rows(results, task, protocol)
            if not rows:
                continue
            known = [name for names in metric_groups(task, protocol).values() for name in names]
            main = MAIN_METRIC[task, protocol]
            tables.append(
                {
                    "task": task,
                    "protocol": protocol,
                    "version": rows[0]["result"]["scores"][protocol]["version"],
                    "about": _ABOUT[protocol].format(main=main),
                    "main": main,
                    "metrics": [name for name in SHOWN_METRICS[task] if name in known],
                    "all": known,
                    "rows": [_row(row, protocol) for row in rows],
                }
            )
    return {"title": title, "tables": tables}


def _row(row: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    result = row["result"]
    manifest, scores = result["manifest"], result["scores"][protocol]
    return {
        "rank": row["rank"],
        "baseline": bool(result.get("baseline")),
        **{key: manifest.get(key) for key in ("system", "authors", "url", "description", "model")},
        "numbers": scores["numbers"],
        "intervals": scores["intervals"],
        "counts": result["counts"],
        "predictions_sha256": result["predictions_sha256"],
        "references_sha256": result["references_sha256"],
    }
