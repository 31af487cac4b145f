"""UniPixel and ST-Evidence models: answers, seconds and tracked masks from one model, on this machine.

One turn asks for everything; its reply is ``Answer: B. Temporal Evidence: [[0.7, 4.7]]. Spatial Evidence: <|seg|>.``,
and each ``<|seg|>`` is tracked through the clip. ``mode=multi`` asks in three turns, as the original's baseline does:
the letter, the segments, the masks.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from evqa.adapters._chat import ChatAdapter, Prepared, Reply
from evqa.errors import AdapterError
from evqa.models.unipixel.inference_unipixel import UniPixelInference
from evqa.prompts import GROUNDED, Picture, Text, Turn, VideoPart, load_prompts
from evqa.types import NUM_OPTIONS, FrameMask, Prediction

__all__ = ["UniPixel"]

# Questions about one clip usually follow one another: its frames are decoded, and encoded by SAM 2, once.
_CLIPS_KEPT = 2


@dataclasses.dataclass
class _Grounded(Reply):
    """A reply with the union of its masks, one for each frame that SAM 2 saw."""

    masks: list[FrameMask] = dataclasses.field(default_factory=list)
    num_objects: int = 0


class UniPixel(ChatAdapter):
    """Asks UniPixel.

    Args:
        model: Folder or Hub id; ``tiny``: a small model of random weights, to try things out.
        revision, base_model_path, device, dtype, attention, clock, min_pixels, max_pixels: See
            :class:`evqa.models.unipixel.inference_unipixel.UniPixelInference`.
        frames: Which frames the language model sees; default: as the processor says (published models: one a second,
            128 at most).
        mask_frames: Which frames SAM 2 sees, and masks are made for. Benchmark clips have six a second, and every one
            is scored.
        max_side: Shrink frames to this longer side as they are decoded, for clips of very many pixels; masks are
            always of the clip's own size.
        mode: ``single``: everything in one turn. ``multi``: answer, segments, masks.
        prompts: A YAML file with other prompts (:func:`evqa.prompts.load_prompts`).
        max_tokens: Limit of a reply; one that is cut is asked for once more with twice as much.
        batch_size: Entries generated at once. Greedy answers do not depend on it but for rounding.
        temperature: 0: greedy. Above 0: sampled.
        top_p: Nucleus, with a temperature.
        seed: Of sampling.
        max_frames_in_flight: Frames of SAM 2 on the device at a time; default: as the model says.
    """

    name = "unipixel"

    def __init__(
        self,
        model: str = "PolyU-ChenLab/UniPixel-3B",
        *,
        revision: str | None = None,
        base_model_path: str | None = None,
        frames: str | None = None,
        mask_frames: str = "every:1",
        max_side: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        clock: str | None = None,
        mode: str = "single",
        prompts: str | None = None,
        max_tokens: int = 512,
        batch_size: int = 1,
        device: str | None = None,
        dtype: str = "auto",
        attention: str | None = None,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int = 0,
        max_frames_in_flight: int | None = None,
    ):
        from evqa.video import parse_policy

        self._inference = UniPixelInference(
            model, revision=revision, base_model_path=base_model_path, device=device, dtype=dtype, attention=attention,
            clock=clock, min_pixels=min_pixels, max_pixels=max_pixels,
        )  # fmt: skip
        super().__init__(
            model, frames=frames or self._inference.processor.frame_policy, max_side=max_side, mode=mode,
            max_tokens=max_tokens,
        )  # fmt: skip
        self._prompts = load_prompts(prompts, GROUNDED)
        try:
            self._mask_policy = parse_policy(mask_frames)
        except ValueError as error:
            raise AdapterError(f"option mask_frames: {error}") from None
        if temperature < 0:
            raise AdapterError(f"option temperature: 0 or more, not {temperature}")
        self._sampling = {"temperature": temperature, "top_p": top_p, "seed": seed} if temperature else {}
        self._flight = {"max_frames_in_flight": max_frames_in_flight} if max_frames_in_flight else {}
        self.batch_size = batch_size
        self._clip_of = functools.lru_cache(_CLIPS_KEPT)(self._read_clip)
        self._found: dict[str, _Grounded] = {}

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        return {
            **super().settings(),
            **self._inference.describe(),
            "mask_frames": self._mask_policy.describe(),
            "sampling": self._sampling,
        }

    # -------------------------------------------------------------------------------------- the clip
    def prepare(self, row: Mapping[str, Any], task: str) -> Prepared:
        """Read the clip, for both halves of the model; see :meth:`Adapter.prepare`."""
        video = row.get("video")
        if not video:
            raise AdapterError("the data comes without this entry's clip", entry=row["entry_id"])
        wants_masks = task == "gen"
        path = video.get("path") if isinstance(video, Mapping) and video.get("bytes") is None else video
        if isinstance(path, (str, os.PathLike)):
            clip = self._clip_of(os.fspath(path), wants_masks)
        else:
            clip = self._read_clip(video, wants_masks)
        return Prepared(row, clip, clip.duration)

    def _read_clip(self, source: Any, wants_masks: bool) -> Any:
        return self._inference.processor.read(
            source, frames=self._policy, sam_frames=self._mask_policy if wants_masks else False,
            max_side=self._max_side,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------- the steps
    def steps(self, task: str) -> tuple[str, ...]:
        """Masks take the place of referring expressions."""
        if task == "gen" and self._mode == "multi":
            return ("gen_answer", "gen_segments", "gen_masks")
        return super().steps(task)

    def predict(self, rows: Sequence[Prepared], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; ``usage`` also tells how many frames were shown and segmented."""
        self._found = {}
        predictions = super().predict(rows, task)
        for entry, prediction in zip(rows, predictions, strict=True):
            prediction.usage["frames"] = len(entry.clip.times)
            if task == "gen" and not prediction.failed:
                self._add_masks(entry, prediction)
        return predictions

    def _add_masks(self, entry: Prepared, prediction: Prediction) -> None:
        said = self._found.get(prediction.entry_id)
        prediction.usage["frames_segmented"] = len(entry.clip.sam_positions)
        prediction.usage["objects"] = said.num_objects if said else 0
        if said and said.masks:
            prediction.masks = said.masks
        else:
            prediction.detail = "; ".join(filter(None, (prediction.detail, "the reply has no <|seg|>")))

    def _take(self, step: str, reply: Reply, entry: Prepared, result: Any) -> bool:
        if step != "gen_masks":
            return super()._take(step, reply, entry, result)
        return reply.finish == "stop"

    # ----------------------------------------------------------------------------------- the replies
    def messages(self, entry: Prepared, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """A conversation as the processor takes it. Each option image stands behind its label."""
        out = []
        for turn in turns:
            content: list[dict[str, Any]] = []
            for part in turn.parts:
                if isinstance(part, Text):
                    content.append({"type": "text", "text": part.text})
                elif isinstance(part, VideoPart):
                    content.append({"type": "video", "video": entry.clip})
                elif isinstance(part, Picture):
                    if part.image is None:
                        raise AdapterError(f"option image {part.label} is missing", entry=entry.row["entry_id"])
                    content.append({"type": "text", "text": f"\nImage {part.label}: "})
                    content.append({"type": "image", "image": part.image})
            out.append({"role": turn.role, "content": content})
        return out

    def first_turn(self, entry: Prepared, step: str) -> Turn:
        """See :meth:`ChatAdapter.first_turn`; a spatial question has all of its images, or none is asked."""
        if step == "mcq_spatial" and len(entry.row["spatial_options"] or []) != NUM_OPTIONS:
            raise AdapterError(
                f"{len(entry.row['spatial_options'] or [])} option images, not {NUM_OPTIONS}",
                entry=entry.row["entry_id"],
            )
        return super().first_turn(entry, step)

    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """See :meth:`ChatAdapter.replies`."""
        samples = [self._encode(entry, turns) for entry, turns in requests]
        masks = any("frames" in sample for sample in samples)
        options = self._generation([entry.row["entry_id"] for entry, _ in requests], masks)
        said = self._inference.generate(samples, max_new_tokens=max_tokens, masks=masks, **options)
        out: list[Reply] = []
        for (entry, _), sample, one in zip(requests, samples, said, strict=True):
            reply = _Grounded(
                one.text,
                "stop" if one.complete else "length",
                {"input_tokens": len(sample["input_ids"]), "output_tokens": one.num_tokens},
                one.masks,
                len(one.objects),
            )
            self._found[entry.row["entry_id"]] = reply
            out.append(reply)
        return out

    def _encode(self, entry: Prepared, turns: Sequence[Turn]) -> dict[str, Any]:
        tracked = entry.clip.sam_frames is not None
        return self._inference.processor.encode(
            self.messages(entry, turns), add_generation_prompt=True, sam_frames=None if tracked else False
        )

    def _generation(self, entries: Sequence[str], masks: bool) -> dict[str, Any]:
        options: dict[str, Any] = dict(self._flight) if masks else {}
        if not self._sampling:
            return {**options, "do_sample": False}
        import torch

        # The same draw whenever these entries are asked for, in whatever order a run comes to them.
        torch.manual_seed(zlib.crc32(f"{self._sampling['seed']}|{'|'.join(entries)}".encode()))
        nucleus = {} if self._sampling["top_p"] is None else {"top_p": self._sampling["top_p"]}
        return {**options, "do_sample": True, "temperature": self._sampling["temperature"], **nucleus}

    def show_request(self, entry: Prepared, task: str) -> Any:
        """See :meth:`Adapter.show_request`: the text, placeholders counted, and the shapes of what goes with it."""
        sample = self._encode(entry, [self.first_turn(entry, self.steps(task)[0])])
        text = self._inference.processor.tokenizer.decode(sample["input_ids"])
        pad = "<|video_pad|>"
        shapes = {name: list(value.shape) for name, value in sample.items() if hasattr(value, "shape")}
        return {
            "text": f"{text.split(pad)[0]}{pad} x {text.count(pad)}{text.rsplit(pad, 1)[-1]}",
            "times": [round(float(time), 3) for time in entry.clip.times],
            "tensors": shapes,
        }

    def close(self) -> None:
        """Let go of the model."""
        self._clip_of.cache_clear()
        self._inference.close()


ADAPTER = UniPixel
