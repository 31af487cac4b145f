"""Submissions: packed, checked, scored again; hostile ones refused; and the table that is made of them."""

from __future__ import annotations

import json
import math
import struct
import zipfile

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from make_data import benchmark

from evqa.cli import main
from evqa.engine import describe_data
from evqa.errors import DataError
from evqa.leaderboard import baseline_results, check, pack, read_result, write_board
from evqa.leaderboard import submission as file
from evqa.leaderboard.board import table_rows
from evqa.leaderboard.checking import write_result
from evqa.scoring import score
from evqa.types import Prediction


@pytest.fixture(scope="module")
def rows():
    return benchmark(8)


def said_of(rows, **change):
    said = {
        r["entry_id"]: Prediction(r["entry_id"], answer="B", segments=[[0.1, 1.0]], masks=r["masks"][:3]) for r in rows
    }
    said["e002"] = Prediction.failure("e002", "refused", "no")
    said["e003"].segments = [[0.5, 0.1], [math.nan, 1.0]]
    said["e004"].answer = None
    return said | change


def packed(path, rows, said=None, **about):
    named = {"name": "evqa/st_evidence", "config": "gen", "split": "test", **describe_data(rows)}
    about = {"system": "A system", "task": "gen", **about}
    return pack(said_of(rows) if said is None else said, path, benchmark=named, **about)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def with_table(path, rows, change):
    """A submission whose table went through ``change``."""
    content = members(packed(path, rows))
    (path.parent / "t.parquet").write_bytes(content[file.PREDICTIONS])
    parquet.write_table(change(parquet.read_table(path.parent / "t.parquet")), path.parent / "t.parquet")
    content[file.PREDICTIONS] = (path.parent / "t.parquet").read_bytes()
    return rewritten(path, content)


# ------------------------------------------------------------------------------------------- honest
@pytest.mark.parametrize("task", ["gen", "mcq"])
def test_scores_are_those_of_the_references(tmp_path, rows, task):
    said = said_of(rows)
    if task == "mcq":
        for one in said.values():
            if not one.failed:
                one.temporal_choice, one.spatial_choice = "B", "A"
    verdict = check(packed(tmp_path / "a.zip", rows, said, task=task), rows, bootstrap=20)
    assert verdict.errors == []
    for protocol, scores in verdict.result["scores"].items():
        direct = score(said, rows, protocol, task=task, bootstrap=20)
        assert scores["numbers"] == direct.metrics()
        assert scores["intervals"] == {name: list(bounds) for name, bounds in direct.intervals.items()}
    assert verdict.result["counts"]["num_failed"] == 1
    assert any(note.startswith("e002: refused") for note in verdict.notes)


def test_hashes_say_what_was_scored(tmp_path, rows):
    def result(name, said=None, references=rows, **about):
        return check(packed(tmp_path / name, references, said, **about), references, bootstrap=0).result

    first, again = result("a.zip"), result("b.zip", dict(reversed(said_of(rows).items())))
    assert first == again  # the order of entries says nothing
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    other = said_of(rows)
    other["e005"].segments = [[0.1, 1.0000001]]
    assert result("c.zip", other)["predictions_sha256"] != first["predictions_sha256"]
    assert result("c.zip", other)["references_sha256"] == first["references_sha256"]
    moved = [dict(row) for row in rows]
    moved[0]["masks"] = moved[0]["masks"][1:]
    assert result("d.zip", references=moved)["references_sha256"] != first["references_sha256"]
    renamed = result("e.zip", system="Another")
    assert renamed["predictions_sha256"] == first["predictions_sha256"]
    assert renamed["sha256"] != first["sha256"]


def test_result_that_was_changed_is_refused(tmp_path, rows):
    result = check(packed(tmp_path / "a.zip", rows), rows, bootstrap=10).result
    write_result(result, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == result
    for change in (
        lambda r: r["scores"]["strict"]["numbers"].update({"J&F": 99.9}), lambda r: r["manifest"].update(system="Me"),
        lambda r: r["counts"].update(num_failed=0), lambda r: r.pop("sha256"), lambda r: r.update(format=2),
        lambda r: r.update(scores=[]),
    ):  # fmt: skip
        changed = json.loads(json.dumps(result))
        change(changed)
        write_result(changed, tmp_path / "bad.json")
        with pytest.raises(DataError, match=r"bad\.json"):
            read_result(tmp_path / "bad.json")
    for text in ("", "[]", "{", "nan", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError):
            read_result(tmp_path / "bad.json")


# ------------------------------------------------------------------------------- wrong, and said so
def test_missing_extra_and_foreign_entries(tmp_path, rows):
    said = said_of(rows)
    del said["e001"], said["e006"]
    said["stranger"] = Prediction("stranger", answer="A")
    verdict = check(packed(tmp_path / "a.zip", rows, said), rows)
    assert not verdict.accepted
    assert verdict.result is None
    assert verdict.errors == [
        "2 of 8 entries have no row, which failed ones need too: e001, e006",
        "1 rows are for no entry of the benchmark: stranger",
    ]
    (error,) = check(packed(tmp_path / "b.zip", rows), benchmark(7)).errors
    assert "made on other data" in error
    assert "8 entries" in error
    assert "7 entries" in error


WRONG_ROWS = {
    "an entry twice": (lambda r: r[1].update(entry_id="e000"), "row 2: the entry 'e000' stands twice"),
    "no id": (lambda r: r[0].update(entry_id=None), "row 1: entry_id must be a printable text"),
    "id with a newline": (lambda r: r[0].update(entry_id="a\nb"), "row 1: entry_id must be a printable text"),
    "unknown status": (lambda r: r[3].update(status="fine"), "row 4: status is 'fine'"),
    "half a segment": (lambda r: r[0].update(segments=[{"start": 1.0, "end": None}]), "without start or end"),
    "null segment": (lambda r: r[0].update(segments=[None]), "a segment is null"),
    "null mask": (lambda r: r[0].update(masks=[None]), "a mask needs frame"),
    "negative frame": (lambda r: r[0]["masks"][0].update(frame=-1), "impossible mask: frame -1"),
    "endless mask": (lambda r: r[0]["masks"][0].update(height=2**31 - 1, width=2**31 - 1), "impossible mask"),
    "runs too short": (lambda r: r[0]["masks"][1].update(counts=b"5"), "the mask of frame 2"),
    "runs of junk": (lambda r: r[0]["masks"][0].update(counts=b"\xff\x00"), "the mask of frame 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_wrong_values_are_named(tmp_path, rows, name):
    change, message = WRONG_ROWS[name]

    def changed(table):
        content = table.to_pylist()
        change(content)
        return pa.Table.from_pylist(content, schema=file.schema())

    verdict = check(with_table(tmp_path / "a.zip", rows, changed), rows)
    assert message in verdict.errors[0]


def test_many_problems_are_counted(tmp_path, rows):
    def changed(table):
        return pa.Table.from_pylist([{**table.to_pylist()[0], "status": "x"}] * 300, schema=file.schema())

    errors = check(with_table(tmp_path / "a.zip", rows, changed), rows).errors
    assert len(errors) == 51
    assert errors[-1] == "and 250 more problems"


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.drop_columns(["answer"]), "the column 'answer' is missing"),
    (lambda t: t.append_column("score", pa.array([1.0] * len(t))), "unknown column 'score'"),
    (lambda t: t.set_column(0, "entry_id", pa.array(range(len(t)))), "the column 'entry_id' is int64, it must be string"),
    (lambda t: t.set_column(4, "masks", pa.array(["x"] * len(t))), "the column 'masks' is string"),
], ids=["missing", "unknown", "numbers as ids", "text as masks"])  # fmt: skip
def test_wrong_columns_are_named(tmp_path, rows, change, message):
    errors = check(with_table(tmp_path / "a.zip", rows, change), rows).errors
    assert any(message in error for error in errors)


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 2}, "format must be 1"), ({"task": "all"}, "task must be"), ({"system": ""}, "system must be a text"),
    ({"system": "x" * 81}, "80 characters"), ({"system": "a\u202eb"}, "cannot be printed"), ({"system": 7}, "system must be"),
    ({"url": "javascript:alert(1)"}, "url must start with https://"), ({"url": "https://x\" onclick=\"y"}, "url must"),
    ({"rank": 1}, "unknown field 'rank'"), ({"benchmark": []}, "benchmark must be"), ({"benchmark": {"name": 1}}, "benchmark must be"),
])  # fmt: skip
def test_manifest_rules(tmp_path, rows, change, message):
    content = members(packed(tmp_path / "a.zip", rows))
    content[file.MANIFEST] = json.dumps(json.loads(content[file.MANIFEST]) | change).encode()
    (error,) = check(rewritten(tmp_path / "a.zip", content), rows).errors
    assert message in error


def test_no_submission_is_written_that_would_be_refused(tmp_path, rows):
    for about in ({"system": ""}, {"url": "http://example.org"}, {"authors": "x" * 201}, {"task": "all"}):
        with pytest.raises(DataError, match="the manifest of the submission"):
            packed(tmp_path / "a.zip", rows, **about)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ hostile
def test_archives_that_are_none(tmp_path, rows):
    whole = packed(tmp_path / "a.zip", rows).read_bytes()
    for number, data in enumerate((b"", b"PK", b"not a zip" * 100, whole[: len(whole) // 2], whole[:-30], whole[100:])):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        assert len(check(path, rows).errors) == 1
    assert check(tmp_path / "nowhere.zip", rows).errors == ["there is no such file"]
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (tmp_path / "d.zip").write_bytes(damaged)
    assert check(tmp_path / "d.zip", rows).errors


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/passwd", "manifest.json/x", "C:\\x", "a" * 60_000])
def test_paths_in_archives(tmp_path, rows, name):
    content = members(packed(tmp_path / "a.zip", rows))
    before = sorted(tmp_path.rglob("*"))
    for extra in ({**content, name: b"x"}, {name: b"x", file.PREDICTIONS: content[file.PREDICTIONS]}):
        (error,) = check(rewritten(tmp_path / "a.zip", extra), rows).errors
        assert "must hold manifest.json and predictions.parquet alone" in error
        assert len(error) < 500
    assert sorted(tmp_path.rglob("*")) == before


def test_many_members(tmp_path, rows):
    rewritten(tmp_path / "a.zip", {f"{n}": b"" for n in range(70_000)})
    assert "alone" in check(tmp_path / "a.zip", rows).errors[0]


def test_zip_bombs(tmp_path, rows, monkeypatch):
    content = members(packed(tmp_path / "a.zip", rows))
    bomb = rewritten(tmp_path / "a.zip", {**content, file.MANIFEST: b" " * (1 << 26)}, zipfile.ZIP_DEFLATED)
    (error,) = check(bomb, rows).errors
    assert "manifest.json unpacks to more than 65,536 bytes" in error
    monkeypatch.setattr(file, "MOST_PREDICTION_BYTES", 1 << 22)
    bomb = rewritten(tmp_path / "b.zip", {**content, file.PREDICTIONS: b"\0" * (1 << 26)}, zipfile.ZIP_DEFLATED)
    (error,) = check(bomb, rows).errors
    assert "predictions.parquet unpacks to more than 4,194,304 bytes" in error
    # A header that lies about the size is not believed.
    data = bytearray(bomb.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 100)
    bomb.write_bytes(data)
    assert check(bomb, rows).errors
    with open(tmp_path / "huge.zip", "wb") as out:
        out.truncate(1 << 31)
    assert "at most" in check(tmp_path / "huge.zip", rows).errors[0]


def test_encrypted_and_strange_compression(tmp_path, rows):
    data = bytearray(packed(tmp_path / "a.zip", rows).read_bytes())
    for place in (data.index(b"PK\x01\x02") + 8, 6):  # the flag "encrypted" of the first member, in both headers
        data[place] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "cannot be unpacked" in check(tmp_path / "a.zip", rows).errors[0]


def test_parquet_bomb_ends_the_child_and_nothing_else(tmp_path, rows):
    """12 GB of masks in a file of some kilobytes: one value of 4 KiB, three million times."""
    count = 3_000_000
    same = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([b"0" * 4096], pa.binary()))
    numbers = pa.array([1] * count, pa.int32())
    masks = pa.ListArray.from_arrays(
        [0, count], pa.StructArray.from_arrays([numbers] * 3 + [same], ["frame", "height", "width", "counts"])
    )
    columns = {
        "entry_id": pa.array(["e000"]), "status": pa.array(["ok"]), "answer": pa.array(["A"]),
        "segments": pa.array([[]], file.schema().field("segments").type), "masks": masks,
        "temporal_choice": pa.array([None], pa.string()), "spatial_choice": pa.array([None], pa.string()),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "bomb.parquet", store_schema=False, compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    content = members(packed(tmp_path / "a.zip", rows))
    content[file.PREDICTIONS] = (tmp_path / "bomb.parquet").read_bytes()
    (error,) = check(rewritten(tmp_path / "a.zip", content), rows).errors
    assert "cannot be" in error


def test_parquet_that_is_none(tmp_path, rows):
    content = members(packed(tmp_path / "a.zip", rows))
    whole = content[file.PREDICTIONS]
    for data in (
        b"",
        b"PAR1PAR1",
        b"\0" * 1000,
        whole[: len(whole) // 2],
        whole[:-4],
        whole[:200] + b"\xff" * 200 + whole[400:],
    ):
        errors = check(rewritten(tmp_path / "a.zip", {**content, file.PREDICTIONS: data}), rows).errors
        assert errors
        assert all(len(error) < 600 for error in errors)


# -------------------------------------------------------------------------------------------- table
def results_of(rows, tmp_path, **systems):
    out = []
    for name, right in systems.items():
        said = {
            r["entry_id"]: Prediction(
                r["entry_id"], answer=r["answer"] if i < right else "no", segments=r["segments"], masks=r["masks"]
            ) for i, r in enumerate(rows)
        }  # fmt: skip
        out.append(check(packed(tmp_path / "s.zip", rows, said, system=name), rows, bootstrap=20).result)
    return out


def test_order_ranks_and_baselines(tmp_path, rows):
    results = results_of(rows, tmp_path, low=2, high=6, same=6)
    baselines = [{**result, "baseline": True} for result in baseline_results(rows, "gen", bootstrap=20)]
    table = table_rows([*results, *baselines], "gen", "strict")
    got = [(row["rank"], row["result"]["manifest"]["system"], row["value"]) for row in table]
    assert got == [
        (None, "oracle", 100.0),
        (1, "high", 75.0),
        (1, "same", 75.0),
        (3, "low", 25.0),
        (None, "chance", 0.0),
    ]
    page = write_board(results, tmp_path / "board", baselines=baselines)
    assert page.is_file()
    assert {p.name for p in (tmp_path / "board").iterdir()} == {"index.html", "assets", "data"}
    write_board(results[:1], tmp_path / "board")  # replaces its own
    (tmp_path / "board" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        write_board(results, tmp_path / "board")


def test_tables_of_what_cannot_be_compared_are_refused(tmp_path, rows):
    results = results_of(rows, tmp_path, one=3)
    with pytest.raises(DataError, match="are called 'one'"):
        write_board(results * 2, tmp_path / "board")
    others = results_of(benchmark(8, seed=1), tmp_path, two=3)
    with pytest.raises(DataError, match="different references"):
        write_board(results + others, tmp_path / "board")
    with pytest.raises(DataError, match="no result"):
        write_board([], tmp_path / "board")


def test_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    assert (
        main(
            ["run", "--model", "oracle", "--data", "evqa/st_evidence:sample", "--split", "test[:4]", "--out", str(run)]
        )
        == 0
    )
    submission, result = tmp_path / "s.zip", tmp_path / "r.json"
    assert (
        main(["submit", "pack", str(run), "--system", "Mine", "--out", str(submission), "--url", "https://example.org"])
        == 0
    )
    capsys.readouterr()
    assert main(["submit", "validate", str(submission), "--json", str(result), "--bootstrap", "20"]) == 0
    out = capsys.readouterr().out
    assert "accepted: Mine, 4 entries" in out
    assert "EBA@0.5               100.0" in out
    command = ["leaderboard", str(result), "--references", "evqa/st_evidence:sample", "--split", "test[:4]"]
    assert main([*command, "--out", str(tmp_path / "board")]) == 0
    assert capsys.readouterr().out.strip() == (tmp_path / "board" / "index.html").as_uri()
    content = members(submission)
    for change in ({"name": str(tmp_path)}, {"name": "someone/else"}, {"split": "test]["}, {"split": "test, train"}):
        manifest = json.loads(content[file.MANIFEST])
        manifest["benchmark"] |= change
        rewritten(tmp_path / "odd.zip", {**content, file.MANIFEST: json.dumps(manifest)})
        assert main(["submit", "validate", str(tmp_path / "odd.zip")]) == 2
        assert capsys.readouterr().out.startswith("refused: ")
    (tmp_path / "junk.zip").write_bytes(b"junk")
    assert main(["submit", "validate", str(tmp_path / "junk.zip")]) == 2
    assert capsys.readouterr().out.startswith("refused: this is not a zip file")
    assert main(["submit", "pack", str(run), "--system", "\x07", "--out", str(submission)]) == 2
    assert "cannot be printed" in capsys.readouterr().err
