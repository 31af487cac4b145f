"""One row of a corpus as a picture: its frames with masks, and everything it says.

Meant for looking: whether masks sit on the objects that the words name, in the frames they belong to.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evqa._files import write_atomic
from evqa.errors import DataError, EvqaError

__all__ = ["draw_row"]

# Told apart by people who do not see all colours (Okabe and Ito, 2008), on dark and on bright frames.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_CELL, _GAP, _COLUMNS, _TEXT = 400, 8, 4, 15
_GREY, _INK = (110, 110, 110), (20, 20, 20)


def draw_row(row: Mapping[str, Any], out: str | os.PathLike, *, frames: int = 8) -> None:
    """Draw a row of any corpus.

    Args:
        row: A row of :mod:`evqa.types`: a question, an expression or a conversation.
        out: A ``.png`` file, or an ``.html`` file that holds the pictures.
        frames: At most so many frames, evenly spread.

    Raises:
        DataError: The file's suffix is neither, or ``frames`` is not positive.
        EvqaError: A frame cannot be read.
    """
    out = Path(out)
    if out.suffix.lower() not in (".png", ".html"):
        raise DataError("the picture must be a .png or an .html file", file=out)
    if frames < 1:
        raise DataError(f"at least one frame must be drawn, not {frames}")
    if "messages" in row:
        text, cells = _conversation(row, frames)
    elif "kind" in row:
        text, cells = _segmentation(row, frames)
    else:
        text, cells = _question(row, frames)
    if out.suffix.lower() == ".html":
        write_atomic(out, _page(row, text, cells))
    else:
        buffer = io.BytesIO()
        _sheet(text, cells).save(buffer, format="PNG")
        write_atomic(out, buffer.getvalue())


# One line of text and its colour; one picture and the line under it.
Lines = list[tuple[str, tuple[int, int, int]]]
Cells = list[tuple[Image.Image, str]]


def _segmentation(row: Mapping[str, Any], frames: int) -> tuple[Lines, Cells]:
    from evqa.corpora.reading import read_frames, read_masks

    objects = row["objects"]
    text: Lines = [(f"{row['corpus']}  {row['entry_id']}  ({row['kind']})", _GREY), (row["expression"], _INK)]
    if row["answer"]:
        text.append((f"answer: {row['answer']}", _INK))
    positions = _spread(row["num_frames"], frames)
    if objects is None:
        text.append(("masks are not published", _GREY))
    elif not objects:
        text.append(("refers to nothing in the video", _GREY))
    for number, item in enumerate(objects or []):
        where = "masks are not published" if item["masks"] is None else f"{len(item['masks'])} frames annotated"
        text.append((f"object {item['object_id']}: {where}", _colour(number)))
    text.append((f"metadata: {row['metadata']}", _GREY))
    masks, annotated = read_masks(row, positions)
    try:
        pixels: Sequence[np.ndarray | None] = list(read_frames(row, positions))
    except EvqaError as error:
        text.append((f"no frames: {error.message}", _GREY))
        pixels = [None] * len(positions)
    cells = []
    for at, position in enumerate(positions):
        canvas = pixels[at]
        if canvas is None:
            canvas = np.full((row["height"] or 270, row["width"] or 480, 3), 60, dtype=np.uint8)
        here = read_masks(row, [position], canvas.shape[:2])[0] if masks is not None else None
        image = _overlay(canvas, [] if here is None else [one[0] for one in here])
        without = annotated is not None and len(annotated) and not annotated[:, at].any()
        cells.append((image, _caption(row, position) + (", not annotated" if without else "")))
    return text, cells


def _caption(row: Mapping[str, Any], position: int) -> str:
    parts = [f"{position}"]
    if row["frames"] is not None:
        parts.append(row["frames"]["names"][position])
        times = row["frames"]["times"]
    else:
        parts.append(f"frame {row['frame_numbers'][position]} of the video")
        times = None
    return "  ".join(parts) + (f"  {times[position]:.2f} s" if times else "")


def _question(row: Mapping[str, Any], frames: int) -> tuple[Lines, Cells]:
    """A row of ST-Evidence: the frames that have masks, or any."""
    from evqa import masks as rle_masks
    from evqa.video import read_frames

    text: Lines = [(str(row["entry_id"]), _GREY), (row["question"], _INK)]
    for number, candidate in enumerate(row["candidates"]):
        mark = ">" if number == row["answer_index"] else " "
        text.append((f"{mark} {chr(65 + number)}  {candidate}", _INK))
    text.append((f"evidence: {json.dumps(row['segments'])} s", _INK))
    objects = row["objects"] if "objects" in row else [{"object_id": "evidence", "masks": row["masks"] or []}]
    for number, item in enumerate(objects):
        text.append((str(item.get("expression") or item["object_id"]), _colour(number)))
    marked = sorted({mask["frame"] for item in objects for mask in item["masks"]})
    chosen = [marked[place] for place in _spread(len(marked), frames)] if marked else []
    fps = row["fps"] or 6.0
    source = row["video"] or row.get("frames")
    if not chosen:
        chosen = _spread(row["num_frames"] or len((row.get("frames") or {}).get("names") or []) or 1, frames)
    times = [frame / fps for frame in chosen]
    try:
        if source is None:
            raise DataError("the row came without its clip")
        pixels: Sequence[np.ndarray | None] = list(read_frames(source, times))
    except EvqaError as error:
        text.append((f"no frames: {error.message}", _GREY))
        pixels = [None] * len(chosen)
    cells = []
    for frame, time, canvas in zip(chosen, times, pixels, strict=True):
        if canvas is None:
            canvas = np.full((row["height"] or 270, row["width"] or 480, 3), 60, dtype=np.uint8)
        shapes = []
        for item in objects:
            rle = next((mask["rle"] for mask in item["masks"] if mask["frame"] == frame), None)
            empty = rle_masks.empty(*canvas.shape[:2])
            shapes.append(rle_masks.decode(rle_masks.resize(rle, *canvas.shape[:2]) if rle else empty))
        cells.append((_overlay(canvas, shapes), f"frame {frame}  {time:.2f} s"))
    return text, cells


def _conversation(row: Mapping[str, Any], frames: int) -> tuple[Lines, Cells]:
    text: Lines = [(f"{row['corpus']}  {row['entry_id']}  id {row['source_id']}", _GREY)]
    for message in row["messages"]:
        colour = _INK if message["role"] == "user" else _COLOURS[4]
        text.append((f"{message['role']}: {message['content']}", colour))
    cells: Cells = []
    for kind, names, media in (
        ("image", row["image_names"], row["images"]),
        ("video", row["video_names"], row["videos"]),
    ):
        for number, name in enumerate(names):
            if media is None:
                text.append((f"{kind} {name}: not here", _GREY))
            elif kind == "image":
                cells.append((_image(media[number], name), name))
            else:
                cells += _video(media[number], name, frames)
    return text, cells


def _image(medium: Mapping[str, Any], name: str) -> Image.Image:
    try:
        data = medium["bytes"] if medium["bytes"] is not None else Path(medium["path"]).read_bytes()
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable image ({error})", file=name) from None


def _video(medium: Mapping[str, Any], name: str, frames: int) -> Cells:
    from evqa.video import probe, read_frames

    times = probe(medium).timestamps
    chosen = times[_spread(len(times), frames)]
    return [
        (Image.fromarray(p), f"{name}  {t:.2f} s") for p, t in zip(read_frames(medium, chosen), chosen, strict=True)
    ]


# ----------------------------------------------------------------------------------------- drawing
def _spread(length: int, most: int) -> list[int]:
    """At most so many of the numbers below ``length``, evenly spread."""
    return np.unique(np.linspace(0, max(length - 1, 0), num=min(most, max(length, 1))).round().astype(int)).tolist()


def _colour(number: int) -> tuple[int, int, int]:
    return _COLOURS[number % len(_COLOURS)]


def _overlay(pixels: np.ndarray, shapes: Sequence[np.ndarray]) -> Image.Image:
    """Each shape tinted, with its outline."""
    canvas = pixels.astype(np.float32)
    for number, shape in enumerate(shapes):
        colour = np.array(_colour(number), dtype=np.float32)
        canvas[shape] = canvas[shape] * 0.5 + colour * 0.5
        inner = shape.copy()
        for _ in range(max(1, pixels.shape[1] // 400)):
            padded = np.pad(inner, 1)
            inner &= padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        canvas[shape & ~inner] = colour
    return Image.fromarray(canvas.astype(np.uint8))


def _sheet(text: Lines, cells: Cells) -> Image.Image:
    font, small = ImageFont.load_default(_TEXT), ImageFont.load_default(_TEXT - 3)
    columns = min(_COLUMNS, max(2, len(cells)))
    width = columns * (_CELL + _GAP) + _GAP
    wrap = (width - 2 * _GAP) // 8
    lines = [
        (part, colour)
        for line, colour in text
        for paragraph in line.splitlines() or [""]
        for part in textwrap.wrap(paragraph, wrap) or [""]
    ]
    lines = lines[:60] + [("...", _GREY)] * (len(lines) > 60)
    top = _GAP + len(lines) * (_TEXT + 5) + _GAP
    shown = [(_fit(image), caption) for image, caption in cells]
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    heights = [max(image.height for image, _ in row) + _TEXT + 2 * _GAP for row in rows]
    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (line, colour) in enumerate(lines):
        draw.text((_GAP, _GAP + number * (_TEXT + 5)), line, fill=colour, font=font)
    for row, height in zip(rows, heights, strict=True):
        for place, (image, caption) in enumerate(row):
            left = _GAP + place * (_CELL + _GAP)
            sheet.paste(image, (left, top))
            draw.text((left, top + image.height + 2), caption[: _CELL // 7], fill=_GREY, font=small)
        top += height
    return sheet


def _fit(image: Image.Image) -> Image.Image:
    scale = _CELL / image.width
    return image.resize((_CELL, max(1, round(image.height * scale))), Image.Resampling.BILINEAR)


def _page(row: Mapping[str, Any], text: Lines, cells: Cells) -> str:
    body = [
        f'<p style="color:rgb{colour}">{html.escape(line).replace(chr(10), "<br>")}</p>' for line, colour in text
    ]  # fmt: skip
    for image, caption in cells:
        buffer = io.BytesIO()
        _fit(image).save(buffer, format="JPEG", quality=88)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        label = html.escape(caption, quote=True)
        body.append(
            f'<figure><img alt="{label}" src="data:image/jpeg;base64,{data}"><figcaption>{label}</figcaption></figure>'
        )
    style = (
        "body{font:15px/1.4 system-ui,sans-serif;margin:1em;max-width:1700px}p{margin:.2em 0}img{max-width:100%}"
        "figure{display:inline-block;margin:.4em}figcaption{color:#6e6e6e;font-size:12px}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(str(row["entry_id"]))}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style>\n' + "\n".join(body) + "\n</html>\n"
    )
