"""``evqa data list | info | inspect | validate | show``: the corpora on the command line."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import textwrap
from pathlib import Path
from typing import Any

from evqa._options import parse_options
from evqa.cli.common import EXIT_INCOMPLETE
from evqa.errors import DataError

__all__ = ["add"]

_DATA = """NAME[:CONFIG] of a corpus, such as mevis or evqa/st_evidence:mcq; or a folder in the layout of the
ST-Evidence release."""


def add(commands: Any) -> None:
    """Add ``evqa data`` to the subcommands of a parser."""
    data = commands.add_parser("data", help="list, describe, inspect, validate and show corpora")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="corpora and their configs").set_defaults(command=_list)
    for package, text in (("adapters", "model adapters"), ("segmenters", "what turns expressions into masks")):
        actions.add_parser(package, help=text).set_defaults(command=_plugins, package=package)
    info = actions.add_parser("info", help="what a corpus holds, the layouts that are read, its terms and its columns")
    info.add_argument("name", metavar="NAME")
    info.set_defaults(command=_info)
    for name, command, text in (
        ("inspect", _inspect, "show the columns and the first rows"),
        ("validate", _validate, "read every row and list what is wrong"),
        ("show", _show, "draw a row: its frames with masks, and its text"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("data", metavar="NAME", help=_DATA)
        action.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="folder of the published files")
        action.add_argument("--data-dir", type=Path, help="the same, as an option")
        action.add_argument("--split", help="only this split")
        action.add_argument("--task", choices=("gen", "mcq"), default="gen", help="config of a folder of ST-Evidence")
        action.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the corpus: evqa data info"
        )
        if name == "show":
            action.add_argument("--row", default="0", metavar="K", help="place, or entry id (default: %(default)s)")
            action.add_argument("--frames", type=int, default=8, help="at most so many (default: %(default)s)")
            action.add_argument("--out", type=Path, help="a .png or .html file (default: NAME_ROW.png)")
        action.set_defaults(command=command)


# ---------------------------------------------------------------------------------------- commands
def _list(arguments: argparse.Namespace) -> int:
    from evqa.corpora.base import CORPORA, builder_class

    for name in sorted(CORPORA):
        builder = builder_class(name)
        print(f"evqa/{name:19} {_first_line(builder.__module__)}")
        for config in builder.BUILDER_CONFIGS:
            print(f"  :{config.name:21} {config.description}")
    return 0


def _plugins(arguments: argparse.Namespace) -> int:
    from evqa._plugins import plugin_names, plugin_summary

    for name in plugin_names(arguments.package):
        print(f"{name:15} {plugin_summary(arguments.package, name)}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from evqa.corpora.base import CorpusConfig, builder_class
    from evqa.types import features

    name, _, config = arguments.name.partition(":")
    builder = builder_class(name)
    print((importlib.import_module(builder.__module__).__doc__ or "").strip())
    print(f"\nhomepage: {builder.homepage}" if builder.homepage else "")
    for one in [config] if config else [one.name for one in builder.BUILDER_CONFIGS] or [""]:
        terms = builder.terms(one)
        print(f"{one + ': ' if one else ''}licence: {terms.licence}")
        print(f"  may be passed on: {terms.redistribute}. {terms.reason}")
    for split, releases in builder.official.items():
        print(f"{split} as its authors count it: " + " or ".join(str(dict(one)) for one in releases))
    common = {field.name for field in dataclasses.fields(CorpusConfig)}
    own = [field for field in dataclasses.fields(builder.BUILDER_CONFIG_CLASS) if field.name not in common]
    for field in own:
        print(f"option {field.name}={field.default}")
    if own:
        print(textwrap.indent(textwrap.dedent(builder.BUILDER_CONFIG_CLASS.__doc__ or "").strip(), "  "))
    if builder.record:
        print("columns:")
        for column, kind in features(builder.record).items():
            print(f"  {column:16} {kind}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from evqa.corpora.checks import describe

    _, splits = _read(arguments)
    for split, rows in splits.items():
        print(describe(rows) if len(splits) == 1 else f"{split}: {describe(rows, show=1)}\n")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from evqa.corpora.checks import compare_with_official, validate

    builder, splits = _read(arguments, on_error="skip")
    problems = []
    for skipped in builder.skipped():
        where = f" [{skipped['file']}]" if skipped["file"] else ""
        problems.append(f"{skipped['entry']}: left out: {skipped['reason']}{where}")
    for split, rows in splits.items():
        found = validate(rows)
        problems += [f"{split} {problem}" for problem in found] if len(splits) > 1 else found
    for problem in problems:
        print(problem)
    for warning in compare_with_official(builder.corpus, splits, builder.official):
        print(f"warning: {warning}")
    total = sum(map(len, splits.values()))
    print(f"{total} rows of {', '.join(splits)}: {len(problems)} problems")
    return EXIT_INCOMPLETE if problems else 0


def _show(arguments: argparse.Namespace) -> int:
    from evqa.report.picture import draw_row

    _, splits = _read(arguments)
    split, rows = next(iter(splits.items()))
    place = _place(arguments.row, rows)
    name = arguments.data.removeprefix("evqa/").replace(":", "_").replace("/", "_")
    out = arguments.out or Path(f"{name}_{split}_{place}.png")
    draw_row(rows[place], out, frames=arguments.frames)
    print(out)
    return 0


# ----------------------------------------------------------------------------------------- helpers
def _read(arguments: argparse.Namespace, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The builder, and split -> rows."""
    from evqa.corpora.base import builder_class

    folder = arguments.folder or arguments.data_dir
    if Path(arguments.data).is_dir() and folder is None:
        name, config, folder = "st_evidence", arguments.task, Path(arguments.data)
    else:
        name, _, config = arguments.data.partition(":")
        config = config or (arguments.task if name.removeprefix("evqa/") == "st_evidence" else None)
    options |= parse_options(arguments.option)
    try:
        builder = builder_class(name)(config_name=config or None, data_dir=folder and str(folder), **options)
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: {error}") from None
    builder.download_and_prepare()
    names = list(builder.info.splits)
    wanted = [arguments.split] if arguments.split else names
    if arguments.split and arguments.split.partition("[")[0] not in names:
        raise DataError(f"{name} has the splits {', '.join(names)}, not {arguments.split!r}")
    return builder, {split: builder.as_dataset(split=split) for split in wanted}


def _place(text: str, rows: Any) -> int:
    if text.isdecimal() and int(text) < len(rows):
        return int(text)
    try:
        return rows["entry_id"][:].index(text)
    except ValueError:
        raise DataError(f"there is no row {text!r} among the {len(rows)} rows") from None


def _first_line(module: str) -> str:
    return ((importlib.import_module(module).__doc__ or "").strip().splitlines() or [""])[0]
