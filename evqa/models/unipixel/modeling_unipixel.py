"""UniPixel as a transformers model: Qwen2.5-VL whose ``<seg>`` tokens prompt SAM 2.1.

The way of a batch::

    ids, pixels, prompts --embed--> embeddings --Qwen2.5-VL--> logits, and the states that predict <seg>
                                                                      | seg_head
    frames --------------------------SAM 2 encoder--------------> tracker --> masks

Letters in shape comments: ``C`` width of the language model, ``d`` = SAM 2's ``hidden_size``, ``K`` =
``sam2_hidden_tokens``, ``V`` = width of a merged patch before the merger's MLP, ``S`` = ``sam2_image_size``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLRMSNorm,
)
from transformers.utils import can_return_tuple

from evqa.errors import DataError
from evqa.models.unipixel import checkpoints_unipixel as checkpoints
from evqa.models.unipixel import conversion_unipixel as conversion
from evqa.models.unipixel.codes_unipixel import FourierCode
from evqa.models.unipixel.configuration_unipixel import UniPixelConfig
from evqa.models.unipixel.embedding_unipixel import UniPixelEmbedding
from evqa.models.unipixel.generation_unipixel import UniPixelGeneration
from evqa.models.unipixel.losses_unipixel import UniPixelLosses, supervised_loss
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.sam2_blocks_unipixel import PromptEncoder
from evqa.models.unipixel.sam2_unipixel import UniPixelSam2
from evqa.models.unipixel.sequence_unipixel import HostInputs, branch_mask, index_targets, rope_positions
from evqa.models.unipixel.vision_unipixel import PackedVisionBlock

__all__ = ["UniPixelForConditionalGeneration", "UniPixelOutput"]

conversion.register()

#: What transformers calls the key-value cache: ``past_key_values`` until 5.23, ``cache`` since.
_CACHE = next(f.name for f in dataclasses.fields(CausalLMOutputWithPast) if f.name in ("cache", "past_key_values"))


@dataclasses.dataclass
class UniPixelOutput(CausalLMOutputWithPast):
    """What :meth:`UniPixelForConditionalGeneration.forward` returns.

    Attributes:
        loss: ``lm_loss`` plus the mask loss; whatever of the two there are labels for.
        logits: ``[batch, length, vocabulary]``; ``None`` with ``runtime.supervised_logits`` where there are labels.
        lm_loss: Cross-entropy, mean over labelled tokens.
        focal_loss, dice_loss, iou_loss, presence_loss: Mask terms, mean over frames, objects and samples with masks;
            the mask loss is 100, 5, 5, 5 times these.
        correct_tokens: How many labelled tokens are the likeliest ones, int64 ``[]``. Only with
            ``runtime.supervised_logits``.
        seg_tokens: Per sample ``[objects, K, d]``: prompts for SAM 2, for each ``<seg>`` in the row.
        sample_losses: Per sample with masks the four terms ``[4]``, else ``None``.
        mask_logits: Per sample ``[frames, objects, 3, S / 4, S / 4]``: all candidates. Only with ``output_masks``.
        ious: Per sample ``[frames, objects, 3]``: their predicted IoU. Only with ``output_masks``.
        object_scores: Per sample ``[frames, objects, 1]``. Only with ``output_masks``.
        past_key_values (or cache), hidden_states, attentions: As in transformers.
    """

    lm_loss: Tensor | None = None
    focal_loss: Tensor | None = None
    dice_loss: Tensor | None = None
    iou_loss: Tensor | None = None
    presence_loss: Tensor | None = None
    correct_tokens: Tensor | None = None
    seg_tokens: list[Tensor] | None = None
    sample_losses: list[Tensor | None] | None = None
    mask_logits: list[Tensor | None] | None = None
    ious: list[Tensor | None] | None = None
    object_scores: list[Tensor | None] | None = None


class UniPixelForConditionalGeneration(
    UniPixelGeneration, UniPixelEmbedding, UniPixelLosses, Qwen2_5_VLForConditionalGeneration
):
    """Qwen2.5-VL with SAM 2.1: text and masks.

    Attributes:
        runtime: Switches of speed and memory (:class:`~evqa.models.unipixel.runtime_unipixel.Runtime`).
    """

    config: UniPixelConfig
    config_class = UniPixelConfig
    cache_name = _CACHE
    _no_split_modules = ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"]  # and that of SAM 2, if there is one
    _keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(self, config: UniPixelConfig):
        super().__init__(config)
        self.runtime = Runtime()
        self.model.visual.blocks = nn.ModuleList(
            PackedVisionBlock(self.model.visual.config) for _ in self.model.visual.blocks
        )
        self.sam2: UniPixelSam2 | None = None
        if config.sam2_video_config is not None:
            self._add_heads(config)
        self.post_init()

    def _add_heads(self, config: UniPixelConfig) -> None:
        sam2, width = config.sam2_video_config, config.text_config.hidden_size
        d, merged = sam2.hidden_size, self.model.visual.merger.hidden_size
        self.sam2 = UniPixelSam2(sam2, config.legacy_rope_no_grad)
        self.seg_head = nn.Sequential(
            Qwen2_5_VLRMSNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, d * config.sam2_hidden_tokens),
        )
        # Referring prompts: where (its own prompt encoder) and when (a code of the frame's number).
        self.ref_encoder = PromptEncoder(sam2)
        self.ref_proj_single = nn.Linear(2 * d, 3 * d)  # a point and the padding token
        self.ref_proj_double = nn.Linear(3 * d, 3 * d)  # a box's two corners and the padding token
        self.tem_pe = FourierCode(1, d // 2)
        self.tem_emb = nn.Embedding(1, d)
        self.tem_proj = nn.Linear(d, 3 * d)
        self.ref_proj = nn.Sequential(nn.GELU(), nn.Linear(6 * d, width))
        # Object memory: the mean of an object's patches.
        self.msk_proj = nn.Sequential(nn.Linear(merged, merged), nn.GELU(), nn.Linear(merged, width))

    # ------------------------------------------------------------------------------ transformers
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FourierCode):
            init.normal_(module.positional_encoding_gaussian_matrix)

    @torch.no_grad()
    def initialize_new_parameters(self) -> None:
        """Initialise what neither Qwen2.5-VL nor SAM 2 brings, as the original does for a fresh model.

        The prompt encoder for references starts as SAM 2's (but not its Fourier matrix), the object memory as the
        vision tower's merger; projections are drawn (Xavier uniform), their biases 0.
        """
        pairs = [
            (self.ref_encoder, self.sam2.sam_prompt_encoder),
            (self.msk_proj, self.model.visual.merger.mlp),
        ]
        for new, old in pairs:
            for a, b in zip(new.parameters(), old.parameters(), strict=True):
                a.copy_(b)
        for head in (self.seg_head, self.ref_proj_single, self.ref_proj_double, self.ref_proj, self.tem_proj):
            for module in head.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def set_attn_implementation(self, attn_implementation: str | dict, *args: Any, **kwargs: Any) -> None:
        """As in transformers; reaches the blocks of SAM 2 too. A dictionary sets it by sub-config."""
        super().set_attn_implementation(attn_implementation, *args, **kwargs)
        if self.sam2 is not None:
            self.sam2.use_attention(self.sam2.config._attn_implementation)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a checkpoint: full, or a folder with an adapter or with trained modules only.

        As in transformers, and besides:

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            *args: As in transformers.
            **kwargs: As in transformers. ``base_model_path``: for a folder without all weights, what they are added
                to (default: the ``base_model_path`` of its config). ``allow_missing``: keep new weights where the
                checkpoint has none, instead of raising.

        Raises:
            DataError: Weights are missing; the message names them.
        """
        if checkpoints.is_partial(pretrained_model_name_or_path, kwargs):
            return checkpoints.load_checkpoint(pretrained_model_name_or_path, **kwargs)
        kwargs.pop("base_model_path", None)
        allow_missing, wants_info = kwargs.pop("allow_missing", False), kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )  # fmt: skip
        if info["missing_keys"] and not allow_missing:
            checkpoints.raise_missing(info["missing_keys"], pretrained_model_name_or_path)
        return (model, info) if wants_info else model

    # ----------------------------------------------------------------------------------- forward
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        grid_times: Sequence[Tensor | None] | None = None,
        mm_token_type_ids: Tensor | None = None,
        frames: Sequence[Tensor | None] | None = None,
        frame_size: Sequence[tuple[int, int] | None] | None = None,
        point_coords: Sequence[Sequence[Tensor] | None] | None = None,
        point_labels: Sequence[Sequence[Tensor] | None] | None = None,
        point_frames: Sequence[Any] | None = None,
        refer_mask: Sequence[Tensor | None] | None = None,
        label_mask: Sequence[Tensor | None] | None = None,
        label_obj_to_frame_idx: Any = None,
        label_positions: Tensor | None = None,
        branches: Tensor | None = None,
        host: HostInputs | None = None,
        num_items_in_batch: Tensor | int | None = None,
        num_masks_in_batch: Tensor | int | None = None,
        mask_weights: Sequence[float] | None = None,
        logits_to_keep: int | Tensor = 0,
        output_masks: bool = False,
        cache: Any = None,
        **kwargs: Any,
    ) -> UniPixelOutput:
        """Logits, losses, and the SAM 2 prompts of every ``<seg>`` in the batch.

        Names are those of the original's collator. Every list has one entry per sample; an entry is ``None`` where a
        sample has none of that. Masks of an inference are made by :meth:`segment` or :meth:`generate`.

        Args:
            input_ids: ``[batch, length]``, padded on either side.
            attention_mask: ``[batch, length]``, 0 for padding.
            position_ids: ``[3, batch, length]``; computed when absent.
            past_key_values, use_cache, logits_to_keep: As in transformers, which calls the first ``cache`` since 5.24.
            inputs_embeds: ``[batch, length, C]``, instead of what :meth:`embed` makes.
            labels: ``[batch, length]``, -100 where nothing is to be predicted.
            pixel_values, image_grid_thw: Images for the language model, as Qwen2.5-VL takes them.
            pixel_values_videos: Patches of all videos, ``[patches, 1176]``.
            video_grid_thw: ``[videos, 3]``. At most one video a sample where there are frames or prompts.
            second_per_grid_ts: Seconds between temporal steps, per video.
            grid_times: Seconds of each temporal step, per video; overrides the former.
            mm_token_type_ids: Not needed; accepted because Qwen's processor makes it.
            frames: Per sample the clip for SAM 2, ``[frames, 3, S, S]`` normalised or uint8
                ``[frames, 3, height, width]``.
            frame_size: Not used in training; accepted because the collator makes it.
            point_coords: Per sample and object ``[1, points, 2]``, pixels of SAM 2's square.
            point_labels: Per sample and object ``[1, points]``.
            point_frames: Per sample the number of each prompt's video frame.
            refer_mask: Per sample ``[grid_t, objects, grid_h / 2, grid_w / 2]``, bool.
            label_mask: Per sample ``[frames, objects, S, S]``: the true masks of its ``<seg>``, in their order.
            label_obj_to_frame_idx: Not needed; accepted because the collator makes it.
            branches: int ``[batch, length]``, several continuations of one beginning in a row: 0 where all of them
                begin, and the number of the continuation elsewhere. A token sees what came before it in the beginning
                and in its own continuation. Needs ``position_ids``, and takes the place of ``attention_mask``.
            host: ``input_ids`` and ``video_grid_thw`` in host memory: everything that depends on their values is then
                found without waiting for the device, and the two arguments themselves are not looked at.
            label_positions: ``[labelled tokens]``, where in the flattened batch they are predicted: ``row * length +
                position`` for the label at ``position + 1``. Found from ``labels`` when absent, which waits for the
                device. Only with ``runtime.supervised_logits``.
            num_items_in_batch: Labelled tokens of the whole optimiser step, over ranks and accumulation: the LM loss
                is the sum over this batch's tokens divided by it.
            num_masks_in_batch: Samples with masks of the whole step. The mask loss is then the sum over this batch's
                samples, each the mean over its own objects, divided by it. Without it the loss is that of the original:
                a mean over this batch, each sample divided by the number of objects averaged over the ranks.
            mask_weights: Per sample, what its mask loss counts; 1 when absent.
            output_masks: Also return the candidate masks of every frame. They are large.
            cache: See ``past_key_values``.
            **kwargs: For the language model.

        Raises:
            DataError: Inputs that do not match each other; says which sample.
            MaskError, VideoError: Masks or frames of another size, or none.
        """
        cache = past_key_values if cache is None else cache
        if host is not None:
            input_ids, video_grid_thw = host.input_ids, host.video_grid_thw
        if label_mask is not None and frames is None:
            raise DataError("label_mask was given without the frames that it is for (frames)")
        if inputs_embeds is None:
            inputs_embeds = self.embed(
                input_ids, pixel_values=pixel_values, pixel_values_videos=pixel_values_videos,
                image_grid_thw=image_grid_thw, video_grid_thw=video_grid_thw, point_coords=point_coords,
                point_labels=point_labels, point_frames=point_frames, refer_mask=refer_mask,
            )  # fmt: skip
        if self.model.language_model.gradient_checkpointing and self.training and not inputs_embeds.requires_grad:
            inputs_embeds = inputs_embeds.detach().requires_grad_()  # checkpoints need an input with a gradient
        given_positions = position_ids is not None
        if position_ids is None:
            position_ids = self._positions(
                input_ids, inputs_embeds, attention_mask, cache, image_grid_thw, video_grid_thw,
                second_per_grid_ts, grid_times,
            )  # fmt: skip
        seen = attention_mask
        if branches is not None:
            if attention_mask is not None or not given_positions:
                raise DataError("branches come with position_ids and without an attention_mask")
            seen = branch_mask(branches.to(inputs_embeds.device, non_blocking=True))
        wants_prompts = self.sam2 is not None and self.config.sam2_enable_decoder and frames is not None
        with self.state_before_norm(wants_prompts) as kept:
            outputs = self.model.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=seen,
                position_ids=position_ids,
                use_cache=False if use_cache is None and self.training else use_cache,
                **{_CACHE: cache},
                **kwargs,
            )
        hidden = outputs.last_hidden_state
        supervised = self.runtime.supervised_logits and labels is not None
        kept_positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = None if supervised else self.lm_head(hidden[:, kept_positions])
        result = UniPixelOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions,
            **{_CACHE: getattr(outputs, _CACHE)},
        )  # fmt: skip
        if supervised:
            result.lm_loss, result.correct_tokens = supervised_loss(
                self.lm_head, hidden, labels, label_positions, num_items_in_batch
            )
            result.loss = result.lm_loss
        elif labels is not None:
            result.lm_loss = result.loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )  # fmt: skip
        if wants_prompts:
            targets = index_targets(input_ids, attention_mask, self.config.seg_token_id)
            device = kept[0].device
            result.seg_tokens = [
                self.seg_prompts(kept[0][row].index_select(0, places.to(device, non_blocking=True)))
                for row, places in enumerate(targets)
            ]
            if label_mask is not None:
                self._add_mask_losses(
                    result, frames, label_mask, output_masks, hidden.device, num_masks_in_batch, mask_weights
                )
        if supervised:  # DDP takes every tensor that is returned with a graph to be part of the loss
            result.seg_tokens = None
            result.sample_losses = result.sample_losses and [
                None if terms is None else terms.detach() for terms in result.sample_losses
            ]
        return result

    def _positions(
        self, input_ids, inputs_embeds, attention_mask, cache, image_grid_thw, video_grid_thw, second_per_grid_ts,
        grid_times,
    ) -> Tensor:  # fmt: skip
        batch, length = inputs_embeds.shape[:2]
        past = 0 if cache is None else int(cache.get_seq_length())
        if past == 0 and input_ids is not None:
            positions = rope_positions(
                input_ids, attention_mask, self.config, image_grid_thw, video_grid_thw, second_per_grid_ts, grid_times
            )
            real = length if attention_mask is None else attention_mask.sum(-1)
            self.model.rope_deltas = (positions.amax((0, 2)) + 1 - real)[:, None]
            return positions
        if attention_mask is None:
            text = torch.arange(past, past + length, device=inputs_embeds.device).expand(batch, -1)
        else:
            text = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        if past and self.model.rope_deltas is not None:
            text = text + self.model.rope_deltas.to(text.device)
        return text.expand(3, -1, -1)

    @contextlib.contextmanager
    def state_before_norm(self, wanted: bool) -> Iterator[list[Tensor]]:
        """Collects what enters the language model's last norm: ``<seg>`` is read from there, not from its output."""
        kept: list[Tensor] = []
        if not wanted:
            yield kept
            return
        handle = self.model.language_model.norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            yield kept
        finally:
            handle.remove()

    def seg_prompts(self, states: Tensor) -> Tensor:
        """Prompt tokens for SAM 2, ``[n, K, d]``, from the states that predict ``<seg>``, ``[n, C]``."""
        weight = self.seg_head[1].weight
        tokens = self.seg_head(states.to(weight.device, weight.dtype))
        return tokens.unflatten(-1, (self.config.sam2_hidden_tokens, -1))
