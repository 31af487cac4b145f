"""The Gradio app of a metric's Space; each ``metrics/<name>/app.py`` is two lines over this."""

from __future__ import annotations

import json
import re
from typing import Any

from evqa.errors import EvqaError, MissingDependencyError

__all__ = ["build", "compute", "example", "table"]

MOST_CHARACTERS = 4_000_000  # of a text that a visitor pastes

_SEGMENTS: tuple[Any, Any] = ([[[0, 5]], [[2, 4], [6, 8]]], [[[0, 10]], [[2, 4]]])
_ABOUT = {
    "mask_jf": "Region similarity J and boundary accuracy F of masks over the frames of clips, from COCO RLE.",
    "qa_accuracy": "Whether answers name the right option, read as a person would read them.",
    "st_evidence_mcq": "Three choices an entry: the answer, one of four time spans, one of four regions.",
    "st_evidence_metrics": "The answer, its time segments and its masks, and all of them together.",
    "temporal_grounding": "IoU and IoP of time segments, with overlapping ones merged.",
}


def example(name: str) -> tuple[Any, Any]:
    """Predictions and references that the app opens with: the first entries of the sample, slightly wrong."""
    if name == "qa_accuracy":
        return ["(b)", "a dog"], [{"answer": "a cat", "candidates": ["a dog", "a cat"]}] * 2
    if name == "temporal_grounding":
        return _SEGMENTS
    import evqa
    from evqa.masks import to_json

    rows = evqa.load_dataset("st_evidence", "sample", split="test[:2]").remove_columns(["video", "spatial_options"])
    clips = [[{"frame": m["frame"], "rle": to_json(m["rle"])} for m in row["masks"][:3]] for row in rows]
    if name == "mask_jf":
        return [clips[0][:2], clips[1]], clips
    said, right = [], []
    for row, clip in zip(rows, clips, strict=True):
        truth = {key: row[key] for key in ("entry_id", "video_id", "candidates", "answer")}
        start, end = row["segments"][0]
        if name == "st_evidence_mcq":
            right.append({**truth, "temporal_answer": row["temporal_answer"], "spatial_answer": row["spatial_answer"]})
            said.append(
                {"entry_id": row["entry_id"], "answer": row["answer"], "temporal_choice": "A", "spatial_choice": "B"}
            )
        else:
            right.append({**truth, "segments": row["segments"], "masks": clip})
            said.append(
                {
                    "entry_id": row["entry_id"],
                    "answer": row["answer"],
                    "segments": [[start, end + 1]],
                    "masks": clip[:2],
                }
            )
    return said, right


def compute(name: str, predictions: str, references: str, protocol: str) -> dict[str, Any]:
    """Run a metric on two JSON texts.

    Returns:
        The scores, or ``{"error": ...}``: what a visitor typed may be anything.
    """
    import evaluate

    import evqa  # noqa: F401  (makes our names known to evaluate)

    inputs = {}
    for label, text in (("predictions", predictions), ("references", references)):
        if len(text or "") > MOST_CHARACTERS:
            return {"error": f"{label} has more than {MOST_CHARACTERS:,} characters; evaluate it on your own machine"}
        try:
            inputs[label] = json.loads(text or "")
        except (ValueError, RecursionError) as error:
            return {"error": f"{label} is not JSON: {error}"}
        if not isinstance(inputs[label], list):
            return {"error": f"{label} must be a JSON list"}
    try:
        return evaluate.load(f"evqa/{name}").compute(**inputs, protocol=protocol)
    except (EvqaError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def table(scores: dict[str, Any]) -> str:
    """Scores as a Markdown table, or the error as a paragraph."""
    if "error" in scores:
        # In a code block: what a visitor typed may be in the message.
        return "**Not computed.**\n\n```text\n" + str(scores["error"]).replace("```", "'''")[:2000] + "\n```"
    lines = ["| metric | value |", "|---|---:|"]
    for name, value in scores.items():
        shown = f"{value:.1f}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """JSON with short lists on one line."""
    text = json.dumps(value, indent=1)
    return re.sub(r"\[\s+([^\[\]{}]{0,80}?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m.group(1)) + "]", text)


def build(name: str) -> Any:
    """The app of the metric ``evqa/<name>``, a ``gradio.Blocks``."""
    try:
        import gradio as gr
    except ImportError:
        raise MissingDependencyError("the app of a metric needs gradio: pip install gradio") from None

    def computed(predictions: str, references: str, protocol: str) -> tuple[str, dict[str, Any]]:
        scores = compute(name, predictions, references, protocol)
        return table(scores), scores

    predictions, references = map(_text, example(name))
    with gr.Blocks(title=f"evqa/{name}") as app:
        gr.Markdown(
            f"# evqa/{name}\n{_ABOUT[name]} The two boxes hold an example; put your own JSON in their place.\n\n"
            f'The same in Python: `import evqa, evaluate; evaluate.load("evqa/{name}").compute(...)`.'
        )
        with gr.Row():
            said = gr.Code(predictions, language="json", label="predictions", lines=16, max_lines=20)
            right = gr.Code(references, language="json", label="references", lines=16, max_lines=20)
        with gr.Row():
            protocol = gr.Radio(["strict", "evqa-v1"], value="strict", label="protocol", scale=3)
            button = gr.Button("Compute", variant="primary", scale=1)
        scores = gr.Markdown(elem_id="scores")
        with gr.Accordion("As JSON", open=False):
            raw = gr.JSON(label="scores")
        button.click(computed, [said, right, protocol], [scores, raw])
    return app
