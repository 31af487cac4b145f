"""A UniPixel of random weights that writes given replies: every part of it works, but its tokens are chosen for it.

The states behind ``<|seg|>`` and the masks made of them are the model's own. As a script it is the command line of evqa
with such a model, for tests that kill it.
"""

from __future__ import annotations

import contextlib
import sys

from evqa.prompts import grounded_reply

#: A piece of the last thing asked -> the reply. The first that fits counts.
REPLIES = {
    "Which objects prove your answer? Segment": "<|seg|>",
    "When can the evidence for your answer be seen?": "[[0.5, 2.0]]",
    "Which of these time spans": "C",
    "Which image outlines": "D",
    "and segment the objects that prove it": grounded_reply("B", [[0.5, 2.0]], 2),
    "Reply with the letter of the right option": "B",
    "Segment in the video:": "It is <|seg|>.",
}


def _forcing(tokenizer):
    from transformers import LogitsProcessor

    class Forcing(LogitsProcessor):
        """Makes the next token of each row's reply the only one possible."""

        prompt = None

        def __call__(self, ids, scores):
            if self.prompt is None:
                self.prompt = ids.shape[1]
                asked = [tokenizer.decode(row).rsplit("<|im_start|>user", 1)[-1] for row in ids]
                self.replies = [
                    tokenizer(f"{next(reply for piece, reply in REPLIES.items() if piece in text)}<|im_end|>").input_ids
                    for text in asked
                ]
            scores = scores.clone()
            for row, reply in enumerate(self.replies):
                token = reply[min(ids.shape[1] - self.prompt, len(reply) - 1)]
                scores[row, :] = float("-inf")
                scores[row, token] = 0.0
            return scores

    return Forcing()


@contextlib.contextmanager
def forced():
    """Within this, every UniPixel writes :data:`REPLIES`."""
    from evqa.models.unipixel import UniPixelForConditionalGeneration, tiny

    tokenizer = tiny()[1].tokenizer
    original = UniPixelForConditionalGeneration.generate

    def generate(self, *args, **kwargs):
        return original(self, *args, logits_processor=[_forcing(tokenizer)], **kwargs)

    UniPixelForConditionalGeneration.generate = generate
    try:
        yield
    finally:
        UniPixelForConditionalGeneration.generate = original


if __name__ == "__main__":
    from evqa.cli import main

    with forced():
        sys.exit(main())
