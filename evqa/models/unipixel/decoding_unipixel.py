"""Greedy decoding and sampling with the language model's step in fixed shapes, replayed as a CUDA graph.

The loop does what ``generate`` of transformers does after it has prepared everything (logits processors, stopping
criteria, sampling); it is handed in as ``custom_generate``. The prompt runs through the model as ever. Then keys and
values move into tensors with room for what is to come, and a token costs one replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evqa.models.unipixel.graphs_unipixel import Recorder, kept_for, weights_key
from evqa.models.unipixel.vision_unipixel import rms_norm

__all__ = ["DecodingStep", "can_decode", "decode", "room_for"]

#: Room for keys and values comes in multiples of this, so that prompts of about one length share a step.
ROOM = 512
#: Room that is made for new tokens at first, at most; it grows when they need more.
NEW_TOKENS = 512


def room_for(length: int) -> int:
    """Keys and values to make room for, so that ``length`` of them fit."""
    return -(-length // ROOM) * ROOM


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention of one query per head. Heads that share keys are rows of one product: keys are read once.

    Args:
        query: ``[batch, heads, head]``.
        key, value: ``[batch, key heads, room, head]``.
        mask: Added to the scores, float32 ``[batch, 1, 1, room]``.
        scaling: Factor of the scores.

    Returns:
        ``[batch, heads * head]``.
    """
    rows = query.unflatten(1, (key.shape[1], -1))  # [batch, key heads, heads of a group, head]
    scores = torch.add(mask, rows @ key.transpose(2, 3), alpha=scaling)
    return (scores.softmax(-1).to(value.dtype) @ value).flatten(1)


class DecodingStep:
    """One token of every row through the language model.

    Args:
        model: The model.
        batch: Rows.
        room: Keys and values per row.
    """

    def __init__(self, model: Any, batch: int, room: int):
        text, like = model.config.text_config, model.lm_head.weight
        self.head = head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.model, self.room, self.record = model, room, Recorder(like.device)
        self.ids = torch.zeros(batch, 1, dtype=torch.long, device=like.device)
        self.positions = torch.zeros(3, batch, 1, dtype=torch.long, device=like.device)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)
        self.mask = like.new_zeros(batch, 1, 1, room, dtype=torch.float32)
        shape = (batch, text.num_key_value_heads, room, head)
        self.layers = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(text.num_hidden_layers)]
        # Which of the three positions (time, height, width) turns which pair of channels.
        sections = text.rope_parameters["mrope_section"]
        axes = torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
        self.axes = axes.to(like.device)

    def start(self, layers: list[tuple[Tensor, Tensor]], mask: Tensor, positions: Tensor) -> None:
        """Take over from a prompt.

        Args:
            layers: Its keys and values, ``[batch, heads, length, head]``.
            mask: ``[batch, length]``, 0 for padding.
            positions: Of its last column, ``[3, batch]``.
        """
        length = mask.shape[1]
        for own, given in zip(self.layers, layers, strict=True):
            for buffer, value in zip(own, given, strict=True):
                buffer[:, :, :length] = value[:, :, :length]
        hidden = torch.finfo(torch.float32).min
        self.mask.fill_(hidden)
        self.mask[:, 0, 0, :length] = (1 - mask.float()) * hidden
        self.slot.fill_(length - 1)
        self.positions.copy_(positions[..., None])

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[batch, vocabulary]`` after these tokens ``[batch]``, and the states before the last norm.

        Both are overwritten by the next call.
        """
        self.ids.copy_(ids[:, None])
        return self.record("step", self._step)

    def _step(self) -> tuple[Tensor, Tensor]:
        self.slot += 1
        self.positions += 1
        self.mask.index_fill_(3, self.slot, 0.0)
        language_model, rotary = self.model.model.language_model, self.model.model.language_model.rotary_emb
        angles = self.positions[self.axes, :, 0].T.float() * rotary.inv_freq.float()  # [batch, head / 2]
        cos, sin = (part * rotary.attention_scaling for part in (angles.cos(), angles.sin()))
        x = language_model.embed_tokens(self.ids[:, 0])  # [batch, C]
        cos, sin = (part.to(x.dtype)[:, None] for part in (cos.repeat(1, 2), torch.cat([-sin, sin], dim=1)))
        for layer, (keys, values) in zip(language_model.layers, self.layers, strict=True):
            y, attn = rms_norm(layer.input_layernorm, x), layer.self_attn
            query, key, value = (
                projection(y).unflatten(1, (-1, self.head)) for projection in (attn.q_proj, attn.k_proj, attn.v_proj)
            )
            both = torch.cat([query, key], dim=1)  # turned together; channels that turn together are half a head apart
            both = torch.addcmul(both * cos, both.roll(self.head // 2, dims=-1), sin)
            query, key = both.split([query.shape[1], key.shape[1]], dim=1)
            keys.index_copy_(2, self.slot, key[:, :, None])
            values.index_copy_(2, self.slot, value[:, :, None])
            x = x + attn.o_proj(grouped_attention(query, keys, values, self.mask, attn.scaling))
            x = x + layer.mlp(rms_norm(layer.post_attention_layernorm, x))
        return self.model.lm_head(rms_norm(language_model.norm, x)), x[:, None]


def can_decode(model: Any, options: dict[str, Any]) -> bool:
    """Whether :func:`decode` can do what ``generate`` is asked for; ``options`` are its arguments.

    It has no streamer, no beams, no record of scores and states, and no caches but its own.
    """

    def setting(name: str) -> Any:
        for place in (options, vars(options.get("generation_config") or object), vars(model.generation_config)):
            if place.get(name) is not None:
                return place[name]
        return None

    unusual = (
        "custom_generate", "streamer", "synced_gpus", "assistant_model", "return_dict_in_generate", "penalty_alpha",
        "dola_layers", "cache_implementation", "prefill_chunk_size", "output_attentions", "output_hidden_states",
    )  # fmt: skip
    language_model = model.model.language_model
    return (
        not any(setting(name) for name in unusual)
        and setting("use_cache") is not False
        and not model.training
        and language_model.config.rope_parameters.get("rope_type", "default") == "default"
        and not getattr(language_model, "has_sliding_layers", False)
        and weights_key(language_model, model.lm_head) is not None
    )


def step_for(model: Any, batch: int, room: int) -> DecodingStep | None:
    """A step with this much room; ``None`` where graphs cannot be used (:func:`weights_key`)."""
    weights = weights_key(model.model.language_model, model.lm_head)
    if weights is None:
        return None
    key = ("decoding", weights, batch, room)
    with torch.inference_mode(False), torch.no_grad():
        return kept_for(model, key, lambda: DecodingStep(model, batch, room), at_most=2)


@torch.no_grad()
def decode(
    model: Any, input_ids: Tensor, logits_processor: Callable[..., Tensor], stopping_criteria: Any,
    generation_config: Any, **inputs: Any,
) -> Tensor:  # fmt: skip
    """Generate; to be handed to ``generate`` of transformers as ``custom_generate``.

    Args:
        model: The model.
        input_ids: ``[batch, length]``, padded on the left.
        logits_processor, stopping_criteria, generation_config: As prepared by ``generate``.
        **inputs: For the model's ``forward``, with ``inputs_embeds``, ``attention_mask`` and ``position_ids`` of the
            prompt.

    Returns:
        Token ids, ``[batch, length and more]``.
    """
    states, mask, positions = model.seg_states, inputs.get("attention_mask"), inputs["position_ids"]
    mask = torch.ones_like(input_ids) if mask is None else mask  # transformers drops one without padding
    with model.state_before_norm(states is not None) as kept:
        out = model(**inputs, return_dict=True)
    if states is not None:
        states.add(kept[0])
    del kept
    logits, cache = out.logits[:, -1], out[model.cache_name]
    unfinished = torch.ones(len(input_ids), dtype=torch.long, device=input_ids.device)
    stops_early = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    step = None
    while True:
        scores = logits_processor(input_ids, logits.float())
        tokens = _chosen(scores, generation_config.do_sample)
        if stops_early:
            tokens = tokens * unfinished + generation_config._pad_token_tensor.to(tokens.device) * (1 - unfinished)
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if unfinished.max() == 0:
            return input_ids
        length = input_ids.shape[1] - 1  # columns that have been through the model
        if step is None or length + 1 > step.room:
            room = room_for(min(generation_config.max_length, length + NEW_TOKENS))
            new = step_for(model, len(input_ids), max(room, room_for(length + 1)))
            if step is None:
                layers = [(layer.keys, layer.values) for layer in cache.layers]
                at = positions[:, :, -1]
            else:
                layers, at = step.layers, step.positions[..., 0]
                mask = torch.nn.functional.pad(mask, (0, length - mask.shape[1]), value=1)
            new.start(layers, mask, at)
            step, out, cache = new, None, None  # the prompt's keys and values are no longer needed
        logits, state = step(tokens)
        if states is not None:
            states.add(state)


def _chosen(scores: Tensor, sample: bool) -> Tensor:
    if sample:
        return torch.multinomial(scores.softmax(-1), num_samples=1)[:, 0]
    return scores.argmax(-1)
