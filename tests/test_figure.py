"""``evqa figure`` and ``evqa compare --latex``: what a paper takes."""

from __future__ import annotations

import math
import subprocess

import numpy as np
import pytest
from make_data import benchmark
from PIL import Image

from evqa.cli import main
from evqa.errors import DataError
from evqa.report import write_figure
from evqa.types import Prediction

pytest.importorskip("matplotlib")

BLUE, ORANGE = (29, 78, 216), (178, 58, 10)


def near(picture, colour, tolerance=40):
    return (np.abs(np.asarray(picture.convert("RGB"), dtype=int) - colour).max(axis=-1) < tolerance).sum()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure")
    for model in ("chance", "oracle"):
        arguments = ["run", "--model", model, "--data", "evqa/st_evidence:sample", "--split", "test[:3]"]
        assert main([*arguments, "--out", str(folder / model)]) == 0
    return folder


def test_command_writes_pdf_and_png(run, tmp_path, capsys):
    out = tmp_path / "deep" / "v1.2 figure"
    command = ["figure", str(run / "chance"), "street_morning_1", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.split("\n")[:2] == [f"{out}.pdf", f"{out}.png"]
    pdf, png = (out.with_name(f"{out.name}.{kind}").read_bytes() for kind in ("pdf", "png"))
    assert pdf.startswith(b"%PDF-")
    assert b"/CreationDate" not in pdf
    picture = Image.open(out.with_name(f"{out.name}.png"))
    assert picture.width == 1400
    assert near(picture, BLUE) > 500
    assert near(picture, ORANGE) > 500
    assert main(command) == 0
    assert (pdf, png) == tuple(out.with_name(f"{out.name}.{kind}").read_bytes() for kind in ("pdf", "png"))
    assert main([*command, "--with", str(run / "oracle")]) == 0
    assert Image.open(out.with_name(f"{out.name}.png")).height > picture.height + 100  # a strip more


def test_unknown_entry_is_an_error_that_names_it(run, capsys):
    assert main(["figure", str(run / "chance"), "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_masks_stand_where_they_are(tmp_path):
    """In the strip's frame, blue is inside the reference's box and nowhere else."""
    row = benchmark(1)[0] | {"masks": [benchmark(1)[0]["masks"][0]]}  # frame 0: a box at x 0..16, y 6..18
    said = {"run": {"e000": Prediction("e000", answer="A")}}
    (path,) = write_figure(said, row, tmp_path / "one", frames=1, formats=["png"])
    picture = np.asarray(Image.open(path).convert("RGB"), dtype=int)
    strip = np.abs(picture - 24).max(axis=-1) < 3  # the frame without a clip is dark
    top, bottom = np.flatnonzero(strip.sum(axis=1) > 200)[[0, -1]]  # not the black text, which has that grey too
    left, right = np.flatnonzero(strip.sum(axis=0) > 200)[[0, -1]]
    blue = (picture[top:bottom, left:right, 2] - picture[top:bottom, left:right, 0]) > 40
    y, x = np.argwhere(blue).T
    height, width = bottom - top, right - left
    assert x.max() / width == pytest.approx(16 / 64, abs=0.03)
    assert y.min() / height == pytest.approx(6 / 48, abs=0.03)
    assert y.max() / height == pytest.approx(18 / 48, abs=0.03)


@pytest.mark.parametrize("change", [
    {"masks": None}, {"masks": [], "segments": None}, {"segments": [], "duration": None, "fps": None, "height": None},
    {"question": "What does $x_1$ cost? " * 30, "candidates": ["$", "\\frac{", "%", "_"]}, {"answer_index": None, "answer": None},
], ids=["no masks", "no evidence", "no clip facts", "odd text", "no answer"])  # fmt: skip
def test_rows_that_lack_something(tmp_path, change):
    row = benchmark(1)[0] | change
    said = Prediction(
        "e000", answer="$a$", segments=[[0.0, math.inf], [math.nan, 1.0], [0.2, 99.0]], masks=benchmark(1)[0]["masks"]
    )
    files = write_figure({"a_$run$": {"e000": said}, "failed": {}}, row, tmp_path / "f")
    assert [file.suffix for file in files] == [".pdf", ".png"]
    assert all(file.stat().st_size > 3000 for file in files)


def test_refusals(tmp_path):
    row = benchmark(1)[0]
    for arguments in ({"runs": {}}, {"frames": 0}, {"formats": ["exe"]}):
        with pytest.raises(DataError, match="e000"):
            write_figure(**{"runs": {"a": {}}, "row": row, "path": tmp_path / "x", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_latex_compiles(run, tmp_path, capsys):
    import shutil

    if shutil.which("pdflatex") is None:
        pytest.skip("no LaTeX on this machine")
    main(["compare", str(run / "chance"), str(run / "oracle"), "--latex", "--bootstrap", "20"])
    body = capsys.readouterr().out
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=batchmode", "t.tex"], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 0
