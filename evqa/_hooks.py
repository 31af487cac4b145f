"""``import evqa`` teaches ``datasets``, ``evaluate`` and ``transformers`` our names, without importing any of them.

``datasets.load_dataset("evqa/st_evidence", ...)`` and ``evaluate.load("evqa/st_evidence_metrics")`` resolve names in
one function each, their module factory. Once those libraries are imported, by us or by anybody, that function is
wrapped: our names lead to our code, offline and from any folder; every other name goes on as before. The auto classes
of ``transformers`` have a registry for that (:mod:`evqa.models.unipixel.auto_unipixel`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["install", "metric_script"]

_lock = threading.RLock()


def metric_script(name: str) -> Path | None:
    """The script of one of our ``evaluate`` modules, by its name with or without ``evqa/``; ``None`` if not ours."""
    short = name.removeprefix("evqa/")
    if not short.isidentifier():
        return None
    # In a wheel the modules lie inside the package; in a checkout they lie beside it.
    here = Path(__file__).parent
    for folder in (here / "_metrics", here.parent / "metrics"):
        script = folder / short / f"{short}.py"
        if script.is_file():
            return script
    return None


# ---------------------------------------------------------------------------------------- wrappers
def _wrap_datasets(module: ModuleType) -> None:
    original = module.dataset_module_factory
    if getattr(original, "_evqa", False):
        return

    @functools.wraps(original)
    def factory(path: str, *args: Any, **kwargs: Any) -> Any:
        from evqa.corpora.base import CORPORA, corpus_name

        name = corpus_name(path) if isinstance(path, str) and path.startswith("evqa/") else None
        if name not in CORPORA:
            return original(path, *args, **kwargs)
        from datasets.load import DatasetModule

        if kwargs.get("data_dir") is None and name != "st_evidence":
            # Nothing is downloaded for these corpora, but somebody may have published their typed rows.
            with contextlib.suppress(OSError, ValueError):
                return original(path, *args, **kwargs)
        revision = kwargs.get("revision") or (args[0] if args else None)
        options = {"dataset_name": name, "repo_id": f"evqa/{name}"}
        if revision is not None:
            options["revision"] = str(revision)
        return DatasetModule(CORPORA[name], None, options)

    factory._evqa = True  # type: ignore[attr-defined]
    module.dataset_module_factory = factory


def _wrap_evaluate(module: ModuleType) -> None:
    original = module.evaluation_module_factory
    if getattr(original, "_evqa", False):
        return

    @functools.wraps(original)
    def factory(path: str, *args: Any, **kwargs: Any) -> Any:
        script = metric_script(path) if isinstance(path, str) and path.startswith("evqa/") else None
        return original(path if script is None else str(script), *args, **kwargs)

    factory._evqa = True  # type: ignore[attr-defined]
    module.evaluation_module_factory = factory


def _register_unipixel(module: ModuleType) -> None:
    from evqa.models.unipixel.auto_unipixel import register

    register()


#: Module -> what to do once it has been imported.
_HOOKS: dict[str, Callable[[ModuleType], None]] = {
    "datasets.load": _wrap_datasets,
    "datasets.inspect": _wrap_datasets,  # imports the factory by name
    "evaluate.loading": _wrap_evaluate,
    "evaluate.inspect": lambda module: _wrap_evaluate(module) if hasattr(module, "evaluation_module_factory") else None,
    # Whichever of the two comes last: importing one of ours can be what imports the other, half done itself.
    "transformers.models.auto.configuration_auto": _register_unipixel,
    "transformers.models.auto.processing_auto": _register_unipixel,
    "evqa.models.unipixel.configuration_unipixel": _register_unipixel,
    "evqa.models.unipixel.processing_unipixel": _register_unipixel,
}


# -------------------------------------------------------------------------------------- installing
class _Loader(importlib.abc.Loader):
    """Runs a module as its own loader would, then its hook."""

    def __init__(self, loader: Any, hook: Callable[[ModuleType], None]):
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._hook(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: puts our loader around that of the modules we wait for."""

    def __init__(self) -> None:
        self._busy = threading.local()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        hook = _HOOKS.get(name)
        if hook is None or getattr(self._busy, "name", None) == name:
            return None
        self._busy.name = name  # the search below asks every finder, us included
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy.name = None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, hook)
        return spec


def install() -> None:
    """Wrap what is imported already, and wait for the rest; doing it twice changes nothing."""
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        for name, hook in _HOOKS.items():
            module = sys.modules.get(name)
            if module is not None:
                hook(module)
