"""The code blocks of the documentation, and how each kind is tried.

A fence says what its block is:

- ```` ```python ````: with ``>>>`` a doctest, else code that must run; a page is one session, from top to bottom;
- ```` ```bash ````: run by bash, in the page's folder;
- ```` ```text output ````: what the block before it prints, ``...`` standing for anything;
- ```` ```python file=NAME ````: a file that the reader writes; later blocks use it;
- ```` ```json ````, ``yaml``, ``toml``: must be readable; ```` ```text ````, ``bibtex``: words;
- ```` ```bash needs-gpu ```` and the like (:data:`NEEDS`): not run. Its commands are read by the real parser, their
  adapters and options looked up, and files of this repository that they name must exist; Python must compile.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What a block may need that a test does not have.
NEEDS = {
    "needs-data": "the published data",
    "needs-download": "the network",
    "needs-gpu": "an accelerator",
    "needs-hub": "an account on the Hub",
    "needs-install": "to install packages",
    "needs-key": "an API key",
    "needs-minutes": "more time than a test has",
    "needs-server": "a running model server",
    "needs-weights": "published weights",
}
LANGUAGES = {"bash", "bibtex", "json", "python", "text", "toml", "yaml"}
#: Programs that a block which is not run may call, besides evqa.
PROGRAMS = {
    ".", "accelerate", "cd", "docker", "export", "git", "hf", "jupyter", "ln", "mkdir", "pip", "pytest", "python", "python3", "sphinx-build",
    "tar", "torchrun", "transformers", "vllm",
}  # fmt: skip

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass
class Block:
    """One fenced block: ``flags`` are the words after the language, ``after`` is the text between it and the last."""

    page: Path
    line: int
    language: str
    flags: list[str]
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> list[str]:
        return [flag for flag in self.flags if flag.startswith("needs-")]

    @property
    def file(self) -> str | None:
        return next((flag.removeprefix("file=") for flag in self.flags if flag.startswith("file=")), None)


def pages() -> list[Path]:
    """Every Markdown page of the repository that is for readers."""
    found = list(ROOT.glob("*.md"))
    for folder in ("benchmarks", "dataset_scripts", "docs", "metrics", "recipes"):
        found += (ROOT / folder).rglob("*.md")
    made = ROOT / "docs" / "made"  # by docs/conf.py
    hidden = ("_", ".")
    return sorted(
        p
        for p in found
        if not (p.is_relative_to(made) or any(part.startswith(hidden) for part in p.relative_to(ROOT).parts))
    )


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order; directives of the site's generator (``{...}``) are none."""
    text = page.read_text("utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(text):
        language, *flags = match["info"].split() or [""]
        if not language.startswith("{"):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, language, flags, match["text"], text[end : match.start()]))
        end = match.end()
    return found


def stray_fences(page: Path) -> list[str]:
    """Lines that look like a fence and that :func:`blocks` does not see: indented, of tildes, or never closed."""
    outside = _FENCE.sub("", page.read_text("utf-8"))
    return re.findall(r"^[ \t>]*(?:`{3,}|~{3,}).*", outside, flags=re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The simple commands of a bash block: comments and redirections gone, split at ``&&``, ``|``, ``;`` and lines."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("&|;"):
                if words:
                    found.append(words)
                words = []
            elif not set(token) <= set("<>"):
                words.append(token)
    return found


def check_command(words: list[str]) -> None:
    """Read a command that is not run.

    Raises:
        AssertionError: evqa's parser refuses it, its adapter or an option does not exist, or neither does a file.
    """
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
        words = words[1:]  # VARIABLE=value before the program
    if not words:
        return
    if words[0] == "evqa":
        _check_evqa(words[1:])
    elif "evqa.cli" in words:  # python, torchrun or accelerate launch with -m
        _check_evqa(words[words.index("evqa.cli") + 1 :])
    assert words[0] in PROGRAMS | {"evqa"}, f"nobody checks {words[0]!r}"
    for word in words[1:]:
        if re.match(r"(recipes|benchmarks|dataset_scripts|metrics|spaces|docs)/", word):
            assert (ROOT / word).exists(), f"{word} is not there"


def _check_evqa(arguments: list[str]) -> None:
    from evqa.adapters.base import adapter_names
    from evqa.cli import build_parser

    try:
        parsed = build_parser().parse_args(arguments)
    except SystemExit:
        raise AssertionError(f"evqa does not take {shlex.join(arguments)!r}") from None
    model = getattr(parsed, "model", None)
    if model is None or model.partition(":")[0].endswith(".py"):
        return
    name = model.partition(":")[0]
    assert name in adapter_names(), f"there is no adapter {name!r}"
    options = {pair.partition("=")[0]: pair.partition("=")[2] for pair in parsed.option}
    if ":" in model:
        options["model"] = model.partition(":")[2]
    try:
        inspect.signature(importlib.import_module(f"evqa.adapters.{name}").ADAPTER).bind_partial(**options)
    except TypeError as error:
        raise AssertionError(f"adapter {name!r}: {error}") from None


def parser_commands() -> dict[str, argparse.ArgumentParser]:
    """Name -> parser of each command of evqa."""
    from evqa.cli import build_parser

    actions = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions[0].choices)
