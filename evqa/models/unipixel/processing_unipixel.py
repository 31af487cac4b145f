"""The processor of UniPixel: conversations with clips, prompts and masks in, model inputs out; and back.

>>> import evqa
>>> from transformers import AutoProcessor
>>> processor = AutoProcessor.from_pretrained("PolyU-ChenLab/UniPixel-3B")  # doctest: +SKIP
>>> chat = [{"role": "user", "content": [{"type": "video", "video": "clip.mp4"},
...                                      {"type": "text", "text": "Which dog barks? Segment it."}]}]
>>> inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True,
...                                        add_generation_prompt=True)  # doctest: +SKIP
>>> output = model.generate(**inputs.to(model.device), mask_format="rle")  # doctest: +SKIP
>>> processor.post_process(output, inputs)[0].masks  # doctest: +SKIP

:meth:`UniPixelProcessor.encode` makes one sample, for training with labels; :meth:`UniPixelProcessor.pad` makes a batch
of samples; ``apply_chat_template(..., tokenize=True)`` does both. Calling the processor with ``text=`` and ``videos=``
is that of Qwen2.5-VL, without frames for SAM 2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

from evqa.errors import DataError
from evqa.models.unipixel import regions_unipixel as regions
from evqa.models.unipixel.batches_unipixel import (
    Grounded,
    UniPixelInputs,
    frame_masks,
    pad_samples,
    supervised_labels,
)
from evqa.models.unipixel.media_unipixel import ClipFrames, Geometry, open_clip, read_clip
from evqa.types import FrameMask
from evqa.video.sampling import Policy

__all__ = ["Grounded", "PatchedQwen2_5_VLProcessor", "UniPixelInputs", "UniPixelProcessor"]

REF, SEG, MEM = "<|ref|>", "<|seg|>", "<|mem|>"
_VIDEO = "<|video_pad|>"
# What only the template and the processor may write. In a text that somebody typed it would shift everything.
_CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", _VIDEO)
#: Frames a second that the original takes a clip to have, whatever it has.
_LEGACY_FPS = 2.0


class UniPixelProcessor(Qwen2_5_VLProcessor):
    """Prepares conversations for UniPixel and reads its output.

    The first four arguments are those of Qwen2.5-VL's processor. All further ones are saved with it.

    Args:
        image_processor, tokenizer, video_processor, chat_template: As there.
        frame_policy: Which frames of a clip the language model sees (:func:`evqa.video.parse_policy`).
        sam_frame_policy: Which SAM 2 sees, and masks are made of; ``"same"``: those of the language model.
        min_pixels: Least pixels of a frame for the language model.
        max_pixels: Most pixels of a frame, *whatever their number*. (The original's evaluation multiplies it by the
            number of frames; training did not.)
        few_frames: A clip of ``n`` frames, fewer than this, may have ``few_frames // n`` times ``max_pixels``; an
            image is a clip of one frame.
        sam_image_size: Side of the square that SAM 2 sees. By default what ``config.json`` beside the processor says.
        legacy_clock: Tell the model that a clip has 2 frames a second, whatever it has, as published checkpoints were
            trained. By default what ``config.json`` says: on for published ones. Off: true times.
        mask_threshold: Part of a pixel of SAM 2's square that must be covered for it to belong to a true mask
            (the original: 0, any part).
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        frame_policy="fps:1.0,max=128",
        sam_frame_policy="every:1",
        min_pixels=128 * 28 * 28,
        max_pixels=256 * 28 * 28,
        few_frames=8,
        sam_image_size=None,
        legacy_clock=None,
        mask_threshold=0.5,
        **kwargs,
    ):
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)
        self.frame_policy, self.sam_frame_policy = frame_policy, sam_frame_policy
        self.min_pixels, self.max_pixels, self.few_frames = min_pixels, max_pixels, few_frames
        self.sam_image_size, self.legacy_clock, self.mask_threshold = sam_image_size, legacy_clock, mask_threshold

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """As in transformers; what the processor's own files leave open is taken from ``config.json``."""
        made = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if made.sam_image_size is None or made.legacy_clock is None:
            made._complete_from(pretrained_model_name_or_path, kwargs)
        return made

    def _complete_from(self, source: Any, kwargs: Mapping[str, Any]) -> None:
        from evqa.models.unipixel.configuration_unipixel import UniPixelConfig

        names = ("cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder")
        hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        try:
            values, _ = PreTrainedConfig.get_config_dict(source, **hub)
        except OSError:
            return  # a folder with the processor alone
        if values.get("model_type") == UniPixelConfig.model_type:
            config = UniPixelConfig.from_dict(values)
            self.sam_image_size = config.sam2_image_size if self.sam_image_size is None else self.sam_image_size
            self.legacy_clock = config.legacy_clock if self.legacy_clock is None else self.legacy_clock

    # -------------------------------------------------------------------------------- conversations
    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        add_generation_prompt: bool = False,
        padding_side: str | None = None,
        **options: Any,
    ) -> Any:
        """Write a conversation, or several, as text, or as inputs of the model.

        Args:
            conversation: Messages as for :meth:`encode`, or a list of such conversations.
            chat_template: Another template.
            tokenize: Make inputs; otherwise text.
            return_dict: All inputs; otherwise the token ids alone.
            add_generation_prompt: End with the beginning of the assistant's reply.
            padding_side: By default left where a reply is to be generated, else right.
            **options: For the template, or with ``tokenize`` for :meth:`encode`. ``prompts``, ``memories`` and
                ``targets`` are per conversation where there are several. Of transformers' own options
                ``return_tensors`` and ``padding`` are accepted; the result is always padded tensors.

        Returns:
            Text, or a list of it; :class:`UniPixelInputs`; or token ids ``[batch, length]``.
        """
        if not tokenize:
            return super().apply_chat_template(
                conversation, chat_template, add_generation_prompt=add_generation_prompt, **options
            )
        for name, expected in (("return_tensors", ("pt", "auto", None)), ("padding", (True, False, "longest", None))):
            if options.pop(name, None) not in expected:
                raise ValueError(f"{name} of UniPixelProcessor: {expected[0]!r} is all it can do")
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        conversations = list(conversation) if batched else [conversation]
        each = [dict(options) for _ in conversations]
        if batched:
            for name in ("prompts", "memories", "targets"):
                given = options.get(name)
                if given is not None and len(given) != len(conversations):
                    raise DataError(f"{name} has {len(given)} entries for {len(conversations)} conversations")
                for own, value in zip(each, given or [None] * len(each), strict=True):
                    own[name] = value
        samples = [
            self.encode(one, chat_template=chat_template, add_generation_prompt=add_generation_prompt, **own)
            for one, own in zip(conversations, each, strict=True)
        ]
        inputs = self.pad(samples, padding_side or ("left" if add_generation_prompt else "right"))
        return inputs if return_dict else inputs["input_ids"]

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        prompts: Sequence[Mapping[str, Any]] | None = None,
        memories: Sequence[Sequence[FrameMask]] | None = None,
        targets: Sequence[Sequence[FrameMask]] | None = None,
        labels: bool = False,
        frames: Policy | str | None = None,
        sam_frames: Policy | str | bool | None = None,
        max_side: int | None = None,
        max_length: int | None = None,
        add_generation_prompt: bool = False,
        chat_template: str | None = None,
    ) -> dict[str, Any]:
        """One conversation, as a sample for :meth:`pad`.

        Args:
            messages: ``{"role", "content"}``, content a text or a list of items: ``{"type": "text", "text": ...}``;
                ``{"type": "video", "video": CLIP}`` with a path, bytes, a folder of frames, an
                :class:`evqa.video.Clip`, decoded frames (then with ``"times"`` in seconds or ``"fps"``), or what
                :meth:`read` returned; ``{"type": "image", "image": IMAGE}`` with a path or PIL image, shown as a clip
                of one frame. SAM 2 sees the only video, or the only image where there is none.
            prompts: One point or box for each ``<|ref|>``, in order (:func:`.regions_unipixel.points`).
            memories: The masks of one object for each ``<|mem|>``, in order. A ``<|mem|>`` becomes as many as there are
                temporal steps that show the object, each behind the numbers of its frames: ``<1>-<2> <|mem|>``.
            targets: The true masks of the object for each ``<|seg|>``, in order.
            labels: Add labels: the assistant's text and its end, and nothing else, is to be learned.
            frames: Instead of ``frame_policy``. Frames that come decoded are all shown unless this is given.
            sam_frames: Instead of ``sam_frame_policy``; ``False``: none.
            max_side: See :func:`.media_unipixel.read_clip`.
            max_length: Most tokens.
            add_generation_prompt, chat_template: As for :meth:`apply_chat_template`.

        Returns:
            The model's inputs without a batch dimension, and ``clip``.

        Raises:
            DataError: Counts that do not match, a control token in a text, or too long.
            VideoError, MaskError: See there.
        """
        told, clips, main = self._open(messages, frames, sam_frames, max_side)
        text = super().apply_chat_template(told, chat_template, add_generation_prompt=add_generation_prompt)
        sample: dict[str, Any] = {"clip": main}
        text = self._place_memories(text, memories, main, sample)
        text = self._place_clips(text, clips)
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=labels, return_attention_mask=False
        )
        ids = encoded["input_ids"]
        if max_length is not None and len(ids) > max_length:
            raise DataError(f"the conversation has {len(ids)} tokens, allowed are {max_length}")
        sample["input_ids"] = ids
        if labels:
            sample["labels"] = supervised_labels(text, ids, encoded["offset_mapping"])
        if clips:
            sample.update(self._visual(clips))
        if main is not None and main.sam_frames is not None:
            sample["frames"] = main.sam_frames
            sample["frame_size"] = (main.info.height, main.info.width)
        self._add_prompts(sample, prompts, text.count(REF))
        self._add_targets(sample, targets, text.count(SEG))
        return sample

    def read(
        self,
        source: Any,
        *,
        frames: Policy | str | None = None,
        sam_frames: Policy | str | bool | None = None,
        times: Sequence[float] | None = None,
        fps: float | None = None,
        max_side: int | None = None,
    ) -> ClipFrames:
        """Read a clip once, for several conversations about it; arguments as for :meth:`encode`.

        Raises:
            VideoError: It cannot be read.
        """
        clip = open_clip(source, times=times, fps=fps, assumed_fps=_LEGACY_FPS if self.legacy_clock else None)
        given = not hasattr(clip, "source")  # decoded already
        if frames is None:
            frames = "every:1" if given else self.frame_policy
        if sam_frames is None or sam_frames is True:
            sam_frames = self.sam_frame_policy
        return read_clip(
            clip, frames=frames, sam_frames=sam_frames or None, budget=self.budget, geometry=self._geometry,
            max_side=max_side,
        )  # fmt: skip

    def budget(self, frames: int) -> tuple[int, int]:
        """Least and most pixels of a frame for the language model, in a clip of so many frames."""
        return self.min_pixels, self.max_pixels * max(1, self.few_frames // max(1, frames))

    # ---------------------------------------------------------------------------------------- batches
    def pad(self, samples: Sequence[Mapping[str, Any]], padding_side: str = "right") -> UniPixelInputs:
        """Make a batch of samples from :meth:`encode`.

        Args:
            samples: At least one; with and without clips, prompts and masks in any mixture.
            padding_side: ``"left"`` to generate, ``"right"`` to train.

        Raises:
            ValueError: No samples, or another side.
        """
        return pad_samples(samples, padding_side, self.tokenizer.pad_token_id, self.video_token_id)

    # ----------------------------------------------------------------------------------------- output
    def post_process(self, output: Any, inputs: UniPixelInputs) -> list[Grounded]:
        """Read what ``generate`` returned.

        Args:
            output: A ``UniPixelGenerateOutput``, its masks in either form; or token ids ``[rows, length]``. There may
                be several rows per sample (``num_return_sequences``), one sample's after the other's.
            inputs: What it was generated from.

        Returns:
            One record per row.
        """
        sequences = output if hasattr(output, "shape") else output.sequences
        masks = getattr(output, "masks", None)
        scores = getattr(output, "object_scores", None)
        # A row that ends before others is filled up: the filler, too, says that it has ended.
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        ends.add(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        prompt, repeats = inputs["input_ids"].shape[1], len(sequences) // len(inputs["input_ids"])
        out = []
        for row, ids in enumerate(sequences[:, prompt:].tolist()):
            length = next((i for i, token in enumerate(ids) if token in ends), None)
            new = ids if length is None else ids[:length]
            said = Grounded(self.tokenizer.decode(new).strip(), complete=length is not None, num_tokens=len(new))
            clip = inputs.clips[row // repeats]
            if masks is not None and masks[row] is not None and clip is not None:
                said.objects = [frame_masks(one, clip) for one in masks[row]]
            if scores is not None and scores[row] is not None:
                said.scores = scores[row].tolist()
            out.append(said)
        return out

    # ----------------------------------------------------------------------------------------- pieces
    @property
    def _geometry(self) -> Geometry:
        return Geometry.of(self.video_processor)

    def _open(
        self, messages: Sequence[Mapping[str, Any]], frames: Any, sam_frames: Any, max_side: int | None
    ) -> tuple[list[dict[str, Any]], list[ClipFrames], ClipFrames | None]:
        """The messages with their clips replaced by placeholders, the clips, and the one that SAM 2 sees."""
        told, items = [], []
        for number, message in enumerate(messages):
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            parts = []
            for item in content:
                kind = item.get("type")
                if kind == "text":
                    _refuse_control(item["text"], number)
                    parts.append({"type": "text", "text": item["text"]})
                elif kind in ("video", "image") and item.get(kind) is not None:
                    items.append((kind, item))
                    parts.append({"type": "video"})
                else:
                    raise DataError(
                        f"message {number}: an item is a text, a video or an image, got type {kind!r} with the keys "
                        f"{', '.join(map(str, item))}"
                    )
            told.append({"role": message["role"], "content": parts})
        videos = [i for i, (kind, _) in enumerate(items) if kind == "video"]
        candidates = videos or list(range(len(items)))
        if sam_frames is not False and len(candidates) > 1:
            raise DataError(
                f"the conversation shows {len(candidates)} clips: which should SAM 2 see? Give sam_frames=False, or one"
            )
        clips: list[ClipFrames] = []
        for i, (kind, item) in enumerate(items):
            wanted = sam_frames if i in candidates else False
            value = item[kind]
            if kind == "image" and not isinstance(value, ClipFrames):
                value = value if isinstance(value, (list, tuple)) else [value]
            clips.append(
                value
                if isinstance(value, ClipFrames)
                else self.read(
                    value, frames=frames, sam_frames=wanted, times=item.get("times"), fps=item.get("fps"),
                    max_side=max_side,
                )
            )  # fmt: skip
        return told, clips, clips[candidates[0]] if len(candidates) == 1 else None

    def _place_clips(self, text: str, clips: Sequence[ClipFrames]) -> str:
        parts = text.split(_VIDEO)
        if len(parts) != len(clips) + 1:
            raise DataError(f"the chat template wrote {len(parts) - 1} placeholders for {len(clips)} clips")
        merge = self.video_processor.merge_size**2
        out = [parts[0]]
        for clip, part in zip(clips, parts[1:], strict=True):
            t, h, w = clip.grid
            out += [_VIDEO * (t * h * w // merge), part]
        return "".join(out)

    def _place_memories(self, text: str, memories: Any, clip: ClipFrames | None, sample: dict[str, Any]) -> str:
        parts, given = text.split(MEM), list(memories or [])
        if len(parts) != len(given) + 1:
            raise DataError(f"{len(parts) - 1} {MEM} in the text, but masks of {len(given)} objects (memories)")
        if not given:
            return text
        found = regions.memory(given, self._need(clip, "memories"), self.video_processor.merge_size, MEM)
        sample["refer_mask"] = found.mask
        return "".join([parts[0], *(own + part for own, part in zip(found.texts, parts[1:], strict=True))])

    def _visual(self, clips: Sequence[ClipFrames]) -> dict[str, Any]:
        import torch

        out: dict[str, Any] = {
            "pixel_values_videos": torch.cat([clip.patches for clip in clips]),
            "video_grid_thw": torch.tensor([clip.grid for clip in clips]),
        }
        step = self.video_processor.temporal_patch_size
        if self.legacy_clock:
            out["second_per_grid_ts"] = [step / _LEGACY_FPS for _ in clips]
            return out
        out["grid_times"] = [clip.steps.tolist() for clip in clips]
        out["second_per_grid_ts"] = [
            float(clip.steps[-1] - clip.steps[0]) / (len(clip.steps) - 1)
            if len(clip.steps) > 1
            else step / clip.info.fps
            for clip in clips
        ]
        return out

    def _add_prompts(self, sample: dict[str, Any], prompts: Any, count: int) -> None:
        given = list(prompts or [])
        if len(given) != count:
            raise DataError(f"{count} {REF} in the text, but {len(given)} points and boxes (prompts)")
        if given:
            coords, labels, frames = regions.points(given, self._need(sample["clip"], "prompts"), self._square())
            sample.update(point_coords=coords, point_labels=labels, point_frames=frames)

    def _add_targets(self, sample: dict[str, Any], targets: Any, count: int) -> None:
        if targets is None:
            return
        if len(targets) != count:
            raise DataError(f"{count} {SEG} in the text, but masks of {len(targets)} objects (targets)")
        if not targets:
            return
        clip = self._need(sample["clip"], "targets")
        if clip.sam_frames is None:
            raise DataError("targets need a clip that SAM 2 sees; sam_frames is False")
        sample["label_mask"] = regions.label_masks(targets, clip, self._square(), self.mask_threshold)

    def _need(self, clip: ClipFrames | None, what: str) -> ClipFrames:
        if clip is None:
            raise DataError(f"{what} need a conversation with exactly one clip")
        return clip

    def _square(self) -> int:
        if self.sam_image_size is None:
            raise DataError("the processor does not know the size of SAM 2's square: set processor.sam_image_size")
        return self.sam_image_size


class PatchedQwen2_5_VLProcessor(UniPixelProcessor):  # noqa: N801 - the published name
    """The name under which published repositories have it; what is loaded is a :class:`UniPixelProcessor`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """See :meth:`UniPixelProcessor.from_pretrained`."""
        return UniPixelProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


class _PatchedConfig(PreTrainedConfig):
    model_type = "unipixel_published_processor"


#: Configuration class -> processor class, for names that ``AutoProcessor`` must find and no model of ours has.
OTHER_NAMES = {_PatchedConfig: PatchedQwen2_5_VLProcessor}


def _refuse_control(text: str, number: int) -> None:
    if not isinstance(text, str):
        raise DataError(f"message {number}: a text is a string, got {type(text).__name__}")
    for token in _CONTROL:
        if token in text:
            raise DataError(f"message {number}: the control token {token} stands in a text")
