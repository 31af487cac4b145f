"""Download, publish, load again: against a stand-in for the Hub on the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_data import write_many
from make_data import ROWS, write_gen

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub(shared, tmp_path):
    """Environment of a process that takes the stand-in for the Hub."""
    server = shared / "tools" / "minihub.py"
    if not server.exists():
        pytest.skip("no stand-in for the Hub")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(server), str(port), str(tmp_path / "hub")], cwd=tmp_path)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.endswith("OFFLINE")},
        "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test",
        "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield environment
    process.kill()
    process.wait()


def python(code, environment, cwd):
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_release_is_downloaded_and_rows_are_published(hub, tmp_path):
    write_gen(tmp_path / "release")
    upload = f"""
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("Salesforce/ST-Evidence-Bench", repo_type="dataset")
api.upload_folder(repo_id="Salesforce/ST-Evidence-Bench", repo_type="dataset", folder_path={str(tmp_path / "release")!r})
"""
    python(upload, hub, tmp_path)
    load = """
import evqa
rows = evqa.load_dataset("evqa/st_evidence", "gen", split="test", probe=False)
print(len(rows), len(rows[0]["masks"]))
from datasets import load_dataset
print(load_dataset("evqa/st_evidence", "gen", split="test", probe=False)[2]["entry_id"])
"""
    assert python(load, hub, tmp_path).split() == ["3", "12", "clip2_0"]
    offline = {**hub, "HF_HUB_OFFLINE": "1"}
    assert python(load, offline, tmp_path).split()[:1] == ["3"]  # what was downloaded serves without a network

    script = str(ROOT / "dataset_scripts" / "st_evidence" / "publish.py")
    command = [sys.executable, script, "--repo", "someone/st_evidence", "--config"]
    for config in ("sample", "gen"):
        more = ["--data-dir", str(tmp_path / "release")] if config == "gen" else []
        done = subprocess.run(
            [*command, config, *more], env=hub, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    without_evqa = """
import sys
from datasets import load_dataset
rows = load_dataset("someone/st_evidence", "sample", split="test")
assert "evqa" not in sys.modules
assert len(rows[0]["video"]["bytes"]) > 1000
print(len(rows), rows[0]["spatial_options"][0].size, rows.features["masks"].feature["rle"]["counts"].dtype)
print(load_dataset("someone/st_evidence", "gen", split="test")["entry_id"])
"""
    out = python(without_evqa, hub, tmp_path)
    assert "48 (256, 144) binary" in out
    assert str([row[0] for row in ROWS]) in out
    card = python(
        'from huggingface_hub import hf_hub_download as d; print(open(d("someone/st_evidence", "README.md", repo_type="dataset")).read())',
        hub,
        tmp_path,
    )
    assert "pretty_name: ST-Evidence" in card
    assert "config_name: sample" in card
    assert "config_name: gen" in card


def test_a_corpus_is_published_and_loaded_without_evqa(hub, tmp_path):
    """Twice: what is there is not sent again, and what no longer belongs to the config is removed."""
    script = str(ROOT / "dataset_scripts" / "mevis" / "publish.py")

    def run(*more):
        command = [sys.executable, script, "--repo", "evqa/mevis", "--data-dir", str(tmp_path / "data"), *more]
        return subprocess.run(command, env=hub, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    write_many(tmp_path / "data")
    done = run("--max-shard-size", "1KB", "--permission", "the authors, in a test")
    assert done.returncode == 0, done.stderr
    assert "default/train-00002.parquet, 22 rows" in done.stdout
    done = run("--max-shard-size", "1KB", "--permission", "the authors, in a test")
    assert done.stdout.count("is there already") == 4  # three shards of rows, one of frames
    load = """
import io, json, sys
from datasets import get_dataset_config_names, load_dataset
rows = load_dataset("evqa/mevis", split="train", download_mode="force_redownload")
frames = load_dataset("evqa/mevis", "frames", split="train")
assert "evqa" not in sys.modules
from PIL import Image
from pycocotools import mask
print(len(rows), rows[7]["expression"], mask.area(rows[7]["objects"][0]["masks"][0]["rle"]))
print(Image.open(io.BytesIO(frames[0]["images"][0]["bytes"])).size, frames[0]["names"])
print(rows.features["objects"].feature["masks"].feature["rle"]["counts"].dtype)
"""
    assert python(load, hub, tmp_path).splitlines() == ["150 cat 7 15", "(20, 12) ['00000.jpg']", "binary"]
    card = """
import evqa
from datasets import load_dataset
print(load_dataset("evqa/mevis", split="train")[149]["expression"])  # evqa does not hide what is published
from huggingface_hub import HfApi, hf_hub_download
print(open(hf_hub_download("evqa/mevis", "README.md", repo_type="dataset")).read())
print(HfApi().list_repo_files("evqa/mevis", repo_type="dataset"))
"""
    text = python(card, hub, tmp_path)
    assert text.startswith("cat 149")
    assert "license: cc-by-nc-sa-4.0" in text
    assert all(f"config_name: {config}" in text for config in ("default", "frames"))
    assert "| `entry_id` | `video_id/expression_id`" in text
    assert "default/train-00002.parquet" in text
    done = run("--work", "anew", "--permission", "the authors, in a test")
    assert done.returncode == 0, done.stderr
    assert "default/train-00001.parquet" not in python(card, hub, tmp_path)


def test_no_network_is_said_in_a_sentence(tmp_path):
    code = """
import evqa
try:
    evqa.load_dataset("evqa/st_evidence", "gen")
except evqa.errors.MissingDataError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = python(code, environment, tmp_path)
    assert "Salesforce/ST-Evidence-Bench could not be downloaded" in out
    assert "pass data_dir=" in out
