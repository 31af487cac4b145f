"""The training step of `tiny_shapes.py`: the model's own parts and losses, in tensors of fixed shapes.

A model this small leaves a GPU waiting for the next kernel: launching some 7,000 of them takes three times as long as
running them. Here every batch has the same shapes, and nothing in the step looks at values, so that on CUDA the whole
step, from embeddings to optimiser, is recorded once and replayed as one graph.
"""

import dataclasses

import torch
from drawn_clips import World
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from evqa.models.unipixel.encoding_unipixel import prepare_frames
from evqa.models.unipixel.losses_unipixel import WEIGHTS, frame_terms
from evqa.models.unipixel.media_unipixel import Geometry, patchify
from evqa.models.unipixel.sequence_unipixel import branch_mask
from evqa.models.unipixel.tracking_unipixel import from_prompts


@dataclasses.dataclass
class Batch:
    """What a step reads, on the device; ``B`` clips, ``T`` tracked frames each, ``Q`` questions each, ``L`` tokens.

    Attributes:
        ids, labels, branches: int64 ``[B, L]``.
        positions: int64 ``[3, B, L]``.
        label_positions: int64 ``[N]``, where in the flattened batch a labelled token is predicted; filled up with a
            place that predicts nothing.
        tokens: float ``[]``: how many of these count.
        weights: float ``[N]``: what each of them counts.
        seg_places: int64 ``[B Q]``, where in the flattened batch ``<|seg|>`` is predicted.
        patches: ``[patches, 3 * 2 * 12 * 12]``.
        frames: ``[B T, 3, S, S]``, normalised.
        masks: bool ``[T B Q, S, S]``, frame by frame.
    """

    ids: Tensor
    labels: Tensor
    branches: Tensor
    positions: Tensor
    label_positions: Tensor
    tokens: Tensor
    weights: Tensor
    seg_places: Tensor
    patches: Tensor
    frames: Tensor
    masks: Tensor

    def copy_(self, other: "Batch") -> None:
        """Take over another batch's values."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name), non_blocking=True)


class Step:
    """A training step; call it with a batch, get ``[LM loss, dice, presence, token accuracy]`` on the device.

    Args:
        model: UniPixel, in training mode on its device.
        processor: The model's.
        batch, tracked, questions: ``B``, ``T`` and ``Q`` of :class:`Batch`.
        mask_weight: Of the mask loss against that of words.
        grids: For each number of frames a clip can have its patches in time, height, width.
    """

    def __init__(self, model, processor, batch: int, tracked: int, questions: int, mask_weight: float, grids: dict):
        self.model, self.mask_weight = model, mask_weight
        self.batch, self.tracked, self.questions = batch, tracked, questions
        self.device = model.device
        self.grids = {n: torch.tensor([grid] * batch) for n, grid in grids.items()}
        owner = torch.arange(batch).repeat_interleave(questions)
        self.places = (owner * tracked + torch.arange(tracked)[:, None]).flatten().to(self.device)
        self.video_token = model.config.video_token_id
        self.video_places: dict[int, Tensor] = {}
        self.parts = [
            [w for n, w in model.named_parameters() if n.startswith("sam2.") == inside] for inside in (False, True)
        ]
        self.rate = torch.zeros((), device=self.device)
        cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            [w for part in self.parts for w in part], lr=self.rate, betas=(0.9, 0.95), weight_decay=0.02,
            fused=cuda, capturable=cuda,
        )  # fmt: skip
        self.graphs: dict[int, tuple] = {}

    def __call__(self, length: int, batch: Batch, rate: float) -> Tensor:
        """A step with clips of so many frames."""
        self.rate.fill_(rate)
        if self.device.type != "cuda":
            return self.run(length, batch)
        if length not in self.graphs:
            return self._record(length, batch)
        graph, own, terms = self.graphs[length]
        own.copy_(batch)
        graph.replay()
        return terms

    def _record(self, length: int, batch: Batch) -> Tensor:
        """The first steps of a length are run as they are; the next ones repeat what the last of these did."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                terms = self.run(length, batch).clone()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        # One memory for all graphs: only one of them runs at a time, and each writes before it reads.
        pool = next((kept[0].pool() for kept in self.graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            recorded = self.run(length, batch)
        self.graphs[length] = (graph, batch, recorded)
        return terms

    def run(self, length: int, batch: Batch) -> Tensor:
        """Forward, backward and update."""
        self.optimizer.zero_grad(set_to_none=True)
        # No cache of casted weights: one that outlives a recording would be stale in the next.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            loss, terms = self.losses(length, batch)
        loss.backward()
        for part in self.parts:
            clip_grad_norm_([w for w in part if w.grad is not None], 1.0)
        self.optimizer.step()
        return terms

    def losses(self, length: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the four figures for the log."""
        model = self.model
        seen = model._look(batch.patches, self.grids[length]).pooler_output
        embeds = model.get_input_embeddings()(batch.ids)
        places = self._video_places(length, batch)
        embeds = embeds.flatten(0, 1).index_copy(0, places, seen.to(embeds.dtype)).view_as(embeds)
        with model.state_before_norm(True) as kept:
            hidden = model.model.language_model(
                inputs_embeds=embeds, attention_mask=branch_mask(batch.branches), position_ids=batch.positions,
                use_cache=False,
            ).last_hidden_state  # fmt: skip
        lm, right = self._words(hidden, batch)
        prompts = model.seg_prompts(kept[0].flatten(0, 1).index_select(0, batch.seg_places))
        sam2 = model.sam2
        features = sam2("encode", batch.frames).map(lambda level: level.index_select(0, self.places))
        prompts = prompts.to(sam2.no_mem_embed.dtype).repeat(self.tracked, 1, 1)
        tables = sam2.tables(self.device, sam2.no_mem_embed.dtype)
        found = from_prompts(sam2, features, prompts, tables, True)
        masks = frame_terms(found, batch.masks, recompute=False).mean(0)
        loss = lm + self.mask_weight * sum(weight * term for weight, term in zip(WEIGHTS, masks, strict=True))
        return loss, torch.stack([lm.detach(), masks[1].detach(), masks[3].detach(), right / batch.tokens])

    def _words(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The weighted mean cross-entropy of the labelled tokens, and how many are the likeliest ones."""
        following = F.pad(batch.labels, (0, 1), value=-100)[:, 1:].flatten().index_select(0, batch.label_positions)
        logits = self.model.lm_head(hidden.flatten(0, 1).index_select(0, batch.label_positions)).float()
        each = F.cross_entropy(logits, following, reduction="none")
        counted = batch.weights * (following != -100)
        return (each * counted).sum() / counted.sum(), (logits.detach().argmax(-1) == following).sum()

    def _video_places(self, length: int, batch: Batch) -> Tensor:
        if length not in self.video_places:  # the same in every batch: clips of one length begin each row
            self.video_places[length] = (batch.ids == self.video_token).flatten().nonzero()[:, 0]
        return self.video_places[length]


def to_device(collated: dict, world: World, geometry: Geometry, size: tuple[int, int], step: Step, move: int) -> Batch:
    """A batch of :class:`drawn_clips.Collator`, with pixels and true masks.

    Args:
        collated: Clips of one length, ``Q`` questions each.
        world: Where the clips are.
        geometry: Of the patches.
        size: Height and width of what the language model sees.
        step: For what shapes.
        move: Clips are moved by up to so many of their pixels, both ways; what they show at the edge goes on.
    """
    from torchvision.transforms.v2 import functional as tv

    device = world.device

    def sent(value: Tensor) -> Tensor:
        return value.to(device, non_blocking=True)

    clips = collated["clips"]
    places = torch.arange(len(clips), device=device)[:, None]
    tracked, shown = sent(collated["tracked"]), sent(collated["shown"])  # [B, T], [B, frames]
    frames = torch.stack([world.frames[name] for name in clips])[places, shown]  # [B, frames, 3, h, w]
    seen = torch.stack([world.owners[name] for name in clips])[places, shown[places, tracked]]  # [B, T, S, S]
    if move:
        frames, seen = shifted(frames, seen, move)
    small = tv.resize(frames.flatten(0, 1), list(size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    square = frames[places, tracked].flatten(0, 1)
    masks = sent(collated["regions"])[places[:, :, None, None], seen.long()]  # [B, T, S, S, Q]
    return Batch(
        ids=sent(collated["ids"]),
        labels=sent(collated["labels"]),
        branches=sent(collated["branches"]),
        positions=sent(collated["positions"]),
        label_positions=sent(collated["label_positions"]),
        tokens=sent(collated["tokens"]),
        weights=sent(collated["weights"]),
        seg_places=sent(collated["seg_places"]),
        patches=patchify(small, geometry)[0],
        frames=prepare_frames(square, world.square, device, torch.float32),
        masks=masks.permute(1, 0, 4, 2, 3).flatten(0, 2),
    )


def shifted(frames: Tensor, seen: Tensor, move: int) -> tuple[Tensor, Tensor]:
    """Each clip moved by its own whole number of pixels, and who is seen likewise.

    Args:
        frames: ``[B, frames, 3, h, w]``.
        seen: ``[B, T, S, S]``, the same picture in another size.
        move: Most pixels of ``frames``.
    """
    count, device = len(frames), frames.device
    by = torch.randint(-move, move + 1, (2, count, 1), device=device)
    rows = torch.arange(count, device=device)[:, None, None]
    height, width = frames.shape[-2:]

    def at(images: Tensor) -> Tensor:  # [B, channels, h, w]
        h, w = images.shape[-2:]
        y = (torch.arange(h, device=device) + by[0] * h // height).clamp(0, h - 1)
        x = (torch.arange(w, device=device) + by[1] * w // width).clamp(0, w - 1)
        return images.movedim(1, -1)[rows, y[:, :, None], x[:, None, :]].movedim(-1, 1)

    return at(frames.flatten(1, 2)).reshape(frames.shape), at(seen)
