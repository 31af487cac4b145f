"""The Gradio app of a metric's Space; each ``metrics/<name>/app.py`` is two lines over this."""

from __future__ import annotations

import json
from typing import Any

from evqa.errors import MissingDependencyError

__all__ = ["build", "compute", "example"]

_SEGMENTS: tuple[Any, Any] = ([[[0, 5]], [[2, 4], [6, 8]]], [[[0, 10]], [[2, 4]]])


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

    try:
        inputs = {"predictions": json.loads(predictions), "references": json.loads(references)}
        if not all(isinstance(value, list) for value in inputs.values()):
            return {"error": "predictions and references are JSON lists"}
        return evaluate.load(f"evqa/{name}").compute(**inputs, protocol=protocol)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def build(name: str) -> Any:
    """The app of the metric ``evqa/<name>``, a ``gradio.Blocks``."""
    try:
        import gradio as gr
    except ImportError:
        raise MissingDependencyError("the app of a metric needs gradio: pip install gradio") from None
    predictions, references = (json.dumps(value, indent=1) for value in example(name))
    with gr.Blocks(title=f"evqa/{name}") as app:
        gr.Markdown(f"# evqa/{name}\nPaste JSON, choose a protocol, compute.")
        with gr.Row():
            said = gr.Code(predictions, language="json", label="predictions", lines=16, max_lines=24)
            right = gr.Code(references, language="json", label="references", lines=16, max_lines=24)
        protocol = gr.Radio(["strict", "evqa-v1"], value="strict", label="protocol")
        button = gr.Button("Compute", variant="primary")
        scores = gr.JSON(label="scores")
        button.click(lambda *values: compute(name, *values), [said, right, protocol], scores)
    return app
