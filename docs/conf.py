"""The documentation site: ``sphinx-build -q -W docs site/html``.

The pages are plain Markdown that also reads well on GitHub. What the site adds is made here, while it is built: a page
for each dataset and metric card (the cards themselves, not copies), links to files outside this folder, the pictures
of the gallery and its evidence page.
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import gallery_page  # noqa: E402

import evqa  # noqa: E402
from evqa.cli import build_parser  # noqa: E402
from evqa.corpora.cards import fill  # noqa: E402

project = "evqa"
author = "The evqa developers"
version = release = evqa.__version__
copyright = "the evqa developers; code Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*", "made/site", "made/gallery.md", "**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = "evqa"
html_extra_path = ["made/site"]  # the gallery's evidence page
(HERE / "made" / "site").mkdir(parents=True, exist_ok=True)
html_theme_options = {
    "source_repository": "https://github.com/evqa/evqa/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # so that links to headings are checked
nb_execution_mode = "off"  # the notebook is stored with what it printed; the tests execute it

# Docstrings are reStructuredText with the sections of Google's style.
suppress_warnings = ["ref.python"]  # an attribute of one name in two classes; nothing links to either
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

#: Page of the reference -> its modules. They are imported: what they need must be installed.
REFERENCE = {
    "Records and errors": ["evqa.types", "evqa.errors"],
    "Loading data": [
        "evqa.corpora.base", "evqa.corpora.st_evidence", "evqa.corpora.segmentation", "evqa.corpora.conversation",
        "evqa.corpora.reading",
    ],
    "Masks and segments": ["evqa.masks", "evqa.segments"],
    "Video": ["evqa.video"],
    "Scores": ["evqa.scoring", "evqa.evaluation"],
    "Running models": ["evqa.adapters.base", "evqa.engine", "evqa.runlog", "evqa.segmenters.base", "evqa.segmentation"],
    "Reading and writing predictions": ["evqa.predictions", "evqa.parsing", "evqa.prompts", "evqa.export"],
    "Tables, pages, leaderboard": ["evqa.report", "evqa.leaderboard"],
    "UniPixel": [
        "evqa.models.unipixel", "evqa.models.unipixel.configuration_unipixel",
        "evqa.models.unipixel.processing_unipixel", "evqa.models.unipixel.modeling_unipixel",
    ],
    "Training": ["evqa.training.mixture", "evqa.training.collator", "evqa.training.trainer", "evqa.training.arguments"],
}  # fmt: skip

SOURCE = "https://github.com/evqa/evqa/blob/main"
#: Card -> the page that it becomes.
CARDS = {
    card: f"made/{kind}/{card.parent.name}"
    for kind, folder in (("datasets", "dataset_scripts"), ("metrics", "metrics"))
    for card in sorted((ROOT / folder).glob("*/README.md"))
}


def write_cards(app: Any) -> None:
    """A page per card, so that the cards of new corpora and metrics appear by themselves."""
    for card, page in CARDS.items():
        body = re.sub(r"\A---\n.*?\n---\n+", "", card.read_text("utf-8"), flags=re.DOTALL)
        _write(page.removeprefix("made/"), fill(body))
    for kind in ("datasets", "metrics"):
        for file in (HERE / "made" / kind).glob("*.md"):
            if f"made/{kind}/{file.stem}" not in CARDS.values():
                file.unlink()


def write_reference(app: Any) -> None:
    """The pages of the reference: what the docstrings of :data:`REFERENCE` say."""
    for title, modules in REFERENCE.items():
        parts = [f"# {title}"]
        if title == "Loading data":
            parts.append("```{eval-rst}\n.. autofunction:: evqa.load_dataset\n```")
        for module in modules:
            home = ROOT.joinpath(*module.split("."))
            if home.is_dir() or home.with_suffix(".py").is_file():
                parts.append(f"```{{eval-rst}}\n.. automodule:: {module}\n```")
        _write(
            f"api/{title.lower().replace(',', '').replace(' ', '-')}", "\n\n".join(parts) + "\n", keep=len(parts) > 1
        )


def _write(name: str, text: str, *, keep: bool = True) -> None:
    """A page below ``made``; one that has not changed is not built again."""
    file = HERE / "made" / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not keep:
        file.unlink(missing_ok=True)
    elif not file.exists() or file.read_text("utf-8") != text:
        file.write_text(text, "utf-8")


def write_commands(app: Any) -> None:
    """What ``--help`` prints for every command."""
    parts = ["# Commands", "What `evqa COMMAND --help` prints."]

    def add(parser: argparse.ArgumentParser, level: int) -> None:
        parser.formatter_class = functools.partial(argparse.HelpFormatter, width=92)
        parts.append(f"{'#' * level} {parser.prog}\n\n```text\n{parser.format_help()}```")
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in dict.fromkeys(action.choices.values()):
                    add(inner, level + 1)

    add(build_parser(), 2)
    _write("commands", "\n\n".join(parts) + "\n")


def write_gallery(app: Any) -> None:
    """The gallery's pictures and its evidence page."""
    site = HERE / "made" / "site"
    shutil.rmtree(site, ignore_errors=True)
    text = gallery_page.make(HERE / "made" / "gallery", site / "evidence")
    _write("gallery", text)


def lead_links(app: Any, name: str, source: list[str]) -> None:
    """Links to files of the repository: to their page here if they have one, else to the repository."""
    page = HERE / f"{name}.md"
    if not page.exists():  # a notebook
        return
    home = next((card.parent for card, own in CARDS.items() if own == name), page.parent)

    def lead(match: re.Match) -> str:
        target, anchor = match[1], match[2] or ""
        if target.startswith(f"{SOURCE}/"):
            file = ROOT / target.removeprefix(f"{SOURCE}/")
        elif re.match(r"[a-z]+:", target):
            return match[0]
        else:
            file = (home / target).resolve()
        if file in CARDS:
            file = HERE / f"{CARDS[file]}.md"
        if file.is_relative_to(HERE) and (file.suffix == ".md" or home == page.parent):
            return f"]({'../' * name.count('/')}{file.relative_to(HERE)}{anchor})"
        return f"]({SOURCE}/{file.relative_to(ROOT)}{anchor})"

    source[0] = re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", lead, source[0])
    if name == "index":  # a pattern of a part that has no page yet is no fault
        source[0] = re.sub(
            r"^[\w/]+\*\n",
            lambda m: m[0] if any(HERE.glob(f"{m[0].strip()}.md")) else "",
            source[0],
            flags=re.MULTILINE,
        )
    if name == "gallery":
        entries = (HERE / "made" / "gallery.md").read_text("utf-8").replace("](gallery/", "](made/gallery/")
        source[0] = source[0].replace("<!-- gallery -->", entries)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    for write in (write_cards, write_reference, write_commands, write_gallery):
        app.connect("builder-inited", write)
    app.connect("source-read", lead_links)
