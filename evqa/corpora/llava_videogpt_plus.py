"""LLaVA-Instruct-665k and VideoGPT+ in one file, as UniPixel-SFT-1M merges them (Liu et al., UniPixel, NeurIPS 2025).

Layout: ``general/llava_v1_5_mix665k_with_videogpt_plus_576k.json``; images in ``llava_instruct/``, videos in
``videogpt_plus/``, beside ``general/``. A record has an image, a video or neither, and may state its ``duration``.
One split, ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evqa.corpora.base import Terms
from evqa.corpora.conversation import ConversationCorpus, Source
from evqa.corpora.segmentation import UNIPIXEL, homes, nothing_found

__all__ = ["BUILDER", "LlavaVideoGptPlus"]

_FILE = "llava_v1_5_mix665k_with_videogpt_plus_576k.json"


class LlavaVideoGptPlus(ConversationCorpus):
    """Conversations about an image or a video, and conversations in text."""

    corpus = "llava_videogpt_plus"
    homepage = "https://huggingface.co/datasets/PolyU-ChenLab/UniPixel-SFT-1M"
    licence = Terms(
        "those of LLaVA-Instruct-665k and VideoGPT+", "nothing",
        "Its parts have licences of their own and come under the terms of the model that wrote them.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "general")
        if self.config.file_names:
            return self.named_files(root)
        for home in places:
            if (home / _FILE).is_file():
                return [home / _FILE]
        raise nothing_found(root, places, {UNIPIXEL: [f"general/{_FILE}"], "a file of another name": ["files=NAME"]})

    def sources(self, root: Path, files: Sequence[Path]) -> list[Source]:
        """See :meth:`evqa.corpora.conversation.ConversationCorpus.sources`."""
        found = []
        for file in files:
            around = [base / name for name in ("llava_instruct", "videogpt_plus") for base in _around(file)]
            images, videos = around[:2], around[2:]
            found.append(Source(file, images=self.media_places(*images), videos=self.media_places(*videos)))
        return found


def _around(file: Path) -> tuple[Path, Path]:
    return file.parent.parent, file.parent


BUILDER = LlavaVideoGptPlus
