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
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from evqa.models.unipixel.graphs_unipixel import Recorder, kept_for, weights_key

__all__ = ["DecodingStep", "can_decode", "decode", "room_for"]

#: Room for keys and values comes in multiples of this, so that prompts of about one length share a step.
ROOM = 512
#: Room that is made for new tokens at first, at most; it grows when they need more.
NEW_TOKENS = 512


def room_for(length: int) -> int:
    """Keys and values to make room for, so that ``length`` of them fit."""
    return -(-length // ROOM) * ROOM


class _Room:
    """Keys and values ``[batch, heads, room, head]`` per layer, in the part of a cache that decoder layers see."""

    def __init__(self, slot: Tensor):
        self.slot = slot
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = self.layers[layer]
        keys.index_copy_(2, self.slot, key)
        values.index_copy_(2, self.slot, value)
        return keys, values


def grouped_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one query per head, for transformers' attention interface.

    Heads that share keys are rows of one product, so keys and values are read once and not repeated.

    Args:
        module: Not used.
        query: ``[batch, heads, 1, head]``.
        key, value: ``[batch, key heads, room, head]``.
        attention_mask: Added to the scores, float32 ``[batch, 1, 1, room]``.
        scaling: Factor of the scores.
        **kwargs: Not used.

    Returns:
        ``[batch, 1, heads, head]``, and no weights.
    """
    batch, heads, _, head = query.shape
    rows = query.reshape(batch, key.shape[1], -1, head)  # [batch, key heads, heads of a group, head]
    scores = (rows @ key.transpose(2, 3)).float() * scaling + attention_mask
    out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(batch, 1, heads, head), None


ALL_ATTENTION_FUNCTIONS.register("unipixel_grouped", grouped_attention)


class DecodingStep:
    """One token of every row through the language model.

    Args:
        model: The model.
        batch: Rows.
        room: Keys and values per row.
    """

    def __init__(self, model: Any, batch: int, room: int):
        text, like = model.config.text_config, model.lm_head.weight
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.model, self.room, self.record = model, room, Recorder(like.device)
        self.ids = torch.zeros(batch, 1, dtype=torch.long, device=like.device)
        self.positions = torch.zeros(3, batch, 1, dtype=torch.long, device=like.device)
        self.slot = torch.zeros(1, dtype=torch.long, device=like.device)
        self.mask = like.new_zeros(batch, 1, 1, room, dtype=torch.float32)
        self.cache = _Room(self.slot)
        for _ in range(text.num_hidden_layers):
            shape = (batch, text.num_key_value_heads, room, head)
            self.cache.layers.append((like.new_zeros(shape), like.new_zeros(shape)))

    def start(self, layers: list[tuple[Tensor, Tensor]], mask: Tensor, positions: Tensor) -> None:
        """Take over from a prompt.

        Args:
            layers: Its keys and values, ``[batch, heads, length, head]``.
            mask: ``[batch, length]``, 0 for padding.
            positions: Of its last column, ``[3, batch]``.
        """
        length = mask.shape[1]
        for own, given in zip(self.cache.layers, layers, strict=True):
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
        language_model, states = self.model.model.language_model, []
        config = language_model.config
        before, config._attn_implementation_internal = config._attn_implementation_internal, "unipixel_grouped"
        handle = language_model.norm.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        try:
            out = language_model(
                inputs_embeds=self.model.get_input_embeddings()(self.ids),
                attention_mask={"full_attention": self.mask},
                position_ids=self.positions,
                use_cache=True,
                **{self.model.cache_name: self.cache},
            )
        finally:
            handle.remove()
            config._attn_implementation_internal = before
        return self.model.lm_head(out.last_hidden_state)[:, -1], states[0]


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
                layers, at = step.cache.layers, step.positions[..., 0]
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
