"""From token ids to what the language model reads: rotary positions of videos, prompt and memory embeddings.

Functions without weights; the modules that have them are in :mod:`evqa.models.unipixel.modeling_unipixel`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evqa.errors import DataError, MaskError

__all__ = [
    "HostInputs",
    "branch_mask",
    "check_prompts",
    "index_targets",
    "placeholder_runs",
    "pool_masks",
    "rope_positions",
]


@dataclasses.dataclass(frozen=True)
class HostInputs:
    """Inputs whose *values* decide what is done, in host memory.

    An object and no tensors, so that nothing on the way (a trainer, DDP) moves it to the device.

    Attributes:
        input_ids: int64 ``[batch, length]``.
        video_grid_thw: int64 ``[videos, 3]``, or ``None``.
    """

    input_ids: Tensor
    video_grid_thw: Tensor | None = None


def placeholder_runs(
    ids: Sequence[int], row: int, tokens: dict[int, str], grids: dict[str, list[tuple[int, int, int]]], merge: int
) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Where in one row the images and videos lie.

    Args:
        ids: Token ids of the row, without padding.
        row: Its number, for the error.
        tokens: ``{placeholder id: "image" or "video"}``.
        grids: Grids (time, height, width in patches) not yet placed, by kind; those of this row are taken off.
        merge: Patches per token along each side.

    Returns:
        ``(first position, kind, grid)`` of each.

    Raises:
        DataError: More or fewer placeholders than the grids ask for.
    """
    ids, runs, position = list(ids), [], 0
    while position < len(ids):
        kind = tokens.get(ids[position])
        if kind is None:
            position += 1
            continue
        if not grids[kind]:
            raise DataError(f"sample {row}: a {kind} placeholder at token {position} for which no {kind} was given")
        t, h, w = grids[kind].pop(0)
        length = t * (h // merge) * (w // merge)
        some = ids[position : position + length]
        if some.count(ids[position]) != length:
            found = next((k for k, token in enumerate(some) if tokens.get(token) != kind), len(some))
            raise DataError(
                f"sample {row}: the {kind} of {t} x {h} x {w} patches needs {length} placeholders in a row, "
                f"there are {found} from token {position} on"
            )
        runs.append((position, kind, (t, h, w)))
        position += length
    return runs


def rope_positions(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    config: Any,
    image_grid_thw: Tensor | None,
    video_grid_thw: Tensor | None,
    second_per_grid_ts: Tensor | Sequence[float] | None,
    grid_times: Sequence[Tensor | None] | None,
) -> Tensor:
    """Positions for the multimodal rotary embedding, ``[3, batch, length]`` (time, height, width).

    As Qwen2.5-VL was trained (transformers 4): what follows a video starts after the greatest of *all* its positions.
    transformers 5 starts it after the greatest of height and width, which differs as soon as a clip lasts longer than
    it is wide; and its older versions drop parts of a second. Hence not theirs.

    Args:
        input_ids: ``[batch, length]``.
        attention_mask: ``[batch, length]``, 0 for padding on either side.
        config: :class:`~evqa.models.unipixel.UniPixelConfig`.
        image_grid_thw, video_grid_thw: Patches of each image and video, ``[count, 3]``.
        second_per_grid_ts: Seconds between temporal steps, one per video.
        grid_times: Seconds at which each temporal step begins, one tensor per video; overrides the former.

    Raises:
        DataError: Placeholders that do not match the grids.
    """
    merge = config.vision_config.spatial_merge_size
    tokens = {config.image_token_id: "image", config.video_token_id: "video"}
    grids = {
        kind: [] if grid is None else [tuple(row) for row in grid.tolist()]
        for kind, grid in (("image", image_grid_thw), ("video", video_grid_thw))
    }
    videos = iter(_steps(len(grids["video"]), grids["video"], config, second_per_grid_ts, grid_times))
    ids = input_ids.cpu()
    kept = None if attention_mask is None else attention_mask.cpu().bool()
    out = torch.zeros(3, *input_ids.shape, dtype=torch.long)
    for row, own in enumerate(ids):
        places = slice(None) if kept is None else _kept(kept[row])
        real = own[places].tolist()
        parts, start, done = [], 0, 0
        for position, kind, (t, h, w) in placeholder_runs(real, row, tokens, grids, merge):
            parts.append(_text(position - done, start))
            start += position - done
            when = next(videos) if kind == "video" else torch.zeros(t, dtype=torch.long)
            y, x = torch.arange(h // merge), torch.arange(w // merge)
            parts.append(torch.stack(torch.meshgrid(when, y, x, indexing="ij")).flatten(1) + start)
            start = int(parts[-1].max()) + 1
            done = position + t * len(y) * len(x)
        parts.append(_text(len(real) - done, start))
        out[:, row, places] = torch.cat(parts, dim=1)
    for kind, left in grids.items():
        if left:
            raise DataError(f"{len(left)} {kind}(s) more than the text has placeholders for")
    return out.to(input_ids.device)


def _kept(mask: Tensor) -> Any:
    """Where a row is not padding: a slice, unless it is padded in between."""
    places = mask.nonzero()[:, 0]
    if len(places) and int(places[-1] - places[0]) + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def branch_mask(branches: Tensor) -> Tensor:
    """Who sees whom where several continuations share a beginning: bool ``[batch, 1, length, length]``.

    Args:
        branches: Int ``[batch, length]``: 0 in the beginning, else the number of the continuation.
    """
    length = branches.shape[1]
    mine, other = branches[:, None, :, None], branches[:, None, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    return earlier & ((other == 0) | (other == mine))


def _text(length: int, start: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, -1)


def _steps(
    count: int,
    grids: list[tuple[int, int, int]],
    config: Any,
    second_per_grid_ts: Tensor | Sequence[float] | None,
    grid_times: Sequence[Tensor | None] | None,
) -> list[Tensor]:
    """Temporal positions of each video, from its own start: int64 ``[grid_t]`` each."""
    rate = config.vision_config.tokens_per_second
    for name, given in (("second_per_grid_ts", second_per_grid_ts), ("grid_times", grid_times)):
        if given is not None and len(given) != count:
            raise DataError(f"{name} has {len(given)} entries for {count} videos")
    out = []
    for i, (t, _, _) in enumerate(grids):
        seconds = 1.0 if second_per_grid_ts is None else float(second_per_grid_ts[i])
        times = None if grid_times is None or grid_times[i] is None else torch.as_tensor(grid_times[i]).double().cpu()
        if config.legacy_clock:
            # transformers 4 makes the seconds whole before it multiplies.
            steps = torch.arange(t) * int(seconds) * rate
        elif times is not None:
            if len(times) != t:
                raise DataError(f"grid_times of video {i} has {len(times)} entries for {t} temporal steps")
            steps = ((times - times[0]) * rate + 1e-4).floor().long()
        else:
            steps = (torch.arange(t, dtype=torch.float64) * seconds * rate + 1e-4).floor().long()
        out.append(steps)
    return out


def check_prompts(
    sample: int, coords: Sequence[Tensor], labels: Sequence[Tensor], frames: Sequence[Any], size: int, steps: int
) -> None:
    """Check the referring prompts of one sample.

    Args:
        sample: Its number, for the error.
        coords: Per object ``[1, points, 2]``: x, y in pixels of SAM 2's square.
        labels: Per object ``[1, points]``: 1 for a point, 2 and 3 for a box.
        frames: Per object the number of its video frame.
        size: Side of SAM 2's square.
        steps: Temporal steps of the sample's video, two frames each.

    Raises:
        DataError: What is wrong, in which object of which sample.
    """
    if not len(coords) == len(labels) == len(frames):
        raise DataError(
            f"sample {sample}: {len(coords)} point_coords, {len(labels)} point_labels, {len(frames)} point_frames"
        )
    for i, (points, kinds, frame) in enumerate(zip(coords, labels, frames, strict=True)):
        where = f"prompt {i} of sample {sample}"
        kinds_found = kinds.flatten().tolist()
        if kinds_found not in ([1], [2, 3]) or points.numel() != 2 * len(kinds_found):
            raise DataError(f"{where}: one point (label 1) or one box (labels 2, 3), got labels {kinds_found}")
        if not bool(((points >= 0) & (points <= size)).all()):
            raise DataError(f"{where}: {points.flatten().tolist()} lies outside the frame of {size} x {size} pixels")
        if not 0 <= int(frame) < 2 * steps:
            raise DataError(f"{where}: frame {int(frame)} of a video with {2 * steps} frames")


def pool_masks(features: Tensor, masks: Tensor, grid: tuple[int, int, int], merge: int, sample: int) -> Tensor:
    """Mean features of every object in every temporal step in which it has a mask.

    Args:
        features: ``[grid_t * cells, V]``.
        masks: Bool ``[grid_t, objects, h / merge, w / merge]``.
        grid: Patches (time, height, width).
        merge: Patches per cell along each side.
        sample: For the error.

    Returns:
        ``[pooled, V]``: object by object, in order of time; steps with an empty mask give nothing.

    Raises:
        MaskError: Masks of another size than the grid.
    """
    t, h, w = grid
    if masks.dim() != 4 or masks.shape[0] != t or tuple(masks.shape[2:]) != (h // merge, w // merge):
        raise MaskError(
            f"refer_mask of sample {sample} has shape {list(masks.shape)}, its video needs "
            f"[{t}, objects, {h // merge}, {w // merge}]"
        )
    weights = masks.to(features.device).flatten(2).transpose(0, 1).float()  # [objects, t, cells]
    sums = torch.einsum("otc,tcv->otv", weights, features.unflatten(0, (t, -1)).float())
    area = weights.sum(-1, keepdim=True)
    return (sums / area.clamp(min=1))[area[..., 0] > 0].to(features.dtype)


def index_targets(input_ids: Tensor, attention_mask: Tensor | None, token: int | None) -> list[Tensor]:
    """For each row the positions whose *next* token is ``token``: int64, ascending.

    The state there predicts the token. A first token has no such state, also behind padding.
    """
    if token is None:
        return [input_ids.new_zeros(0) for _ in input_ids]
    hits = input_ids[:, 1:] == token
    if attention_mask is not None:
        hits = hits & attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()
    return [row.nonzero()[:, 0] for row in hits]
