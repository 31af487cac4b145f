"""The ``evaluate`` modules: the same numbers as evqa.scoring, in evaluate's own ways of being called."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_data import benchmark, box

import evqa
from evqa import masks
from evqa._hooks import metric_script
from evqa.errors import PredictionError
from evqa.scoring import jf, score

evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).parents[1] / "metrics"
NAMES = ["mask_jf", "qa_accuracy", "st_evidence_mcq", "st_evidence_metrics", "temporal_grounding"]


def plain(rows):
    return [{**r, "spatial_options": None} for r in rows]


def said_of(rows):
    return [
        {"entry_id": r["entry_id"], "answer": "B", "segments": [[0.2, 1.1]], "masks": r["masks"][:3], "temporal_choice": "B",
         "spatial_choice": "C"} for r in rows
    ]  # fmt: skip


def test_every_module_is_ready_to_publish():
    assert sorted(p.name for p in METRICS.iterdir() if p.is_dir() and not p.name.startswith("_")) == NAMES
    for name in NAMES:
        folder = METRICS / name
        script = folder / f"{name}.py"
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Import):
                assert len(node.names) == 1, f"{script}: evaluate reads one import per line"
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{script}: no relative imports"
        card = (folder / "README.md").read_text()
        assert card.startswith("---\n")
        assert "sdk: gradio" in card
        assert "app_file: app.py" in card
        assert "evqa" in (folder / "requirements.txt").read_text()
        assert (folder / "app.py").is_file()
        assert metric_script(f"evqa/{name}") is not None


@pytest.mark.parametrize("name", NAMES)
def test_documented_examples(name):
    spec = importlib.util.spec_from_file_location(name, METRICS / name / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    examples = doctest.DocTestParser().get_doctest(module._INPUTS, {}, name, None, 0)
    assert examples.examples
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(examples).failed == 0


@pytest.mark.parametrize("protocol", ["strict", "evqa-v1"])
@pytest.mark.parametrize("name", ["st_evidence_metrics", "st_evidence_mcq"])
def test_same_numbers_as_scoring(name, protocol):
    rows = benchmark(8)
    said = said_of(rows)
    task = "mcq" if name.endswith("mcq") else "gen"
    want = score(said, rows, protocol, task=task)
    metric = evaluate.load(f"evqa/{name}")
    got = metric.compute(predictions=said[::-1], references=plain(rows), protocol=protocol, intervals=True)
    assert {key: got[key] for key in want} == dict(want)
    assert got["intervals"] == {key: list(value) for key, value in want.intervals.items()}


def test_missing_and_extra_predictions(caplog):
    rows = benchmark(4)
    said = [said_of(rows)[0], {"entry_id": "stranger", "answer": "A"}]
    got = evaluate.load("evqa/st_evidence_metrics").compute(predictions=said, references=plain(rows))
    assert got["num_missing"] == 3
    assert "stranger" in caplog.text
    assert got["mIoU"] == score(said_of(rows)[:1], rows, task="gen")["mIoU"]


def test_nothing_is_an_answer_too():
    rows = benchmark(2)
    said = [{"entry_id": "e000", "answer": None, "segments": None, "masks": None}, {"entry_id": "e001", "answer": "B"}]
    got = evaluate.load("evqa/st_evidence_metrics").compute(predictions=said, references=plain(rows))
    assert got["accuracy"] == 50.0
    assert got["num_missing"] == 0
    with pytest.raises(PredictionError, match="two predictions"):
        evaluate.load("evqa/st_evidence_metrics").compute(predictions=said + said, references=plain(rows))


def test_adding_in_batches_and_combining():
    rows = plain(benchmark(6))
    said = said_of(rows)
    metric = evaluate.load("evqa/st_evidence_metrics")
    for start in (0, 3):
        metric.add_batch(predictions=said[start : start + 3], references=rows[start : start + 3])
    whole = evaluate.load("evqa/st_evidence_metrics").compute(predictions=said, references=rows)
    assert metric.compute() == whole
    one = evaluate.load("evqa/temporal_grounding")
    one.add(prediction=[[0, 1]], reference=[[0, 2]])
    one.add(prediction=None, reference=[[0, 2]])
    assert one.compute()["mIoU"] == 25.0
    both = evaluate.combine(["evqa/qa_accuracy", "evqa/qa_accuracy"])
    refs = [{"answer": "x", "candidates": ["x", "y"]}]
    assert set(both.compute(predictions=["A"], references=refs)) >= {"qa_accuracy_0_accuracy", "qa_accuracy_1_accuracy"}


PROCESS = """
import json, sys
import evqa, evaluate
from make_data import benchmark
from test_metric_modules import plain, said_of
rank, cache = int(sys.argv[1]), sys.argv[2]
rows = plain(benchmark(7))
mine = slice(0, 5) if rank == 0 else slice(5, 7)
metric = evaluate.load("evqa/st_evidence_metrics", num_process=2, process_id=rank, experiment_id="x", cache_dir=cache)
print(json.dumps(metric.compute(predictions=said_of(rows)[mine], references=rows[mine])))
"""


def test_several_processes_pool_their_entries(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(r), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for r in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in ranks)
    rows = plain(benchmark(7))
    assert second is None
    assert first == evaluate.load("evqa/st_evidence_metrics").compute(predictions=said_of(rows), references=rows)


def test_masks_alone():
    clip = [{"frame": t, "rle": masks.to_json(masks.encode(box(3 * t, 5)))} for t in range(3)]
    moved = [{"frame": t, "rle": masks.encode(box(3 * t + 2, 5))} for t in range(2)]
    got = evaluate.load("evqa/mask_jf").compute(predictions=[moved, clip], references=[clip, clip])
    pairs = [jf(m["rle"], c["rle"]) for m, c in zip(moved, clip, strict=False)] + [(0.0, 0.0)]
    assert got["J"] == pytest.approx(50 * (1 + sum(j for j, _ in pairs) / 3))
    assert got["F"] == pytest.approx(50 * (1 + sum(f for _, f in pairs) / 3))
    assert got["num_frames"] == 6
    with pytest.raises(Exception, match="clip 0"):
        evaluate.load("evqa/mask_jf").compute(
            predictions=[[]], references=[[{"frame": 0, "rle": {"size": [4, 4], "counts": b"9"}}]]
        )


def test_whole_dataset_as_references():
    rows = evqa.load_dataset("st_evidence", "sample", split="test")
    said = [{"entry_id": r["entry_id"], "answer": r["answer"]} for r in rows.select_columns(["entry_id", "answer"])]
    got = evaluate.load("evqa/st_evidence_metrics").compute(predictions=said, references=rows)
    assert got["accuracy"] == 100.0
    assert got["J&F"] == 0.0
