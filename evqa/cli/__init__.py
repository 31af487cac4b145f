"""The command line: ``evqa demo | run | segment | score | compare | report | figure | export | submit | data | ...``.

A module for each group of commands: its ``add`` adds them to the parser.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import evqa
from evqa.cli import compare, convert, data, leaderboard, report, run, score, segment
from evqa.cli.common import EXIT_ERROR, EXIT_INTERRUPTED
from evqa.errors import EvqaError

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except EvqaError as error:
        print(f"evqa: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("evqa: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, head for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="evqa", description="Evidence-backed video question answering: run, score, look.",
        epilog="Exit code: 0 all entries answered and scored, 1 some were not, 2 an error, 130 interrupted.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"evqa {evqa.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, segment, score, compare, report, leaderboard, convert, data):
        module.add(commands)
    return parser
