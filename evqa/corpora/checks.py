"""Looking at rows, and finding what is wrong with data that can be read.

What cannot be read never becomes a row: the builders raise. Here is what they cannot know, because it is readable and
yet not right, and what a reader wants to know first about a set of rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evqa import masks as rle_masks
from evqa import segments as seg
from evqa.errors import MaskError

__all__ = ["compare_with_official", "describe", "validate"]


def describe(rows: Any, show: int = 3) -> str:
    """Columns, counts and the first rows, as text."""
    lines = [f"{len(rows)} rows, columns: {', '.join(rows.column_names)}"]
    heavy = [name for name in ("masks", "objects", "regions", "spatial_options") if name in rows.column_names]
    light = rows.remove_columns(heavy)
    if "messages" in rows.column_names:
        lines += _conversation_counts(light)
    elif "kind" in rows.column_names:
        lines += _segmentation_counts(light, rows)
    else:
        lines += _question_counts(light)
    for place in range(min(show, len(light))):
        lines.append("")
        for name, value in rows[place].items() if show else ():
            if value not in (None, "", "{}", []):
                value = _outline(value) if name in heavy else value
                text = json.dumps(value, ensure_ascii=False, default=str)
                lines.append(f"  {name:16} {text if len(text) < 100 else text[:97] + '...'}")
    return "\n".join(lines)


def _question_counts(light: Any) -> list[str]:
    lengths = [d for d in light["duration"] if d]
    clips = f"{len(set(light['video_id']))} clips"
    letters = Counter("?" if i is None else chr(65 + i) for i in light["answer_index"])
    return [
        clips + (f", {min(lengths):.1f} to {max(lengths):.1f} s long" if lengths else ""),
        "right letters: " + ", ".join(f"{letter} {count}" for letter, count in sorted(letters.items())),
    ]


def _segmentation_counts(light: Any, rows: Any) -> list[str]:
    frames = light["num_frames"]
    objects: Counter[str] = Counter()
    for table in rows.select_columns(["objects"]).with_format("arrow").iter(batch_size=256):
        # Counted in Arrow: the masks themselves never become Python objects.
        for number in table.column("objects").combine_chunks().value_lengths().to_pylist():
            objects["not published" if number is None else str(number)] += 1
    return [
        f"{len(set(light['video_id']))} videos of {min(frames)} to {max(frames)} frames",
        "kinds: " + ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(light["kind"]).items())),
        "objects of a row: " + ", ".join(f"{number}: {count} rows" for number, count in sorted(objects.items())),
    ]


def _conversation_counts(light: Any) -> list[str]:
    images, videos = light["image_names"], light["video_names"]
    kinds = Counter("image" if i else "video" if v else "text" for i, v in zip(images, videos, strict=True))
    ids = Counter(light["source_id"])
    return [
        "about: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        f"{sum(count - 1 for count in ids.values())} rows repeat the source's id of another",
    ]


def _outline(value: Any) -> Any:
    """The shape of masks and images, without them."""
    if isinstance(value, Mapping):
        if "counts" in value:
            return f"RLE {value['size']}"
        return {key: _outline(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_outline(value[0]), f"... {len(value)}"] if len(value) > 1 else [_outline(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else type(value).__name__


# ---------------------------------------------------------------------------------------- validate
def validate(rows: Any) -> list[str]:
    """One sentence for each thing that is readable but not right.

    Questions: answers that are none of the options, equal options, evidence that ends after the clip or is empty, masks
    of another size than the clip, masks after the clip's last frame, entries without masks where others have some, and
    clips that are gone. Segmentation: objects that are in no frame, masks of another size than the frames, masks that
    cannot be decoded, questions without an answer, frames that are gone. Conversations: turns out of order, empty
    turns, media that are gone.
    """
    if "messages" in rows.column_names:
        return _each(rows, _conversation_problems)
    if "kind" in rows.column_names:
        return _each(rows, _segmentation_problems)
    light = rows.remove_columns([c for c in ("spatial_options",) if c in rows.column_names])
    without_masks: list[str] = []
    with_masks = False
    problems: list[str] = []
    for row in light:
        problems += [f"{row['entry_id']}: {problem}" for problem in _question_problems(row)]
        if row.get("masks"):
            with_masks = True
        elif "masks" in row:
            without_masks.append(row["entry_id"])
    if with_masks:
        problems += [f"{entry}: no masks, where other entries have some" for entry in without_masks]
    return problems


def _each(rows: Any, problems: Callable[[Mapping[str, Any]], Iterator[str]]) -> list[str]:
    return [f"{row['entry_id']}: {problem}" for row in rows for problem in problems(row)]


def compare_with_official(name: str, splits: Mapping[str, Any], official: Mapping[str, Any]) -> list[str]:
    """One sentence for each split whose numbers of videos and rows are those of none of its authors' releases.

    Args:
        name: The corpus.
        splits: Split -> rows.
        official: :attr:`evqa.corpora.base.CorpusBuilder.official`.
    """
    found = []
    for split, rows in splits.items():
        counts = {"rows": len(rows)}
        if "video_id" in rows.column_names:
            counts["videos"] = len(set(rows["video_id"]))
        releases: Sequence[Mapping[str, int]] = official.get(split, ())
        if releases and not any(all(counts[key] == value for key, value in one.items()) for one in releases):
            said = " or ".join(_counts(one) for one in releases)
            found.append(f"{name} {split}: {_counts(counts)}, where its authors state {said}")
    return found


def _counts(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{counts[key]} {key}" for key in ("videos", "rows") if key in counts)


def _segmentation_problems(row: Mapping[str, Any]) -> Iterator[str]:
    if row["kind"] in ("question", "explanatory") and not row["answer"]:
        yield f"a {row['kind']} without an answer"
    frames = row["frames"]
    if frames is not None and frames["folder"] is not None:
        missing = [name for name in frames["names"] if not (Path(frames["folder"]) / name).is_file()]
        if missing:
            yield f"{len(missing)} frames are gone, {missing[0]} first"
    if row["video"] is not None and not Path(row["video"]["path"]).is_file():
        yield f"the video {row['video']['path']} is gone"
    named = [(f"object {item['object_id']!r}", item["masks"]) for item in row["objects"] or []]
    for name, masks in [*named, *((f"region {item['name']!r}", item["masks"]) for item in row["regions"] or [])]:
        if masks is None:
            continue
        sizes = {tuple(mask["rle"]["size"]) for mask in masks}
        if row["height"] and sizes and sizes != {(row["height"], row["width"])}:
            yield f"masks of {name} are {_sizes(sizes)}, the frames are {row['height']}x{row['width']}"
        try:
            visible = sum(not rle_masks.is_empty(rle_masks.normalize(mask["rle"])) for mask in masks)
        except MaskError as error:
            yield f"{name}: {error.message}"
            continue
        if not visible:
            yield f"{name} is in no frame"


def _conversation_problems(row: Mapping[str, Any]) -> Iterator[str]:
    roles = [message["role"] for message in row["messages"] if message["role"] != "system"]
    if not roles or roles != [("user", "assistant")[number % 2] for number in range(len(roles))]:
        yield f"turns are not user and assistant by turns: {', '.join(roles) or 'none'}"
    elif roles[-1] != "assistant":
        yield "the last turn is the user's: there is nothing to learn from it"
    for number, message in enumerate(row["messages"]):
        if not message["content"].strip():
            yield f"turn {number} is empty"
    for medium in [*(row["images"] or []), *(row["videos"] or [])]:
        if medium["bytes"] is None and not Path(medium["path"]).is_file():
            yield f"{medium['path']} is gone"
    if row["duration"] is not None and not row["duration"] > 0:
        yield f"a duration of {row['duration']} s"


def _sizes(sizes: set[tuple[int, ...]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sorted(sizes))


def _question_problems(row: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    candidates = [candidate.strip() for candidate in row["candidates"]]
    if row["answer_index"] is None:
        found.append(f"the answer {row['answer']!r} is none of the options {candidates}")
    if len(set(candidates)) < len(candidates):
        found.append(f"two options are equal: {candidates}")
    segments = row["segments"] or []
    if not segments:
        found.append("no temporal evidence")
    if seg.measure(segments) == 0 and segments:
        found.append(f"temporal evidence of length zero: {segments}")
    if row["duration"] and any(end > row["duration"] + 1 / (row["fps"] or 1) for _, end in segments):
        found.append(f"temporal evidence {segments} ends after the clip ({row['duration']:.2f} s)")
    clip = (row.get("video") or {}).get("path")
    if clip and not Path(clip).is_file():
        found.append(f"the clip {clip} is gone")
    masks = row.get("masks") or [mask for item in row.get("objects") or [] for mask in item["masks"]]
    sizes = {tuple(mask["rle"]["size"]) for mask in masks}
    if row["height"] and sizes and sizes != {(row["height"], row["width"])}:
        found.append(f"masks of {sorted(sizes)} on a clip of {row['height']}x{row['width']}")
    if row["num_frames"] and any(mask["frame"] >= row["num_frames"] for mask in masks):
        last = max(mask["frame"] for mask in masks)
        found.append(f"a mask of frame {last} on a clip of {row['num_frames']} frames")
    for mask in masks:
        try:
            rle_masks.normalize(mask["rle"])
        except MaskError as error:
            found.append(f"mask of frame {mask['frame']}: {error.message}")
    return found
