"""The Gradio app of a leaderboard's Space: the table, and a check of a submission that a visitor uploads.

What is uploaded is checked as :mod:`evqa.leaderboard.checking` does it, shown beside the others, and forgotten. A
result stands in the table when its file was put into the Space's folder by the people who keep the Space.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa.errors import DataError, EvqaError, MissingDependencyError
from evqa.leaderboard.board import MAIN_METRIC, SHOWN_METRICS, baseline_results, table_rows
from evqa.leaderboard.checking import check, read_result, write_result
from evqa.leaderboard.submission import MANIFEST_FIELDS

__all__ = ["build", "checked", "html_table", "stored_results"]

# Gradio draws black borders around every cell of a table; ours are lighter, hence the long selectors.
_STYLE = """
.evqa-scroll { overflow-x: auto; }
.evqa-scroll table.evqa-board { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.evqa-scroll table.evqa-board :is(th, td) { text-align: right; padding: 8px 10px; white-space: nowrap; border: 0;
  border-bottom: 1px solid var(--border-color-primary); vertical-align: top; }
.evqa-scroll table.evqa-board :is(th, td).system { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.evqa-scroll table.evqa-board small { display: block; font-weight: 400; opacity: 0.75; }
.evqa-scroll table.evqa-board tr.baseline { font-style: italic; opacity: 0.85; }
.evqa-scroll table.evqa-board tr.yours { background: var(--color-accent-soft); font-weight: 600; }
"""


def stored_results(folder: str | Path, task: str) -> list[dict[str, Any]]:
    """The results in a folder, of one task.

    Raises:
        DataError: A file is no result, or was changed.
    """
    results = [read_result(path) for path in sorted(Path(folder).glob("*.json"))]
    return [result for result in results if result["manifest"]["task"] == task]


def html_table(results: Sequence[Mapping[str, Any]], task: str, protocol: str, yours: str | None = None) -> str:
    """The table as HTML; everything that a submission says is escaped.

    Args:
        results: Of submissions and baselines.
        task, protocol: Which table.
        yours: ``sha256`` of the result to mark.
    """
    rows = table_rows(results, task, protocol)
    if not rows:
        return "<p>No system was scored under this protocol.</p>"
    metrics = [m for m in SHOWN_METRICS[task] if any(m in row["result"]["scores"][protocol]["numbers"] for row in rows)]
    head = "".join(f'<th scope="col">{html.escape(m)}</th>' for m in metrics)
    body = []
    for row in rows:
        result = row["result"]
        scores, manifest = result["scores"][protocol], result["manifest"]
        cells = []
        for metric in metrics:
            value, bounds = scores["numbers"].get(metric), scores["intervals"].get(metric)
            interval = "" if bounds is None else f"<small>[{bounds[0]:.1f}, {bounds[1]:.1f}]</small>"
            cells.append("<td>–</td>" if value is None else f"<td>{value:.1f}{interval}</td>")
        mark = "baseline" if result.get("baseline") else "yours" if yours and result.get("sha256") == yours else ""
        note = html.escape(manifest.get("authors") or "")
        body.append(
            f'<tr class="{mark}"><td>{row["rank"] or ""}</td>'
            f'<th class="system" scope="row">{html.escape(manifest["system"])}<small>{note}</small></th>'
            f"{''.join(cells)}</tr>"
        )
    return (
        '<div class="evqa-scroll" tabindex="0" role="region" aria-label="Table of systems"><table class="evqa-board">'
        f'<thead><tr><th scope="col">#</th><th scope="col" class="system">system</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        "<p>Percent with 95 % bootstrap intervals over clips, ordered by "
        f"{html.escape(MAIN_METRIC[task, protocol])}.</p>"
    )


def checked(path: str | Path | None, references: Any, task: str) -> tuple[str, dict[str, Any] | None]:
    """Check an upload.

    Returns:
        What to tell the visitor, as Markdown, and the result if the submission is accepted.
    """
    if not path:
        return "Choose a file first.", None
    try:
        verdict = check(path, references)
    except EvqaError as error:  # the references are ours: what is wrong here is the upload
        return _refusal([str(error)]), None
    if not verdict.accepted:
        return _refusal(verdict.errors), None
    if verdict.result["manifest"]["task"] != task:
        return _refusal([f"this table is about the task {task}"]), None
    counts = verdict.result["counts"]
    lines = [
        f"**Accepted.** {counts['num_samples']} entries were scored, {counts['num_failed']} of them failed.",
        "SHA-256 of what was scored, predictions and references:\n"
        f"```text\n{verdict.result['predictions_sha256']}\n{verdict.result['references_sha256']}\n```",
    ]
    if verdict.notes:
        lines.append(_quoted("Odd, and scored as it stands:", verdict.notes))
    return "\n\n".join(lines), verdict.result


def _refusal(errors: Sequence[str]) -> str:
    return "**Refused.**\n\n" + _quoted("", errors)


def _quoted(title: str, lines: Sequence[str]) -> str:
    """Lines that hold text of a submission, in a block in which nothing is markup."""
    shown = [line.replace("`", "'").replace("\n", " ")[:500] for line in lines[:30]]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return f"{title}\n```text\n" + "\n".join(shown) + "\n```"


def build(references: Any, task: str, results: str | Path, *, title: str = "evqa leaderboard") -> Any:
    """The app, a ``gradio.Blocks``.

    Args:
        references: Rows of the benchmark.
        task: ``gen`` or ``mcq``.
        results: Folder of accepted results, ``*.json``; read once.
        title: Heading.

    Raises:
        DataError: A stored result is damaged, or was scored on other references.
        MissingDependencyError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError:
        raise MissingDependencyError("the leaderboard's app needs gradio: pip install gradio") from None
    baselines = [{**result, "baseline": True} for result in baseline_results(references, task)]
    stored = stored_results(results, task)
    for result in stored:
        if result["references_sha256"] != baselines[0]["references_sha256"]:
            raise DataError(f"{result['manifest']['system']!r} was scored on other references", file=results)

    def shown(protocol: str, mine: dict[str, Any] | None) -> str:
        everything = [*baselines, *stored, *([mine] if mine else [])]
        return html_table(everything, task, protocol, mine and mine["sha256"])

    def upload(file: str | None, protocol: str) -> tuple[str, Any, str, Any]:
        text, result = checked(file, references, task)
        if result is None:
            return text, None, shown(protocol, None), gr.DownloadButton(visible=False)
        target = Path(tempfile.mkdtemp(prefix="evqa-result-")) / "result.json"
        write_result(result, target)
        return text, result, shown(protocol, result), gr.DownloadButton(value=str(target), visible=True)

    with gr.Blocks(title=title) as app:
        gr.HTML(f"<style>{_STYLE}</style>")
        gr.Markdown(
            f"# {title}\nTask {task}, {len(list(references))} entries. Every number is computed from predictions."
        )
        mine = gr.State()
        protocol = gr.Radio(["strict", "evqa-v1"], value="strict", label="protocol")
        board = gr.HTML(shown("strict", None), elem_id="board")
        gr.Markdown("## Check your submission\nIt is scored here, shown in the table above, and not kept.")
        with gr.Row():
            file = gr.File(label="submission, one zip file", file_types=[".zip"], type="filepath")
            with gr.Column():
                button = gr.Button("Check", variant="primary")
                verdict = gr.Markdown(elem_id="verdict")
                saved = gr.DownloadButton("Save the result", visible=False)
        with gr.Accordion("How a submission is made", open=False):
            gr.Markdown(_HOW)
        protocol.change(shown, [protocol, mine], board)
        button.click(upload, [file, protocol], [verdict, mine, board, saved], concurrency_limit=1)
    return app


_HOW = (
    '```bash\nevqa submit pack runs/mine --system "My system" --out mine.zip\n'
    "evqa submit validate mine.zip --json mine.json\n```\n"
    "The second command does on your machine what this page does. A submission is a zip file with `manifest.json` and "
    "`predictions.parquet`, and nothing else. The manifest:\n\n| field | |\n|---|---|\n"
    + "\n".join(f"| `{name}` | {what} |" for name, what in MANIFEST_FIELDS.items())
)
