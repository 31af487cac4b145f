"""Adapters and corpora outside the package, named by the path of their file."""

from __future__ import annotations

import json
import pickle
import re

import pytest

import evqa
from evqa.adapters import load_adapter
from evqa.cli import main
from evqa.engine import run
from evqa.errors import AdapterError, DataError

ADAPTER = """
from evqa import Prediction
from evqa.adapters.base import Adapter

class Mine(Adapter):
    name = "mine"
    def __init__(self, model="none", letter="A"):
        self.model, self.letter = model, letter
    def settings(self):
        return {"model": self.model, "letter": self.letter}
    def predict(self, rows, task):
        return [Prediction(row["entry_id"], answer=self.letter) for row in rows]

ADAPTER = Mine
"""

CORPUS = """
import datasets
from evqa.corpora.base import CorpusBuilder, CorpusConfig
from evqa.types import features

class Mine(CorpusBuilder):
    corpus = "mine"
    BUILDER_CONFIGS = [CorpusConfig("gen")]
    def _info(self):
        return datasets.DatasetInfo(features=features("gen"))
    def annotation_files(self, root):
        return [root / "ids.txt"]
    def list_rows(self, root, files):
        return {"test": files[0].read_text().split()}
    def read_row(self, row):
        record = dict.fromkeys(self.info.features)
        return row, {**record, "entry_id": row, "video_id": "v", "answer": "SAID", "candidates": ["SAID", "no"], "segments": []}

BUILDER = Mine
"""


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(ADAPTER)
    return path


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ids.txt").write_text("a b c")
    path = tmp_path / "set.py"
    path.write_text(CORPUS)
    return path


def test_an_adapter_with_model_and_options(adapter, tmp_path):
    made = load_adapter(f"{adapter}:big", letter="B")
    assert made.settings() == {"model": "big", "letter": "B"}
    assert type(load_adapter(str(adapter))) is type(made)  # run once
    assert isinstance(pickle.loads(pickle.dumps(made)), type(made))
    result = run(made, [{"entry_id": "x", "candidates": ["p", "q"]}], tmp_path / "run", progress=False)
    assert result.log.predictions()["x"].answer == "B"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["adapter"]["letter"] == "B"


def test_an_edited_file_is_read_again(adapter):
    load_adapter(str(adapter))
    adapter.write_text(ADAPTER.replace('letter="A"', 'letter="C"'))
    assert load_adapter(str(adapter)).letter == "C"


def test_adapters_that_are_wrong(adapter, tmp_path, capsys):
    with pytest.raises(AdapterError, match=r"cannot be read .*nobody\.py"):
        load_adapter(str(tmp_path / "nobody.py"))
    with pytest.raises(AdapterError, match="unexpected keyword argument 'lettre'"):
        load_adapter(str(adapter), lettre="B")
    for text in ("", "ADAPTER = 3", "class X: ...\nADAPTER = X"):
        (tmp_path / "wrong.py").write_text(text)
        with pytest.raises(AdapterError, match=r"ADAPTER = YourClass.*wrong\.py"):
            load_adapter(str(tmp_path / "wrong.py"))
    (tmp_path / "broken.py").write_text("1 / 0")
    for _ in range(2):  # a file that failed is not taken for loaded
        with pytest.raises(ZeroDivisionError):
            load_adapter(str(tmp_path / "broken.py"))
    assert main(["run", "--model", str(tmp_path / "nobody.py"), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("evqa: the file cannot be read (No such file or directory)")


def test_a_corpus_is_made_anew_when_its_file_changes(corpus, tmp_path):
    def answers():
        return evqa.load_dataset(str(corpus), data_dir=str(tmp_path / "data"), split="test")["answer"]

    assert list(answers()) == ["SAID"] * 3
    corpus.write_text(CORPUS.replace("SAID", "yes"))
    assert list(answers()) == ["yes"] * 3


def test_a_corpus_from_the_command_line(corpus, adapter, tmp_path, capsys):
    command = ["run", "--model", str(adapter), "--data", str(corpus), "--data-dir", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert main(["score", str(tmp_path / "run"), "--protocol", "strict"]) == 0  # the run says where its data are
    assert re.search(r"accuracy +100\.0 ", capsys.readouterr().out)


def test_a_corpus_that_is_none(adapter, tmp_path):
    with pytest.raises(DataError, match=r"BUILDER = YourClass.*mine\.py"):
        evqa.load_dataset(str(adapter))
