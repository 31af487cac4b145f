"""A mixture whose rows come one after another: from the Hub, or too many to look up by number.

The promises are those of :mod:`evqa.training.sampler`, but for two: the order within a part is that of its shards and a
shuffle buffer, and nobody knows the length before the end (training then needs ``max_steps``).

Every rank and every worker reads all rows and makes (decodes, converts) only the samples of its own batches. Reading
rows is cheap beside that, no rank has to ask another, and all ranks end together whatever the shards hold. On many
ranks, with rows that carry their clips as bytes, download once and use the map-style mixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from evqa.errors import DataError
from evqa.training.budget import Failure
from evqa.training.conversations import data_type
from evqa.training.frames import generator
from evqa.training.mixture import MixtureConfig, Part
from evqa.training.rows import row_has_masks
from evqa.training.samples import TrainingSample, make_sample

__all__ = ["MixtureStream"]

_BLOCK = 32  # rows that are read in one go
_Entry = tuple[Part, int, dict[str, Any]]


class MixtureStream(IterableDataset):
    """Batches of one data type out of streams of rows.

    For ``DataLoader(stream, batch_size=None, collate_fn=...)``: what it yields are whole batches, lists of samples,
    :class:`~evqa.training.budget.Failure` and ``None`` (a place without a sample).

    Args:
        parts: Rows that can be iterated any number of times, such as ``datasets.IterableDataset``.
        config: As for :class:`~evqa.training.mixture.Mixture`; without ``epoch_size``.
        batch_size: Samples per rank and step.
        rank, world_size: Which part of every global batch is this process'.
        shuffle_buffer: Rows among which each part is shuffled; 0: in order.

    Raises:
        DataError: Weights; a stream has repeats.
        ValueError: Sizes that are none.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        config: MixtureConfig | None = None,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_buffer: int = 1000,
    ):
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size or shuffle_buffer < 0:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}, shuffle_buffer {shuffle_buffer}")
        self.parts, self.config = list(parts), config or MixtureConfig()
        if self.config.epoch_size is not None or any(part.weight is not None for part in self.parts):
            raise DataError("a stream has repeats: how many rows a weight would mean is not known before its end")
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.shuffle_buffer = shuffle_buffer
        self.epoch, self.skip = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next; an epoch that is being resumed keeps its place."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def state_dict(self, batches: int) -> dict[str, int]:
        """What to resume from after ``batches`` batches of this epoch were used."""
        return {"epoch": self.epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from :meth:`state_dict`: rows before that are read again, and nothing is made of them."""
        self.epoch, self.skip = int(state["epoch"]), int(state["batches"])

    def __iter__(self) -> Iterator[list[TrainingSample | Failure | None]]:
        """This rank's batches, or a worker's share of them in turn."""
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for batch, group in enumerate(self._groups()):
            # A loader asks its workers in turn, beginning with the first, also when an epoch is resumed.
            if batch < self.skip or (batch - self.skip) % of != number:
                continue
            each = -(-len(group) // self.world_size)
            own = group[self.rank * each : (self.rank + 1) * each]
            made = [make_sample(row, part, self.epoch, copy, self.config) for part, copy, row in own]
            yield made + [None] * (each - len(own))

    def _groups(self) -> Iterator[list[_Entry]]:
        """Global batches, the same on every rank."""
        waiting: dict[str, list[_Entry]] = {}
        size = self.batch_size * self.world_size
        for entry in self._mixed():
            bucket = waiting.setdefault(data_type(entry[2]), [])
            bucket.append(entry)
            if len(bucket) == size:
                yield list(bucket)
                bucket.clear()
        yield from (bucket for bucket in waiting.values() if bucket)

    def _mixed(self) -> Iterator[_Entry]:
        """Rows of all parts, each drawn in proportion to its repeats, until all are at their end."""
        rng = generator("stream", self.config.seed, self.epoch)
        streams = {number: self._part(part) for number, part in enumerate(self.parts) if part.repeat > 0}
        while streams:
            numbers = list(streams)
            total = sum(self.parts[i].repeat for i in numbers)
            place = rng.random() * total
            for number in numbers:
                place -= self.parts[number].repeat
                if place < 0:
                    break
            entry = next(streams[number], None)
            if entry is None:
                del streams[number]
            else:
                yield entry

    def _part(self, part: Part) -> Iterator[_Entry]:
        """The rows of one part, as often as they should come."""
        copy, seed = 0, self.config.seed
        while copy < part.repeat:
            rows = part.rows
            if self.shuffle_buffer and hasattr(rows, "shuffle"):
                draw = generator("shuffle", seed, self.epoch, part.name, copy).random()
                rows = rows.shuffle(seed=int(draw * 2**31), buffer_size=self.shuffle_buffer)
            rest = min(1.0, part.repeat - copy)
            for row in _rows(rows):
                if self.config.filters.reason(row, row_has_masks(row)) is not None:
                    continue
                # A part of the last repeat: which rows is drawn for each row and epoch.
                if rest < 1 and generator("extra", seed, self.epoch, part.name, row["entry_id"]).random() >= rest:
                    continue
                yield part, copy, row
            copy += 1


def _rows(rows: Any) -> Iterator[dict[str, Any]]:
    """All rows. In a worker, plain iteration over a ``datasets.IterableDataset`` would give that worker's shards."""
    if not hasattr(rows, "iter"):
        yield from rows
        return
    for block in rows.iter(batch_size=_BLOCK):
        names = list(block)
        for values in zip(*block.values(), strict=True):
            yield dict(zip(names, values, strict=True))
