"""From the mixture's global batches to a rank's: equal places on every rank, stand-ins where there are too few.

:class:`~evqa.training.sampler.MixtureSampler` is asked for whole global batches, so that every rank knows all of them.
The last one of a data type can be smaller than the others. It is dealt out evenly, and a rank that gets one sample less
takes another one of the same batch as a *stand-in*: it runs through the model and counts for nothing. So all ranks call
the same modules equally often, which sharded training (FSDP, ZeRO-3) needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

__all__ = ["Loaded", "RankBatches", "StandIn", "TrainingLoader", "WithStandIns"]


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A place of a batch that is filled up with another one's sample."""

    draw: Any


@dataclasses.dataclass
class Loaded:
    """A sample on its way to the collator.

    Attributes:
        sample: A :class:`~evqa.training.mixture.TrainingSample`, or the :class:`~evqa.training.budget.Failure` of one.
        counts: ``False`` for a stand-in.
    """

    sample: Any
    counts: bool = True


class RankBatches:
    """This rank's part of a sampler's global batches.

    Args:
        sampler: Yields global batches; has ``__len__`` and ``set_epoch``.
        rank, world_size: Which part.
        batch_size: Places on each rank in a full batch.
        drop_last: Leave out global batches that are not full.
    """

    def __init__(self, sampler: Any, *, rank: int, world_size: int, batch_size: int, drop_last: bool = False):
        self.sampler, self.rank, self.world_size = sampler, rank, world_size
        self.batch_size, self.drop_last = batch_size, drop_last

    def __len__(self) -> int:
        """Batches of an epoch."""
        if not self.drop_last:
            return len(self.sampler)
        size = self.batch_size * self.world_size
        return sum(count // size for count in self.sampler.mixture.type_sizes().values())

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        """Lists of draws and stand-ins, of one length on every rank."""
        for places in self.sampler:
            if self.drop_last and len(places) < self.batch_size * self.world_size:
                continue
            each = -(-len(places) // self.world_size)
            filled = [*places, *(StandIn(places[i % len(places)]) for i in range(each * self.world_size - len(places)))]
            yield filled[self.rank * each : (self.rank + 1) * each]


class WithStandIns:
    """A mixture that also knows what a stand-in is."""

    def __init__(self, mixture: Any):
        self.mixture = mixture

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, place: Any) -> Loaded:
        if isinstance(place, StandIn):
            return Loaded(self.mixture[place.draw], counts=False)
        return Loaded(self.mixture[place])


class TrainingLoader(DataLoader):
    """A loader that tells its batch sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`RankBatches.set_epoch`."""
        self.batch_sampler.set_epoch(epoch)
