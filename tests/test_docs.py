"""Every block of the documentation is tried (see doc_blocks.py), and every link and anchor in the repository leads
somewhere."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import doc_blocks
import pytest
from make_data import write_gen, write_mcq

ROOT = doc_blocks.ROOT
PAGES = doc_blocks.pages()
_ROUGHLY = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages take for granted: the release below ``/data``, and somebody's results and run."""
    home = tmp_path_factory.mktemp("world")
    release = home / "data" / "ST-Evidence-Bench"
    write_gen(release)
    write_mcq(release)
    desk = home / "desk"
    desk.mkdir()
    run(home, desk, f"""
        evqa run --model oracle --data {shlex.quote(str(release))} --out runs/mine
        evqa export runs/mine --to theirs
        mv theirs/predictions.json their_results.json
        mv theirs/predictions their_masks && rmdir theirs
        for name in a b c; do cp -r runs/mine runs/$name; done
    """)  # fmt: skip
    return home


@pytest.fixture
def desk(world, tmp_path, monkeypatch):
    """The folder in which a page is read."""
    shutil.copytree(world / "desk", tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def run(world: Path, folder: Path, text: str) -> str:
    """Run a block in bash, as a reader would; what it prints."""
    tools = world / "bin"
    if not tools.is_dir():
        tools.mkdir()
        evqa = tools / "evqa"
        evqa.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m evqa.cli "$@"\n')
        evqa.chmod(0o755)
        (tools / "python").symlink_to(sys.executable)
    # A script in this folder must not hide the installed evqa, nor the other way round.
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", located(world, text)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{text}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def located(world: Path, text: str) -> str:
    """The pages write ``/data`` where the reader has a folder of data."""
    return re.sub(r"(?<![\w.])/data/", f"{world}/data/", text)


def run_python(text: str, session: dict, where: str) -> None:
    if ">>>" in text:
        examples = doctest.DocTestParser().get_doctest(text, session, where, where, 0)
        examples.globs = session  # a doctest would run in a copy, and the page go on without what it defined
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=_ROUGHLY).run(examples, out=said.append, clear_globs=False)
        assert result.failed == 0, "".join(said)
    else:
        exec(compile(text, where, "exec"), session)


@by_name
def test_blocks(page, world, desk, capsys):
    session = {"__name__": "__page__"}
    printed = None
    assert not doc_blocks.stray_fences(page), "fences begin and end at the start of a line"
    for block in doc_blocks.blocks(page):
        where = str(block)
        assert block.language in doc_blocks.LANGUAGES, f"{where}: say what the block is, not {block.language!r}"
        strange = [f for f in block.flags if f not in doc_blocks.NEEDS and f != "output" and not f.startswith("file=")]
        assert not strange, f"{where}: {strange}"
        if "output" in block.flags:
            assert printed is not None, f"{where}: there is no block that prints this"
            assert doctest.OutputChecker().check_output(block.text, printed, _ROUGHLY), f"{where}: it prints\n{printed}"
            continue
        printed = None
        if block.file:
            assert not Path(block.file).is_absolute()
            (desk / block.file).parent.mkdir(parents=True, exist_ok=True)
            (desk / block.file).write_text(block.text)
        elif block.language == "bash" and (block.needs or "<!-- two commands -->" in block.before):
            for words in doc_blocks.commands(block.text):  # the two commands are run by .ci/run, in a new environment
                doc_blocks.check_command(words)
        elif block.language == "bash":
            printed = run(world, desk, block.text)
        elif block.language == "python" and block.needs:
            compile(block.text, where, "exec")
        elif block.language == "python":
            capsys.readouterr()
            run_python(located(world, block.text), session, where)
            printed = capsys.readouterr().out
        elif block.language in ("json", "yaml", "toml"):
            read_config(block.language, block.text)


def read_config(language: str, text: str):
    if language == "json":
        return json.loads(text)
    if language == "yaml":
        return pytest.importorskip("yaml").safe_load(text)
    return pytest.importorskip("tomllib").loads(text)


# ------------------------------------------------------------------------------------------------ links
def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^(`{3,}).*?^\1[ \t]*$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^(`{3,}).*?^\1[ \t]*$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        again = (f"{slug}-{number}" for number in itertools.count(1))
        found.add(slug if slug not in found else next(one for one in again if one not in found))
    return found


@by_name
def test_links(page):
    for target in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose(page)):
        ours = re.match(r"https://github\.com/evqa/evqa/(?:blob|tree)/main/([^#]*)(#.*)?$", target)
        if ours:  # cards are read on the Hub, where only such links work
            base, path, anchor = ROOT, ours[1], (ours[2] or "").removeprefix("#")
        elif re.match(r"[a-z]+:", target):
            continue
        else:
            path, _, anchor = target.partition("#")
            base = page.parent
        there = (base / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        assert there.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target}: no such heading; there are {sorted(anchors(there))}"


def test_every_page_of_the_site_is_in_its_contents():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = " ".join(re.findall(r"^```\{toctree\}\n(.*?)^```", index, flags=re.MULTILINE | re.DOTALL)).split()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs").with_suffix(""))
        if not name.startswith(("_", "made/")) and name != "index":
            assert any(Path(name).match(pattern) for pattern in listed), f"docs/index.md does not list {name}"


def test_pictures_show_what_is_computed():
    spec = importlib.util.spec_from_file_location("measures", ROOT / "docs" / "images" / "measures.py")
    measures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measures)
    for name, draw in measures.PICTURES.items():
        assert (ROOT / "docs" / "images" / name).read_text("utf-8") == draw(), f"draw {name} again: {spec.origin}"
    # By hand: [2, 6] and [4, 9] share 2 of 7 s. The alternative texts say what the pictures show.
    page = (ROOT / "docs" / "protocols.md").read_text("utf-8")
    drawn = [(ROOT / "docs" / "images" / name).read_text("utf-8") for name in ("tiou.svg", "j.svg", "f.svg")]
    assert "= 0.286<" in drawn[0]
    for picture, number in zip(drawn, re.findall(r"(\d\.\d{3})\]\(images/", page), strict=True):
        assert number in picture


# ----------------------------------------------------------------------------------------- the checks themselves
def test_no_block_escapes(tmp_path):
    page = tmp_path / "page.md"
    for text in ("- item\n\n  ```bash\n  false\n  ```\n", "```python\n1 / 0\n", "~~~bash\nfalse\n~~~\n"):
        page.write_text("words\n\n```text\nfine\n```\n" + text)
        assert doc_blocks.stray_fences(page)
    page.write_text("````text\n```bash\nfalse\n```\n````\n\n```python\nx = '''\n    ```\n'''\n```\n")
    assert not doc_blocks.stray_fences(page)


def test_commands_are_found():
    text = "# words\nA=1 evqa run --model x \\\n  --out 'a b' && evqa score runs/x | head -3 > out.txt  # more\n"
    assert doc_blocks.commands(text) == [
        ["A=1", "evqa", "run", "--model", "x", "--out", "a b"],
        ["evqa", "score", "runs/x"],
        ["head", "-3", "out.txt"],
    ]


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("evqa run --model chance", "does not take"),
        ("evqa rum", "does not take"),
        ("evqa run --model nobody --out x", "no adapter 'nobody'"),
        ("evqa run --model chance --option sed=1 --out x", "unexpected keyword argument 'sed'"),
        ("torchrun -m evqa.cli run --model chance --out", "does not take"),
        ("accelerate launch recipes/nothing.py", "is not there"),
        ("rm -r x", "nobody checks"),
    ],
)
def test_commands_that_are_not_run_are_checked(command, fault, capsys):
    (words,) = doc_blocks.commands(command)
    with pytest.raises(AssertionError, match=fault):
        doc_blocks.check_command(words)


def test_commands_that_are_right_pass():
    for words in doc_blocks.commands("KEY=1 torchrun --nproc-per-node 2 -m evqa.cli run --model chance --out x; cd x"):
        doc_blocks.check_command(words)


# ------------------------------------------------------------------------------------------------ docstrings
WITH_EXAMPLES = [p for p in sorted((ROOT / "evqa").rglob("*.py")) if re.search(r"^ *>>> ", p.read_text("utf-8"), re.M)]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstring_examples(path, desk):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    result = doctest.testmod(module, optionflags=_ROUGHLY)
    assert result.attempted > 0
    assert result.failed == 0
