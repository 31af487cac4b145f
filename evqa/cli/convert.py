"""``evqa convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evqa.cli.common import positive

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("convert", help="a fresh UniPixel checkpoint from Meta's SAM 2.1 and Qwen2.5-VL")
    parser.add_argument("--sam2", required=True, type=Path, metavar="FILE", help="sam2.1_hiera_base_plus.pt, ...")
    parser.add_argument("--qwen", required=True, metavar="MODEL", help="folder or Hub id of Qwen2.5-VL, 3B or 7B")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder of the checkpoint")
    parser.add_argument("--sam2-size", metavar="NAME", help="tiny, small, base_plus or large (default: by file name)")
    parser.add_argument("--image-size", type=positive, default=768, help="SAM 2's square (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights that neither has (default: %(default)s)")
    parser.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from evqa.models.unipixel import convert_checkpoint

    model, _ = convert_checkpoint(
        arguments.sam2, arguments.qwen, arguments.out, sam2=arguments.sam2_size, image_size=arguments.image_size,
        seed=arguments.seed,
    )  # fmt: skip
    print(f"{arguments.out}: {model.num_parameters():,} parameters, SAM 2 at {arguments.image_size} pixels")
    return 0
