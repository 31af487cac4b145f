"""Draws the pictures of docs/protocols.md: ``python docs/images/measures.py``.

Every number in them is computed by :mod:`evqa.scoring` from the very shapes that are drawn; a test draws them again
and compares.
"""

from __future__ import annotations

import math
from pathlib import Path

from evqa import masks
from evqa.scoring import jf, temporal

WIDTH, HEIGHT = 640, 480  # of the frame in the pictures of J and F
REFERENCE, SAID, BOTH = "#2563eb", "#ea580c", "#15803d"
INK, PAPER, FAINT = "#1f2937", "#ffffff", "#9ca3af"


def svg(width: int, height: int, title: str, body: list[str]) -> str:
    """A picture on white paper, so that it reads in light and dark pages."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="system-ui, sans-serif" font-size="15" fill="{INK}">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
            *body,
            "</svg>\n",
        ]
    )


def words(x: float, y: float, text: str, *, fill: str = INK, anchor: str = "start", weight: str = "normal") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>'


# ------------------------------------------------------------------------------------------------ time
def time_picture() -> str:
    """Temporal IoU and IoP, and the same segment said twice."""
    reference, said = [[2.0, 6.0]], [[4.0, 9.0]]
    left, scale = 150, 52

    def bars(y: float, segments: list[list[float]], color: str, opacity: float = 1) -> list[str]:
        return [
            f'<rect x="{left + scale * start:g}" y="{y:g}" width="{scale * (end - start):g}" height="20" rx="3" '
            f'fill="{color}" fill-opacity="{opacity:g}"/>'
            for start, end in segments
        ]

    once, twice = temporal(said, reference), temporal(said * 2, reference)["iou"]
    added_up = temporal(said * 2, reference, "evqa-v1")["iou"]
    body = [
        f'<line x1="{left}" x2="{left + 10 * scale}" y1="150" y2="150" stroke="{FAINT}"/>',
        *(words(left + scale * t, 170, f"{t} s", fill="#6b7280", anchor="middle") for t in range(0, 11, 2)),
        words(20, 39, "reference G"), *bars(24, reference, REFERENCE),
        words(20, 67, "prediction P"), *bars(52, said, SAID),
        words(20, 101, "P ∩ G: 2 s"), *bars(86, [[4.0, 6.0]], BOTH),
        words(20, 129, "P ∪ G: 7 s"), *bars(114, [[2.0, 9.0]], INK, 0.35),
        words(20, 205, f"tIoU = |P ∩ G| / |P ∪ G| = 2 / 7 = {once['iou']:.3f}", weight="bold"),
        words(20, 229, f"IoP = |P ∩ G| / |P| = 2 / 5 = {once['iop']:.3f}", weight="bold"),
        words(20, 262,
              f"Said twice: strict {twice:.3f}, as before; evqa-v1 {added_up:.3f}: there the overlap counts twice."),
    ]  # fmt: skip
    return svg(720, 280, "Temporal intersection over union of one reference and one predicted segment", body)


# ----------------------------------------------------------------------------------------------- shapes
def outline(radius: float, bulge: float = 0.0, dent: float = 0.0) -> list[tuple[float, float]]:
    """A rounded shape in the frame whose right side bulges and whose lower left is dented."""
    points = []
    for step in range(120):
        angle = 2 * math.pi * step / 120
        r = radius + bulge * max(0.0, math.cos(angle)) ** 3 - dent * max(0.0, math.cos(angle - 2.2)) ** 4
        points.append((WIDTH * 0.44 + 1.2 * r * math.cos(angle), HEIGHT * 0.5 + r * math.sin(angle)))
    return points


RIGHT = outline(150)
GUESS = outline(148, bulge=75, dent=80)


def mask(points: list[tuple[float, float]]) -> dict:
    """The shape's pixels."""
    return masks.from_polygons([points], HEIGHT, WIDTH)


def path(points: list[tuple[float, float]], **style: object) -> str:
    """The shape as an SVG path."""
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
    return f'<path d="{line}" ' + " ".join(f'{k.replace("_", "-")}="{v}"' for k, v in style.items()) + "/>"


def frame(body: list[str], lines: list[str], title: str) -> str:
    """A frame at half size with text beside it."""
    return svg(
        720, 280, title,
        [
            '<g transform="translate(20 20) scale(0.5)">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#f3f4f6" stroke="{FAINT}"/>',
            *body,
            "</g>",
            *lines,
        ],
    )  # fmt: skip


def region_picture() -> str:
    """Region similarity J."""
    right, guess = mask(RIGHT), mask(GUESS)
    both = masks.decode(right).astype(bool) & masks.decode(guess).astype(bool)
    either = masks.area(masks.union([right, guess]))
    return frame(
        [
            f'<clipPath id="guess">{path(GUESS)}</clipPath>',
            path(RIGHT, fill=REFERENCE, fill_opacity=0.45),
            path(GUESS, fill=SAID, fill_opacity=0.45),
            path(RIGHT, fill=BOTH, clip_path="url(#guess)"),
        ],
        [
            words(365, 60, "only in the reference", fill=REFERENCE),
            words(365, 86, "only in the prediction", fill=SAID),
            words(365, 112, f"in both: {both.sum():,} of {either:,} pixels", fill=BOTH),
            words(365, 160, f"J = |both| / |either| = {jf(guess, right)[0]:.3f}", weight="bold"),
            words(365, 200, "This is one frame; the J of a clip is the"),
            words(365, 222, "mean over the frames of the reference."),
        ],
        "Region similarity J of two masks",
    )


def boundary_picture() -> str:
    """Boundary measure F."""
    right, guess = mask(RIGHT), mask(GUESS)
    tolerance = math.ceil(0.008 * math.hypot(WIDTH, HEIGHT))
    near = f'fill="none" stroke="white" stroke-width="{2 * tolerance}"'
    return frame(
        [
            f'<mask id="near">{path(RIGHT)[:-2]} {near}/></mask>',
            path(RIGHT, fill="none", stroke=REFERENCE, stroke_width=2 * tolerance, stroke_opacity=0.25),
            path(RIGHT, fill="none", stroke=REFERENCE, stroke_width=2),
            path(GUESS, fill="none", stroke=SAID, stroke_width=5),
            path(GUESS, fill="none", stroke=BOTH, stroke_width=5, mask="url(#near)"),
        ],
        [
            words(365, 60, f"reference outline, and {tolerance} px around it", fill=REFERENCE),
            words(365, 86, "predicted outline within reach of it", fill=BOTH),
            words(365, 112, "predicted outline out of reach", fill=SAID),
            words(365, 160, f"F = 2 P R / (P + R) = {jf(guess, right)[1]:.3f}", weight="bold"),
            words(365, 200, "P: share of the predicted outline in reach"),
            words(365, 222, "R: share of the reference outline that has"),
            words(365, 244, "a predicted outline in reach"),
        ],
        "Boundary measure F of two masks",
    )


PICTURES = {"tiou.svg": time_picture, "j.svg": region_picture, "f.svg": boundary_picture}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parent / name).write_text(draw(), "utf-8")
