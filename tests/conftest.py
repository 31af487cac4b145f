"""Shared by all tests: an isolated cache, small data made on the spot, and the way to optional material."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before datasets or evaluate are imported anywhere: no test may touch the user's cache or the network.
_CACHE = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp")) / f"evqa-test-cache-{os.getpid()}"
os.environ.update(
    HF_HOME=str(_CACHE), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1", HF_HUB_DISABLE_XET="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1",
)  # fmt: skip

#: Real data and golden numbers that are not part of this repository; tests that need them skip without.
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "golden").is_dir():
        pytest.skip("the shared material is not here")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _remove_cache():
    yield
    import shutil

    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """The test builds datasets into a cache of its own."""
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    return folder
