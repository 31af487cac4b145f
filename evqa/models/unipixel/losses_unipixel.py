"""The mask losses of UniPixel: those of SAM 2's own training, with its weights.

Per object and frame, on all three candidate masks at full size: focal loss (Lin et al., 2017; alpha 0.25, gamma 2),
dice loss, the error of the predicted IoU, and cross-entropy of the object's presence. Focal and dice count for the
candidate that is best by them; an absent object counts for its presence alone. Source: ``training/loss_fns.py`` of
facebookresearch/sam2, set up as in UniPixel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from evqa.errors import DataError, MaskError
from evqa.models.unipixel.encoding_unipixel import check_frames, encode_clips
from evqa.models.unipixel.sam2_blocks_unipixel import FrameFeatures
from evqa.models.unipixel.sam2_unipixel import Prediction
from evqa.models.unipixel.tracking_unipixel import Tracker, track
from evqa.models.unipixel.training_graphs_unipixel import graphed_part, rounded_up

__all__ = ["TERMS", "WEIGHTS", "UniPixelLosses", "clip_terms", "frame_terms", "mean_object_counts", "supervised_loss"]

#: Of a sample: frames for SAM 2, prompts ``[objects, tokens, C]``, true masks ``[frames, objects, S, S]``.
_Job = tuple[Tensor, Tensor, Tensor]

#: Names of the terms and their weights in the sum.
TERMS = ("focal", "dice", "iou", "presence")
WEIGHTS = (100.0, 5.0, 5.0, 5.0)


def frame_terms(prediction: Prediction, targets: Tensor, *, recompute: bool = True) -> Tensor:
    """The four terms of every object in one frame.

    Args:
        prediction: Of ``n`` objects, with the logits of absent objects kept.
        targets: Bool or number ``[n, S, S]``; above 0 is foreground. An object without foreground is absent.
        recompute: Recompute the full-size logits in the backward pass: they need 12 bytes a pixel and object.

    Returns:
        Float32 ``[n, 4]``, in the order of :data:`TERMS`.
    """
    inputs = (prediction.masks, prediction.ious, prediction.scores, targets)
    if recompute and torch.is_grad_enabled() and prediction.masks.requires_grad:
        # Without randomness there is none to restore, whose state cannot be had while a graph is recorded.
        return checkpoint(_terms, *inputs, use_reentrant=False, preserve_rng_state=False)
    return _terms(*inputs)


def _terms(masks: Tensor, ious: Tensor, scores: Tensor, targets: Tensor) -> Tensor:
    logits = F.interpolate(masks.float(), targets.shape[-2:], mode="bilinear", align_corners=False)  # [n, 3, S, S]
    logits = logits.flatten(2)
    truth = (targets > 0).flatten(1)[:, None].expand_as(logits)  # [n, 3, S S]
    target = truth.to(logits.dtype)

    probability = logits.sigmoid()
    wrong = probability * (1 - target) + (1 - probability) * target
    balance = 0.25 * target + 0.75 * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (balance * entropy * wrong**2).mean(-1)  # [n, 3]
    both = 2 * (probability * target).sum(-1)
    dice = 1 - (both + 1) / (probability.sum(-1) + target.sum(-1) + 1)  # [n, 3]

    hard = logits > 0
    union = (hard | truth).sum(-1).clamp(min=1)
    iou = (ious.float() - (hard & truth).sum(-1) / union).abs().mean(-1)  # [n]

    best = (WEIGHTS[0] * focal + WEIGHTS[1] * dice).argmin(-1, keepdim=True)  # [n, 1]
    focal, dice = (term.take_along_dim(best, dim=-1)[:, 0] for term in (focal, dice))
    present = truth[:, 0].any(-1).to(logits.dtype)  # [n]
    presence = F.binary_cross_entropy_with_logits(scores.float()[:, 0], present, reduction="none")
    return torch.stack([focal * present, dice * present, iou * present, presence], dim=-1)


#: Objects and frames whose full-size logits exist at a time in :func:`clip_terms`: 7 MB a tensor and object at 768 px.
_TOGETHER = 16


def clip_terms(steps: Iterable[Prediction], targets: Iterable[Tensor], *, recompute: bool = True) -> Tensor:
    """The four terms of every object in every frame of clips of one length, a few frames at a time.

    Args:
        steps: The prediction of each frame in turn, of ``n`` objects.
        targets: For each frame what :func:`frame_terms` takes.
        recompute: See :func:`frame_terms`.

    Returns:
        Float32 ``[frames, n, 4]``.
    """
    parts: list[Tensor] = []
    waiting: list[tuple[Tensor, ...]] = []

    def finish() -> None:
        masks, ious, scores, target = (torch.cat(x) if len(x) > 1 else x[0] for x in zip(*waiting, strict=True))
        terms = frame_terms(Prediction(masks, ious, scores, masks, scores), target, recompute=recompute)
        parts.append(terms.unflatten(0, (len(waiting), -1)))
        waiting.clear()

    for prediction, target in zip(steps, targets, strict=True):
        waiting.append((prediction.masks, prediction.ious, prediction.scores, target))
        if (len(waiting) + 1) * len(target) > _TOGETHER:
            finish()
    if waiting:
        finish()
    return torch.cat(parts)


#: Tokens whose logits exist at a time in :func:`supervised_loss`; at 152 thousand words 0.6 GB in float32.
_CHUNK = 1024


def supervised_loss(
    head: nn.Module,
    hidden: Tensor,
    labels: Tensor,
    positions: Tensor | None = None,
    num_items: Tensor | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the next token, with logits only where there is a label, and never of more than a chunk.

    Args:
        head: From states to logits. It is called once, whatever the number of chunks: what wraps modules to bring
            their weights (FSDP, ZeRO-3) counts calls, and ranks can have different numbers of tokens.
        hidden: ``[batch, length, C]``.
        labels: ``[batch, length]``, -100 where nothing is to be predicted.
        positions: Where in the flattened batch a labelled token is predicted, int64 ``[n]``; found when absent.
        num_items: What the sum is divided by; ``n``, but at least 1, when absent.

    Returns:
        The loss, float32 ``[]``, and how many labelled tokens are the likeliest ones, int64 ``[]``.
    """
    following = F.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    if positions is None:
        positions = (following != -100).nonzero()[:, 0]
    states, targets = hidden.flatten(0, 1).index_select(0, positions), following.index_select(0, positions)

    logits_of = head.forward

    def part(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(states).float()
        right = (logits.detach().argmax(-1) == targets).sum()
        return F.cross_entropy(logits, targets, reduction="sum"), right

    def all_parts(states: Tensor) -> tuple[Tensor, Tensor]:
        total, right = states.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        # Without any label there is one chunk of nothing: 0, which still hangs on every weight before it.
        for some, wanted in zip(states.split(_CHUNK), targets.split(_CHUNK), strict=True):
            if len(states) > _CHUNK and torch.is_grad_enabled():
                loss, found = checkpoint(part, some, wanted, use_reentrant=False)
            else:
                loss, found = part(some, wanted)
            total, right = total + loss, right + found
        return total, right

    with _calling(head, all_parts):
        total, right = head(states)
    return total / (max(len(positions), 1) if num_items is None else num_items), right


@contextlib.contextmanager
def _calling(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """What a call of a module computes, between its hooks, is this function for a while."""
    before = module.__dict__.get("forward")
    module.forward = function
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def mean_object_counts(counts: Sequence[int], device: torch.device, *, across_ranks: bool) -> Tensor:
    """What each sample's losses are divided by: its number of objects, at least 1.

    Args:
        counts: Objects of each sample of the batch; 0 for a sample without masks.
        device: Where.
        across_ranks: Average over the ranks of a distributed run, sample by sample, as the original does. All ranks
            must then come here with batches of one size, whatever is in them.

    Returns:
        Float32 ``[batch]``.
    """
    mean = torch.tensor(list(counts), dtype=torch.float32, device=device)
    if across_ranks and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean.clamp(min=1)


class UniPixelLosses:
    """The mask losses of a batch."""

    def _add_mask_losses(
        self, result: Any, frames, label_mask, output_masks: bool, device: torch.device,
        num_masks_in_batch: Tensor | int | None, weights: Sequence[float] | None,
    ) -> None:  # fmt: skip
        jobs = self._mask_jobs(result.seg_tokens, frames, label_mask)
        counts = [0 if job is None else len(job[1]) for job in jobs]
        if num_masks_in_batch is None:
            divisors = mean_object_counts(counts, device, across_ranks=self.training)
        else:
            divisors = [max(count, 1) for count in counts]
        sums: list[Tensor | None] = [None] * len(jobs)
        found: dict[int, list[Prediction]] = {}
        lengths = sorted({len(job[0]) for job in jobs if job is not None})
        for length in lengths:
            samples = [i for i, job in enumerate(jobs) if job is not None and len(job[0]) == length]
            mine = [jobs[i] for i in samples]
            terms = None
            if self.runtime.graph_tracking and len(lengths) == 1 and not output_masks:
                terms = self._recorded_terms(mine)
            if terms is None:
                predictions: list[Prediction] | None = [] if output_masks else None
                terms = self._terms(mine, predictions)
                if output_masks:
                    for i, objects in zip(samples, _ranges([counts[i] for i in samples]), strict=True):
                        found[i] = [_take(prediction, objects) for prediction in predictions]
            for i, part in zip(samples, terms.sum(0).split([counts[i] for i in samples]), strict=True):
                sums[i] = part.sum(0)
        result.sample_losses = [
            None if total is None else total.to(device) / divisors[i] / len(jobs[i][0]) for i, total in enumerate(sums)
        ]
        weighted = [
            terms if weights is None else terms * weights[i]
            for i, terms in enumerate(result.sample_losses)
            if terms is not None
        ]
        if weighted:
            total = torch.stack(weighted).sum(0)
            mean = total / (len(weighted) if num_masks_in_batch is None else num_masks_in_batch)  # [4]
            for name, term in zip(TERMS, mean, strict=True):
                setattr(result, f"{name}_loss", term)
            mask_loss = sum(weight * term for weight, term in zip(WEIGHTS, mean, strict=True))
            result.loss = mask_loss if result.loss is None else result.loss + mask_loss
        if output_masks:
            for name, field in (("mask_logits", "masks"), ("ious", "ious"), ("object_scores", "scores")):
                values = [
                    torch.stack([getattr(p, field) for p in found[i]]) if i in found else None for i in range(len(jobs))
                ]
                setattr(result, name, values)

    def _terms(self, jobs: Sequence[_Job], predictions: list[Prediction] | None) -> Tensor:
        """The terms of jobs of one length, ``[frames, objects, 4]``; predictions are added to the list."""
        prompts, owner = torch.cat([job[1] for job in jobs]), [k for k, job in enumerate(jobs) for _ in job[1]]
        steps = track(
            self.sam2, [job[0] for job in jobs], owner, prompts, self.runtime, batch_mode=self.config.sam2_batch_mode,
            keep_absent=True,
        )  # fmt: skip

        def watched() -> Iterator[Prediction]:
            for prediction in steps:
                if predictions is not None:
                    predictions.append(prediction)
                yield prediction

        targets = (
            torch.cat([job[2][t].to(prompts.device, non_blocking=True) for job in jobs]) for t in range(len(jobs[0][0]))
        )
        return clip_terms(watched(), targets, recompute=self.runtime.checkpoint_losses)

    def _recorded_terms(self, jobs: Sequence[_Job]) -> Tensor | None:
        """As :meth:`_terms`, tracking and losses replayed; ``None`` where that cannot be or is not worth while."""
        sam2, runtime, frames = self.sam2, self.runtime, len(jobs[0][0])
        if not torch.is_grad_enabled() or runtime.max_frames_in_flight is not None or self.config.sam2_batch_mode:
            return None  # in batch mode frames are decoded together, with few kernels
        like, objects = sam2.no_mem_embed, sum(len(job[1]) for job in jobs)
        missing = rounded_up(objects) - objects  # places without an object, so that few shapes come up
        prompts = torch.cat([job[1] for job in jobs]).to(like.device, like.dtype)
        prompts = F.pad(prompts, (0, 0, 0, 0, 0, missing))
        owner = torch.tensor([k for k, job in enumerate(jobs) for _ in job[1]] + [0] * missing)
        owner = owner.to(like.device, non_blocking=True)
        targets = torch.cat([job[2].to(like.device, non_blocking=True) > 0 for job in jobs], dim=1)
        targets = F.pad(targets, (0, 0, 0, 0, 0, missing))
        features = encode_clips(
            sam2, [job[0] for job in jobs], 0, frames, runtime.encode_batch, like.device, like.dtype
        )  # fmt: skip
        inputs = (features.top, features.fine, features.middle, prompts, owner, targets)
        tables = sam2.tables(like.device, like.dtype)
        part = graphed_part(sam2, _tracked_terms, inputs, ("tracking",), without=["image_encoder"], keep=tables)
        terms = _tracked_terms(sam2, *inputs) if part is None else part.replay(*inputs)
        return terms[:, :objects]

    def _mask_jobs(self, seg_tokens, frames, label_mask) -> list[_Job | None]:
        """Per sample its frames, prompts and true masks; ``None`` where it has no masks."""
        size, batch = self.config.sam2_image_size, len(seg_tokens)
        for name, given in (("frames", frames), ("label_mask", label_mask)):
            if len(given) != batch:
                raise DataError(f"{name} has {len(given)} entries for a batch of {batch} samples")
        jobs: list[_Job | None] = []
        for i, (clip, masks, prompts) in enumerate(zip(frames, label_mask, seg_tokens, strict=True)):
            if masks is None:
                jobs.append(None)
                continue
            if clip is None:
                raise DataError(f"sample {i} has a label_mask but no frames")
            check_frames(clip, size, f"sample {i}")
            if masks.dim() != 4 or tuple(masks.shape[2:]) != (size, size) or len(masks) != len(clip):
                raise MaskError(
                    f"label_mask of sample {i} has shape {list(masks.shape)}, its clip needs "
                    f"[{len(clip)}, objects, {size}, {size}]"
                )
            if masks.shape[1] == 0:
                raise MaskError(f"label_mask of sample {i} has no objects; a sample without masks has None")
            if masks.shape[1] != len(prompts):
                raise DataError(
                    f"sample {i} has {len(prompts)} <|seg|> (after its first token) but {masks.shape[1]} masks"
                )
            most = self.config.sample_objects
            if self.training and 0 < most < len(prompts):
                chosen = random.sample(range(len(prompts)), most)
                prompts, masks = prompts[chosen], masks[:, chosen]
            jobs.append((clip, prompts, masks))
        return jobs


def _ranges(counts: Sequence[int]) -> list[slice]:
    ends = list(itertools.accumulate(counts))
    return [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]


def _take(prediction: Prediction, objects: slice) -> Prediction:
    return Prediction(*(getattr(prediction, field.name)[objects] for field in dataclasses.fields(prediction)))


def _tracked_terms(
    sam2: Any, top: Tensor, fine: Tensor, middle: Tensor, prompts: Tensor, owner: Tensor, targets: Tensor
) -> Tensor:
    """Tracking and losses of a batch's clips as one function, ``[frames, objects, 4]``.

    Args:
        sam2: The model.
        top, fine, middle: Features, ``[clips, frames, ...]``.
        prompts: ``[objects, tokens, C]``.
        owner: For each object the number of its clip, int64 ``[objects]``.
        targets: Bool ``[frames, objects, S, S]``.
    """
    frames = top.shape[1]
    tracker = Tracker(sam2, prompts, owner, frames, keep_absent=True)
    with _kept_activations(sam2):
        steps = (tracker.step(FrameFeatures(top[:, t], fine[:, t], middle[:, t])) for t in range(frames))
        return clip_terms(steps, targets)


@contextlib.contextmanager
def _kept_activations(sam2: Any) -> Iterator[None]:
    """Recompute nothing of the tracker: the state of the random numbers cannot be had while a graph is recorded."""
    encoder = set(sam2.image_encoder.modules())
    parts = [m for m in sam2.modules() if getattr(m, "gradient_checkpointing", False) and m not in encoder]
    for part in parts:
        part.gradient_checkpointing = False
    try:
        yield
    finally:
        for part in parts:
            part.gradient_checkpointing = True
