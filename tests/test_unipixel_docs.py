"""docs/unipixel.md says what there is; that its code runs is tested with all pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

PAGE = Path(__file__).parents[1] / "docs" / "unipixel.md"


def test_options_are_those_of_the_adapter():
    """The tables name every option of the adapter and every setting of the processor, and no other."""
    import inspect

    from evqa.adapters.unipixel import UniPixel
    from evqa.models.unipixel import UniPixelProcessor

    own = set(inspect.signature(UniPixel.__init__).parameters) - {"self", "model"}
    settings = set(inspect.signature(UniPixelProcessor.__init__).parameters)
    settings -= {"self", "image_processor", "tokenizer", "video_processor", "chat_template", "kwargs"}
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert own | settings <= named
    assert named - own - settings == set()
