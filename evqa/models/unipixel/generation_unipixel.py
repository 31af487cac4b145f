"""Generation: stock ``generate``, then the masks of every ``<seg>`` of every sample together.

The original tracks each object as soon as its token appears, one sample at a time. Here the text is generated first,
by transformers, while :class:`SegStates` keeps the few states from which ``<seg>`` was predicted; then
:meth:`UniPixelGeneration.segment` tracks all objects at once. The masks are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from evqa.errors import DataError
from evqa.models.unipixel.collecting_unipixel import MaskWriter, Segmentation, SegStates
from evqa.models.unipixel.decoding_unipixel import can_decode, decode
from evqa.models.unipixel.encoding_unipixel import FrameFeed, check_frames
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.sequence_unipixel import index_targets
from evqa.models.unipixel.tracking_unipixel import track

__all__ = ["UniPixelGenerateOutput", "UniPixelGeneration"]

# What only the prompt has, and what is the same in every step of the language model.
_PROMPT_INPUTS = (
    "pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw", "point_coords", "point_labels",
    "point_frames", "refer_mask",
)  # fmt: skip


@dataclasses.dataclass
class UniPixelGenerateOutput(ModelOutput):
    """Text and masks.

    Attributes:
        sequences: Token ids, prompt included, ``[batch, length]``; padded on the left where prompts differ in length.
        masks: Per sample the masks of its ``<seg>`` tokens, those of the prompt first: bool ``[objects, frames,
            height, width]`` in host memory, at the clip's size; or, on request, COCO RLE, ``[objects][frames]``.
        mask_logits: Per sample ``[objects, frames, S / 4, S / 4]`` in host memory, on request.
        object_scores: Per sample ``[objects, frames]``: logit that the object is in the frame.
        seg_positions: Per sample the columns of ``sequences`` that hold its ``<seg>`` tokens.
        generation: What ``generate`` of transformers returned, with ``return_dict_in_generate``.
    """

    sequences: Tensor | None = None
    masks: list[Any] | None = None
    mask_logits: list[Tensor] | None = None
    object_scores: list[Tensor] | None = None
    seg_positions: list[Tensor] | None = None
    generation: Any = None


class UniPixelGeneration:
    """``generate`` and ``segment`` of the model."""

    #: Where the states of the generation under way are kept.
    seg_states: SegStates | None = None

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *,
        frames: Sequence[Tensor | None] | None = None,
        frame_size: Sequence[tuple[int, int] | None] | None = None,
        mask_format: str = "tensor",
        return_mask_logits: bool = False,
        max_frames_in_flight: int | None = None,
        **kwargs: Any,
    ) -> Tensor | UniPixelGenerateOutput:
        """Generate text, and the masks of every ``<seg>`` in prompt and text.

        Takes what ``generate`` of transformers takes (greedy and sampling, batches, ``num_return_sequences``,
        ``custom_generate``) and the inputs of :meth:`forward`. Prompts may be padded on either side.

        Args:
            inputs: Token ids, or ``input_ids=``.
            generation_config: As in transformers.
            frames: Per sample its clip for SAM 2, or ``None``: no masks for it. May lie in host memory.
            frame_size: Per sample the ``(height, width)`` of its masks; by default the size of uint8 frames.
            mask_format: ``"tensor"``, ``"rle"`` or ``"none"``.
            return_mask_logits: Also return the masks' logits, at a quarter of SAM 2's image size.
            max_frames_in_flight: Frames on the device at a time; see ``model.runtime``.
            **kwargs: See above.

        Returns:
            :class:`UniPixelGenerateOutput`; without ``frames`` what transformers returns.

        Raises:
            ValueError: Beam search or assisted generation, whose hypotheses change places, or an unknown
                ``mask_format``.
            DataError: Inputs that do not match each other; says which sample.
            VideoError: A clip without frames.
        """
        self._refuse(generation_config, kwargs)
        ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        if ids is None:
            raise DataError("generate needs input_ids")
        sized = self._check_clips(frames, frame_size, len(ids), mask_format) if frames is not None else None
        mask = kwargs.pop("attention_mask", None)
        ids, mask = _left_padded(ids, self._mask_of(ids, mask))
        prompt = {name: kwargs.pop(name, None) for name in _PROMPT_INPUTS}
        embeds = self.embed(ids, **prompt)
        positions = self._positions(
            ids, embeds, mask, None, prompt["image_grid_thw"], prompt["video_grid_thw"],
            kwargs.pop("second_per_grid_ts", None), kwargs.pop("grid_times", None),
        )  # fmt: skip
        for name in ("mm_token_type_ids", "label_mask", "label_obj_to_frame_idx", "labels"):
            kwargs.pop(name, None)
        # Every sequence is its own row from here on; transformers would not know how to repeat the positions.
        repeats = self._repeats(generation_config, kwargs)
        ids, mask, embeds = (x.repeat_interleave(repeats, dim=0) for x in (ids, mask, embeds))
        positions = positions.repeat_interleave(repeats, dim=1)

        states = feed = None
        if frames is not None:
            feed = self._feed(frames, max_frames_in_flight)
            states = SegStates(ids, mask, self.config.seg_token_id, None if feed is None else feed.prefetch)
        options = {
            "input_ids": ids, "inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions,
            "generation_config": generation_config, "num_return_sequences": 1, **kwargs,
        }  # fmt: skip
        generated = self._generated(states, options)
        if frames is None:
            return generated
        sequences = generated if isinstance(generated, Tensor) else generated.sequences
        return self._with_masks(
            sequences, mask, states, [clip for clip in frames for _ in range(repeats)],
            [size for size in sized for _ in range(repeats)], mask_format, return_mask_logits, max_frames_in_flight,
            None if isinstance(generated, Tensor) else generated, feed,
        )  # fmt: skip

    @torch.no_grad()
    def segment(
        self,
        frames: Sequence[Tensor | None],
        seg_tokens: Sequence[Tensor],
        frame_size: Sequence[tuple[int, int] | None] | None = None,
        *,
        mask_format: str = "tensor",
        return_mask_logits: bool = False,
        return_pointers: bool = False,
        max_frames_in_flight: int | None = None,
    ) -> Segmentation:
        """Track objects through clips.

        Args:
            frames: Per sample its clip (as for :meth:`generate`), or ``None`` where it has no objects.
            seg_tokens: Per sample the prompt tokens of its objects, ``[objects, K, d]``: ``seg_tokens`` of
                :meth:`forward`.
            frame_size, mask_format, return_mask_logits, max_frames_in_flight: As for :meth:`generate`.
            return_pointers: Also return SAM 2's object pointers.

        Raises:
            DataError, VideoError, ValueError: As for :meth:`generate`.
        """
        sizes = self._check_clips(frames, frame_size, len(seg_tokens), mask_format)
        return self._segmented(
            frames, seg_tokens, sizes, mask_format, return_mask_logits, return_pointers, max_frames_in_flight, None
        )

    # ------------------------------------------------------------------------------------ pieces
    def _runtime(self, max_frames_in_flight: int | None) -> Runtime:
        if max_frames_in_flight is None:
            return self.runtime
        if max_frames_in_flight < 1:
            raise ValueError(f"max_frames_in_flight is at least 1, got {max_frames_in_flight}")
        return dataclasses.replace(self.runtime, max_frames_in_flight=max_frames_in_flight)

    def _feed(self, frames: Sequence[Tensor | None], max_frames_in_flight: int | None) -> FrameFeed | None:
        """One to begin with while the text is still being generated: where all rows look at one clip."""
        clips, _ = _distinct([clip for clip in frames if clip is not None])
        return FrameFeed(self.sam2, clips, self._runtime(max_frames_in_flight)) if len(clips) == 1 else None

    def _segmented(
        self, frames, seg_tokens, sizes, mask_format, return_mask_logits, return_pointers, max_frames_in_flight, feed
    ) -> Segmentation:
        runtime = self._runtime(max_frames_in_flight)
        out: list[Segmentation | None] = [None] * len(frames)
        lengths = {len(clip) for clip, tokens in zip(frames, seg_tokens, strict=True) if len(tokens)}
        for length in sorted(lengths):
            samples = [i for i, tokens in enumerate(seg_tokens) if len(tokens) and len(frames[i]) == length]
            # Rows of one sample (num_return_sequences) share its frames, and the frames are encoded once.
            clips, place = _distinct([frames[i] for i in samples])
            owner = [k for k, i in enumerate(samples) for _ in seg_tokens[i]]
            writer = MaskWriter(
                owner, [sizes[i] for i in samples], mask_format, logits=return_mask_logits,
                pointers=return_pointers, batch=runtime.encode_batch,
            )  # fmt: skip
            steps = track(
                self.sam2, clips, [place[k] for k in owner], torch.cat([seg_tokens[i] for i in samples]), runtime,
                batch_mode=self.config.sam2_batch_mode, feed=feed,
            )  # fmt: skip
            for prediction in steps:
                writer.add(prediction)
            done = writer.finish()
            for k, i in enumerate(samples):
                out[i] = Segmentation(*(None if field is None else field[k] for field in vars(done).values()))
        return self._collect(out, frames, sizes, mask_format, return_mask_logits, return_pointers)

    def _with_masks(
        self,
        sequences,
        mask,
        states,
        frames,
        sizes,
        mask_format,
        return_mask_logits,
        max_frames_in_flight,
        generated,
        feed,
    ) -> UniPixelGenerateOutput:
        longer = F.pad(mask, (0, sequences.shape[1] - mask.shape[1]), value=1)
        places = index_targets(sequences, longer, self.config.seg_token_id)
        columns = [found.tolist() for found in places]
        states_of = [[states.at(row, column) for column in found] for row, found in enumerate(columns)]
        weight = self.seg_head[1].weight
        prompts = [
            self.seg_prompts(torch.stack(found) if found else weight.new_zeros(0, weight.shape[1]))
            if frames[row] is not None
            else self.seg_prompts(weight.new_zeros(0, weight.shape[1]))
            for row, found in enumerate(states_of)
        ]
        found = self._segmented(
            frames, prompts, sizes, mask_format, return_mask_logits, False, max_frames_in_flight, feed
        )
        return UniPixelGenerateOutput(
            sequences=sequences,
            masks=found.masks,
            mask_logits=found.mask_logits,
            object_scores=found.object_scores,
            seg_positions=[place + 1 for place in places],
            generation=generated,
        )

    def _generated(self, states: SegStates | None, options: dict[str, Any]) -> Any:
        """What ``generate`` of transformers returns; fills ``states``."""
        if self.runtime.uses_fixed_steps(self.lm_head.weight.device) and can_decode(self, options):
            self.seg_states = states
            try:
                return super().generate(custom_generate=decode, **options)
            finally:
                self.seg_states = None
        if states is None:
            return super().generate(**options)
        norm = self.model.language_model.norm
        handle = norm.register_forward_pre_hook(lambda _, inputs: states.add(inputs[0]))
        try:
            return super().generate(**options)
        finally:
            handle.remove()

    def _refuse(self, generation_config: Any, kwargs: dict[str, Any]) -> None:
        def setting(name: str) -> Any:
            given = kwargs.get(name)
            for config in (generation_config, self.generation_config):
                given = getattr(config, name, None) if given is None else given
            return given

        if (setting("num_beams") or 1) > 1:
            raise ValueError(
                "UniPixel cannot use beam search: beams change places, and a mask would follow another beam's text; "
                "use greedy decoding or sampling (num_beams=1)"
            )
        if kwargs.get("assistant_model") is not None or setting("prompt_lookup_num_tokens"):
            raise ValueError(
                "UniPixel cannot use assisted generation: rejected tokens would be taken for the text's own; "
                "generate without assistant_model and prompt_lookup_num_tokens"
            )
        if kwargs.get("past_key_values") is not None:
            raise ValueError("UniPixel generates from the whole prompt; past_key_values cannot be given")

    def _repeats(self, generation_config: Any, kwargs: dict[str, Any]) -> int:
        given = kwargs.pop("num_return_sequences", None)
        for config in (generation_config, self.generation_config):
            given = getattr(config, "num_return_sequences", None) if given is None else given
        return given or 1

    def _mask_of(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return mask.to(ids.device)
        pad = self.generation_config.pad_token_id
        pad = getattr(self.config.get_text_config(), "pad_token_id", None) if pad is None else pad
        if pad is None or len(ids) == 1:
            return torch.ones_like(ids)
        return (ids != pad).to(ids.dtype)

    def _check_clips(self, frames, frame_size, batch: int, mask_format: str) -> list[tuple[int, int]]:
        """The size of each sample's masks."""
        if mask_format not in ("tensor", "rle", "none"):
            raise ValueError(f"mask_format is 'tensor', 'rle' or 'none', not {mask_format!r}")
        if self.sam2 is None or not self.config.sam2_enable_decoder:
            raise DataError("this model makes no masks (sam2_config is not set, or sam2_enable_decoder is false)")
        for name, given in (("frames", frames), ("frame_size", frame_size)):
            if given is not None and len(given) != batch:
                raise DataError(f"{name} has {len(given)} entries for a batch of {batch} samples")
        sizes = []
        for i, clip in enumerate(frames):
            size = None if frame_size is None else frame_size[i]
            if clip is not None:
                check_frames(clip, self.config.sam2_image_size, f"sample {i}")
                size = clip.shape[-2:] if size is None else size
            height, width = (0, 0) if size is None else (int(side) for side in size)
            if clip is not None and min(height, width) < 1:
                raise DataError(f"frame_size of sample {i} is (height, width) in pixels, got {(height, width)}")
            sizes.append((height, width))
        return sizes

    def _collect(self, out, frames, sizes, mask_format, logits, pointers) -> Segmentation:
        quarter, width = self.config.sam2_image_size // 4, self.config.sam2_video_config.hidden_size
        for i, found in enumerate(out):
            if found is not None:
                continue
            length = 0 if frames[i] is None else len(frames[i])
            out[i] = Segmentation(
                masks={
                    "tensor": torch.zeros(0, length, *sizes[i], dtype=torch.bool), "rle": [], "none": None
                }[mask_format],
                object_scores=torch.zeros(0, length),
                mask_logits=torch.zeros(0, length, quarter, quarter) if logits else None,
                pointers=torch.zeros(0, length, width) if pointers else None,
            )  # fmt: skip
        return Segmentation(
            masks=[found.masks for found in out],
            object_scores=[found.object_scores for found in out],
            mask_logits=[found.mask_logits for found in out] if logits else None,
            pointers=[found.pointers for found in out] if pointers else None,
        )


def _distinct(clips: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Each clip once, and for each given one its place among them."""
    distinct: list[Tensor] = []
    places = []
    for clip in clips:
        place = next((k for k, other in enumerate(distinct) if other is clip), len(distinct))
        if place == len(distinct):
            distinct.append(clip)
        places.append(place)
    return distinct, places


def _left_padded(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of every row to its left, where generation needs it."""
    order = mask.bool().long().argsort(dim=-1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)
