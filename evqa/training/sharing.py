"""Several questions about one clip in one row: the clip is read, encoded and attended to once for all of them.

A question of the benchmark has a hundred tokens and its clip a thousand or more. Where a clip has several questions,
most of a training step goes into showing the same frames again. Here a row begins with the clip, once, and every
question with its reply is a *branch* that continues this beginning: branches do not see one another
(``branches`` of :meth:`~evqa.models.unipixel.UniPixelForConditionalGeneration.forward`), and each has the rotary
positions that it would have alone. The loss is that of separate rows; SAM 2, too, encodes the frames once, and segments
the objects of all branches in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evqa.errors import DataError

__all__ = ["OF_THE_CLIP", "PADDING_BRANCH", "branch_columns", "share_clip"]

#: The branch of what fills up a row: it sees the beginning, and nothing that counts sees it.
PADDING_BRANCH = 1 << 14

_IGNORED = -100

#: What a sample says of its clip, beside the placeholders in its tokens, which all clips of a size share.
OF_THE_CLIP = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts", "grid_times")


def share_clip(samples: Sequence[Mapping[str, Any]], last_token: int) -> dict[str, Any]:
    """Join samples about one clip into one.

    Args:
        samples: Of :meth:`.UniPixelProcessor.encode`, with labels: conversations that begin with the same clip, all of
            whose tracked frames are the same.
        last_token: Id of the token that the common beginning ends with, ``<|vision_end|>``: its last occurrence in the
            first sample counts.

    Returns:
        A sample for the collator: fields of the first, the tokens, labels and true masks of all, and ``branches`` and
        ``branch_starts``, both lists of ints, one a token: which branch it belongs to (0: the beginning) and how many
        tokens of other branches lie before it.

    Raises:
        DataError: They do not begin alike: other tokens, another clip, other times or other frames for SAM 2; or
            something is to be learnt in the beginning.
    """
    first = list(samples[0]["input_ids"])
    if last_token not in first:
        raise DataError(f"no token {last_token} that a common beginning could end with")
    length = len(first) - first[::-1].index(last_token)
    beginning = first[:length]
    if any(label != _IGNORED for label in samples[0]["labels"][:length]):
        raise DataError("a reply in the common beginning: it would be learnt once for all branches")
    ids, labels = list(beginning), [_IGNORED] * length
    branches, starts = [0] * length, [0] * length
    for number, sample in enumerate(samples, start=1):
        own = list(sample["input_ids"])
        if own[:length] != beginning:
            raise DataError(f"sample {number - 1} does not begin as sample 0 does, with the same clip")
        for name in OF_THE_CLIP:
            if not _same(sample.get(name), samples[0].get(name)):
                raise DataError(f"sample {number - 1} shows another clip than sample 0: its {name} differ")
        own = own[length:]
        starts += [len(ids) - length] * len(own)
        branches += [number] * len(own)
        ids += own
        labels += sample["labels"][length:]
    out = {**samples[0], "input_ids": ids, "labels": labels, "branches": branches, "branch_starts": starts}
    masked = [(number, sample) for number, sample in enumerate(samples) if "label_mask" in sample]
    if masked:
        first_number, given = masked[0]
        for number, sample in masked[1:]:
            if not _same(sample["frames"], given["frames"]):
                raise DataError(f"sample {number} has other frames for SAM 2 than sample {first_number}")
        out |= {"label_mask": torch.cat([sample["label_mask"] for _, sample in masked], dim=1)}
        out |= {name: given[name] for name in ("frames", "frame_size") if name in given}
    return out


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one is other or torch.equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other or (type(one) is type(other) and not isinstance(one, torch.Tensor) and one == other)


def branch_columns(samples: Sequence[Mapping[str, Any]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Branches and their starts of a batch that is filled up on the right: int64 ``[batch, length]`` both."""
    branches = torch.full((len(samples), length), PADDING_BRANCH)
    starts = torch.zeros(len(samples), length, dtype=torch.long)
    for row, sample in enumerate(samples):
        own = sample.get("branches") or [0] * len(sample["input_ids"])
        branches[row, : len(own)] = torch.as_tensor(own)
        if "branch_starts" in sample:
            starts[row, : len(own)] = torch.as_tensor(sample["branch_starts"])
    return branches, starts
