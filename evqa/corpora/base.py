"""What all corpora share: a ``datasets`` builder that finds published files, names its faults and refreshes its cache.

A corpus is one module with one class derived from :class:`CorpusBuilder`, and one line in :data:`CORPORA`. It says
which files annotate it (:meth:`CorpusBuilder.annotation_files`), lists its rows (:meth:`CorpusBuilder.list_rows`)
without touching media, and turns one listed row into a typed record (:meth:`CorpusBuilder.read_row`). Segmentation
corpora and conversations have bases of their own that leave little to say: :mod:`evqa.corpora.segmentation`,
:mod:`evqa.corpora.conversation`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets

from evqa._from_file import class_from_file, is_file_name
from evqa.corpora.memory import forget
from evqa.errors import DataError, EvqaError, MissingDataError
from evqa.types import features

__all__ = [
    "ALIASES", "CORPORA", "CorpusBuilder", "CorpusConfig", "Terms", "builder_class", "cache_folder", "corpus_name",
    "register", "source_hash",
]  # fmt: skip

logger = logging.getLogger(__name__)

#: Name of a corpus -> the module of its builder.
CORPORA: dict[str, str] = {
    "st_evidence": "evqa.corpora.st_evidence",
    "revos": "evqa.corpora.revos",
    "mevis": "evqa.corpora.mevis",
    "lv_vis": "evqa.corpora.lv_vis",
    "ref_youtube_vos": "evqa.corpora.ref_youtube_vos",
    "ref_davis17": "evqa.corpora.ref_davis17",
    "ref_sav": "evqa.corpora.ref_sav",
    "groundmore": "evqa.corpora.groundmore",
    "vicas": "evqa.corpora.vicas",
    "llava_instruct": "evqa.corpora.llava_instruct",
    "videogpt_plus": "evqa.corpora.videogpt_plus",
    "llava_videogpt_plus": "evqa.corpora.llava_videogpt_plus",
}

#: Names under which others know our corpora -> ours.
ALIASES: dict[str, str] = {"llava_v1_5_mix665k_with_videogpt_plus_576k": "llava_videogpt_plus"}

#: Corpora of other packages: see :func:`register`.
_REGISTERED: dict[str, type[CorpusBuilder]] = {}

# Rows that one process takes at a time: enough blocks to share among processes, few enough to hand around.
_BLOCK = 64
_SKIPPED = "skipped.jsonl"


def corpus_name(name: str) -> str:
    """Our name of a corpus, from one with or without ``evqa/``; of an unknown one what it is called."""
    short = name.removeprefix("evqa/")
    return ALIASES.get(short, short)


def builder_class(name: str) -> type[CorpusBuilder]:
    """The builder of a corpus, by its name with or without ``evqa/``, or by the path of a file that ends with ``.py``.

    Raises:
        DataError: There is no such corpus.
    """
    if is_file_name(name):
        return class_from_file(name, "BUILDER", CorpusBuilder, DataError)
    short = corpus_name(name)
    if short not in CORPORA:
        raise DataError(f"there is no corpus {name!r}; known: {', '.join(sorted(CORPORA))}")
    return _REGISTERED.get(short) or importlib.import_module(CORPORA[short]).BUILDER


def register(builder: type[CorpusBuilder]) -> type[CorpusBuilder]:
    """Make a corpus of your own known by its name, as ours are; usable as a decorator.

    ``evqa.load_dataset("mine")``, ``datasets.load_dataset("evqa/mine")`` and ``evqa data`` then find it, in processes
    that import its module. ``datasets`` takes the first builder that a module defines, so define one to a module.

    Raises:
        DataError: Its name is taken by another.
    """
    if CORPORA.get(builder.corpus, builder.__module__) != builder.__module__:
        raise DataError(f"there is a corpus {builder.corpus!r} already, in {CORPORA[builder.corpus]}")
    CORPORA[builder.corpus] = builder.__module__
    _REGISTERED[builder.corpus] = builder
    return builder


def cache_folder(name: str) -> Path:
    """Where unpacked archives are kept: beside the datasets cache."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "evqa_unpacked" / name


def source_hash(builder: type | None = None) -> str:
    """A hash of the code that makes rows, so that rows cached by an older version are made anew.

    Args:
        builder: A builder; its module, and those of its bases, count too where they are not ours.
    """
    digest = hashlib.sha256()
    here = Path(__file__).parent
    around = (here.parent / f"{name}.py" for name in ("types", "_features", "masks", "segments"))
    bases = [one for one in (builder.__mro__ if builder else ()) if one is builder or issubclass(one, CorpusBuilder)]
    files = (getattr(sys.modules.get(one.__module__), "__file__", None) for one in bases)  # none in a notebook
    theirs = [Path(file) for file in files if file and Path(file).parent != here]
    for path in [*sorted(here.glob("*.py")), *around, *theirs]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Terms:
    """On what terms a corpus may be passed on.

    Attributes:
        licence: As its authors state it.
        redistribute: What :mod:`evqa.corpora.publishing` may publish without the owner's word: ``"media"``: all of it;
            ``"annotations"``: rows without frames, clips and images; ``"nothing"``.
        reason: One sentence.
    """

    licence: str
    redistribute: Literal["media", "annotations", "nothing"]
    reason: str


@dataclasses.dataclass
class CorpusConfig(datasets.BuilderConfig):
    """Options of every corpus.

    Attributes:
        on_error: ``"raise"``: a row that cannot be read stops the build with an error that names entry and file.
            ``"skip"``: it is left out, counted and listed (:meth:`CorpusBuilder.skipped`).
        source_repo: The Hub repository to download when there is no ``data_dir``; default: the official release.
        revision: Of that repository.
    """

    on_error: str = "raise"
    source_repo: str | None = None
    revision: str | None = None
    #: Set by the builder: what the annotation files are, so that editing one makes a new cache entry.
    stamp: str | None = None

    def __post_init__(self) -> None:
        """See ``datasets.BuilderConfig``."""
        super().__post_init__()

    def create_config_id(self, config_kwargs: dict, custom_features: Any = None) -> str:
        """The cache key: options, code and the size and time of each annotation file."""
        return super().create_config_id({**config_kwargs, "stamp": self.stamp}, custom_features)


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """Base of the corpora; see the module's docstring."""

    BUILDER_CONFIG_CLASS = CorpusConfig
    VERSION = datasets.Version("1.0.0")
    DEFAULT_WRITER_BATCH_SIZE = 64  # rows with masks are large

    #: Short name, as in ``evqa/<name>``.
    corpus: ClassVar[str]
    #: Where its authors publish it.
    homepage: ClassVar[str] = ""
    #: On what terms it may be passed on.
    licence: ClassVar[Terms] = Terms(
        "not stated", "nothing", "Its authors state no licence, so the right to pass it on is theirs."
    )
    #: Which record of :func:`evqa.types.features` its rows are.
    record: ClassVar[str | None] = None
    #: Split -> the numbers of videos and rows that its authors state, one mapping per release.
    official: ClassVar[Mapping[str, Sequence[Mapping[str, int]]]] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs["dataset_name"] = self.corpus
        kwargs["hash"] = source_hash(type(self))
        with self._named():
            super().__init__(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        if self.record is None:
            raise NotImplementedError
        return datasets.DatasetInfo(
            description=(type(self).__doc__ or "").strip(),
            features=features(self.record),
            homepage=self.homepage,
            license=self.terms(self.config.name).licence,
        )

    # -------------------------------------------------------------------- what a corpus must say
    def source_repo(self) -> str | None:
        """The Hub repository to download without ``data_dir``; ``None`` if the config needs no files.

        Raises:
            MissingDataError: It needs files, and nobody publishes them on the Hub in a form that is read here.
        """
        raise MissingDataError(
            f"evqa does not download this corpus: get it from {self.homepage}, under its own terms, and pass data_dir="
        )

    @classmethod
    def terms(cls, config: str) -> Terms:
        """On what terms a config's rows may be passed on; :attr:`licence`, where configs do not differ."""
        return cls.licence

    def annotation_files(self, root: Path) -> list[Path]:
        """The files whose change changes rows, found below ``root``.

        Raises:
            MissingDataError: They are not there; lists what was looked for.
        """
        raise NotImplementedError

    def list_rows(self, root: Path, files: Sequence[Path]) -> Mapping[str, Sequence[Any]]:
        """Split name -> what :meth:`read_row` needs for each row; picklable, and no media is touched."""
        raise NotImplementedError

    def expand(self, row: Any) -> Iterable[Any]:
        """The rows that a listed row stands for: itself, unless rows are listed by file or video to be read once.

        Raises:
            EvqaError: They cannot be told; that counts as one row that cannot be read.
        """
        return [row]

    def read_row(self, row: Any) -> tuple[str, dict[str, Any]]:
        """The entry id and the typed record of one listed row.

        Raises:
            EvqaError: The row cannot be read.
        """
        raise NotImplementedError

    def download_patterns(self) -> list[str] | None:
        """Which files of the Hub repository the config needs; ``None`` for all."""
        return None

    # ---------------------------------------------------------------------------- the machinery
    def _create_builder_config(self, config_name=None, custom_features=None, config_id=None, **config_kwargs):
        """Find the annotation files before the cache key is made, so that it can hold their size and time."""
        if config_kwargs.get("on_error", "raise") not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {config_kwargs['on_error']!r}")
        if config_name not in (None, "default") and not self.BUILDER_CONFIGS:
            raise DataError(f"there is no config {config_name!r}: this corpus has one, without a name")
        if config_kwargs.get("data_dir") is not None:
            folder = Path(config_kwargs["data_dir"]).expanduser().absolute()
            if not folder.is_dir():
                raise MissingDataError("data_dir is not a folder", file=folder)
            config_kwargs["data_dir"] = str(folder)
        self.config, _ = super()._create_builder_config(
            config_name=config_name, custom_features=custom_features, config_id=config_id, **config_kwargs
        )
        self.config.stamp = self._stamp()
        config_kwargs["stamp"] = self.config.stamp
        return super()._create_builder_config(
            config_name=config_name, custom_features=custom_features, config_id=config_id, **config_kwargs
        )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors say which corpus they are about."""
        try:
            yield
        except EvqaError as error:
            if not error.message.startswith(f"{self.corpus}: "):
                error.message = f"{self.corpus}: {error.message}"
            raise

    def _stamp(self) -> str:
        root = self._root(media=False)
        files = self.annotation_files(root)
        parts = [self.extra_stamp(root, files)]
        for path in files:
            info = os.stat(path)
            parts.append(f"{path}:{info.st_size}:{info.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def extra_stamp(self, root: Path, files: Sequence[Path]) -> str:
        """Anything else that changes rows, such as which media are there and which optional packages are installed."""
        return ""

    def _root(self, *, media: bool) -> Path:
        """The folder of published files: ``data_dir``, or the official release from the Hub."""
        if self.config.data_dir is not None:
            return Path(self.config.data_dir)
        repo = self.config.source_repo or self.source_repo()
        if repo is None:
            return Path(__file__).parent
        return _download(
            repo, self.config.revision, self.download_patterns() if media else ["*.csv", "*.json", "*.pkl"]
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        forget()
        with self._named():
            root = self._root(media=True)
            splits = self.list_rows(root, self.annotation_files(root))
            if not any(splits.values()):
                raise DataError("the annotation files hold no rows", file=root)
        if self._building:  # left behind by a build that was killed
            with contextlib.suppress(FileNotFoundError):
                (Path(self._output_dir) / _SKIPPED).unlink()
        return [
            datasets.SplitGenerator(
                name=name,
                # A list among these is what datasets shares out over processes and streaming shards.
                gen_kwargs={"blocks": [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]},
            )
            for name, rows in splits.items()
            if rows
        ]

    def _generate_examples(self, blocks: Sequence[Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for block in blocks:
            for listed in block:
                for row in self._try(lambda listed=listed: list(self.expand(listed))) or ():
                    record = self._try(lambda row=row: self.read_row(row))
                    if record is not None:
                        yield record

    def _try(self, read: Callable[[], Any]) -> Any:
        """What ``read`` returns; ``None`` where it fails and rows that fail are to be skipped."""
        try:
            with self._named():
                return read()
        except EvqaError as error:
            if self.config.on_error != "skip":
                raise
            self._note_skipped(error)
            return None

    @property
    def _building(self) -> bool:
        """Whether rows go to a cache that is being written, and not to somebody who streams."""
        return str(self._output_dir).endswith(".incomplete") and os.path.isdir(self._output_dir)

    def _note_skipped(self, error: EvqaError) -> None:
        logger.warning("skipped: %s", error)
        if self._building:
            line = json.dumps({"entry": error.entry, "file": error.file, "reason": error.message}) + "\n"
            # One short write in append mode: processes that build together do not tear each other's lines.
            descriptor = os.open(Path(self._output_dir) / _SKIPPED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(descriptor, line.encode("utf-8"))
            finally:
                os.close(descriptor)

    def skipped(self) -> list[dict[str, Any]]:
        """The rows that ``on_error="skip"`` left out: ``entry``, ``file`` and ``reason`` of each."""
        path = Path(self.cache_dir) / _SKIPPED
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def _prepare_split_single(self, *args: Any, **kwargs: Any):
        """Let our error through: datasets would hide entry and file behind "an error occurred"."""
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, EvqaError):
                raise error.__cause__ from None
            raise


def _download(repo: str, revision: str | None, patterns: list[str] | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingDataError(
            f"the release {repo} could not be downloaded ({reason}); "
            "if you have it on disk, pass data_dir=; config 'sample' needs no download"
        ) from error
