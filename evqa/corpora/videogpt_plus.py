"""VideoGPT+: conversations, captions, classes and reasoning about videos (Maaz et al., 2024).

Layout: ``annotations/*.json``, eleven files, each with its own folder of videos in ``instruction_tuning/``
(``videogpt_plus/config/dataset_config.py`` of the authors). UniPixel-SFT-1M names videos from its ``videogpt_plus/``
folder, which is looked into as well; its records are read by :mod:`evqa.corpora.llava_videogpt_plus`.

One split, ``train``: the files that are there, in the order below; ``files="vcg-plus_112K.json"`` reads one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evqa.corpora.base import Terms
from evqa.corpora.conversation import ConversationCorpus, Source
from evqa.corpora.segmentation import homes, nothing_found

__all__ = ["BUILDER", "VideoGptPlus"]

#: Annotation file -> the folder of its videos in ``instruction_tuning``.
_FOLDERS = {
    "conversation_videochatgpt.json": "Activity_Videos",
    "vcg_human_annotated.json": "Activity_Videos",
    "vcg-plus_112K.json": "Activity_Videos",
    "caption_videochat.json": "webvid",
    "classification_k710.json": "k710",
    "classification_ssv2.json": "ssv2",
    "conversation_videochat1.json": "videochat_it",
    "reasoning_next_qa.json": "NExTQA",
    "reasoning_clevrer_qa.json": "clevrer",
    "reasoning_clevrer_mc.json": "clevrer",
    "vqa_webvid_qa.json": "webvid",
}


class VideoGptPlus(ConversationCorpus):
    """Conversations about a video."""

    corpus = "videogpt_plus"
    homepage = "https://huggingface.co/datasets/MBZUAI/VideoGPT-plus_Training_Dataset"
    licence = Terms("CC BY 4.0 (annotations)", "annotations", "The videos are those of the sets they were taken from.")

    def annotation_files(self, root: Path) -> list[Path]:
        """See :meth:`evqa.corpora.base.CorpusBuilder.annotation_files`."""
        places = homes(root, "videogpt_plus", "VideoGPT-plus_Training_Dataset", "playground/data")
        if self.config.file_names:
            inner = root / "annotations"
            return self.named_files(inner if (inner / self.config.file_names[0]).is_file() else root)
        for home in places:
            for folder in (home / "annotations", home):
                if found := [folder / name for name in _FOLDERS if (folder / name).is_file()]:
                    return found
        wanted = {"the authors": [f"annotations/{name}" for name in _FOLDERS], "others": ["files=NAME"]}
        raise nothing_found(root, places, wanted)

    def sources(self, root: Path, files: Sequence[Path]) -> list[Source]:
        """See :meth:`evqa.corpora.conversation.ConversationCorpus.sources`."""
        found = []
        for file in files:
            home = file.parent.parent if file.parent.name == "annotations" else file.parent
            own = [home / "instruction_tuning" / _FOLDERS[file.name]] if file.name in _FOLDERS else []
            found.append(Source(file, videos=self.media_places(*own, home / "instruction_tuning", home)))
        return found


BUILDER = VideoGptPlus
