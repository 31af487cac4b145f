"""``evqa data`` for every corpus, and the picture of a row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from corpus_data import HEIGHT, WIDTH, masklet, write_json, write_mevis
from PIL import Image
from test_corpora_conversation import IMAGE, record, write_llava

import evqa as library
from evqa.cli import main
from evqa.errors import DataError
from evqa.report.picture import draw_row

pytestmark = pytest.mark.usefixtures("own_cache")


def data(*arguments):
    return main(["data", *map(str, arguments)])


def test_list_and_info(capsys):
    from evqa.corpora.base import CORPORA

    assert data("list") == 0
    listed = capsys.readouterr().out
    assert all(f"evqa/{name}" in listed for name in CORPORA)
    assert data("info", "mevis") == 0
    text = capsys.readouterr().out
    for part in (
        "Layout, of the authors and of UniPixel-SFT-1M alike", "licence: CC BY-NC-SA 4.0", "passed on: annotations",
        "train as its authors count it: {'videos': 1662, 'rows': 23051} or", "objects          List(",
    ):  # fmt: skip
        assert part in text
    assert data("info", "evqa/revos") == 0
    assert "option foreground=True" in capsys.readouterr().out
    assert data("info", "st_evidence:sample") == 0
    assert "sample: licence: CC0-1.0" in capsys.readouterr().out
    assert data("info", "movies") == 2
    assert "there is no corpus 'movies'; known: " in capsys.readouterr().err


def test_inspect_and_validate(tmp_path, capsys):
    write_mevis(tmp_path)
    assert data("inspect", "mevis", tmp_path) == 0
    text = capsys.readouterr().out
    assert "train: 3 rows, columns: entry_id, " in text
    assert "2 videos of 2 to 3 frames" in text
    assert "objects of a row: 1: 2 rows, 2: 1 rows" in text
    assert "objects of a row: not published: 3 rows" in text
    assert '"rle": "RLE [12, 20]"' in text
    assert data("validate", "evqa/mevis", "--data-dir", tmp_path) == 0
    text = capsys.readouterr().out
    assert "warning: mevis train: 2 videos and 3 rows, where its authors state 1662 videos" in text
    assert "9 rows of train, valid_u, valid: 0 problems" in text
    # an object that is in no frame, and a row that cannot be read at all
    masks = {"0": masklet(0, 3), "1": [None] * 3, "2": masklet(2, 7)}
    write_json(tmp_path / "mevis" / "train" / "mask_dict.json", masks)
    assert data("validate", "mevis", tmp_path) == 1
    text = capsys.readouterr().out
    assert "train aa/1: object '1' is in no frame" in text
    assert "bb/0: left out: mevis: 7 masks under '2' for a video of 2 frames" in text
    assert "8 rows of train, valid_u, valid: 2 problems" in text
    assert data("validate", "mevis", tmp_path, "--split", "valid_u") == 1  # its build left the row of train out


def test_inspect_conversations(tmp_path, capsys):
    write_llava(tmp_path, record(image=IMAGE), record("text"))
    assert data("inspect", "llava_instruct", tmp_path) == 0
    text = capsys.readouterr().out
    assert "about: image 1, text 1" in text
    assert "1 rows repeat the source's id of another" in text


def test_mistakes_are_one_line(tmp_path, capsys):
    write_mevis(tmp_path)
    for arguments, message in [
        (["show", "mevis", tmp_path, "--row", "99"], "there is no row '99' among the 3 rows"),
        (["show", "mevis", tmp_path, "--row", "-1"], "there is no row '-1'"),
        (["show", "mevis", tmp_path, "--out", tmp_path / "x.gif"], "must be a .png or an .html file"),
        (["show", "mevis", tmp_path, "--frames", "0"], "at least one frame"),
        (["inspect", "mevis", tmp_path, "--split", "test"], "mevis has the splits train, valid_u, valid, not 'test'"),
        (["inspect", "mevis", tmp_path, "--option", "colour=red"], "mevis: "),
        (["inspect", "mevis", tmp_path, "--option", "colour"], "--option takes NAME=VALUE"),
        (["inspect", "mevis", tmp_path / "nowhere"], "data_dir is not a folder"),
        (["inspect", "mevis"], "does not download this corpus"),
        (["inspect", "mevis:huge", tmp_path], "mevis"),
    ]:
        assert data(*arguments) == 2, arguments
        found = capsys.readouterr().err
        assert message in found, found
        assert found.count("\n") == 1


def test_a_row_is_shown(tmp_path, capsys, monkeypatch):
    write_mevis(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert data("show", "mevis", tmp_path, "--row", "aa/1") == 0
    assert capsys.readouterr().out.strip() == "mevis_train_1.png"
    picture = np.asarray(Image.open("mevis_train_1.png"))
    # both objects are in their own colour on the first frame, the second over the first where they meet
    for colour in ((230, 159, 0), (86, 180, 233)):
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 40).any()
    assert data("show", "mevis", tmp_path, "--split", "valid", "--out", "x.html") == 0
    page = (tmp_path / "x.html").read_text()
    assert "masks are not published" in page
    assert page.count("<figure>") == 3
    assert "<script" not in page
    assert "http://" not in page


def test_what_a_row_says_cannot_run_in_the_page(tmp_path):
    write_llava(tmp_path, record("<image>\n<script>alert(1)</script>", image=IMAGE))
    row = library.load_dataset("llava_instruct", data_dir=str(tmp_path), split="train")[0]
    draw_row(row, tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    (tmp_path / IMAGE).write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable image"):
        draw_row(row, tmp_path / "x.png")


def test_rows_without_pixels_are_drawn_all_the_same(tmp_path):
    import shutil

    write_mevis(tmp_path)
    shutil.rmtree(tmp_path / "mevis" / "train" / "JPEGImages")
    row = library.load_dataset("mevis", data_dir=str(tmp_path), split="train")[0]
    draw_row(row, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").width > 400
    nothing = {**row, "objects": [], "height": HEIGHT, "width": WIDTH, "metadata": json.dumps({"a": "é" * 500})}
    draw_row(nothing, tmp_path / "y.html")
    assert "refers to nothing in the video" in (tmp_path / "y.html").read_text()


def test_a_question_is_drawn(tmp_path):
    pytest.importorskip("av")
    row = library.load_dataset("st_evidence", "sample", split="test")[3]
    draw_row(row, tmp_path / "x.png", frames=3)
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    assert picture.shape[1] > 1200
    draw_row({**row, "video": None, "masks": None}, tmp_path / "y.html", frames=1)
    assert "no frames: the row came without its clip" in (tmp_path / "y.html").read_text()
