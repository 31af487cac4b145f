"""Finding the clips, masks and images that annotation rows refer to."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from evqa import masks as rle_masks
from evqa.corpora.archives import ARCHIVE_SUFFIXES, extract
from evqa.errors import DataError, MaskError, MissingDataError
from evqa.types import FrameMask

__all__ = [
    "ClipFinder", "find_file", "find_folder", "media_stamp", "read_reference_masks", "relative", "tree_stamp",
]  # fmt: skip

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov")
_FRAME_NUMBER = re.compile(r"(?:frame_)?(\d+)")


def relative(path: str) -> Path | None:
    """A published path, if it is one that stays below the folder it starts from.

    Paths of the authors' own disks, and paths with ``..``, would name files of this machine that are not the data.
    """
    found = Path(path)
    return None if not path or found.is_absolute() or ".." in found.parts else found


def find_file(places: Iterable[Path], what: str, data_dir: Path) -> Path:
    """The first of some places that is a file.

    Raises:
        MissingDataError: None is; lists them.
    """
    places = list(dict.fromkeys(places))
    for place in places:
        if place.is_file():
            return place
    raise MissingDataError(f"{what} not found; looked for {_list(places)}", file=data_dir)


def find_folder(roots: Sequence[Path], names: Sequence[str], cache: Path) -> Path | None:
    """A folder of media, unpacked from its archive if need be.

    Args:
        roots: Folders to look in.
        names: Names that the folder, or its archive without suffix, may have.
        cache: Where archives are unpacked: the data folder may be read-only, and is not ours to write to.

    Returns:
        The folder, or ``None`` if there is neither folder nor archive.
    """
    for root in roots:
        for name in names:
            if (root / name).is_dir():
                return root / name
    for root in roots:
        for name in names:
            for suffix in ARCHIVE_SUFFIXES:
                if (root / f"{name}{suffix}").is_file():
                    return _inner(extract(root / f"{name}{suffix}", cache))
    return None


def media_stamp(roots: Sequence[Path], names: Sequence[str]) -> str:
    """What :func:`find_folder` would find, and its age: media that are added later must not meet an old cache."""
    found = []
    for root in roots:
        for name in names:
            for path in (root / name, *(root / f"{name}{suffix}" for suffix in ARCHIVE_SUFFIXES)):
                if path.exists():
                    found.append(f"{path}:{path.stat().st_mtime_ns}")
    return "\n".join(found)


def tree_stamp(folder: Path, depth: int = 1, suffix: str | None = None) -> str:
    """A hash that changes when files are added to the folders below a folder, or removed from them.

    Args:
        folder: Need not be there.
        depth: How many levels of folders to look at.
        suffix: Also changes when a file with this suffix is edited in place, which costs a look at each of them.
    """
    digest = hashlib.sha256()

    def walk(path: str, left: int) -> None:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir():
                digest.update(f"{entry.path}:{entry.stat().st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
                if left > 1:
                    walk(entry.path, left - 1)
            elif suffix is not None and entry.name.endswith(suffix):
                info = entry.stat()
                line = f"{entry.path}:{info.st_size}:{info.st_mtime_ns}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))

    walk(os.fspath(folder), depth)
    return digest.hexdigest()[:16]


def _inner(folder: Path) -> Path:
    """The content of an unpacked archive: archives hold one top folder, whatever its name, or no top folder."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(("._", ".DS_Store"))]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


class ClipFinder:
    """Finds the file of a clip.

    Args:
        roots: The data folder and whatever else relative paths may start from.
        folder: The folder of clips; ``None`` if the data comes without clips.
    """

    def __init__(self, roots: Sequence[Path], folder: Path | None):
        self._roots = list(roots)
        self._folder = folder
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, video_path: str, video_id: str, entry: str) -> Path | None:
        """The clip's file.

        First the published path, from each root and from the folder of clips; then, in the folder of clips and one
        level below, a file of the clip's name.

        Returns:
            An absolute path; ``None`` if the data comes without clips.

        Raises:
            MissingDataError: Not there; lists what was tried.
            DataError: Two different files fit.
        """
        if self._folder is None:
            return None
        tried = []
        inner = relative(video_path)
        if inner is not None:
            tried = [root / inner for root in [*self._roots, self._folder]]
            # The path may start with the name under which the folder of clips was packed.
            tried += [self._folder.joinpath(*inner.parts[1:])] if len(inner.parts) > 1 else []
            if found := self._only([path for path in tried if path.is_file()], entry):
                return found
        names = [Path(video_path).name] if video_path else []
        names += [f"{video_id}{suffix}" for suffix in VIDEO_SUFFIXES] if video_id else []
        found = self._only([path for name in dict.fromkeys(names) for path in self._named(name)], entry)
        if found is None:
            tried += [self._folder / name for name in names[:2]] + [self._folder / "*" / name for name in names[:1]]
            raise MissingDataError(
                f"the clip {video_path or video_id!r} is not there; looked for {_list(tried)}",
                entry=entry,
                file=self._folder,
            )
        return found

    def _only(self, paths: Iterable[Path], entry: str) -> Path | None:
        distinct = {os.path.realpath(path): path for path in paths}
        if len(distinct) > 1:
            raise DataError(f"two files fit the clip: {_list(distinct.values())}", entry=entry, file=self._folder)
        return next(iter(distinct.values())).absolute() if distinct else None

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            assert self._folder is not None
            for folder in [self._folder, *sorted(p for p in self._folder.iterdir() if p.is_dir())]:
                for path in folder.iterdir():
                    if path.suffix.lower() in VIDEO_SUFFIXES:
                        self._by_name.setdefault(path.name, []).append(path)
        return self._by_name.get(name, [])


def read_reference_masks(folder: Path, fps: float, entry: str) -> list[FrameMask]:
    """The annotated masks of one entry: ``%05d.png``, any non-zero pixel is foreground.

    Raises:
        MaskError: A file that is unreadable, is not named after a frame, or has another size than the others.
    """
    masks: list[FrameMask] = []
    for path in sorted(folder.iterdir()):
        if path.suffix != ".png":
            continue
        number = _FRAME_NUMBER.fullmatch(path.stem)
        if number is None:
            raise MaskError("the mask is not named after a frame", entry=entry, file=path)
        try:
            rle = rle_masks.from_png(path)
        except MaskError as error:
            raise MaskError(error.message, entry=entry, file=path) from None
        if masks and rle["size"] != masks[0]["rle"]["size"]:
            raise MaskError(f"masks of one entry differ in size: {rle['size']}", entry=entry, file=path)
        frame = int(number[1])
        masks.append({"frame": frame, "time": frame / fps, "rle": rle})
    masks.sort(key=lambda mask: mask["frame"])
    for one, other in itertools.pairwise(masks):
        if one["frame"] == other["frame"]:
            raise MaskError(f"two masks are named after frame {one['frame']}", entry=entry, file=folder)
    return masks


def _list(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in dict.fromkeys(map(str, paths)))
