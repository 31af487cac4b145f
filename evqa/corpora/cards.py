"""What all dataset cards say alike: the table of columns.

A card in ``dataset_scripts/`` holds the line ``<!-- columns: segmentation -->`` where its table belongs.
"""

from __future__ import annotations

import re

__all__ = ["COLUMNS", "fill"]

_MASK = "`{frame, time, rle}`: place in the row's frames, its second (null: not known), COCO RLE"

#: Record -> column -> what it is.
COLUMNS: dict[str, dict[str, str]] = {
    "segmentation": {
        "entry_id": "`video_id/expression_id`, unique in the split",
        "corpus": "this corpus",
        "video_id": "the clip, as its authors name it; may hold slashes",
        "expression_id": "the expression within the clip",
        "expression": "the text",
        "kind": "`query` (a noun phrase), `sentence`, `question`, `explanatory` or `description`",
        "answer": "an answer in words; null where the corpus has none",
        "num_frames": "frames of the row",
        "height": "of the frames; masks need not share it",
        "width": "of the frames",
        "frames": "`{folder, names, times}`: files, their folder from the data's own; seconds, null where not known",
        "video": "the clip as a file, for corpora that publish no frames; null where it is not part of this repository",
        "video_name": "its published path",
        "stride": "frames of `video` from one row frame to the next, where that is constant",
        "frame_numbers": "the number in `video` of each of the row's frames",
        "objects": (
            "one item per object, `{object_id, masks}`, never united. Null: the split publishes no annotation. Empty: "
            "the expression refers to nothing. `masks` lists " + _MASK + ". A mask without foreground: annotated, and "
            "the object is not there. A frame that is not listed: not annotated. Null: not published"
        ),
        "regions": "pixels of no single object, `{name, masks}`: `void` or `foreground`",
        "metadata": "JSON: everything else that the source says",
    },
    "conversation": {
        "entry_id": "file and place in it, unique in the split",
        "corpus": "this corpus",
        "source_id": "the source's id, which need not be unique",
        "messages": "`{role, content}`; `<image>` and `<video>` stand where the source has them",
        "image_names": "published paths of the images",
        "video_names": "published paths of the videos",
        "images": "the files, in the same order; null where they are not part of this repository",
        "videos": "likewise",
        "duration": "seconds, where the source states them",
        "metadata": "JSON: everything else that the source says",
    },
}

_PLACE = re.compile(r"^<!-- columns: (\w+) -->$", re.MULTILINE)


def fill(card: str) -> str:
    """A card with its table of columns.

    Raises:
        KeyError: It asks for the columns of no record.
    """
    return _PLACE.sub(lambda found: _table(found[1]), card)


def _table(record: str) -> str:
    rows = [f"| `{name}` | {text} |" for name, text in COLUMNS[record].items()]
    return "\n".join(["| column | meaning |", "|---|---|", *rows])
