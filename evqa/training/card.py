"""The card of a trained model: data, settings, scores with their intervals, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from evqa.report.table import score_table
from evqa.scoring import Scores
from evqa.training.models import TINY

__all__ = ["model_card", "write_card"]

_PACKAGES = ("evqa", "torch", "transformers", "trl", "peft", "accelerate")


def model_card(
    *,
    name: str,
    base: str | None,
    mixture: Mapping[str, Any],
    settings: Mapping[str, Any],
    scores: Mapping[str, Scores],
    steps: int,
    whole: bool,
    trainable: int,
) -> str:
    """A card as Markdown.

    Args:
        name: Hub id, or the folder's name.
        base: What it was trained from.
        mixture: ``Mixture.describe()``.
        settings: What was set, JSON-ready.
        scores: Title -> scores, of one task; may be empty.
        steps: Optimiser steps.
        whole: Whether the repository holds all weights.
        trainable: Number of trained parameters.
    """
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["evqa", "unipixel", "evidence-backed-video-qa", "trl", "sft"],
    }
    if base not in (None, TINY) and base.count("/") == 1 and not Path(base).exists():
        header["base_model"] = base
    index = [_index_entry(title, result) for title, result in scores.items()]
    if index:
        header["model-index"] = [{"name": name, "results": index}]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        "A video language model that answers with its evidence: time segments in seconds and tracked object masks. "
        f"Trained with [evqa](https://github.com/evqa/evqa) for {steps} steps"
        f"{f' from `{base}`' if base else ''}; {trainable:,} parameters were trained.",
        "## Load",
        _loading(name, whole, base),
        "## Scores",
        f"```text\n{score_table(scores)}\n```" if scores else "None were measured.",
        "## Data",
        _data(mixture),
        "## Settings",
        f"```json\n{json.dumps(settings, indent=1, sort_keys=True, default=str)}\n```",
        "Versions: " + ", ".join(f"{p} {v}" for p, v in _versions().items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def write_card(folder: Path, **facts: Any) -> Path:
    """Write :func:`model_card` as ``README.md``."""
    path = Path(folder) / "README.md"
    path.write_text(model_card(**facts), "utf-8")
    return path


def _loading(name: str, whole: bool, base: str | None) -> str:
    lines = [
        "```python",
        "import evqa",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f'model = AutoModelForImageTextToText.from_pretrained("{name}")',
        f'processor = AutoProcessor.from_pretrained("{name}")',
        "```",
    ]
    if not whole:
        lines.append(f"\nThis holds what was trained; the rest comes from `{base}`, or from `base_model_path=`.")
    return "\n".join(lines)


def _data(mixture: Mapping[str, Any]) -> str:
    rows = ["| part | rows | samples an epoch | left out |", "|---|---|---|---|"]
    for part, facts in mixture["parts"].items():
        out = ", ".join(f"{count} ({reason})" for reason, count in facts["left_out"].items()) or "none"
        rows.append(f"| {part} | {facts['rows']:,} | {facts['samples']:,} | {out} |")
    templates = mixture["templates"]
    words = (
        f"Wording: {templates['name']} {templates['version']} (`{templates['sha256']}`), style `{mixture['style']}`."
    )
    return "\n".join(rows) + f"\n\n{words}"


def _index_entry(title: str, scores: Scores) -> dict[str, Any]:
    metrics = [
        {"type": name, "value": round(float(value), 2), "name": f"{name} ({scores['protocol']})"}
        for name, value in scores.metrics().items()
    ]
    return {
        "task": {"type": "video-text-to-text", "name": "Evidence-backed video question answering"},
        "dataset": {"name": title, "type": "st_evidence"},
        "metrics": metrics,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
