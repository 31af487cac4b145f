"""The columns of each record of :mod:`evqa.types`, as ``datasets`` types them."""

from __future__ import annotations

from typing import Any

from datasets import Image, List, Value, Video

__all__ = ["columns"]


def columns(record: str) -> dict[str, Any]:
    """Name -> type of each column; see :func:`evqa.types.features`.

    Raises:
        KeyError: Unknown record.
    """
    text, integer, real = Value("string"), Value("int32"), Value("float64")
    segment = List(real, length=2)
    rle = {"size": List(integer, length=2), "counts": Value("binary")}
    frame_mask = {"frame": integer, "time": real, "rle": rle}
    clip = {
        "entry_id": text,
        "video_id": text,
        "video": Video(decode=False),
        "fps": real,
        "num_frames": integer,
        "duration": real,
        "height": integer,
        "width": integer,
    }
    question = {
        "question": text,
        "candidates": List(text),
        "answer": text,
        "answer_index": integer,
        "segments": List(segment),
    }
    gen = {**clip, **question, "masks": List(frame_mask), "metadata": text}
    folder = {"folder": text, "names": List(text), "times": List(real)}
    records = {
        "gen": gen,
        "mcq": {
            **gen,
            "temporal_options": List(List(segment)),
            "temporal_answer": integer,
            "spatial_options": List(Image()),
            "spatial_answer": integer,
        },
        "instruct": {
            **clip,
            "frames": folder,
            **question,
            "objects": List(
                {
                    "object_id": text,
                    "expression": text,
                    "boxes": List({"time": real, "frame": integer, "box": List(real, length=4)}),
                    "masks": List(frame_mask),
                }
            ),
            "metadata": text,
        },
        "segmentation": {
            **dict.fromkeys(("entry_id", "corpus", "video_id", "expression_id", "expression", "kind", "answer"), text),
            **dict.fromkeys(("num_frames", "height", "width"), integer),
            "frames": folder,
            "video": Video(decode=False),
            "video_name": text,
            "stride": integer,
            "frame_numbers": List(integer),
            "objects": List({"object_id": text, "masks": List(frame_mask)}),
            "regions": List({"name": text, "masks": List(frame_mask)}),
            "metadata": text,
        },
        "conversation": {
            **dict.fromkeys(("entry_id", "corpus", "source_id"), text),
            "messages": List({"role": text, "content": text}),
            **dict.fromkeys(("image_names", "video_names"), List(text)),
            "images": List(Image(decode=False)),
            "videos": List(Video(decode=False)),
            "duration": real,
            "metadata": text,
        },
        "frames": {"corpus": text, "video_id": text, "names": List(text), "images": List(Image(decode=False))},
        "prediction": {
            "entry_id": text,
            "answer": text,
            "segments": List(segment),
            "masks": List(frame_mask),
            "temporal_choice": text,
            "spatial_choice": text,
            "status": text,
        },
    }
    return records[record]
