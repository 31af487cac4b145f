"""The engine: batches, failures, retries, ranks; and the first adapters."""

from __future__ import annotations

import json

import pytest
from make_data import benchmark

from evqa.adapters import Adapter, adapter_names, load_adapter
from evqa.engine import describe_data, run
from evqa.errors import AdapterError, DataError, MissingDataError, TransientError, VideoError
from evqa.runlog import RunLog, ShardWriter
from evqa.scoring import score
from evqa.types import Prediction


class Scripted(Adapter):
    """Does for each entry what the script says: an answer, or an exception to raise."""

    name = "scripted"

    def __init__(self, script, batch_size=1):
        self.script = script
        self.batch_size = batch_size
        self.calls = []

    def predict(self, rows, task):
        self.calls.append([row["entry_id"] for row in rows])
        self.rows = rows
        out = []
        for row in rows:
            action = self.script.get(row["entry_id"], "A")
            action = action.pop(0) if isinstance(action, list) else action
            if isinstance(action, BaseException):
                raise action
            out.append(Prediction(row["entry_id"], answer=action))
        return out


def go(adapter, folder, rows=None, **options):
    return run(adapter, benchmark(6) if rows is None else rows, folder, progress=False, **options)


def test_a_failing_entry_costs_only_itself(tmp_path):
    script = {
        "e001": AdapterError("cannot"), "e002": VideoError("broken", file="x.mp4"), "e003": ZeroDivisionError("oops"),
        "e004": MissingDataError("gone"),
    }  # fmt: skip
    result = go(Scripted(script, batch_size=6), tmp_path)
    assert (result.done, result.failed) == (6, 4)
    records = result.log.predictions()
    assert [records[f"e00{i}"].status for i in range(6)] == [
        "ok", "adapter_error", "input_error", "adapter_error", "input_error", "ok",
    ]  # fmt: skip
    assert "ZeroDivisionError: oops (test_engine.py" in records["e003"].detail
    assert "x.mp4" in records["e002"].detail
    assert records["e003"].answer is None


def test_transient_failures_are_retried_with_growing_pauses(tmp_path):
    pauses = []
    script = {
        "e000": [TransientError("busy"), TransientError("busy"), "B"],
        "e001": [TransientError("wait", retry_after=7.5), "C"],
        "e002": [TransientError("down")] * 9,
    }
    result = go(Scripted(script), tmp_path, sleep=pauses.append)
    records = result.log.predictions()
    assert (records["e000"].answer, records["e001"].answer, records["e002"].status) == ("B", "C", "transient_error")
    assert 0.5 <= pauses[0] <= 1.5
    assert 1.0 <= pauses[1] <= 3.0
    assert pauses[2] == 7.5
    assert len(pauses) == 2 + 1 + 3


def test_continuing_runs_only_what_is_missing(tmp_path):
    first = Scripted({"e003": AdapterError("x")})
    go(first, tmp_path, limit=None)
    again = Scripted({})
    result = go(again, tmp_path)
    assert (again.calls, result.skipped) == ([], 6)
    retry = Scripted({})
    result = go(retry, tmp_path, retry_failed=True)
    assert retry.calls == [["e003"]]
    assert result.log.predictions()["e003"].answer == "A"


def test_ctrl_c_ends_cleanly_and_the_run_can_go_on(tmp_path):
    result = go(Scripted({"e002": KeyboardInterrupt()}), tmp_path)
    assert result.interrupted
    assert sorted(result.log.predictions()) == ["e000", "e001"]
    assert go(Scripted({}), tmp_path).done == 4


def test_answers_for_other_entries_are_refused(tmp_path):
    class Swapping(Scripted):
        def predict(self, rows, task):
            return super().predict(rows, task)[::-1]

    records = go(Swapping({}, batch_size=2), tmp_path / "a").log.predictions()
    assert all(not record.failed for record in records.values())  # entry by entry there is nothing to swap

    class Dropping(Scripted):
        def predict(self, rows, task):
            return []

    records = go(Dropping({}), tmp_path / "b").log.predictions()
    assert all("answered [] where" in record.detail for record in records.values())


def test_adapters_do_not_see_what_is_right(tmp_path):
    adapter = Scripted({}, batch_size=6)
    go(adapter, tmp_path)
    assert not {"answer", "answer_index", "segments", "masks", "temporal_answer", "spatial_answer"} & set(
        adapter.rows[0]
    )
    assert {"question", "candidates", "duration"} <= set(adapter.rows[0])


def test_changed_data_is_another_run(tmp_path):
    go(Scripted({}), tmp_path)
    changed = benchmark(6)
    changed[3]["question"] += "?"
    with pytest.raises(Exception, match="data.fingerprint"):
        go(Scripted({}), tmp_path, changed)
    assert describe_data(benchmark(6)) == describe_data(iter(benchmark(6)))


def test_unusable_rows(tmp_path):
    rows = benchmark(3)
    with pytest.raises(DataError, match=r"twice.*e000"):
        go(Scripted({}), tmp_path / "a", rows + rows[:1])
    with pytest.raises(DataError, match="no entry_id"):
        go(Scripted({}), tmp_path / "b", [{"question": "?"}])


def test_log_failure_stops_the_run(tmp_path, monkeypatch):
    def full(self, prediction):
        from evqa.errors import RunLogError

        raise RunLogError("cannot record", file="x")

    monkeypatch.setattr(ShardWriter, "append", full)
    with pytest.raises(Exception, match="cannot record"):
        go(Scripted({}), tmp_path)


def test_the_environment_is_recorded(tmp_path):
    log = go(Scripted({}), tmp_path).log
    session = json.loads(log.shards[0].read_text().splitlines()[0])["session"]
    assert session["packages"]["numpy"]
    assert session["world_size"] == 1
    assert log.predictions()["e000"].seconds >= 0


# ------------------------------------------------------------------------------------------- adapters
def test_names_and_options():
    assert {"chance", "oracle", "replay"} <= set(adapter_names())
    with pytest.raises(AdapterError, match="known: chance"):
        load_adapter("gpt-17")
    with pytest.raises(AdapterError, match="sead"):
        load_adapter("chance", sead=3)


@pytest.mark.parametrize("task", ["gen", "mcq"])
def test_oracle_scores_100_under_both_protocols(tmp_path, task):
    rows = benchmark(8)
    log = go(load_adapter("oracle"), tmp_path, rows, task=task).log
    for protocol in ("strict", "evqa-v1"):
        scores = score(log.predictions(), rows, protocol)
        assert set(scores.metrics().values()) == {100.0}
        assert scores.task == task


def test_chance_is_the_same_in_any_order_and_on_any_number_of_ranks(tmp_path):
    rows = benchmark(30)
    alone = go(load_adapter("chance"), tmp_path / "a", rows).log.predictions()
    for rank in (2, 0, 1):
        split = go(load_adapter("chance"), tmp_path / "b", rows, rank=rank, world_size=3, batch_size=4).log
    assert {e: p.answer for e, p in alone.items()} == {e: p.answer for e, p in split.predictions().items()}
    other = go(load_adapter("chance", seed=1), tmp_path / "c", rows).log.predictions()
    assert {e: p.answer for e, p in alone.items()} != {e: p.answer for e, p in other.items()}
    first = alone["e000"]
    assert first.segments == [[0.0, 2.0]]
    assert len(first.masks) == 12


def test_chance_level_is_what_it_should_be(tmp_path):
    rows = benchmark(800)
    scores = score(go(load_adapter("chance"), tmp_path, rows, task="mcq").log.predictions(), rows)
    for name in ("qa_accuracy", "temporal_accuracy", "spatial_accuracy"):
        assert 20 < scores[name] < 30  # four options; 3 standard deviations are 4.6


def test_replay_brings_foreign_files_into_a_run(tmp_path):
    rows = benchmark(4)
    path = tmp_path / "theirs.json"
    path.write_text(
        json.dumps(
            {"e000": {"parsed_response": {"answer": "A", "segments": [[0, 1]]}}, "e001": {"parsed_response": None}}
        )
    )
    log = go(load_adapter(f"replay:{path}"), tmp_path / "run", rows).log
    records = log.predictions()
    assert [records[f"e00{i}"].status for i in range(4)] == ["ok", "parse_failed", "missing", "missing"]
    assert log.manifest["adapter"]["file"] == "theirs.json"
    direct = score(json.loads(path.read_text()), rows, "evqa-v1")
    replayed = score(records, rows, "evqa-v1")
    assert direct.metrics() == replayed.metrics()
    path.write_text("{}")
    with pytest.raises(Exception, match="adapter.sha256"):
        go(load_adapter(f"replay:{path}"), tmp_path / "run", rows)
    assert RunLog.open(tmp_path / "run").manifest["task"] == "gen"
