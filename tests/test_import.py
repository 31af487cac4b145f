"""``import evqa``: cheap, and it teaches datasets and evaluate our names, from any folder and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "evaluate",
    "datasets",
    "numpy",
    "pandas",
    "pyarrow",
    "huggingface_hub",
    "av",
    "decord",
    "PIL",
)


def python(code, cwd, **environment):
    # A fresh interpreter in an empty folder, the way a user starts; -P would hide an accidental import from the cwd.
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_pulls_in_nothing_heavy(tmp_path):
    loaded = python(f"import sys, evqa; print([m for m in {HEAVY!r} if m in sys.modules])", tmp_path)
    assert loaded.strip() == "[]"


def test_names_are_there_without_being_imported(tmp_path):
    code = """
import evqa, sys
assert "load_dataset" in dir(evqa) and "scoring" in dir(evqa)
assert "evqa.scoring" not in sys.modules
assert evqa.scoring.temporal([[0, 1]], [[0, 2]])["iou"] == 0.5
assert evqa.Prediction("x").status == "ok"
assert "datasets" not in sys.modules and "evaluate" not in sys.modules
try:
    evqa.nonsense
except AttributeError as error:
    print(error)
"""
    assert "has no attribute 'nonsense'" in python(code, tmp_path)


@pytest.mark.parametrize("order", ["import evqa, datasets, evaluate", "import datasets, evaluate, evqa"])
def test_hooks_in_either_order_of_import(tmp_path, order):
    code = f"""
{order}
import json
from datasets import load_dataset, get_dataset_config_names, get_dataset_split_names
rows = load_dataset("evqa/st_evidence", "sample")["test"]
import evqa
same = evqa.load_dataset("evqa/st_evidence", "sample", split="test")
metric = evaluate.load("evqa/temporal_grounding")
print(json.dumps({{
    "rows": len(rows), "same": rows.fingerprint if hasattr(rows, "fingerprint") else len(same),
    "configs": get_dataset_config_names("evqa/st_evidence"),
    "splits": get_dataset_split_names("evqa/st_evidence", "sample"),
    "score": metric.compute(predictions=[[[0, 1]]], references=[[[0, 2]]])["mIoU"],
}}))
"""
    got = json.loads(python(code, tmp_path).strip().splitlines()[-1])
    assert got["configs"] == ["gen", "mcq", "instruct_mask", "instruct_qa", "sample"]
    assert got["splits"] == ["test"]
    assert got["score"] == 50.0
    assert got["rows"] >= 24


def test_other_names_go_on_as_before(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("a,b\n1,2\n")
    code = """
import evqa
from datasets import load_dataset
print(load_dataset("mine", split="train")[0])
for name in ("evqa/no_such_corpus", "someone/else"):
    try:
        load_dataset(name)
    except Exception as error:
        print(type(error).__name__)
"""
    out = python(code, tmp_path).splitlines()
    assert out[0] == "{'a': 1, 'b': 2}"
    assert all("NotFound" in line or "Connection" in line or "Offline" in line for line in out[1:]), out


def test_hooking_twice_changes_nothing(tmp_path):
    code = """
import evqa, datasets.load
from evqa import _hooks
first = datasets.load.dataset_module_factory
_hooks.install(); _hooks.install()
import sys
assert datasets.load.dataset_module_factory is first
assert sum(type(f).__name__ == "_Finder" for f in sys.meta_path) == 1
import inspect; assert "def load_dataset" in inspect.getsource(datasets.load)
"""
    python(code, tmp_path)


def test_rows_cross_process_boundaries(tmp_path):
    """Builders must pickle for num_proc, and rows for data loaders that spawn."""
    code = """
import multiprocessing, pickle
def first(rows):
    return rows[0]["entry_id"]
if __name__ == "__main__":
    import evqa
    rows = evqa.load_dataset("st_evidence", "sample", split="test", num_proc=2)
    assert len(pickle.loads(pickle.dumps(rows))) == len(rows)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(first, (rows,)))
"""
    (tmp_path / "m.py").write_text(code)
    done = subprocess.run([sys.executable, "m.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_errors_keep_entry_and_file_when_pickled():
    import pickle

    from evqa import errors

    for error in (
        errors.DataError("bad", entry="e", file="f"),
        errors.TransientError("busy", retry_after=3.0, entry="e"),
        errors.ManifestMismatchError("other", differences={"a": (1, 2)}, file="f"),
        errors.MissingDependencyError("none"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__
    assert str(errors.DataError("bad", entry="e", file="f")) == "bad [entry 'e', file f]"
