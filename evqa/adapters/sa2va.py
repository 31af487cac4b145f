"""Sa2VA (Yuan et al., 2025) through its published code: answers in text, and masks of what proves them.

The published ``predict_forward`` takes one message with a list of frames. It shows the first five of them to the
language model and segments all. So questions go with five frames spread over the clip, and masks are asked for with
the frames in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evqa import masks as rle_masks
from evqa._torch import load_pretrained, pick_device, pick_dtype
from evqa.adapters._chat import ChatAdapter, Frames, Prepared, Reply
from evqa.adapters._local import check_remote_code
from evqa.adapters.base import frame_policy
from evqa.errors import AdapterError, SetupError
from evqa.prompts import Picture, Text, Turn, VideoPart
from evqa.segmentation import nearest_frames, track
from evqa.types import Prediction

__all__ = ["Sa2Va"]

#: So many of the frames it is given reach the language model.
SEEN = 5


class Sa2Va(ChatAdapter):
    """Asks Sa2VA; entries are answered one by one, because its code takes one at a time.

    Args:
        model: Model id or folder of a release with ``predict_forward``.
        revision: Commit of the model on the Hub, whose code was looked at.
        trust_remote_code: Must be true: the model consists of code that comes with it.
        frames: Frames for the questions, at most five; of more, five spread evenly are taken.
        max_side: Longer side of all frames.
        mask_frames: Frames that are segmented; those between get the mask of the nearest.
        prompts: See :class:`ChatAdapter`. Answer and segments are asked for one after the other; as the code keeps no
            conversation, the second message repeats the first and its answer.
        max_tokens: Not sent: the code has its own limit of 2048.
        device, dtype: See :class:`evqa.adapters._local.LocalAdapter`.
    """

    name = "sa2va"

    def __init__(
        self,
        model: str = "ByteDance/Sa2VA-Qwen2_5-VL-7B",
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        frames: str = f"uniform:{SEEN}",
        max_side: int | None = 512,
        mask_frames: str = "every:1",
        prompts: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ):
        super().__init__(model, frames=frames, max_side=max_side, mode="multi", prompts=prompts)
        if not trust_remote_code:
            raise SetupError(
                f"{model!r} consists of code that comes with it; if you have read it, say trust_remote_code=True and "
                "revision=COMMIT"
            )
        check_remote_code(model, revision, trust_remote_code)
        self._mask_policy = frame_policy(mask_frames, "mask_frames")
        self._revision = revision
        self._device = pick_device(device)
        self._dtype = pick_dtype(dtype, self._device)
        self._model, self._processor = load_pretrained(
            model, "AutoModel", device=self._device, dtype=self._dtype, revision=revision, trust_remote_code=True
        )
        if not hasattr(self._model, "predict_forward"):
            raise SetupError(f"{model!r} has no predict_forward: it is not a release of Sa2VA")

    def settings(self) -> dict[str, Any]:
        """See :meth:`Adapter.settings`."""
        common = super().settings()
        del common["max_tokens"]
        return {
            **common,
            "revision": self._revision,
            "mask_frames": self._mask_policy.describe(),
            "dtype": str(self._dtype).removeprefix("torch."),
        }

    def steps(self, task: str) -> tuple[str, ...]:
        """Masks take the place of referring expressions."""
        return super().steps(task) if task == "mcq" else ("gen_answer", "gen_segments")

    def predict(self, rows: Sequence[Prepared], task: str) -> list[Prediction]:
        """See :meth:`Adapter.predict`; ``gen`` predictions with an answer get masks."""
        predictions = super().predict(rows, task)
        if task == "gen":
            for entry, prediction in zip(rows, predictions, strict=True):
                if not prediction.failed:
                    self._add_masks(entry, prediction)
        return predictions

    def replies(
        self, requests: Sequence[tuple[Prepared, Sequence[Turn]]], *, max_tokens: int, schema: dict[str, Any] | None
    ) -> list[Reply]:
        """See :meth:`ChatAdapter.replies`."""
        return [Reply(self._ask_model(*self.message(entry, turns))["prediction"]) for entry, turns in requests]

    def message(self, entry: Prepared, turns: Sequence[Turn]) -> tuple[list[Any], str]:
        """A conversation as the one message that the code takes: at most five images, and text that names each."""
        pictures = [part for turn in turns for part in turn.parts if isinstance(part, Picture)]
        room = SEEN - len(pictures)
        if room < 1:
            raise AdapterError(f"{len(pictures)} option images leave no room for the clip: the model sees {SEEN}")
        clip: Frames = entry.clip
        chosen = np.unique(np.linspace(0, len(clip.times) - 1, min(room, len(clip.times))).round().astype(int))
        if room == 1:
            chosen = np.array([(len(clip.times) - 1) // 2])
        images = [_pil(clip.pixels[i]) for i in chosen] + [_pil(part.image) for part in pictures]
        names = [f"a frame of the video at {clip.times[i]:.1f} s" for i in chosen]
        names += [f"Image {part.label}" for part in pictures]
        lines = [" ".join(f"Picture {n} is {name}." for n, name in enumerate(names, 1))]
        for turn in turns:
            text = "\n".join(part.text for part in turn.parts if isinstance(part, Text))
            lines.append(text if turn.role == "user" else f"Your answer was: {text}")
        return images, "\n\n".join(lines)

    def show_request(self, entry: Prepared, task: str) -> Any:
        """See :meth:`Adapter.show_request`."""
        images, text = self.message(entry, [self.first_turn(entry, self.steps(task)[0])])
        return {"text": text, "video": [list(image.size) for image in images]}

    def _ask_model(self, images: list[Any], text: str) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            said = self._model.predict_forward(
                video=images, text=text, tokenizer=self._processor.tokenizer, processor=self._processor
            )
        text = str(said.get("prediction") or "")
        for mark in ("<|im_end|>", "<|end|>", "</s>"):
            text = text.removesuffix(mark)
        return {**said, "prediction": text.strip()}

    def _add_masks(self, entry: Prepared, prediction: Prediction) -> None:
        from evqa.video import Clip

        clip = Clip(entry.row["video"])
        info = clip.info
        times = info.timestamps[self._mask_policy.positions(info)]
        frames = clip.frames(times, max_side=self._max_side)
        first = self.first_turn(entry, "gen_masks")
        text = "\n".join(part.text for part in first.parts if not isinstance(part, VideoPart))
        said = self._ask_model([_pil(frame) for frame in frames], f"{text}\nYour answer was: {prediction.answer}")
        found = [np.asarray(mask) for mask in said.get("prediction_masks") or []]
        prediction.raw_text = f"{prediction.raw_text}\n\n{said['prediction']}"
        prediction.usage["frames_segmented"] = len(times)
        problem = None if found else "the reply has no mask"
        if any(mask.ndim != 3 or len(mask) != len(times) for mask in found):
            problem = f"masks of the shapes {[mask.shape for mask in found]} for {len(times)} frames"
        if problem:
            prediction.detail = "; ".join(filter(None, (prediction.detail, problem)))
            return
        union = np.logical_or.reduce(found)  # [T, h, w]
        rles = [rle_masks.resize(rle_masks.encode(mask), info.height, info.width) for mask in union]
        prediction.masks = track(rles, nearest_frames(times, info.timestamps), info.timestamps)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


def _pil(image: Any) -> Any:
    from PIL import Image

    return image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(image)


ADAPTER = Sa2Va
