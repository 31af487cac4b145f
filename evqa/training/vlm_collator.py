"""Benchmark and instruction rows for a plain video language model: answer, segments and expressions as JSON, no masks.

The question is :data:`evqa.prompts.DEFAULT`'s, the reply the JSON object that it asks for, so that the model's adapter
(``evqa run --model qwen2_5_vl``) asks and reads exactly what was trained. Frames come with their times, in the video
metadata of transformers' processors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evqa.errors import DataError
from evqa.prompts import DEFAULT, PromptSet, lettered
from evqa.scoring.answers import LETTERS

__all__ = ["VideoChatCollator", "evidence_reply"]

_IGNORED = -100
# Metadata hold whole frame numbers of a clip at a rate; at this rate they are milliseconds.
_TICKS = 1000.0


def evidence_reply(row: Mapping[str, Any]) -> str:
    """The reply that a row's question is to get: JSON, seconds with one decimal.

    Raises:
        DataError: The answer is none of the options; names the entry.
    """
    index = row.get("answer_index")
    if index is None or not 0 <= index < min(len(row["candidates"]), len(LETTERS)):
        raise DataError(f"the answer {row.get('answer')!r} is none of the options", entry=row.get("entry_id"))
    expressions = [item["expression"] for item in row.get("objects") or [] if item.get("expression")]
    return json.dumps(
        {
            "answer": LETTERS[index],
            "segments": [[round(float(start), 1), round(float(end), 1)] for start, end in row.get("segments") or []],
            "referring_expressions": list(dict.fromkeys(expressions)),
        },
        ensure_ascii=False,
    )


@dataclasses.dataclass
class VideoChatCollator:
    """``data_collator`` of ``trl.SFTTrainer`` for Qwen2.5-VL, Qwen3-VL, and what is prepared like them.

    Attributes:
        processor: The model's processor; its chat template must be chatml's (``<|im_start|>assistant``).
        frames: Which frames are shown (:func:`evqa.video.parse_policy`).
        max_side: Shrink frames to this longer side.
        max_length: A longer conversation is an error: cut, it would lose its clip or its reply.
        prompts: What is asked.
    """

    processor: Any
    frames: str = "uniform:8"
    max_side: int | None = 448
    max_length: int | None = None
    prompts: PromptSet = DEFAULT

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The model's inputs, and labels of the replies alone.

        Raises:
            DataError, VideoError: A row that cannot be used; names it.
        """
        texts, videos, metadata = [], [], []
        for row in rows:
            text, pixels, facts = self._conversation(row)
            texts.append(text)
            videos.append(pixels)
            metadata.append(facts)
        batch = dict(
            self.processor(
                text=texts, videos=videos, return_tensors="pt", padding=True, padding_side="right",
                videos_kwargs={"video_metadata": metadata, "do_sample_frames": False},
            )
        )  # fmt: skip
        batch.pop("video_metadata", None)
        batch["labels"] = self._labels(batch["input_ids"], batch["attention_mask"])
        if self.max_length is not None and batch["input_ids"].shape[1] > self.max_length:
            raise DataError(
                f"a conversation has {batch['input_ids'].shape[1]} tokens, allowed are {self.max_length}: show fewer "
                f"or smaller frames (one of {[row['entry_id'] for row in rows]})"
            )
        return batch

    def _conversation(self, row: Mapping[str, Any]) -> tuple[str, torch.Tensor, dict[str, Any]]:
        from evqa.video import Clip, parse_policy

        folder = row.get("frames")
        clip = Clip(dict(folder) if folder and folder.get("names") else dict(row["video"]))
        chosen = parse_policy(self.frames).positions(clip.info)
        times = clip.info.timestamps[chosen]
        pixels = clip.frames(times, max_side=self.max_side)  # [frames, height, width, 3] uint8
        question = self.prompts.render(
            "gen", question=row["question"], options=lettered(row["candidates"]),
            duration=f"{clip.info.duration:.1f} seconds",
        )  # fmt: skip
        messages = [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": evidence_reply(row)}]},
        ]
        facts = {
            "fps": _TICKS,
            "frames_indices": [round(float(t) * _TICKS) for t in times],
            "total_num_frames": round(clip.info.duration * _TICKS),
            "duration": clip.info.duration,
            "height": pixels.shape[1],
            "width": pixels.shape[2],
        }
        text = self.processor.apply_chat_template(messages, tokenize=False)
        return text, torch.from_numpy(pixels).permute(0, 3, 1, 2), facts

    def _labels(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The assistant's words and the end of its turn; all else is ignored."""
        tokenizer = self.processor.tokenizer
        header = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        labels = torch.full_like(ids, _IGNORED)
        for row, own in enumerate(ids.tolist()):
            length, position = int(mask[row].sum()), 0
            while position <= length - len(header):
                if own[position : position + len(header)] != header:
                    position += 1
                    continue
                start = position + len(header)
                stop = next((i + 1 for i in range(start, length) if own[i] == end), length)
                labels[row, start:stop] = ids[row, start:stop]
                position = stop
            if bool((labels[row] == _IGNORED).all()):
                raise DataError("the chat template writes no reply of the assistant as chatml has it")
        return labels
