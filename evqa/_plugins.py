"""Adapters and segmenters: one file each in their package, found by the file's name.

Such a file holds a class and the line ``ADAPTER = TheClass`` (or ``SEGMENTER = TheClass``). A file outside the package
is named by its path.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from evqa._from_file import class_from_file, is_file_name
from evqa.errors import AdapterError

__all__ = ["load_plugin", "plugin_names", "plugin_summary"]


def plugin_names(package: str) -> list[str]:
    """Names of the plug-ins in ``evqa.<package>``."""
    home = importlib.import_module(f"evqa.{package}")
    return sorted(m.name for m in pkgutil.iter_modules(home.__path__) if m.name != "base" and m.name[0] != "_")


def plugin_summary(package: str, name: str) -> str:
    """The first line of a plug-in's documentation."""
    text = (importlib.import_module(f"evqa.{package}.{name}").__doc__ or "").strip().splitlines()
    return text[0] if text else ""


def load_plugin(package: str, kind: str, spec: str, options: dict[str, Any]) -> Any:
    """Make one.

    Args:
        package: Package below ``evqa``.
        kind: ``adapter`` or ``segmenter``; in capitals, the name of the class in its file.
        spec: ``name`` or ``name:model id``; the model id is passed as the option ``model``. A name that ends with
            ``.py`` is the path of a file like those in the package.
        options: Keyword arguments of the class.

    Raises:
        AdapterError: No such plug-in, or an option that it does not have.
    """
    name, _, model = spec.partition(":")
    known = plugin_names(package)
    if is_file_name(name):
        base = getattr(importlib.import_module(f"evqa.{package}.base"), kind.capitalize())
        cls = class_from_file(name, kind.upper(), base, AdapterError)
    elif name in known:
        cls = getattr(importlib.import_module(f"evqa.{package}.{name}"), kind.upper())
    else:
        raise AdapterError(f"there is no {kind} {name!r}; known: {', '.join(known)}, or a file: my_model.py")
    if model:
        options = {"model": model, **options}
    try:
        return cls(**options)
    except TypeError as error:
        raise AdapterError(f"{kind} {name!r}: {str(error).replace(f'{cls.__name__}.__init__() ', '')}") from None
