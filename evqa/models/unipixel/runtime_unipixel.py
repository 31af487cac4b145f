"""How a model runs, as opposed to what it computes."""

from __future__ import annotations

import dataclasses

import torch

__all__ = ["Runtime"]


@dataclasses.dataclass
class Runtime:
    """Every switch that may change speed and memory, and nothing else (``model.runtime``).

    Attributes:
        packed_vision: One attention call for all windows of the vision tower
            (:mod:`evqa.models.unipixel.vision_unipixel`); no effect with ``eager`` or flash-attn's attention.
        fixed_steps: Decode tokens and track objects in steps of fixed shapes, which on CUDA are recorded once and
            replayed as graphs. ``None``: on CUDA. No effect where gradients are recorded.
        overlap: On CUDA, run SAM 2's image encoder beside everything else, a few batches ahead. It starts with
            ``generate``, whether or not the text will ask for masks.
        encode_batch: Frames per call of SAM 2's image encoder.
        max_frames_in_flight: Frames whose features are on the device at a time; ``None``: all of the clip in training,
            64 otherwise. Device memory does not grow with the length of the clip beyond that.
        checkpoint_losses: Recompute the full-size mask logits in the backward pass instead of storing them.
        graph_tracking: In training, track and compute the mask losses in CUDA graphs that are recorded once for a
            number of clips, frames and (rounded up) objects: over 40 % of a step's launches go, nothing of the tracker
            is recomputed, and its activations have memory of their own (some 14 GiB for 8 objects in 8 frames at 768
            pixels).
        supervised_logits: Given labels, make logits only where there is one; the output then holds none.
    """

    packed_vision: bool = True
    fixed_steps: bool | None = None
    overlap: bool = True
    encode_batch: int = 16
    max_frames_in_flight: int | None = None
    checkpoint_losses: bool = True
    graph_tracking: bool = False
    supervised_logits: bool = False

    @classmethod
    def plain(cls) -> Runtime:
        """What transformers does by itself: the baseline of measurements, and the reference of every shortcut."""
        return cls(packed_vision=False, fixed_steps=False, overlap=False)

    def uses_fixed_steps(self, device: torch.device) -> bool:
        """Whether steps of fixed shapes are to be used on this device."""
        return device.type == "cuda" if self.fixed_steps is None else self.fixed_steps
