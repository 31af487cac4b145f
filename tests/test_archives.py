"""Archives and pickles from strangers."""

from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import pytest

from evqa.corpora import archives
from evqa.corpora.archives import extract, load_plain_pickle
from evqa.errors import ArchiveError


def tar_of(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content, change in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            if content is None:
                info.type = tarfile.DIRTYPE
            for key, value in (change or {}).items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def test_extracts_once_and_whole(tmp_path):
    archive = tar_of(tmp_path / "a.tar.gz", ("m", None, None), ("m/x.txt", b"hello", None), ("./m/y/z.txt", b"", None))
    folder = extract(archive, tmp_path / "cache")
    assert (folder / "m" / "x.txt").read_bytes() == b"hello"
    assert (folder / "m" / "y" / "z.txt").exists()
    (folder / "m" / "x.txt").write_bytes(b"seen")
    assert extract(archive, tmp_path / "cache") == folder
    assert (folder / "m" / "x.txt").read_bytes() == b"seen"  # not unpacked again
    tar_of(archive, ("m/x.txt", b"changed!", None))
    assert (extract(archive, tmp_path / "cache") / "m" / "x.txt").read_bytes() == b"changed!"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_kinds(tmp_path, mode):
    path = tmp_path / ("a.tar" if mode == "w" else "a.tgz")
    assert (extract(tar_of(path, ("x", b"1", None), mode=mode), tmp_path / "c") / "x").read_bytes() == b"1"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as package:
        package.writestr("d/x", "1")
    assert (extract(tmp_path / "a.zip", tmp_path / "c") / "d" / "x").read_text() == "1"


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x", None), ("/evil", b"x", None), ("a/../../evil", b"x", None), ("C:/evil", b"x", None),
        ("..\\evil", b"x", None), ("link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link", b"", {"type": tarfile.SYMTYPE, "linkname": "x"}), ("hard", b"", {"type": tarfile.LNKTYPE, "linkname": "x"}),
        ("device", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}), ("pipe", b"", {"type": tarfile.FIFOTYPE}),
    ],
)  # fmt: skip
def test_refuses_what_could_do_harm(tmp_path, member):
    archive = tar_of(tmp_path / "a.tar.gz", ("ok", b"x", None), member)
    with pytest.raises(ArchiveError, match=r"refused.*a\.tar\.gz"):
        extract(archive, tmp_path / "cache" / "deep")
    left = [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.endswith((".lock", ".gz"))]
    assert left == []


def test_refuses_links_in_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as package:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        package.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link or a device"):
        extract(tmp_path / "a.zip", tmp_path / "c")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as package:
        package.writestr("../evil", "x")
    with pytest.raises(ArchiveError, match="outside"):
        extract(tmp_path / "b.zip", tmp_path / "c")


def test_refuses_a_name_that_stands_twice(tmp_path):
    with pytest.raises(ArchiveError, match="stands twice"):
        extract(tar_of(tmp_path / "a.tar", ("x", b"1", None), ("x", b"2", None), mode="w"), tmp_path / "c")


def test_refuses_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1 << 16)
    bomb = tar_of(tmp_path / "a.tar.gz", ("x", b"\0" * (1 << 24), None))
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        extract(bomb, tmp_path / "c")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("x", b"\0" * (1 << 24))
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        extract(tmp_path / "b.zip", tmp_path / "c")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        extract(tar_of(tmp_path / "c.tar", *[(f"f{i}", b"", None) for i in range(9)], mode="w"), tmp_path / "c")


@pytest.mark.parametrize("keep", [0, 10, 60, 2000])
def test_truncated_archives(tmp_path, keep):
    archive = tar_of(tmp_path / "a.tar.gz", ("x", os.urandom(5000), None))
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz"):
        extract(archive, tmp_path / "c")
    assert not [p for p in (tmp_path / "c").iterdir() if p.is_dir()]  # nothing half-written is left


def test_two_processes_extract_one_archive(tmp_path):
    archive = tar_of(tmp_path / "a.tar.gz", *[(f"f{i}", os.urandom(2000), None) for i in range(300)])
    code = f"from evqa.corpora.archives import extract; p = extract({str(archive)!r}, {str(tmp_path / 'c')!r}); print(len(list(p.iterdir())))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=60)[0].strip() for p in both] == ["300", "300"]


def test_a_kill_while_extracting_leaves_nothing_half(tmp_path):
    archive = tar_of(tmp_path / "a.tar.gz", *[(f"f{i}", os.urandom(3000), None) for i in range(2000)])
    code = f"print('go', flush=True); from evqa.corpora.archives import extract; extract({str(archive)!r}, {str(tmp_path / 'c')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    while process.poll() is None and not list(tmp_path.glob("c/*.incomplete/f9*")):
        pass
    process.kill()
    process.wait()
    assert len(list(extract(archive, tmp_path / "c").iterdir())) == 2000


# ------------------------------------------------------------------------------------------- pickles
PLAIN = [{"a": 1, "b": [1.5, None, True], "c": ("x", b"\x00\xff"), "d": {1, 2}, "e": 10**30, "f": "ü"}]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(PLAIN, protocol))
    assert load_plain_pickle(tmp_path / "p.pkl") == PLAIN


class Runs:
    def __reduce__(self):
        return os.system, ("touch hacked",)


class Getattr:
    def __reduce__(self):
        return getattr, ("", "format")


@pytest.mark.parametrize(
    "value", [Runs(), Getattr(), collections.Counter("a"), pickle.loads, complex(1, 2), ArchiveError("x")]
)
def test_anything_else_is_refused(tmp_path, value, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps([value]))
    with pytest.raises(ArchiveError, match=r"refused.*p\.pkl"):
        load_plain_pickle(tmp_path / "p.pkl")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "data", [b"", b"junk", pickle.dumps(PLAIN)[:-5], b"\x80\x04cos\nsystem\n.", b"cposix\nsystem\n(S'true'\ntR."]
)
def test_damaged_pickles(tmp_path, data):
    (tmp_path / "p.pkl").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"p\.pkl"):
        load_plain_pickle(tmp_path / "p.pkl")
