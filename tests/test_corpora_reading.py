"""Pixels and masks of rows, and a corpus of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from corpus_data import HEIGHT, WIDTH, rle, shape, write_frames, write_json, write_mevis
from PIL import Image
from pycocotools import mask as coco

import evqa
from evqa import masks as rle_masks
from evqa.corpora.base import register, source_hash
from evqa.corpora.masklets import MaskDict
from evqa.corpora.reading import PublishedFrames, read_clip, read_frames, read_masks
from evqa.corpora.segmentation import Clip, Expression, SegmentationCorpus, Track
from evqa.errors import DataError, MaskError, MissingDataError

pytestmark = pytest.mark.usefixtures("own_cache")


# --------------------------------------------------------- a corpus of one's own, all there is to it
@register
class Zoo(SegmentationCorpus):
    """One phrase a line: ``video <tab> animal <tab> phrase``; masks by animal in ``masks.json``."""

    corpus = "zoo"
    homepage = "https://zoo.example"

    def annotation_files(self, root: Path) -> list[Path]:
        """The phrases and the masks."""
        return [root / "phrases.tsv", root / "masks.json"]

    def list_rows(self, root: Path, files: list[Path]) -> Mapping[str, list[Expression]]:
        """One row a line."""
        masks = MaskDict(files[1], root)
        rows = []
        for number, line in enumerate(files[0].read_text("utf-8").splitlines()):
            video, animal, phrase = line.split("\t")
            names = sorted(path.name for path in (root / "frames" / video).glob("*.jpg"))
            clip = Clip(video, names, files[0], root / "frames")
            rows.append(Expression(clip, str(number), phrase, "query", objects=[Track(animal, masks.source(animal))]))
        return {"train": rows}


def write_zoo(root):
    (root / "phrases.tsv").write_text("pen\tlion\tthe lion\npen\temu\tthe bird that runs\n")
    masks = {"lion": [rle(shape(0)), None], "emu": [rle(shape(1)), rle(shape(2))]}
    write_json(root / "masks.json", masks)
    write_frames(root / "frames" / "pen", ["0.jpg", "1.jpg"])
    return root


def test_a_corpus_in_one_file(tmp_path):
    from datasets import load_dataset

    rows = evqa.load_dataset("zoo", data_dir=str(write_zoo(tmp_path)), split="train")
    assert rows["entry_id"][:] == ["pen/0", "pen/1"]
    assert list(load_dataset("evqa/zoo", data_dir=str(tmp_path), split="train")) == list(rows)
    clip = read_clip(rows[1], [0, 1])
    assert (clip.masks[0, 1] == shape(2)).all()
    (tmp_path / "masks.json").write_text('{"lion": []')
    with pytest.raises(DataError, match="zoo: not readable as JSON"):
        evqa.load_dataset("zoo", data_dir=str(tmp_path))
    write_json(tmp_path / "masks.json", {"lion": [None, None], "emu": [7, None]})
    with pytest.raises(MaskError, match="zoo: the mask of frame 0 under 'emu': neither") as error:
        evqa.load_dataset("zoo", data_dir=str(tmp_path))
    assert error.value.entry == "pen/1"


def test_rows_are_made_anew_when_the_code_of_a_corpus_changes(tmp_path, monkeypatch):
    import sys

    (tmp_path / "my_zoo.py").write_text("class Mine: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = __import__("my_zoo").Mine
    before = source_hash(mine)
    assert before == source_hash(mine) != source_hash()
    (tmp_path / "my_zoo.py").write_text("class Mine: answer = 42\n")
    assert source_hash(mine) != before
    del sys.modules["my_zoo"]


def test_a_name_that_is_taken():
    class Other(SegmentationCorpus):
        """Not ours."""

        corpus = "mevis"

    with pytest.raises(DataError, match="there is a corpus 'mevis' already"):
        register(Other)


# ------------------------------------------------------------------------------------------- pixels
@pytest.fixture
def row(tmp_path):
    return evqa.load_dataset("zoo", data_dir=str(write_zoo(tmp_path)), split="train")[1]


def levels(frames):
    """The place of each grey frame, from its level."""
    return [round((float(frame.mean()) - 10) / 20) for frame in frames]


@pytest.mark.parametrize("resize", ["pil", "torch"])
def test_frames_come_in_the_order_asked_for(row, resize):
    if resize == "torch":
        pytest.importorskip("torch")
    frames = read_frames(row, [1, 0, 1], resize=resize)
    assert (frames.shape, frames.dtype) == ((3, HEIGHT, WIDTH, 3), np.uint8)
    assert levels(frames) == [1, 0, 1]
    assert levels(read_frames(row, [1, 0], (30, 50), resize=resize)) == [1, 0]
    assert read_frames(row, [0], (30, 50), resize=resize).shape == (1, 30, 50, 3)


def test_both_ways_of_resizing_agree_on_a_real_picture(shared):
    pytest.importorskip("torch")
    folder = shared / "data" / "davis" / "JPEGImages" / "480p" / "car-shadow"
    one = {
        "entry_id": "x", "video_id": "car-shadow", "num_frames": 1, "frame_numbers": None,
        "frames": {"folder": str(folder), "names": ["00000.jpg"], "times": None},
    }  # fmt: skip
    for size in (None, (768, 768), (240, 427), (120, 200)):
        first, second = (read_frames(one, [0], size, resize=name).astype(int) for name in ("pil", "torch"))
        difference = np.abs(first - second)
        assert difference.mean() < 1
    neighbour = np.asarray(Image.open(folder / "00001.jpg").convert("RGB")).astype(int)
    assert np.abs(neighbour - read_frames(one, [0])[0].astype(int)).mean() > 5


def test_positions_and_files_that_are_not_there(row, tmp_path):
    for positions, message in [([], "no positions"), ([2], "there is no frame 2"), ([-1], "there is no frame -1")]:
        with pytest.raises(DataError, match=message) as error:
            read_frames(row, positions)
        assert error.value.entry == "pen/1"
    with pytest.raises(ValueError, match="resize must be one of"):
        read_frames(row, [0], resize="magic")
    file = tmp_path / "frames" / "pen" / "1.jpg"
    Image.new("RGB", (8, 8)).save(file)
    with pytest.raises(DataError, match="the frames differ in size"):
        read_frames(row, [0, 1])
    assert read_frames(row, [0, 1], (5, 6)).shape == (2, 5, 6, 3)
    whole = file.read_bytes()
    for keep in (0, 1 / 3):
        file.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(DataError, match="not a readable image") as error:
            read_frames(row, [1])
        assert error.value.file == str(file)
    file.unlink()
    with pytest.raises(MissingDataError, match="the frame cannot be read") as error:
        read_frames(row, [1])
    assert error.value.file == str(file)


def test_published_rows_find_their_frames_below_a_folder_or_among_the_published_ones(row, tmp_path):
    from datasets import Dataset

    from evqa.types import features

    apart = {**row, "frames": {**row["frames"], "folder": "frames/pen"}}
    with pytest.raises(MissingDataError, match="published without frames: pass root="):
        read_frames(apart, [0])
    assert levels(read_frames(apart, [1], root=tmp_path)) == [1]
    files = [{"path": name, "bytes": (tmp_path / "frames" / "pen" / name).read_bytes()} for name in ("0.jpg", "1.jpg")]
    record = {"corpus": "zoo", "video_id": "pen", "names": ["0.jpg", "1.jpg"], "images": files}
    published = PublishedFrames(Dataset.from_list([record], features=features("frames")))
    assert levels(read_frames(apart, [1, 0], published=published)) == [1, 0]
    with pytest.raises(MissingDataError, match="frame 9.jpg of the video 'pen' was not published"):
        published.read("pen", ["9.jpg"])
    with pytest.raises(MissingDataError, match="the frames of the video 'den' were not published"):
        published.read("den", ["0.jpg"])
    with pytest.raises(MissingDataError, match="the row came without frames"):
        read_frames({**row, "frames": {**row["frames"], "folder": None}}, [0])


def test_a_row_without_its_video():
    row = {"entry_id": "x", "num_frames": 1, "frame_numbers": [0], "frames": None, "video": None}
    with pytest.raises(MissingDataError, match="came without its video"):
        read_frames(row, [0])


# -------------------------------------------------------------------------------------------- masks
def test_masks_are_what_pycocotools_decodes(row):
    masks, annotated = read_masks(row, [1, 0])
    assert (masks.shape, masks.dtype, annotated.tolist()) == ((1, 2, HEIGHT, WIDTH), bool, [[True, True]])
    for at, frame in enumerate([1, 0]):
        assert (masks[0, at] == coco.decode(row["objects"][0]["masks"][frame]["rle"])).all()


@pytest.mark.parametrize("size", [(HEIGHT * 3, WIDTH), (7, 9), (64, 64)])
def test_masks_are_resized_as_everywhere_in_evqa(row, size):
    masks, _ = read_masks(row, [0], size)
    ours = rle_masks.decode(rle_masks.resize(row["objects"][0]["masks"][0]["rle"], *size))
    assert (masks[0, 0] == ours).all()
    theirs = Image.fromarray(shape(1) * 255).resize((size[1], size[0]), Image.Resampling.NEAREST)
    assert (masks[0, 0] == (np.asarray(theirs) > 0)).all()


def test_what_is_not_annotated_is_told_from_what_is_not_there(row):
    partly = json.loads(json.dumps({**row, "objects": None}, default=str))
    first = {"frame": 0, "time": None, "rle": rle(np.zeros((HEIGHT, WIDTH)), bytes)}
    partly["objects"] = [{"object_id": "a", "masks": [first]}]
    masks, annotated = read_masks(partly, [0, 1])
    assert not masks.any()
    assert annotated.tolist() == [[True, False]]
    assert read_masks({**partly, "objects": []}, [0])[0].shape == (0, 1, HEIGHT, WIDTH)
    assert read_masks({**partly, "objects": [{"object_id": "a", "masks": None}]}, [0]) == (None, None)
    with pytest.raises(DataError, match="does not say how large it is"):
        read_masks({**partly, "height": None}, [0])
    first["rle"] = {"size": [HEIGHT, WIDTH], "counts": b"00"}
    with pytest.raises(MaskError) as error:
        read_masks(partly, [0])
    assert error.value.entry == "pen/1"


def test_the_union_is_made_by_whoever_wants_it(tmp_path):
    write_mevis(tmp_path)
    both = evqa.load_dataset("mevis", data_dir=str(tmp_path), split="train")[1]
    clip = read_clip(both, [2])
    assert clip.object_ids == ["0", "1"]
    assert (clip.union[0] == (shape(0) | shape(1))).all()
    assert read_clip({**both, "objects": None}, [0]).union is None
