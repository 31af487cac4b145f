"""LLaVA-Instruct-665k, the instruction mix of LLaVA-1.5: images, and text alone (Liu et al., CVPR 2024).

Layout: ``llava_v1_5_mix665k.json``, and beside it the folders of images that its paths start with:
``coco/train2017``, ``gqa/images``, ``ocr_vqa/images``, ``textvqa/train_images``, ``vg/VG_100K``, ``vg/VG_100K_2``.
UniPixel-SFT-1M keeps the images in ``llava_instruct/`` and the records in a file of its own:
:mod:`evqa.corpora.llava_videogpt_plus`.

One split, ``train``. Records without an image are conversations in text; ``<image>`` in their text is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evqa.corpora.base import Terms
from evqa.corpora.conversation import ConversationCorpus, Source
from evqa.corpora.segmentation import homes, nothing_found

__all__ = ["BUILDER", "LlavaInstruct"]

_FILE = "llava_v1_5_mix665k.json"


class LlavaInstruct(ConversationCorpus):
    """Conversations about an image, and conversations in text."""

    corpus = "llava_instruct"
    homepage = "https://github.com/haotian-liu/LLaVA"
    licence = Terms(
        "not one licence: text of GPT-4 and of other sets; images of COCO, GQA, OCR-VQA, TextVQA and VG", "nothing",
        "Its parts have licences of their own and come under the terms of the model that wrote them.",
    )  # fmt: skip

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "llava_instruct", "LLaVA-Instruct-150K", "playground/data", "LLaVA/playground/data")
        if self.config.file_names:
            return self.named_files(root)
        for home in places:
            if (home / _FILE).is_file():
                return [home / _FILE]
        raise nothing_found(root, places, {"the authors": [_FILE], "a file of another name": ["files=NAME"]})

    def sources(self, root: Path, files: Sequence[Path]) -> list[Source]:
        """See :meth:`evqa.corpora.conversation.ConversationCorpus.sources`."""
        return [
            Source(file, images=self.media_places(file.parent, file.parent / "images", file.parent / "data"))
            for file in files
        ]


BUILDER = LlavaInstruct
