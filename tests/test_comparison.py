"""Many systems in one table: what is missing is missing, tests are corrected, every format says the same."""

from __future__ import annotations

import json
import re

import pytest
from make_data import ROWS, benchmark, write_gen

from evqa.cli import main
from evqa.errors import DataError
from evqa.report import compare_systems
from evqa.report.comparison import _holm
from evqa.scoring import compare, score
from evqa.types import Prediction


def predictions(rows, right, *, masks=True, segments=True):
    """Right where ``right`` says so; with the true evidence or none."""
    return {
        row["entry_id"]: Prediction(
            row["entry_id"],
            answer="ABCD"[row["answer_index"] if right(i) else (row["answer_index"] + 1) % 4],
            segments=row["segments"] if segments else [],
            masks=row["masks"] if masks else [],
        )
        for i, row in enumerate(rows)
    }


@pytest.fixture(scope="module")
def rows():
    return benchmark(60)


@pytest.fixture(scope="module")
def table(rows):
    systems = {
        "poor & blind": predictions(rows, lambda i: i % 3 == 0, masks=False),
        "grounded_7b": predictions(rows, lambda i: i % 10 != 0),
        "words only": predictions(rows, lambda i: i % 3 == 0, masks=False, segments=False),
    }
    return compare_systems(systems, rows, bootstrap=200)


def test_order_numbers_and_bounds(table, rows):
    assert list(table.systems) == ["chance", "poor & blind", "grounded_7b", "words only", "oracle"]
    assert table.baseline == "poor & blind"
    assert table.systems["oracle"]["J&F"] == 100.0
    assert table.systems["poor & blind"]["accuracy"] == pytest.approx(100 * 20 / 60)
    alone = score(predictions(rows, lambda i: i % 10 != 0), rows, bootstrap=200)
    assert table.systems["grounded_7b"].metrics() == alone.metrics()
    assert table.systems["grounded_7b"].intervals == alone.intervals


def test_what_a_system_does_not_give_is_missing_and_not_0(table):
    assert table.has("poor & blind", "mIoU")
    assert not table.has("poor & blind", "J&F")
    assert not table.has("poor & blind", "EBA@0.3")
    assert not table.has("words only", "mIoU")
    assert table.has("grounded_7b", "EBA@0.5")
    lines = table.render("text").splitlines()
    row = next(line for line in lines if line.startswith("words only"))
    assert row.split()[-6:] == ["-"] * 6
    data = json.loads(table.render("json"))
    assert data["systems"]["words only"]["metrics"]["J&F"] is None
    assert "J&F" not in data["systems"]["words only"]["intervals"]
    assert set(data["systems"]["words only"]["against_baseline"]) == {"accuracy"}
    assert data["systems"]["chance"]["against_baseline"] is None


def test_tests_are_those_of_scoring_corrected(table, rows):
    one = compare(table.systems["poor & blind"], table.systems["grounded_7b"], resamples=2000)["accuracy"]
    line = table.tests["grounded_7b"]["accuracy"]
    assert {key: line[key] for key in one} == one
    assert line["p_holm"] >= line["p"]
    assert table.significant("grounded_7b", "accuracy")
    assert not table.significant("words only", "accuracy")  # the same answers
    assert "*" in next(x for x in table.render("text").splitlines() if x.startswith("grounded_7b"))


def test_few_videos_earn_no_star(rows):
    few = rows[:30]  # of 15 videos
    table = compare_systems(
        {"a": predictions(few, lambda i: False), "b": predictions(few, lambda i: True)}, few, bootstrap=100
    )
    assert table.tests["b"]["accuracy"]["p_holm"] < 0.05
    assert not table.significant("b", "accuracy")
    assert "*" not in table.render("text")
    assert any("Fewer than 20 videos" in note for note in table.notes())


def test_holm_by_hand():
    lines = [{"p": p} for p in (0.01, 0.04, 0.03, 0.005)]
    _holm(lines)
    assert [line["p_holm"] for line in lines] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_markdown_is_a_table(table):
    text = table.render("markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 5
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.search(r"\| grounded_7b \| 90\.0 \[\d", text)


def test_latex_is_escaped_and_even(table):
    text = table.render("latex")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 6
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {7}
    assert r"poor \& blind" in text
    assert r"grounded\_7b" in text
    assert r"J\&F" in text
    assert text.count(r"\midrule") == 3
    assert r"\begin{tabular}{lrrrrrrr}" in text
    plain = "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert plain.count("{") == plain.count("}")


def test_a_given_run_takes_the_place_of_a_bound(rows):
    table = compare_systems({"oracle": predictions(rows, lambda i: False)}, rows, bootstrap=0)
    assert list(table.systems) == ["chance", "oracle"]
    assert table.systems["oracle"]["accuracy"] == 0.0
    assert table.baseline == "oracle"
    alone = compare_systems({"a": predictions(rows, bool)}, rows, bounds=False, bootstrap=0)
    assert list(alone.systems) == ["a"]
    assert alone.render("text").startswith("percent")


def test_mistakes(rows):
    with pytest.raises(DataError, match="no metric 'BLEU'"):
        compare_systems({"a": {}}, rows, metrics=["BLEU"])
    with pytest.raises(DataError, match="nothing to compare"):
        compare_systems({}, rows)


def test_mcq_and_failures(rows):
    said = {
        row["entry_id"]: Prediction(row["entry_id"], answer="A", temporal_choice="B")
        if i % 2
        else Prediction.failure(row["entry_id"], "refused", "no")
        for i, row in enumerate(rows)
    }
    table = compare_systems({"a": said}, rows, task="mcq", bootstrap=100)
    assert table.has("a", "temporal_accuracy")
    assert not table.has("a", "spatial_accuracy")
    assert not table.has("a", "all_three_accuracy")
    assert "a: 30 failed of 60 entries." in table.notes()
    silent = {row["entry_id"]: Prediction.failure(row["entry_id"], "refused", "no") for row in rows}
    assert compare_systems({"a": silent}, rows, bootstrap=0).has("a", "accuracy")  # 0, not missing: it was asked


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_gen(tmp_path / "data")
    runs = []
    for seed in (0, 1):
        runs.append(str(tmp_path / f"r{seed}"))
        assert (
            main(
                [
                    "run",
                    "--model",
                    "chance",
                    "--option",
                    f"seed={seed}",
                    "--data",
                    str(tmp_path / "data"),
                    "--out",
                    runs[-1],
                ]
            )
            == 0
        )
    capsys.readouterr()
    assert main(["compare", *runs, "--bootstrap", "50", "--format", "markdown", "--name", "zero", "--name", "one"]) == 0
    out = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")][2:] == [
        "chance",
        "zero",
        "one",
        "oracle",
    ]
    target = tmp_path / "t.tex"
    assert (
        main(["compare", *runs, "--bootstrap", "50", "--format", "latex", "--metrics", "all", "--out", str(target)])
        == 0
    )
    assert target.read_text().count("\\\\\n") == 5
    assert main(["compare", *runs, "--name", "one"]) == 2
    assert "--name" in capsys.readouterr().err
    assert main(["compare", *runs, "--metrics", "accuracy", "--no-bounds", "--bootstrap", "0"]) == 0
    assert len(ROWS) == 3
