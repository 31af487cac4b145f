"""What the language model reads: token embeddings with videos, prompts and object memories in their places.

Letters in shape comments: see :mod:`evqa.models.unipixel.modeling_unipixel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evqa.errors import DataError
from evqa.models.unipixel.sequence_unipixel import check_prompts, pool_masks
from evqa.models.unipixel.vision_unipixel import VisionTables, vision_tables

__all__ = ["UniPixelEmbedding"]


class UniPixelEmbedding:
    """``embed`` of the model."""

    def embed(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        point_coords: Sequence[Sequence[Tensor] | None] | None = None,
        point_labels: Sequence[Sequence[Tensor] | None] | None = None,
        point_frames: Sequence[Any] | None = None,
        refer_mask: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Token embeddings ``[batch, length, C]`` with images, videos, prompts and object memories in their places.

        Arguments and errors as for :meth:`forward`.
        """
        config = self.config
        embedding = self.get_input_embeddings()
        embeds = embedding(input_ids.to(embedding.weight.device, non_blocking=True))
        for name, given in (
            ("point_coords", point_coords), ("point_labels", point_labels), ("point_frames", point_frames),
            ("refer_mask", refer_mask),
        ):  # fmt: skip
            if given is not None and len(given) != len(input_ids):
                raise DataError(f"{name} has {len(given)} entries for a batch of {len(input_ids)} samples")
            if given is not None and self.sam2 is None:
                raise DataError(f"{name} was given, but this model has no SAM 2 (sam2_config is not set)")
        if pixel_values is not None:
            images = self._look(pixel_values, image_grid_thw)
            embeds = _fill(embeds, input_ids, config.image_token_id, images.pooler_output, "image")
        if pixel_values_videos is not None:
            videos = self._look(pixel_values_videos, video_grid_thw)
            embeds = _fill(embeds, input_ids, config.video_token_id, videos.pooler_output, "video")
        grids = self._sample_grids(input_ids, video_grid_thw)
        if point_coords is not None:
            prompts = self._embed_prompts(point_coords, point_labels, point_frames, grids)
            embeds = _fill_rows(embeds, input_ids, config.ref_token_id, prompts, "<|ref|>", "prompts (point_coords)")
        if refer_mask is not None:
            if pixel_values_videos is None:
                raise DataError("refer_mask needs the video whose patches it pools (pixel_values_videos)")
            memories = self._embed_memories(refer_mask, videos.last_hidden_state, video_grid_thw, grids)
            embeds = _fill_rows(
                embeds, input_ids, config.mem_token_id, memories, "<|mem|>", "temporal steps with a mask (refer_mask)"
            )
        return embeds

    def _tables(self, grid: Tensor) -> VisionTables:
        visual = self.model.visual
        grids = tuple(tuple(row) for row in grid.tolist())
        device = visual.patch_embed.proj.weight.device
        return vision_tables(grids, visual.spatial_merge_size, visual.window_size, visual.patch_size, device)

    def _look(self, pixels: Tensor, grid: Tensor | None) -> Any:
        if grid is None or int(grid.prod(-1).sum()) != len(pixels):
            raise DataError(
                f"{len(pixels)} patches, but the grids (image_grid_thw, video_grid_thw) are for "
                f"{'none' if grid is None else int(grid.prod(-1).sum())}"
            )
        tables = self._tables(grid).arguments() if self.runtime.packed_vision else {}
        grid = grid if tables else grid.to(pixels.device)  # with tables nothing is computed from it
        return self.model.visual(pixels.to(self.model.visual.dtype), grid_thw=grid, return_dict=True, **tables)

    def _sample_grids(self, input_ids: Tensor, grid: Tensor | None) -> list[tuple[int, tuple[int, int, int]] | None]:
        """For each sample the number and the grid of its video, ``None`` where it has none."""
        if grid is None:
            return [None] * len(input_ids)
        grids, merge = [tuple(row) for row in grid.tolist()], self.config.vision_config.spatial_merge_size**2
        counts, out, video = (input_ids == self.config.video_token_id).sum(-1).tolist(), [], 0
        for count in counts:
            first = video
            while count > 0 and video < len(grids):
                count -= grids[video][0] * grids[video][1] * grids[video][2] // merge
                video += 1
            out.append((first, grids[first]) if video == first + 1 else None)
        return out

    def _embed_prompts(self, coords, labels, frames, grids) -> list[Tensor]:
        if labels is None or frames is None:
            raise DataError("point_coords, point_labels and point_frames belong together; one of them is missing")
        weight, rows = self.ref_proj[1].weight, []
        for sample, (points, kinds, when) in enumerate(zip(coords, labels, frames, strict=True)):
            if points is None or len(points) == 0:
                rows.append(weight.new_zeros(0, self.ref_proj[1].out_features))
                continue
            if grids[sample] is None:
                raise DataError(f"sample {sample} has prompts (point_coords) but not exactly one video")
            steps, when = grids[sample][1][0], [int(frame) for frame in when]
            check_prompts(sample, points, kinds, when, self.config.sam2_image_size, steps)
            where = []
            for point, kind in zip(points, kinds, strict=True):
                tokens = self.ref_encoder(point.to(weight.device), kind.to(weight.device)).flatten(1)
                where.append((self.ref_proj_single if kind.numel() == 1 else self.ref_proj_double)(tokens))
            # The video has two frames per temporal step, also where an odd clip was filled up.
            place = torch.tensor(when, dtype=torch.float32, device=weight.device)[:, None] / (2 * steps - 1)
            time = self.tem_proj(self.tem_pe(place).to(weight.dtype) + self.tem_emb.weight)
            rows.append(self.ref_proj(torch.cat([torch.cat(where), time], dim=1)))
        return rows

    def _embed_memories(self, masks, states: Tensor, grid: Tensor, grids) -> list[Tensor]:
        visual, merge = self.model.visual, self.config.vision_config.spatial_merge_size
        # What enters the merger's MLP: [patches / 4, V], in the order of the vision tower's windows.
        features = visual.merger.ln_q(states).view(-1, visual.merger.hidden_size)
        if not self.config.legacy_mem_order:
            features = features[torch.argsort(self._tables(grid).window_index)]
        sizes = (grid.prod(-1) // merge**2).tolist()
        parts, rows = features.split(sizes), []
        for sample, mask in enumerate(masks):
            if mask is None:
                rows.append(self.msk_proj[2].weight.new_zeros(0, self.msk_proj[2].out_features))
                continue
            if grids[sample] is None:
                raise DataError(f"sample {sample} has a refer_mask but not exactly one video")
            video, shape = grids[sample]
            rows.append(self.msk_proj(pool_masks(parts[video], mask, shape, merge, sample)))
        return rows


def _fill(embeds: Tensor, ids: Tensor, token: int, features: Tensor, kind: str) -> Tensor:
    places = (ids == token).flatten().nonzero()[:, 0]
    if len(places) != len(features):
        raise DataError(f"the batch has {len(places)} {kind} placeholders, its {kind}s need {len(features)}")
    return _put(embeds, places, features)


def _fill_rows(embeds: Tensor, ids: Tensor, token: int, rows: list[Tensor], name: str, what: str) -> Tensor:
    places = ids == token
    for sample, (count, features) in enumerate(zip(places.sum(-1).tolist(), rows, strict=True)):
        if count != len(features):
            raise DataError(f"sample {sample} has {count} {name} but {len(features)} {what}")
    return _put(embeds, places.flatten().nonzero()[:, 0], torch.cat(rows))


def _put(embeds: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """``features[i]`` at row ``places[i]`` of the flattened batch."""
    places = places.to(embeds.device, non_blocking=True)
    filled = embeds.flatten(0, 1).index_copy(0, places, features.to(embeds.device, embeds.dtype))
    return filled.view_as(embeds)
