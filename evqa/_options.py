"""``NAME=VALUE``, as options are given on a command line."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from evqa.errors import DataError

__all__ = ["parse_options"]


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as keyword arguments; a value that is a Python literal becomes that.

    Raises:
        DataError: Not of that form.
    """
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise DataError(f"--option takes NAME=VALUE, not {pair!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options
