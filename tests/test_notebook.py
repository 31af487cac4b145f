"""The quick start notebook runs from top to bottom, without a network, and prints what is stored in it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
SECONDS = 30


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(out["text"] for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")


def cpu_of_children():
    """Seconds of processor time: a busy machine must not fail a test."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kinds(cell):
    return [sorted(out.get("data", {})) for out in cell.outputs if out.output_type != "stream"]


def test_the_notebook_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    stored = nbformat.read(NOTEBOOK, 4)
    fresh = nbformat.read(NOTEBOOK, 4)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    begin = cpu_of_children()
    nbclient.NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert cpu_of_children() - begin < SECONDS
    for number, (is_now, was) in enumerate(zip(code_cells(fresh), code_cells(stored), strict=True)):
        assert printed(is_now) == printed(was), f"code cell {number}: store the notebook again"
        assert kinds(is_now) == kinds(was), f"code cell {number}"
    assert [kind for cell in code_cells(fresh) for kind in kinds(cell)] == [
        ["image/jpeg", "text/plain"],
        ["image/svg+xml", "text/plain"],
    ]
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()


def test_it_is_stored_as_it_should_be():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 200_000
    for cell in code_cells(notebook):
        assert not [out for out in cell.outputs if out.output_type == "error" or out.get("name") == "stderr"]
        assert "/home/" not in str(cell.outputs)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in cell.source.split("](")[1:]:
                assert (NOTEBOOK.parent / target.split(")")[0].split("#")[0]).exists()
