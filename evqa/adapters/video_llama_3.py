"""VideoLLaMA 3 (Zhang et al., 2025), native in transformers. Each frame is preceded by its time in seconds."""

from __future__ import annotations

from typing import Any

from evqa.adapters._local import LocalAdapter

__all__ = ["VideoLlama3"]


class VideoLlama3(LocalAdapter):
    """See :class:`LocalAdapter` for the arguments; the original baseline showed at most 128 frames at 1 fps.

    The processor drops patches that hardly change from frame to frame (token compression), as in training.
    """

    name = "video_llama_3"
    any_size = True

    def __init__(self, model: str = "lkhl/VideoLLaMA3-7B-Image-HF", *, frames: str = "fps:1,max=128", **options: Any):
        super().__init__(model, frames=frames, **options)


ADAPTER = VideoLlama3
