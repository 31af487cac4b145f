"""The Gradio apps, started and driven in a browser; they skip where gradio is not installed."""

from __future__ import annotations

import contextlib
import html
import os
import re
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browsing import browser, expect, needs_browser, watched
from make_data import benchmark
from test_hub import hub, python

import evqa
from evqa.engine import describe_data
from evqa.evaluation_app import compute, example, table
from evqa.leaderboard import pack
from evqa.leaderboard.app import checked, html_table, stored_results
from evqa.leaderboard.checking import result_of, write_result
from evqa.types import Prediction

__all__ = ["browser", "hub"]  # fixtures

ROOT = Path(__file__).parents[1]
METRICS = sorted(path.parent.name for path in ROOT.glob("metrics/*/app.py"))


# ------------------------------------------------------------------------------- without a browser
@pytest.mark.parametrize("name", METRICS)
def test_example_of_a_metric_has_numbers(name):
    import json

    scores = compute(name, *map(json.dumps, example(name)), "strict")
    assert "error" not in scores
    assert "| metric | value |" in table(scores)


@pytest.mark.parametrize(("said", "right", "message"), [
    ("", "[]", "predictions is not JSON"), ("{}", "[]", "predictions must be a JSON list"), ("[" * 100_000, "[]", "not JSON"),
    ('[{"entry_id": 1}]', '[{"entry_id": "a"}]', "Error"), ("[1]", "[2]", "Error"), ("[]", "x" * 4_000_001, "more than 4,000,000 characters"),
    ('[{"entry_id": "a", "masks": [{"frame": 0, "rle": {"size": [9, 9], "counts": "```<b>"}}]}]', '[{"entry_id": "a"}]', ""),
])  # fmt: skip
def test_what_a_visitor_types_is_answered(said, right, message):
    answer = compute("st_evidence_metrics", said, right, "strict")
    if message:
        assert message in answer["error"]
    assert isinstance(table(answer), str)


def test_error_cannot_leave_its_code_block():
    assert table({"error": "```\n# x <script>"}).count("```") == 2


def result(rows, name, **about):
    manifest = {
        "format": 1, "system": name, "task": "gen",
        "benchmark": {"name": "x", "config": "gen", "split": "test", **describe_data(rows)}, **about,
    }  # fmt: skip
    said = {r["entry_id"]: Prediction(r["entry_id"], answer=r["answer"], segments=r["segments"]) for r in rows}
    return result_of(manifest, said, rows, bootstrap=10)[0]


def test_table_escapes_what_a_submission_says(tmp_path):
    rows = benchmark(3)
    one = result(rows, "<script>x</script>", authors="<img src=x onerror=y>")
    text = html_table([one], "gen", "strict", one["sha256"])
    assert "<script" not in text
    assert "<img" not in text
    assert html.escape("<script>x</script>") in text
    assert 'class="yours"' in text
    write_result(one, tmp_path / "a.json")
    assert stored_results(tmp_path, "gen") == [one]
    assert stored_results(tmp_path, "mcq") == []


def test_upload_is_refused_in_words(tmp_path):
    rows = benchmark(2)
    (tmp_path / "x.zip").write_bytes(b"```<b>junk")
    text, accepted = checked(tmp_path / "x.zip", rows, "gen")
    assert accepted is None
    assert text.startswith("**Refused.**")
    assert "not a zip file" in text
    assert checked(None, rows, "gen") == ("Choose a file first.", None)


# ------------------------------------------------------------------------------------- for real
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Starts an app as a Space would: its app.py in a process of its own; returns its address."""
    pytest.importorskip("gradio")
    processes = []

    def run(app, **settings):
        port = free_port()
        environment = {
            **os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1",
            "GRADIO_TEMP_DIR": str(tmp_path / "gradio"), **settings,
        }  # fmt: skip
        log = open(tmp_path / f"{port}.log", "w+")  # noqa: SIM115
        process = subprocess.Popen([sys.executable, str(app)], env=environment, stdout=log, stderr=log, cwd=tmp_path)
        processes.append(process)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return f"http://127.0.0.1:{port}"
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.2)
        raise AssertionError(Path(log.name).read_text())

    yield run
    for process in processes:
        process.terminate()
        process.wait(30)


@pytest.fixture
def served():
    """Serves the app of an app.py from this process: gradio is imported once for all of them."""
    pytest.importorskip("gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    apps = []

    def run(app):
        blocks = runpy.run_path(str(app))["app"]
        apps.append(blocks)
        _, address, _ = blocks.launch(prevent_thread_lock=True, server_port=free_port(), quiet=True)
        return address

    yield run
    for blocks in apps:
        blocks.close()


def visited(browser, address):
    page = watched(browser, foreign=True)
    page.goto(address)
    return page


def numbers(page):
    cells = page.locator("#scores tbody tr").all_inner_texts()
    return {name.strip(): value.strip() for name, value in (re.split(r"\t+", cell) for cell in cells)}


@needs_browser
@pytest.mark.parametrize("name", METRICS)
def test_metric_space_computes_its_example(browser, served, name):
    import evaluate

    page = visited(browser, served(ROOT / "metrics" / name / "app.py"))
    expect(page.get_by_role("heading", name=f"evqa/{name}")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Compute").click()
    expect(page.locator("#scores tbody tr").first).to_be_visible(timeout=60_000)
    said, right = example(name)
    want = evaluate.load(f"evqa/{name}").compute(predictions=said, references=right)
    assert numbers(page) == {key: f"{v:.1f}" if isinstance(v, float) else str(v) for key, v in want.items()}
    assert page.problems == []
    page.close()


def upload(page, file):
    """Choose a file; again while the page takes no notice, for it is drawn before it listens."""
    shown = page.get_by_text(file.name)
    for _ in range(8):
        page.locator("input[type=file]").set_input_files(file)
        with contextlib.suppress(AssertionError):
            expect(shown).to_be_visible(timeout=8_000)
            return
    expect(shown).to_be_visible()


@needs_browser
def test_leaderboard_space_checks_an_upload(browser, start, tmp_path):
    rows = evqa.load_dataset("st_evidence", "sample", split="test[:4]").remove_columns(["video", "spatial_options"])
    benchmark_name = {"name": "evqa/st_evidence", "config": "sample", "split": "test[:4]", **describe_data(rows)}
    said = {
        r["entry_id"]: Prediction(r["entry_id"], answer=r["answer"], segments=r["segments"], masks=r["masks"])
        for r in rows
    }
    pack(said, tmp_path / "mine.zip", system="Mine <b>", task="gen", benchmark=benchmark_name)
    (tmp_path / "junk.zip").write_bytes(b"PK junk")
    page = visited(browser, start(ROOT / "recipes" / "spaces" / "leaderboard" / "app.py", EVQA_SPLIT="test[:4]"))
    board, verdict = page.locator("#board"), page.locator("#verdict")
    expect(board.get_by_role("row").filter(has_text="oracle")).to_be_visible(timeout=60_000)
    upload(page, tmp_path / "junk.zip")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(verdict).to_contain_text("Refused.", timeout=60_000)
    expect(verdict).to_contain_text("not a zip file")
    page.get_by_role("button", name="Clear").or_(page.get_by_label("Remove this file")).or_(
        page.get_by_label("Clear")
    ).first.click()
    upload(page, tmp_path / "mine.zip")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(verdict).to_contain_text("Accepted.", timeout=60_000)
    expect(board.get_by_role("row").filter(has_text="Mine <b>")).to_contain_text("100.0")
    with page.expect_download() as saved:
        page.get_by_text("Save the result").click()
    assert saved.value.suggested_filename == "result.json"
    page.get_by_label("evqa-v1").check()
    expect(board).to_contain_text("ordered by J&F")
    assert page.problems == []
    page.close()


def test_spaces_go_to_the_hub_and_come_back(hub, tmp_path):
    script = str(ROOT / "recipes" / "spaces" / "publish.py")
    for folder in (ROOT / "metrics" / "qa_accuracy", ROOT / "recipes" / "spaces" / "leaderboard"):
        command = [sys.executable, script, str(folder), "--repo", f"someone/{folder.name}"]
        done = subprocess.run(command, env=hub, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        code = f"from huggingface_hub import snapshot_download as d; print(d('someone/{folder.name}', repo_type='space', local_dir={folder.name!r}))"
        python(code, hub, tmp_path)
        for name in ("app.py", "README.md", "requirements.txt"):
            assert (tmp_path / folder.name / name).read_bytes() == (folder / name).read_bytes()


@needs_browser
def test_space_from_the_hub_runs(browser, hub, start, tmp_path):
    folder = ROOT / "metrics" / "temporal_grounding"
    script = str(ROOT / "recipes" / "spaces" / "publish.py")
    subprocess.run(
        [sys.executable, script, str(folder), "--repo", "someone/tg"], env=hub, cwd=tmp_path, check=True, timeout=120
    )
    python(
        "from huggingface_hub import snapshot_download as d; d('someone/tg', repo_type='space', local_dir='tg')",
        hub,
        tmp_path,
    )
    page = visited(browser, start(tmp_path / "tg" / "app.py"))
    page.get_by_role("button", name="Compute").click(timeout=60_000)
    expect(page.locator("#scores")).to_contain_text("mIoU", timeout=60_000)
    page.close()
