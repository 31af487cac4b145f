"""The command line, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from make_data import ROWS, write_gen, write_mcq

from evqa.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(tmp_path):
    write_gen(tmp_path / "data")
    write_mcq(tmp_path / "data")
    return tmp_path / "data"


def evqa(*arguments):
    return main([str(argument) for argument in arguments])


def run(data, out, model="chance", *more):
    return evqa("run", "--model", model, "--data", data, "--out", out, *more)


def test_main_job(data, tmp_path, capsys):
    assert run(data, tmp_path / "chance") == 0
    assert run(data, tmp_path / "oracle", "oracle") == 0
    capsys.readouterr()
    assert evqa("score", tmp_path / "oracle", "--json", tmp_path / "s.json") == 0
    out = capsys.readouterr().out
    assert "strict" in out
    assert "evqa-v1" in out
    assert "3 entries of 2 videos" in out
    strict, v1 = json.loads((tmp_path / "s.json").read_text())
    assert (strict["protocol"], v1["protocol"]) == ("strict", "evqa-v1")
    assert strict["J&F"] == v1["J&F"] == 100.0
    assert [entry["entry_id"] for entry in strict["entries"]] == [row[0] for row in ROWS]
    assert evqa("compare", tmp_path / "chance", tmp_path / "oracle") == 0
    assert "+" in capsys.readouterr().out
    assert evqa("report", tmp_path / "chance", tmp_path / "oracle", "--out", tmp_path / "page") == 0
    assert (tmp_path / "page" / "index.html").is_file()
    assert evqa("export", tmp_path / "oracle", "--to", tmp_path / "theirs") == 0
    capsys.readouterr()
    assert evqa("score", tmp_path / "theirs" / "predictions.json", "--references", data, "--protocol", "evqa-v1") == 0
    assert "100.0" in capsys.readouterr().out


def test_mcq(data, tmp_path, capsys):
    assert run(data, tmp_path / "m", "oracle", "--task", "mcq") == 0
    assert evqa("score", tmp_path / "m") == 0
    assert "all_three_accuracy" in capsys.readouterr().out


def test_again_continues_and_other_settings_are_refused(data, tmp_path, capsys):
    run(data, tmp_path / "r")
    capsys.readouterr()
    assert run(data, tmp_path / "r") == 0
    assert "0 entries run, 3 were recorded before" in capsys.readouterr().out
    assert run(data, tmp_path / "r", "chance", "--option", "seed=4") == 2
    assert "adapter.seed: 0 in the run, 4 now" in capsys.readouterr().err


def test_limit_and_scoring_the_same_part(data, tmp_path, capsys):
    assert run(data, tmp_path / "r", "oracle", "--limit", 2) == 0
    capsys.readouterr()
    assert evqa("score", tmp_path / "r") == 0
    assert "2 entries" in capsys.readouterr().out


def test_exit_code_says_whether_all_was_scored(data, tmp_path, capsys):
    path = tmp_path / "p.json"
    answers = {row[0]: {"parsed_response": {"answer": "A", "segments": [[0, 1]]}} for row in ROWS}
    path.write_text(json.dumps(answers))
    assert evqa("score", path, "--references", data) == 0
    for change in (
        lambda a: a.pop("clip1_0"),
        lambda a: a["clip1_0"].update(parsed_response=None),
        lambda a: a["clip1_0"]["parsed_response"].update(segments=[[9, 1]]),
        lambda a: a.update(stranger={"answer": "A"}),
    ):
        broken = json.loads(json.dumps(answers))
        change(broken)
        path.write_text(json.dumps(broken))
        assert evqa("score", path, "--references", data) == 1
    capsys.readouterr()
    path.write_text(json.dumps({**answers, "clip1_0": {"parsed_response": "A"}}))
    assert evqa("score", path, "--references", data) == 1
    err = capsys.readouterr().err
    assert "no evqa-v1 scores: the original evaluator stops at this entry" in err
    assert evqa("score", path, "--references", data, "--protocol", "evqa-v1") == 2


def test_scoring_from_another_folder(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evqa("run", "--model", "oracle", "--data", "data", "--out", "r") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evqa("score", "../r") == 0


def test_shards_fill_one_run(data, tmp_path, capsys):
    for i in (2, 1):
        assert run(data, tmp_path / "r", "oracle", "--shard", f"{i}/2") == 0
    assert run(data, tmp_path / "r", "oracle") == 0
    assert "0 entries run, 3 were recorded before" in capsys.readouterr().out
    for bad in ("0/2", "3/2", "x", "1"):
        with pytest.raises(SystemExit):
            run(data, tmp_path / "r", "oracle", "--shard", bad)


def test_dry_run_and_cost_limit(data, tmp_path, capsys):
    assert run(data, tmp_path / "r", "chance", "--dry-run") == 2
    assert "sends no requests" in capsys.readouterr().err
    server = ("--option", "base_url=http://127.0.0.1:9/v1")
    assert (
        run("evqa/st_evidence:sample", tmp_path / "r", "openai:m", *server, "--dry-run", "--option", "frames=uniform:2")
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert "Which vehicle" in json.dumps(shown)
    assert not (tmp_path / "r").exists()
    assert run(data, tmp_path / "r", "openai:m", *server, "--max-cost", "1") == 2
    assert "needs the prices" in capsys.readouterr().err


def test_breakdown(data, tmp_path, capsys):
    run(data, tmp_path / "r", "oracle")
    capsys.readouterr()
    assert evqa("score", tmp_path / "r", "--by", "video_id") == 0
    assert "clip2" in capsys.readouterr().out
    assert evqa("score", tmp_path / "r", "--by", "colour") == 2
    assert "neither a column nor a key of metadata: 'colour'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nothing.json", "--references", "{data}"], "no such prediction file"),
        (["score", "{data}"], "not a run folder"),
        (["score", "{file}"], "pass --references"),
        (["score", "{file}", "--references", "{data}", "--masks", "nowhere"], "no such mask folder"),
        (["score", "{file}", "--references", "evqa/nonsense"], "no corpus"),
        (["score", "{file}", "--references", "nonsense/folder"], "no corpus"),
        (["run", "--model", "gpt-17", "--data", "{data}", "--out", "r"], "no adapter 'gpt-17'"),
        (["run", "--model", "chance", "--option", "seed", "--data", "{data}", "--out", "r"], "NAME=VALUE"),
        (["run", "--model", "replay:nothing.json", "--data", "{data}", "--out", "r"], "no such prediction file"),
        (["report", "nothing"], "no such prediction file"),
    ],
)
def test_user_mistakes_are_one_line(data, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text("{}")
    assert evqa(*[a.format(data=data, file=tmp_path / "p.json") for a in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_scoring_against_other_data_is_refused(data, tmp_path, capsys):
    run(data, tmp_path / "r")
    other = [(*ROWS[0][:2], "another question", *ROWS[0][3:]), *ROWS[1:]]
    write_gen(tmp_path / "other", other)
    assert evqa("score", tmp_path / "r", "--references", tmp_path / "other") == 2
    assert "made on other data" in capsys.readouterr().err


def test_data_commands(data, capsys):
    assert evqa("data", "list") == 0
    assert "instruct_qa" in capsys.readouterr().out
    assert evqa("data", "adapters") == 0
    assert "oracle" in capsys.readouterr().out
    assert evqa("data", "inspect", data) == 0
    assert "3 rows" in capsys.readouterr().out
    assert evqa("data", "validate", data) == 0
    assert evqa("data", "validate", "evqa/st_evidence:sample") == 0
    assert evqa("data", "inspect", "evqa/st_evidence:sample") == 0
    assert "right letters" in capsys.readouterr().out


def test_validate_finds_what_is_wrong(tmp_path, capsys):
    rows = [
        ("a", "v", "q", ["x", "y"], "z", [[0, 1]]),
        ("b", "v", "q", ["x", "x"], "x", [[1, 1]]),
        ("c", "v", "q", ["x", "y"], "x", []),
        ("d", "v", "q", [], "x", [[0, 1]]),
    ]
    home = write_gen(tmp_path, rows)
    import shutil

    shutil.rmtree(home / "masks" / "c")
    assert evqa("data", "validate", tmp_path) == 1
    captured = capsys.readouterr()
    for message in (
        "a: the answer 'z' is none of the options", "b: two options are equal", "b: temporal evidence of length zero",
        "c: no temporal evidence", "c: no masks, where other entries have some",
    ):  # fmt: skip
        assert message in captured.out
    assert "problems" in captured.out


def test_real_process(data, tmp_path):
    """Through the installed command: --help, exit codes, a broken pipe."""
    command = [sys.executable, "-m", "evqa.cli"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("demo", "run", "score", "compare", "report", "data"))
    done = subprocess.run([*command, "score", "x"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "evqa: there is no such prediction file or run folder [file x]\n")
    done = subprocess.run(
        f"{' '.join(command)} data inspect evqa/st_evidence:sample | head -1", shell=True, capture_output=True, text=True, cwd=tmp_path
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("48 rows")


def test_demo(tmp_path, capsys):
    assert evqa("demo", "--out", tmp_path / "demo") == 0
    out = capsys.readouterr().out
    assert "chance strict" in out
    assert "oracle evqa-v1" in out
    page = tmp_path / "demo" / "report" / "index.html"
    assert page.as_uri() in out
    assert evqa("demo", "--out", tmp_path / "demo") == 0  # again: the runs are there, the page is made anew
