"""Adapters and corpora that live outside the package: one Python file each, named by its path."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from evqa.errors import EvqaError

__all__ = ["class_from_file", "is_file_name"]


def is_file_name(name: str) -> bool:
    """Whether a name means a file and none of ours: it ends with ``.py``."""
    return name.endswith(".py")


def class_from_file(path: str | os.PathLike, line: str, base: type, error: type[EvqaError]) -> type[Any]:
    """Run a Python file and take the class that it names. The file's code runs: give only files that you trust.

    Args:
        path: The file. It is run once; the same file again gives the same class, unless it has changed.
        line: The module's name for its class: ``ADAPTER`` or ``BUILDER``.
        base: What the class must derive from.
        error: What to raise.

    Returns:
        The class.

    Raises:
        EvqaError: As ``error``: there is no such file, or it does not name such a class. What the file's own code
            raises comes through with its traceback.
    """
    file = Path(path).expanduser().resolve()
    try:
        source = file.read_bytes()
    except OSError as reason:
        raise error(f"the file cannot be read ({reason.strerror})", file=file) from None
    # Under a name of its own in sys.modules, because classes are pickled, and dataclasses resolved, by module name.
    name = f"evqa_file_{file.stem}_{hashlib.sha256(os.fsencode(file) + source).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a .py always has a loader
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        except BaseException:
            del sys.modules[name]
            raise
    cls = getattr(sys.modules[name], line, None)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise error(f"the file must end with {line} = YourClass, a class derived from {base.__name__}", file=file)
    return cls
