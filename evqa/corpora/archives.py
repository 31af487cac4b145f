"""Unpacking archives and pickles that other people made, without letting them do anything else."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock

from evqa.errors import ArchiveError

__all__ = ["ARCHIVE_SUFFIXES", "extract", "load_plain_pickle"]

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

# Published archives hold video and PNG, which hardly compress; an archive that grows more than this is a bomb.
MAX_GROWTH = 200
# ... unless it is small all the same: black masks compress very well.
ALWAYS_ALLOWED = 1 << 30
MAX_MEMBERS = 20_000_000


def extract(archive: str | os.PathLike, cache: str | os.PathLike) -> Path:
    """Unpack an archive once, and return the folder with its content.

    The folder's name is made from the archive's path, size and time, so a changed archive is unpacked anew. A folder
    that is there is whole: members go to ``<name>.incomplete`` first, which is renamed at the end; several processes
    wait for one another.

    Args:
        archive: A ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``.
        cache: Where unpacked archives are kept.

    Raises:
        ArchiveError: Cut off or not an archive; or a member has an absolute path, leaves the folder, is a link or a
            device, stands in the way of another, or the content is far larger than the archive lets expect.
    """
    archive = Path(archive).absolute()
    info = archive.stat()
    key = hashlib.sha256(f"{archive}\0{info.st_size}\0{info.st_mtime_ns}".encode()).hexdigest()[:16]
    target = Path(cache) / f"{archive.name.split('.')[0]}-{key}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_dir():  # another process was faster
            return target
        unfinished = Path(f"{target}.incomplete")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            _unpack(archive, unfinished, limit=max(ALWAYS_ALLOWED, info.st_size * MAX_GROWTH))
        except ArchiveError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ArchiveError(f"cannot unpack ({type(error).__name__}: {error})", file=archive) from error
        os.replace(unfinished, target)
    return target


def _unpack(archive: Path, folder: Path, limit: int) -> None:
    total = 0
    for number, (name, size, content) in enumerate(_members(archive), start=1):
        total += size
        if number > MAX_MEMBERS or total > limit:
            raise ArchiveError(f"refused: it unpacks to more than {limit} bytes or {MAX_MEMBERS} files", file=archive)
        path = folder / _safe_name(name, archive)
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # a second member of the same name would replace the first
            raise ArchiveError(f"refused: the member {name!r} stands twice", file=archive)
        with open(path, "xb") as out:
            copied = _copy(content, out, size)
        if copied != size:
            raise ArchiveError(f"the member {name!r} is cut off", file=archive)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> int:
    """Copy at most ``size`` bytes: what a header says is not what the stream must hold."""
    copied = 0
    while block := source.read(min(1 << 20, size - copied)):
        target.write(block)
        copied += len(block)
        if copied == size:
            break
    return copied


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Name, size and content of each member; content is ``None`` for a folder."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as package:
            for info in package.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"refused: the member {info.filename!r} is a link or a device", file=archive)
                if info.is_dir():
                    yield info.filename, 0, None
                else:
                    with package.open(info) as content:
                        yield info.filename, info.file_size, content
        return
    # "r|*" reads forward only: one pass over the compressed stream, however large it is.
    with tarfile.open(archive, "r|*") as package:
        for member in package:
            if member.isdir():
                yield member.name, 0, None
            elif member.isreg():
                content = package.extractfile(member)
                yield member.name, member.size, content if content is not None else io.BytesIO()
            else:
                raise ArchiveError(f"refused: the member {member.name!r} is a link or a device", file=archive)


def _safe_name(name: str, archive: Path) -> Path:
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or "\0" in name or any(":" in part for part in parts[:1]):
        raise ArchiveError(f"refused: the member {name!r} would be written outside the folder", file=archive)
    return Path(*parts)


# ----------------------------------------------------------------------------------------- pickles
_HARMLESS = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("collections", "OrderedDict"): dict,
}


class _PlainUnpickler(pickle.Unpickler):
    """Knows containers, numbers, strings and bytes. Every other class or function is refused, hence nothing runs."""

    def __init__(self, stream: IO[bytes], file: Path):
        super().__init__(stream)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how protocol 2 spells bytes
        raise ArchiveError(f"refused: the pickle asks for {module}.{name}", file=self._file)

    def persistent_load(self, pid: Any) -> Any:
        raise ArchiveError("refused: the pickle refers to objects outside itself", file=self._file)


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("malformed bytes")
    return text.encode("latin-1")


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of plain data without executing anything in it.

    Raises:
        ArchiveError: The pickle asks for anything but containers, numbers, strings and bytes, or is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            return _PlainUnpickler(stream, path).load()
    except ArchiveError:
        raise
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, IndexError, KeyError, MemoryError,
            UnicodeDecodeError, OverflowError) as error:  # fmt: skip
        raise ArchiveError(f"not a readable pickle ({type(error).__name__}: {error})", file=path) from None
