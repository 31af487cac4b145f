"""The mask losses of UniPixel: those of SAM 2's own training, with its weights.

Per object and frame, on all three candidate masks at full size: focal loss (Lin et al., 2017; alpha 0.25, gamma 2),
dice loss, the error of the predicted IoU, and cross-entropy of the object's presence. Focal and dice count for the
candidate that is best by them; an absent object counts for its presence alone. Source: ``training/loss_fns.py`` of
facebookresearch/sam2, set up as in UniPixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from evqa.models.unipixel.sam2_unipixel import Prediction

__all__ = ["TERMS", "WEIGHTS", "frame_terms", "mean_object_counts"]

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
        return checkpoint(_terms, *inputs, use_reentrant=False)
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
