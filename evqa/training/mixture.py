"""Corpora with repeats and filters as one data set of training samples, described by a YAML file.

::

    name: st_evidence_sft
    seed: 42
    style: merged                  # or per_object: a <|seg|> for each object
    frames: {count: 8, policy: random}
    filters: {max_frames: 500, max_seconds: 300, max_words: 200}
    errors: {max_fraction: 0.01}
    parts:
      - {name: st_evidence, config: instruct_mask, data_dir: st-evidence-instruct, repeat: 2}
      - {name: revos, data_dir: revos, repeat: 5}

``repeat`` is how often each row comes in an epoch; 2.5 means twice, and half of the rows, others in each epoch, once
more. ``weight`` instead, on all parts, is each part's share of an epoch of ``epoch_size`` samples (default: as many as
there are rows). A repeated row is not the same sample twice: its frames and wording are drawn anew.

**What is drawn for a sample depends on seed, epoch, corpus, entry and repeat alone**: not on the order, on workers, on
ranks, or on what was read before. So a run that is resumed sees what it would have seen.

A sample that cannot be made is a :class:`~evqa.training.budget.Failure` in its place and never another sample.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evqa.corpora.reading import PublishedFrames
from evqa.errors import DataError, EvqaError
from evqa.training.budget import ErrorBudget, Failure
from evqa.training.conversations import DATA_TYPES, STYLES
from evqa.training.frames import FrameSampling, generator
from evqa.training.rows import Filters, scan
from evqa.training.samples import TrainingSample, make_sample
from evqa.training.templates import DEFAULT, Templates, load_templates

__all__ = ["Draw", "Mixture", "MixtureConfig", "Part", "TrainingSample", "load_parts"]


class Draw(NamedTuple):
    """One place of one epoch; ``position`` -1 is no sample, which fills up a batch that has too few."""

    epoch: int
    position: int


@dataclasses.dataclass
class Part:
    """One corpus of a mixture.

    Attributes:
        rows: Its rows: a ``datasets.Dataset`` (or anything with ``[i]`` and ``len``), or for
            :class:`~evqa.training.streaming.MixtureStream` a ``datasets.IterableDataset``.
        name: For reports, and part of the seed of its samples.
        repeat: How often each row comes in an epoch.
        weight: Its share of an epoch, instead of ``repeat``.
        published: The frames of published rows (:class:`evqa.corpora.reading.PublishedFrames`).
    """

    rows: Any
    name: str
    repeat: float = 1.0
    weight: float | None = None
    published: PublishedFrames | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.repeat >= 0 or (self.weight is not None and not self.weight > 0):
            raise DataError(f"{self.name}: repeat is a number of at least 0, weight one above 0")


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """A mixture without its rows; see the module's docstring for the meaning of each field.

    ``isolate``: decode clips in child processes. ``read_frames``: ``False`` chooses frames and does not read them, for
    a loop that has its clips on the device already. ``errors``: arguments of
    :class:`~evqa.training.budget.ErrorBudget`.
    """

    name: str = "mixture"
    seed: int = 0
    style: str = "merged"
    shuffle_options: bool = False
    say_option: bool = False
    say_rationale: bool = False
    isolate: bool = True
    read_frames: bool = True
    epoch_size: int | None = None
    frames: FrameSampling = dataclasses.field(default_factory=FrameSampling)
    filters: Filters = dataclasses.field(default_factory=Filters)
    errors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    templates: Templates = DEFAULT

    def __post_init__(self) -> None:
        """Check what has no class of its own."""
        if self.style not in STYLES:
            raise DataError(f"style must be one of {', '.join(STYLES)}, not {self.style!r}")
        try:
            ErrorBudget(**self.errors)
        except (TypeError, ValueError) as error:
            raise DataError(f"errors: {error}") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[MixtureConfig, list[dict[str, Any]]]:
        """A YAML file: the configuration, and its parts, not yet loaded.

        Raises:
            DataError: Not such a file, or a field that it does not know; names the file.
        """
        import yaml

        path = Path(path)
        try:
            value = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"the mixture cannot be read ({error})", file=path) from None
        if not isinstance(value, dict) or not isinstance(value.get("parts"), list) or not value["parts"]:
            raise DataError("a mixture has a list of parts", file=path)
        parts = value.pop("parts")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(value) - known:
            raise DataError(f"unknown fields {sorted(unknown)}; known: parts, {', '.join(sorted(known))}", file=path)
        for part in parts:
            if not isinstance(part, dict) or not isinstance(part.get("name"), str):
                raise DataError(f"a part has a name, got {part!r}", file=path)
        try:
            for key, kind in (("frames", FrameSampling), ("filters", Filters)):
                if key in value:
                    value[key] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value[key].items()})
            if "templates" in value:
                value["templates"] = load_templates(path.parent / value["templates"])
            return cls(**value), parts
        except (TypeError, ValueError, AttributeError, DataError) as error:
            raise DataError(f"{getattr(error, 'message', error)}", file=path) from None


def load_parts(
    parts: Sequence[Mapping[str, Any]], data_root: str | os.PathLike[str] | None, *, streaming: bool = False
) -> list[Part]:
    """Load the corpora that a YAML file names.

    Args:
        parts: Each with ``name``, and of ``config, split, data_dir, repeat, weight, on_error`` and further options of
            :func:`evqa.load_dataset` what it needs. ``split`` is ``"train"`` by default. ``parquet`` instead of
            ``data_dir``: a folder or Hub repository that :mod:`evqa.corpora.publishing` made.
        data_root: What a relative ``data_dir`` is relative to.
        streaming: Rows as they are asked for.

    Raises:
        DataError, MissingDataError: As from :func:`evqa.load_dataset`.
    """
    from evqa.corpora import load

    out = []
    for part in parts:
        options = dict(part)
        name, repeat, weight = options.pop("name"), options.pop("repeat", 1.0), options.pop("weight", None)
        if options.get("data_dir") is not None:
            options["data_dir"] = os.path.join(data_root or "", options["data_dir"])
        options.setdefault("split", "train")
        label = "/".join(str(part[key]) for key in ("name", "config", "split") if part.get(key))
        if parquet := options.pop("parquet", None):
            rows, frames = _load_published(parquet, data_root, options, streaming)
            out.append(Part(rows, label, repeat, weight, frames))
        else:
            rows = load(name, options.pop("config", None), streaming=streaming, **options)
            out.append(Part(rows, label, repeat, weight))
    return out


def _load_published(
    source: str, data_root: str | os.PathLike[str] | None, options: dict[str, Any], streaming: bool
) -> tuple[Any, PublishedFrames | None]:
    """Rows of a corpus that :mod:`evqa.corpora.publishing` wrote, and its frames, which have a config of their own."""
    import datasets

    folder = os.path.join(data_root or "", source)
    source = folder if os.path.isdir(folder) else source
    config, split = options.pop("config", None), options.pop("split")
    if options:
        raise DataError(f"{source}: options {sorted(options)} are for published files, not for Parquet")
    configs = datasets.get_dataset_config_names(source)
    kept = [name for name in configs if name != "frames"]
    if config is None and len(kept) == 1:
        config = kept[0]
    if config not in kept:
        raise DataError(f"{source}: give the config: {', '.join(kept)}")
    rows = datasets.load_dataset(source, config, split=split, streaming=streaming)
    frames = None
    if "frames" in configs:
        frames = PublishedFrames(datasets.load_dataset(source, "frames", split=split.partition("[")[0]))
    return rows, frames


class Mixture:
    """A map-style data set of training samples.

    ``mixture[draw]`` with a :class:`Draw`, or with a number of epoch 0; :class:`~evqa.training.sampler.MixtureSampler`
    gives the draws of an epoch in batches of one data type.

    Args:
        parts: The corpora.
        config: Everything else.

    Raises:
        DataError: No part has a row that may be used; says why they were left out.
    """

    def __init__(self, parts: Sequence[Part], config: MixtureConfig | None = None):
        self.parts, self.config = list(parts), config or MixtureConfig()
        names = [part.name for part in self.parts]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"two parts of the mixture are called {repeated[0]!r}")
        self.dropped: dict[str, Counter[str]] = {}
        self._strata: list[_Stratum] = []
        for number, part in enumerate(self.parts):
            kept, types, dropped = scan(part.rows, self.config.filters)
            self.dropped[part.name] = dropped
            for kind in sorted(set(types.tolist())):
                rows = kept[types == kind]
                self._strata.append(_Stratum(number, list(DATA_TYPES)[kind], rows, part.repeat))
        self._share_out()
        if not len(self):
            raise DataError(f"the mixture is empty: {self.describe()}")
        self._plans: dict[int, _Plan] = {}

    @classmethod
    def from_yaml(
        cls, path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None, **changes: Any
    ) -> Mixture:
        """Load a mixture with its corpora.

        Args:
            path: See the module's docstring.
            data_root: Folder of the corpora; by default the YAML file's own.
            **changes: Fields of :class:`MixtureConfig` that take the place of the file's.
        """
        config, parts = MixtureConfig.read(path)
        root = Path(path).parent if data_root is None else data_root
        return cls(load_parts(parts, root), dataclasses.replace(config, **changes))

    def _share_out(self) -> None:
        weights = [part.weight for part in self.parts]
        if any(weight is not None for weight in weights):
            if not all(weight is not None for weight in weights):
                raise DataError("either every part of a mixture has a weight, or none has")
            sizes = [sum(len(s.rows) for s in self._strata if s.part == i) for i in range(len(self.parts))]
            total = self.config.epoch_size or sum(sizes)
            for stratum in self._strata:
                stratum.repeat = weights[stratum.part] / sum(weights) * total / sizes[stratum.part]
        elif self.config.epoch_size is not None:
            raise DataError("epoch_size goes with weights")

    def __len__(self) -> int:
        """Samples of an epoch, the same for each."""
        return sum(stratum.size for stratum in self._strata)

    def type_sizes(self) -> dict[str, int]:
        """How many samples of each data type an epoch has. Those of a type lie together, in this order of types."""
        sizes = dict.fromkeys(DATA_TYPES, 0)
        for stratum in self._strata:
            sizes[stratum.data_type] += stratum.size
        return {name: size for name, size in sizes.items() if size}

    def __getitem__(self, draw: Draw | int) -> TrainingSample | Failure | None:
        """The sample of a draw; ``None`` for a place that holds none."""
        draw = draw if isinstance(draw, Draw) else Draw(0, int(draw))
        if draw.position < 0:
            return None
        part, row_number, copy, kind = self.locate(draw)
        try:
            row = self.parts[part].rows[row_number]
        except EvqaError as error:
            return Failure(f"row {row_number}", self.parts[part].name, str(error), kind)
        return make_sample(row, self.parts[part], draw.epoch, copy, self.config)

    def locate(self, draw: Draw) -> tuple[int, int, int, str]:
        """Part, row, which repeat of it, and data type of a draw.

        Raises:
            IndexError: There is no such place.
        """
        if not 0 <= draw.position < len(self):
            raise IndexError(f"place {draw.position} of a mixture of {len(self)} samples")
        plan = self._plan(draw.epoch)
        i = draw.position
        return int(plan.part[i]), int(plan.row[i]), int(plan.copy[i]), list(DATA_TYPES)[plan.kind[i]]

    def _plan(self, epoch: int) -> _Plan:
        if epoch not in self._plans:
            if len(self._plans) > 1:
                del self._plans[min(self._plans)]
            self._plans[epoch] = _Plan.of(self._strata, self.config.seed, epoch)
        return self._plans[epoch]

    def describe(self) -> dict[str, Any]:
        """What an epoch holds, JSON-ready: per part rows used, samples and what was left out and why; wording; seed."""
        parts = {}
        for number, part in enumerate(self.parts):
            own = [s for s in self._strata if s.part == number]
            parts[part.name] = {
                "rows": sum(len(s.rows) for s in own),
                "samples": sum(s.size for s in own),
                "left_out": dict(self.dropped[part.name]),
            }
        config = self.config
        return {
            "name": config.name, "seed": config.seed, "style": config.style, "samples": len(self),
            "shuffle_options": config.shuffle_options, "say_option": config.say_option,
            "say_rationale": config.say_rationale,
            "frames": dataclasses.asdict(config.frames), "filters": dataclasses.asdict(config.filters),
            "templates": config.templates.describe(), "parts": parts,
        }  # fmt: skip


@dataclasses.dataclass
class _Stratum:
    """Rows of one part and one data type."""

    part: int
    data_type: str
    rows: np.ndarray
    repeat: float

    @property
    def whole(self) -> int:
        """Times that every row comes."""
        return int(self.repeat + 1e-9)

    @property
    def size(self) -> int:
        """Samples in an epoch."""
        return self.whole * len(self.rows) + int((self.repeat - self.whole) * len(self.rows) + 0.5)


@dataclasses.dataclass
class _Plan:
    """The samples of one epoch, by place: part, row, repeat, number of the data type."""

    part: np.ndarray
    row: np.ndarray
    copy: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, strata: Sequence[_Stratum], seed: int, epoch: int) -> _Plan:
        columns: list[list[np.ndarray]] = [[], [], [], []]
        order = list(DATA_TYPES)
        for stratum in sorted(strata, key=lambda s: order.index(s.data_type)):
            n, whole = len(stratum.rows), stratum.whole
            extra = stratum.size - whole * n
            rng = generator("extra", seed, epoch, stratum.part, stratum.data_type)
            chosen = np.sort(np.argsort(rng.random(n), kind="stable")[:extra])
            rows = np.concatenate([np.tile(stratum.rows, whole), stratum.rows[chosen]])
            copies = np.concatenate([np.repeat(np.arange(whole), n), np.full(extra, whole)])
            for column, value in zip(
                columns,
                (np.full(len(rows), stratum.part), rows, copies, np.full(len(rows), order.index(stratum.data_type))),
                strict=True,
            ):
                column.append(value.astype(np.int64))
        return cls(*(np.concatenate(column) for column in columns))
