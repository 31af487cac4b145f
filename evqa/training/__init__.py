"""Training: rows of every corpus as one mixture of conversations, and what trains UniPixel on it.

=====================================  ===========================================================================
:mod:`evqa.training.templates`         the words: questions and answers, named and versioned
:mod:`evqa.training.conversations`     a row of any corpus -> what is asked and what is to be said, with ``<|seg|>``
:mod:`evqa.training.frames`            which frames of a row are shown, and their pixels
:mod:`evqa.training.samples`           a row as one training sample
:mod:`evqa.training.mixture`           corpora with repeats and filters as one data set, described by a YAML file
:mod:`evqa.training.sampler`           batches of one kind of data, the same for any split over ranks; resumable
:mod:`evqa.training.streaming`         the same batches' rules where rows cannot be looked up by number
:mod:`evqa.training.budget`            samples that failed: counted, named, and too many of them stop the run
:mod:`evqa.training.tuning`            what of a model is trained: adapters, modules
:mod:`evqa.training.collator`          samples to a batch of UniPixel
:mod:`evqa.training.trainer`           TRL's trainer with the model's whole loss
:mod:`evqa.training.resuming`          checkpoints that are whole or not there, and going on from one exactly
:mod:`evqa.training.evaluation`        the benchmark while training and after it
:mod:`evqa.training.referring`         referring sets, for a trained checkpoint
:mod:`evqa.training.vlm_collator`      rows for plain video language models
=====================================  ===========================================================================

Names below are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evqa._lazy import attach

if TYPE_CHECKING:
    from evqa.training.budget import ErrorBudget, Failure
    from evqa.training.conversations import Conversation, converse
    from evqa.training.frames import FrameSampling
    from evqa.training.mixture import Mixture, MixtureConfig, Part
    from evqa.training.sampler import Draw, MixtureSampler
    from evqa.training.samples import TrainingSample
    from evqa.training.streaming import MixtureStream
    from evqa.training.templates import Templates, load_templates

_HOMES = {
    "Conversation": "conversations",
    "Draw": "sampler",
    "ErrorBudget": "budget",
    "Failure": "budget",
    "FrameSampling": "frames",
    "Mixture": "mixture",
    "MixtureConfig": "mixture",
    "MixtureSampler": "sampler",
    "MixtureStream": "streaming",
    "Part": "mixture",
    "Templates": "templates",
    "TrainingSample": "samples",
    "converse": "conversations",
    "load_templates": "templates",
}

__all__ = [
    "Conversation",
    "Draw",
    "ErrorBudget",
    "Failure",
    "FrameSampling",
    "Mixture",
    "MixtureConfig",
    "MixtureSampler",
    "MixtureStream",
    "Part",
    "Templates",
    "TrainingSample",
    "converse",
    "load_templates",
]

__getattr__, __dir__ = attach(__name__, _HOMES)
