"""Publishing: the corpora's terms, shards that survive a kill, cards, and reload without evqa."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_data import write_json, write_many, write_mevis
from test_corpora_clips import write_groundmore
from test_corpora_conversation import IMAGE, record, write_llava

import evqa
from evqa.corpora.base import CORPORA, builder_class
from evqa.corpora.cards import COLUMNS, fill
from evqa.corpora.publishing import main, publish, what_may_be_published
from evqa.corpora.reading import PublishedFrames, read_frames
from evqa.errors import DataError
from evqa.types import features

ROOT = Path(__file__).parents[1]
CARD = ROOT / "dataset_scripts" / "mevis" / "README.md"


pytestmark = pytest.mark.usefixtures("own_cache")


def published(folder, config="default", split="train"):
    """Rows as plain ``datasets`` reads them."""
    from datasets import Dataset

    return Dataset.from_parquet(sorted(map(str, (folder / config).glob(f"{split}-*.parquet"))))


def shards(folder, config="default"):
    return json.loads((folder / config / "manifest.json").read_text())["splits"]["train"]["shards"]


def test_every_corpus_has_a_card_and_a_script():
    for name in CORPORA:
        if CORPORA[name].startswith("evqa."):
            card = (ROOT / "dataset_scripts" / name / "README.md").read_text()
            assert card.startswith("---\npretty_name: ")
            assert "license: " in card
            assert "## Columns" in card
            kind = builder_class(name).record
            if kind is not None:
                assert f"<!-- columns: {kind} -->" in card
                assert all(f"## {part}" in card for part in ("Splits", "Licence", "Known quirks", "Citation"))
                assert "<!--" not in fill(card)
                assert f"| `{next(iter(COLUMNS[kind]))}` |" in fill(card)
            script = ROOT / "dataset_scripts" / name / "publish.py"
            compile(script.read_text(), str(script), "exec")
            assert f'main("{name}"' in script.read_text()


def test_the_table_of_columns_is_the_columns():
    for kind, columns in COLUMNS.items():
        assert list(columns) == list(features(kind))


def test_terms():
    for name, config, media in [
        ("st_evidence", "sample", True), ("st_evidence", "gen", False), ("mevis", "default", False),
        ("revos", "default", False), ("lv_vis", "default", False), ("ref_youtube_vos", "default", False),
        ("vicas", "default", False), ("videogpt_plus", "default", False),
    ]:  # fmt: skip
        assert what_may_be_published(builder_class(name), config, None) is media
        assert what_may_be_published(builder_class(name), config, "they wrote so")
    for name in ("ref_davis17", "ref_sav", "groundmore", "llava_instruct", "llava_videogpt_plus"):
        for permission in (None, "", "  "):
            with pytest.raises(DataError, match=f"{name} may not be passed on .* If you have their word, say so"):
                what_may_be_published(builder_class(name), "default", permission)
        assert what_may_be_published(builder_class(name), "default", "they wrote so")


def test_rows_without_media(tmp_path):
    write_mevis(tmp_path)
    said = []
    publish("mevis", None, card=CARD, work=tmp_path / "out", data_dir=str(tmp_path), say=said.append)
    assert any("without frames, clips and images" in line for line in said)
    assert not (tmp_path / "out" / "frames").exists()
    rows = published(tmp_path / "out")
    assert rows.features == features("segmentation")
    ours = evqa.load_dataset("mevis", data_dir=str(tmp_path), split="train")
    for one, other in zip(rows, ours, strict=True):
        assert one["frames"].pop("folder") == f"mevis/train/JPEGImages/{one['video_id']}"
        other["frames"].pop("folder")
        assert one == other
    assert read_frames(rows[0], [1], root=tmp_path).shape[0] == 1
    assert published(tmp_path / "out", split="valid")[0]["objects"] is None
    manifest = json.loads((tmp_path / "out" / "default" / "manifest.json").read_text())
    assert (manifest["media"], manifest["licence"], manifest["permission"]) == (False, "CC BY-NC-SA 4.0", None)
    assert {split: listed["rows"] for split, listed in manifest["splits"].items()} == {
        "train": 3, "valid_u": 3, "valid": 3,
    }  # fmt: skip


def test_with_permission_the_frames_of_a_video_are_there_once(tmp_path):
    write_groundmore(tmp_path)
    card = ROOT / "dataset_scripts" / "groundmore" / "README.md"
    options = {"card": card, "work": tmp_path / "out", "data_dir": str(tmp_path), "say": lambda _: None}
    with pytest.raises(DataError, match="groundmore may not be passed on"):
        publish("groundmore", None, **options)
    assert not (tmp_path / "out").exists()
    publish("groundmore", None, permission="Ms Example, by letter", **options)
    (video,) = frames = published(tmp_path / "out", "frames")
    assert frames.features == features("frames")
    assert len(video["names"]) == len(video["images"]) == 12
    (row,) = published(tmp_path / "out")
    assert row["frames"]["folder"] == f"groundmore/annotations/{row['video_id']}/images"
    ours = evqa.load_dataset("groundmore", data_dir=str(tmp_path), split="train")[0]
    assert (read_frames(row, [3, 7], published=PublishedFrames(frames)) == read_frames(ours, [3, 7])).all()
    manifest = json.loads((tmp_path / "out" / "frames" / "manifest.json").read_text())
    assert manifest["permission"] == "Ms Example, by letter"
    options["work"] = tmp_path / "rows"
    publish("groundmore", None, permission="Ms Example, for the questions alone", rows_only=True, **options)
    assert not (tmp_path / "rows" / "frames").exists()


def test_images_go_into_the_rows_of_a_conversation(tmp_path):
    write_llava(tmp_path, record(image=IMAGE), record("text"))
    card = ROOT / "dataset_scripts" / "llava_instruct" / "README.md"
    options = {"card": card, "data_dir": str(tmp_path), "say": lambda _: None}
    publish("llava_instruct", None, permission="all of them", work=tmp_path / "with", **options)
    with_image, text = published(tmp_path / "with")
    assert with_image["images"][0]["bytes"] == (tmp_path / IMAGE).read_bytes()
    assert (text["images"], with_image["image_names"]) == ([], [IMAGE])


def test_rows_that_cannot_be_read_stop_it_or_are_counted(tmp_path):
    write_many(tmp_path, 10)
    write_json(tmp_path / "mevis" / "train" / "mask_dict.json", {str(number): [None] * number for number in range(5)})
    options = {"card": CARD, "work": tmp_path / "out", "data_dir": str(tmp_path), "accept_problems": True}
    with pytest.raises(DataError, match="0 masks under '0' for a video of 1 frames"):
        publish("mevis", None, say=lambda _: None, **options)
    said = []
    publish("mevis", None, say=said.append, on_error="skip", **options)
    assert "8 rows could not be read and are left out" in said
    assert json.loads((tmp_path / "out" / "default" / "manifest.json").read_text())["left_out"] == 8


def test_rows_that_are_wrong_are_not_published_unawares(tmp_path):
    write_many(tmp_path, 3)
    write_json(tmp_path / "mevis" / "train" / "mask_dict.json", {str(number): [None] for number in range(5)})
    options = {"card": CARD, "work": tmp_path / "out", "data_dir": str(tmp_path)}
    said = []
    with pytest.raises(DataError, match="3 things are readable but wrong"):
        publish("mevis", None, say=said.append, **options)
    assert "train aa/0: object '0' is in no frame" in said
    publish("mevis", None, say=said.append, accept_problems=True, **options)
    assert json.loads((tmp_path / "out" / "default" / "manifest.json").read_text())["problems"] == 3


def test_the_script_says_why_it_refuses(tmp_path, monkeypatch, capsys):
    write_groundmore(tmp_path)
    monkeypatch.setattr(sys, "argv", ["publish.py", "--data-dir", str(tmp_path), "--work", str(tmp_path / "out")])
    assert main("groundmore", CARD, "text") == 2
    assert "evqa: groundmore may not be passed on (not stated)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- kills
PUBLISH = """
import sys, time
from pathlib import Path
import datasets
from evqa.corpora import shards
from evqa.corpora.publishing import publish

data, out, stop = sys.argv[1:4]
datasets.config.HF_DATASETS_CACHE = data + "/cache"
written = 0
original = shards._write

def write(path, tables, schema):
    def slowly():
        for table in tables:
            yield table
            if stop == "inside" and path.name == "train-00001.parquet":
                print("inside", flush=True)
                time.sleep(600)
    return original(path, slowly(), schema)

shards._write = write

def say(line):
    print(line, flush=True)
    if stop == "between" and "train-00000.parquet" in line:
        time.sleep(600)

publish("mevis", None, card=Path("card"), work=Path(out), data_dir=data, max_shard_size="1KB", say=say)
"""


@pytest.mark.parametrize("stop", ["between", "inside"])
def test_a_kill_costs_one_shard(tmp_path, stop):
    write_many(tmp_path)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
    options = {"cwd": tmp_path, "env": environment, "text": True}
    in_one_go = {"work": tmp_path / "whole", "data_dir": str(tmp_path), "max_shard_size": "1KB"}
    publish("mevis", None, card=CARD, say=lambda _: None, **in_one_go)
    with subprocess.Popen([*command, str(tmp_path / "out"), stop], stdout=subprocess.PIPE, **options) as process:
        wanted = "train-00000.parquet" if stop == "between" else "inside"
        for line in process.stdout:
            if wanted in line and (stop == "between" or line.strip() == "inside"):
                break
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out" / "default" / "manifest.json").exists()
    first = (tmp_path / "out" / "default" / "train-00000.parquet").stat()
    again = subprocess.run([*command, str(tmp_path / "out"), ""], capture_output=True, timeout=120, **options)
    assert again.returncode == 0, again.stderr
    assert "1 shards are there already" in again.stdout
    assert (tmp_path / "out" / "default" / "train-00000.parquet").stat().st_mtime_ns == first.st_mtime_ns
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert [one["rows"] for one in shards(tmp_path / "out")] == [64, 64, 22]
    assert published(tmp_path / "out")["entry_id"][:] == [f"aa/{number}" for number in range(150)]
    assert not list((tmp_path / "out").rglob("*.incomplete"))


def test_what_a_work_folder_may_hold(tmp_path):
    write_many(tmp_path)
    options = {"card": CARD, "work": tmp_path / "out", "data_dir": str(tmp_path), "max_shard_size": "1KB"}
    quiet = {"say": lambda _: None}
    publish("mevis", None, **options, **quiet)
    before = shards(tmp_path / "out")
    home = tmp_path / "out" / "default"
    # A shard that was damaged, and the half line of a process that was killed.
    (home / "train-00001.parquet").write_bytes(b"x" * before[1]["bytes"])
    with open(home / "shards.jsonl", "a") as journal:
        journal.write('{"split": "train", "fi')
    said = []
    publish("mevis", None, **options, say=said.append)
    assert any("1 shards are there already" in line for line in said)  # nothing behind a gap is of use
    assert shards(tmp_path / "out") == before
    said.clear()
    publish("mevis", None, **options, say=said.append)
    assert any("3 shards are there already" in line for line in said)
    with pytest.raises(DataError, match="other data, of other settings or of another version"):
        publish("mevis", None, **{**options, "max_shard_size": "2KB"}, **quiet)
    write_many(tmp_path, 151)
    with pytest.raises(DataError, match="other data"):
        publish("mevis", None, **options, **quiet)
    (home / "shards.jsonl").unlink()
    with pytest.raises(DataError, match="which no journal speaks of"):
        publish("mevis", None, **options, **quiet)
