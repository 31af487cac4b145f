"""Batches of one kind of data, the same for any split over ranks, complete, and resumable in the middle.

What holds for every epoch:

- the samples of a global batch (all ranks together) are of one data type, so that ranks do equal work and meet in the
  same collective operations;
- every sample of the epoch comes exactly once, also those of a type that has fewer than a global batch;
- ``len`` is the number of batches that are yielded, equal on all ranks and in all epochs;
- the batches depend on seed, epoch and the size of the global batch alone: 8 ranks with batches of 4 see, step by step,
  what 4 ranks see with batches of 8.

The last global batch of a type may be smaller. It is dealt out evenly, and ranks that get one sample less get a
:class:`~evqa.training.mixture.Draw` of no sample in its place: on every rank a step has equally many places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from evqa.errors import DataError
from evqa.training.frames import generator
from evqa.training.mixture import Draw, Mixture

__all__ = ["Draw", "MixtureSampler"]


class MixtureSampler:
    """A batch sampler for ``torch.utils.data.DataLoader(mixture, batch_sampler=...)``.

    Args:
        mixture: What is sampled.
        batch_size: Samples per rank and step.
        rank, world_size: Which part of every global batch is this process'.
        seed: By default the mixture's.

    Raises:
        ValueError: Sizes that are none.
    """

    def __init__(
        self, mixture: Mixture, batch_size: int, *, rank: int = 0, world_size: int = 1, seed: int | None = None
    ):
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}")
        self.mixture, self.batch_size = mixture, batch_size
        self.rank, self.world_size = rank, world_size
        self.seed = mixture.config.seed if seed is None else seed
        self.epoch = 0
        self._done = 0

    def __len__(self) -> int:
        """Batches of an epoch (of a whole one, wherever it is resumed)."""
        size = self.batch_size * self.world_size
        return sum(-(-n // size) for n in self.mixture.type_sizes().values())

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; to be called before each, as torch's own samplers want it.

        An epoch that is being resumed (:meth:`load_state_dict`) keeps its place.
        """
        if epoch != self.epoch:
            self.epoch, self._done = epoch, 0

    def __iter__(self) -> Iterator[list[Draw]]:
        """This rank's batches from the place on where the last iteration stopped; then the epoch starts anew."""
        start = self._done
        for number, places in enumerate(self._groups(self.epoch)):
            if number < start:
                continue
            each = -(-len(places) // self.world_size)
            own = places[self.rank * each : (self.rank + 1) * each].tolist()
            self._done = number + 1
            yield [Draw(self.epoch, place) for place in own + [-1] * (each - len(own))]
        self._done = 0

    def _groups(self, epoch: int) -> list[np.ndarray]:
        """Global batches of an epoch, in order: places of samples."""
        size = self.batch_size * self.world_size
        groups, start = [], 0
        for name, count in self.mixture.type_sizes().items():
            order = start + np.argsort(generator("order", self.seed, epoch, name).random(count), kind="stable")
            groups += [order[i : i + size] for i in range(0, count, size)]
            start += count
        shuffled = np.argsort(generator("groups", self.seed, epoch).random(len(groups)), kind="stable")
        return [groups[i] for i in shuffled]

    def state_dict(self) -> dict[str, Any]:
        """Where this sampler is. With workers a loader asks ahead: count the batches that were *used* instead."""
        return {**self._identity(), "epoch": self.epoch, "batches": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            DataError: It belongs to another order of samples.
        """
        other = {name: (state.get(name), value) for name, value in self._identity().items() if state.get(name) != value}
        if other:
            said = ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in other.items())
            raise DataError(f"the sampler cannot go on where another one stopped: {said}")
        self.epoch, self._done = int(state["epoch"]), int(state["batches"])

    def _identity(self) -> dict[str, Any]:
        """Everything that the order depends on."""
        return {
            "seed": self.seed, "global_batch": self.batch_size * self.world_size, "samples": self.mixture.type_sizes()
        }  # fmt: skip
