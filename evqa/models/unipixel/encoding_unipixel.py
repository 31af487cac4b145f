"""Frames of clips, encoded by SAM 2 in batches, a bounded number ahead of where they are needed.

The encoder fills a GPU; decoding tokens and tracking objects do not. On CUDA the encoder therefore runs beside them, on
a stream of its own: :class:`FrameFeed` keeps it a few batches ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from evqa.errors import VideoError
from evqa.models.unipixel.graphs_unipixel import side_stream
from evqa.models.unipixel.runtime_unipixel import Runtime
from evqa.models.unipixel.sam2_blocks_unipixel import FrameFeatures
from evqa.models.unipixel.sam2_unipixel import UniPixelSam2

__all__ = ["FrameFeed", "check_frames", "encode_clips", "prepare_frames"]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def prepare_frames(frames: Tensor, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Frames as SAM 2's image encoder takes them, ``[n, 3, size, size]`` on the device.

    Args:
        frames: ``[n, 3, size, size]`` floating: already resized and normalised. ``uint8 [n, 3, height, width]``:
            scaled to 0 ... 1, resized (bilinear, antialiased, aspect ratio given up) and normalised here, which moves
            fewer bytes to the device.
        size, device, dtype: What is wanted.
    """
    frames = frames.to(device, non_blocking=True)
    if frames.dtype == torch.uint8:
        frames = frames.float() / 255
        if frames.shape[-2:] != (size, size):
            frames = F.interpolate(frames, (size, size), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v).view(3, 1, 1).to(device, non_blocking=True) for v in (_MEAN, _STD))
        frames = (frames - mean) / std
    return frames.to(dtype)


def check_frames(frames: Tensor, size: int, where: str) -> None:
    """Raise :class:`VideoError` unless these can be a clip's frames for SAM 2; ``where`` names them."""
    if not isinstance(frames, Tensor) or frames.dim() != 4 or frames.shape[1] != 3:
        shape = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise VideoError(f"{where}: frames for SAM 2 are a tensor [frames, 3, height, width], got {shape}")
    if len(frames) == 0:
        raise VideoError(f"{where}: the clip has no frames")
    if frames.dtype != torch.uint8 and tuple(frames.shape[-2:]) != (size, size):
        raise VideoError(
            f"{where}: normalised frames must be {size} x {size} pixels (sam2_image_size), got "
            f"{frames.shape[-2]} x {frames.shape[-1]}; uint8 frames may have any size"
        )


def encode_clips(
    sam2: UniPixelSam2, clips: Sequence[Tensor], start: int, stop: int, batch: int, device: torch.device,
    dtype: torch.dtype,
) -> FrameFeatures:  # fmt: skip
    """Features of frames ``start`` to ``stop`` of every clip, ``[clips, stop - start, ...]`` each."""
    size, frames = sam2.config.image_size, stop - start
    if len({(clip.dtype, clip.shape[2:]) for clip in clips}) == 1:
        pixels = clips[0][start:stop] if len(clips) == 1 else torch.cat([clip[start:stop] for clip in clips])
        parts = [sam2("encode", prepare_frames(part, size, device, dtype)) for part in pixels.split(batch)]
    else:
        parts = [
            sam2("encode", prepare_frames(part, size, device, dtype))
            for clip in clips
            for part in clip[start:stop].split(batch)
        ]
    levels = ([getattr(part, name) for part in parts] for name in ("top", "fine", "middle"))
    joined = FrameFeatures(*(level[0] if len(level) == 1 else torch.cat(level) for level in levels))
    return joined.map(lambda level: level.unflatten(0, (len(clips), frames)))


class FrameFeed:
    """Features of clips of one length, frame by frame.

    Args:
        sam2: The model.
        clips: Frames of each clip (:func:`prepare_frames`), all with the same number of frames.
        runtime: Switches.

    Attributes:
        chunk: Frames of each clip that are encoded in one go.
        ahead: How many such chunks may be on the device at a time.
    """

    def __init__(self, sam2: UniPixelSam2, clips: Sequence[Tensor], runtime: Runtime):
        self.sam2, self.clips, self.num_frames = sam2, list(clips), len(clips[0])
        gradients = torch.is_grad_enabled()
        device = sam2.no_mem_embed.device
        in_flight = runtime.max_frames_in_flight or (self.num_frames * len(clips) if gradients else 64)
        self.batch = min(runtime.encode_batch, in_flight)
        beside = runtime.overlap and device.type == "cuda" and not gradients
        most = max(1, in_flight // len(clips))
        self.chunk = max(1, min(most, self.batch // len(clips) if beside else most, self.num_frames))
        self.ahead = max(1, most // self.chunk) if beside else 1
        self.stream = side_stream(device) if beside and self.ahead > 1 else None
        self.next = 0
        self.waiting: deque[tuple[FrameFeatures, torch.cuda.Event | None]] = deque()

    @torch.no_grad()
    def prefetch(self) -> None:
        """Begin to encode, beside whatever comes next. Does nothing without a stream."""
        while self.stream is not None and len(self.waiting) < self.ahead and self.next < self.num_frames:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
            with torch.cuda.stream(self.stream):
                features = self._encode()
                self.waiting.append((features, self.stream.record_event()))

    def __iter__(self) -> Iterator[FrameFeatures]:
        """Features of each frame in turn, ``[clips, ...]``."""
        for features in self.chunks():
            for t in range(features.top.shape[1]):
                yield features.map(lambda level, t=t: level[:, t])

    def chunks(self) -> Iterator[FrameFeatures]:
        """Features of some frames at a time, ``[clips, frames, ...]``."""
        while self.waiting or self.next < self.num_frames:
            self.prefetch()
            features, event = self.waiting.popleft() if self.waiting else (self._encode(), None)
            if event is not None:
                current = torch.cuda.current_stream(self.stream.device)
                current.wait_event(event)
                features.map(lambda level, current=current: level.record_stream(current) or level)
            yield features
            del features

    def _encode(self) -> FrameFeatures:
        start, self.next = self.next, min(self.next + self.chunk, self.num_frames)
        like = self.sam2.no_mem_embed
        return encode_clips(self.sam2, self.clips, start, self.next, self.batch, like.device, like.dtype)
