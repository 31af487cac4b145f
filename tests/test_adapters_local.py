"""Local families through the real classes of transformers, with random weights: what is shown, batches, named failures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_vlm
from make_data import benchmark
from PIL import Image

from evqa.adapters import adapter_names, load_adapter
from evqa.engine import run
from evqa.errors import AdapterError, SetupError

pytest.importorskip("av")
pytest.importorskip("transformers")

FAMILIES = [
    "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "video_llama_3", "internvl", "llava_onevision",
]  # fmt: skip
COLOURS = ("red", "blue", "green", "white")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Four entries of two clips that differ in shape, rate and length, so that a batch is uneven in every way."""
    from evqa.video import write_clip

    home = tmp_path_factory.mktemp("clips")
    clips = []
    for name, shape, fps, step in (("wide", (12, 48, 64, 3), 6.0, 20), ("tall", (20, 80, 40, 3), 4.0, 12)):
        frames = np.zeros(shape, np.uint8)
        frames[..., 1] = step * np.arange(shape[0])[:, None, None]
        write_clip(home / f"{name}.mp4", frames, fps)
        clips.append({"path": str(home / f"{name}.mp4"), "bytes": None})
    pictures = [Image.new("RGB", (32, 24), colour) for colour in COLOURS]
    return [
        {**row, "video": clips[i % 2], "duration": (2.0, 5.0)[i % 2], "spatial_options": pictures[i:] + pictures[:i]}
        for i, row in enumerate(benchmark(4))
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home, made = tmp_path_factory.mktemp("models"), {}

    def model(family):
        if family not in made:
            made[family] = tiny_vlm.save(family, home / family)
        return made[family]

    return model


def adapter(models, family, **options):
    name = family.removesuffix("_moe")
    if name in ("qwen2_5_vl", "qwen3_vl", "video_llama_3"):
        options = {"min_pixels": 784, "max_pixels": 4096, **options}
    options = {"device": "cpu", "frames": "fps:2,max=6", "max_tokens": 6, "workers": 0, **options}
    return load_adapter(f"{name}:{models(family)}", **options)


def said(prediction):
    value = prediction.to_json()
    return {key: value.get(key) for key in ("entry_id", "status", "raw_text", "usage", "answer", "segments")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_says_what_its_entries_say_alone(rows, models, family):
    one = adapter(models, family, batch_size=4)
    many = adapter(models, family, mode="multi")
    for model, task in ((one, "gen"), (one, "mcq"), (many, "gen")):
        together = model.predict([model.prepare(row, task) for row in rows], task)
        alone = [model.predict([model.prepare(row, task)], task)[0] for row in rows]
        assert [said(p) for p in together] == [said(p) for p in alone]
        assert all(
            p.usage["output_tokens"] > 0 and p.usage["frames"] == 6 - 2 * (i % 2 == 0) for i, p in enumerate(alone)
        )
        # It is a real model that hears the question: weights are random, so the words differ with what is asked.
    texts = {p.raw_text for p in one.predict([one.prepare(row, "mcq") for row in rows], "mcq")}
    assert len(texts) >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_come_with_their_times(rows, models, family):
    model = adapter(models, family)
    ready = model.prepare(rows[1], "gen")
    assert ready.clip.times.tolist() == [0.0, 1.0, 2.0, 2.75, 3.75, 4.75]  # capped: spread over the whole clip
    request = next(iter(ready.requests.values()))
    assert "The video is 5.0 seconds long" in request.text
    ids = request.encoded["input_ids"][0].tolist()
    text = model._processor.tokenizer.decode(ids)
    seconds = [float(t) for t in re.findall(r"(?:<|Time |at )(\d+\.\d) ?s", text)]
    expected = {
        "qwen3_vl": [0.5, 2.4, 4.2], "qwen3_vl_moe": [0.5, 2.4, 4.2],  # the middle of each pair of frames
        "video_llama_3": [0.0, 1.0, 2.0, 2.8, 3.8, 4.8], "internvl": [0.0, 1.0, 2.0, 2.8, 3.8, 4.8],
    }  # fmt: skip
    if family in expected:
        assert seconds == pytest.approx(expected[family], abs=0.051)
    elif family == "qwen2_5_vl":  # two frames a step, 0.95 s apart
        assert request.encoded["second_per_grid_ts"].tolist() == pytest.approx([2 * 4.75 / 5], rel=1e-3)
    else:
        assert "at these seconds: 0.0, 1.0, 2.0, 2.8, 3.8, 4.8." in text


def test_the_clock_of_qwen2_5_changes_its_positions(rows, models):
    """The baseline's old mistake: without the rate a clip at half speed looks the same."""
    model = adapter(models, "qwen2_5_vl")
    slow = model.prepare(rows[1], "gen")
    fast = adapter(models, "qwen2_5_vl", frames="every:1,max=6").prepare(rows[0], "gen")

    def positions(ready):
        encoded = next(iter(ready.requests.values())).encoded
        inner = model._engine._model.model
        index, _ = inner.get_rope_index(
            encoded["input_ids"], mm_token_type_ids=encoded["mm_token_type_ids"],
            video_grid_thw=encoded["video_grid_thw"], second_per_grid_ts=encoded["second_per_grid_ts"],
            attention_mask=encoded["attention_mask"],
        )  # fmt: skip
        where = encoded["input_ids"][0] == model._processor.video_token_id
        return sorted(set(index[0, 0][where].tolist()))

    first, second = positions(slow), positions(fast)
    assert first[1] - first[0] > second[1] - second[0]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "llava_onevision"])
def test_option_images_stand_after_their_letters(rows, models, family):
    model = adapter(models, family)
    request = model.request(
        model.prepare(rows[0], "mcq"), [model.first_turn(model.prepare(rows[0], "mcq"), "mcq_spatial")]
    )
    labels = re.findall(r"Image ([A-D]): (?:<\|vision_start\|>)?<(?:\|image_pad\||IMG_CONTEXT)", request.text)
    assert labels == ["A", "B", "C", "D"]
    colours = [np.asarray(image.convert("RGB"))[0, 0].tolist() for image in request.images[-4:]]
    assert colours == [[255, 0, 0], [0, 0, 255], [0, 128, 0], [255, 255, 255]]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
def test_pixel_budgets_keep_the_shape(rows, models, family):
    model = adapter(models, family, min_pixels=0, max_pixels=10**9, total_pixels=None)
    factor = 32 if family == "qwen3_vl" else 28
    assert model.prepare(rows[0], "gen").clip.pixels.shape[1:3] == (2 * factor if factor == 28 else 64, 2 * factor)
    assert adapter(models, family, min_pixels=0, total_pixels=6 * factor**2).prepare(rows[1], "gen").clip.pixels.shape[
        1:3
    ] == (factor, factor)
    settings = model.settings()
    assert settings["pixels"] == {"min": 0, "max": 10**9, "total": None}
    assert settings["frames"]["max_frames"] == 6
    assert settings["engine"]["dtype"] == "float32"


def test_a_clip_of_one_frame(rows, models, tmp_path):
    from evqa.video import write_clip

    write_clip(tmp_path / "one.mp4", np.full((1, 48, 64, 3), 90, np.uint8), 6.0)
    row = {**rows[0], "video": {"path": str(tmp_path / "one.mp4"), "bytes": None}}
    for family in FAMILIES:
        model = adapter(models, family)
        assert model.predict([model.prepare(row, "gen")], "gen")[0].status in (
            "parse_failed",
            "truncated",
            "empty_output",
        )


def test_the_end_token_ends_a_reply_and_its_lack_is_named(rows, models):
    model = adapter(models, "qwen2_5_vl")
    engine = model._engine
    assert engine._reply([65, 66, next(iter(engine._ends)), 0, 0], 7, 5).finish == "stop"
    assert engine._reply([65, 66, 67], 7, 3).finish == "length"
    cut = model.predict([model.prepare(rows[0], "gen")], "gen")[0]
    if cut.status == "truncated":
        assert cut.usage["output_tokens"] == 6 + 12  # asked for once more, with twice as much
    assert cut.failed


def test_settings_that_cannot_work(models, tmp_path):
    with pytest.raises(SetupError, match="cannot be loaded"):
        load_adapter(f"qwen2_5_vl:{tmp_path}", device="cpu")
    with pytest.raises(AdapterError, match="engine"):
        adapter(models, "internvl", engine="jax")
    with pytest.raises(AdapterError, match="dtype"):
        adapter(models, "internvl", dtype="int8")
    with pytest.raises(AdapterError, match="device"):
        adapter(models, "internvl", device="abacus")
    with pytest.raises(AdapterError, match="revision=COMMIT"):
        load_adapter("llava_onevision", trust_remote_code=True)
    with pytest.raises(AdapterError, match="temperature"):
        adapter(models, "internvl", temperature=-1.0)


def test_weights_that_are_not_there_are_not_made_up(models, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    shutil.copytree(models("internvl"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1." not in k}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SetupError, match="they would be random"):
        load_adapter(f"internvl:{folder}", device="cpu")


def test_through_the_engine_in_batches(rows, models, tmp_path):
    """One broken clip costs one entry, in a batch of four."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    mixed = [*rows[:3], {**rows[3], "video": {"path": str(broken), "bytes": None}}]
    model = adapter(models, "video_llama_3", batch_size=4)
    log = run(model, mixed, tmp_path / "run", progress=False).log
    got = log.predictions()
    assert got["e003"].status == "input_error"
    alone = adapter(models, "video_llama_3")
    for row in rows[:3]:
        assert got[row["entry_id"]].raw_text == alone.predict([alone.prepare(row, "gen")], "gen")[0].raw_text
    assert log.manifest["adapter"]["engine"]["architecture"] == "VideoLlama3ForConditionalGeneration"
    shown = json.dumps(alone.show_request(alone.prepare(rows[0], "gen"), "gen"))
    assert "question 0" in shown
    assert len(shown) < 5000


def test_worker_processes_prepare_the_same_and_end_with_the_run(rows, models, tmp_path):
    """Also when one of them is killed in the middle."""
    import os
    import signal
    import time

    from evqa import prefetch

    alone = run(adapter(models, "internvl"), rows, tmp_path / "threads", task="mcq", progress=False).log.predictions()
    model = adapter(models, "internvl", workers=1)
    born = []

    class Watching(prefetch.Preparers):
        def submit(self, index):
            if not born:
                self.start().result(60)  # else threads would do it all
            waiting = super().submit(index)
            born.extend(pid for pid in getattr(self._pool, "_processes", None) or {} if pid not in born)
            if index == 3:
                os.kill(born[0], signal.SIGKILL)
            return waiting

    import evqa.answering

    before, evqa.answering.Preparers = evqa.answering.Preparers, Watching
    try:
        together = run(model, rows, tmp_path / "workers", task="mcq", progress=False).log.predictions()
    finally:
        evqa.answering.Preparers = before
    assert {e: said(p) for e, p in together.items()} == {e: said(p) for e, p in alone.items()}
    assert born
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in born):
        assert time.monotonic() < end, "a worker outlives the run"
        time.sleep(0.05)


def test_sampling_is_repeatable(rows, models):
    texts = []
    for seed in (1, 1, 2):
        model = adapter(models, "qwen3_vl", temperature=2.0, seed=seed)
        texts.append(model.predict([model.prepare(rows[0], "gen")], "gen")[0].raw_text)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_all_families_are_known():
    assert {f.removesuffix("_moe") for f in FAMILIES} | {"sa2va"} <= set(adapter_names())


# ------------------------------------------------------------------------------------------------ Sa2VA
CODE = '''
import torch
from transformers import PretrainedConfig, PreTrainedModel


class StandInConfig(PretrainedConfig):
    model_type = "sa2va_stand_in"


class StandIn(PreTrainedModel):
    """Speaks the published interface: one message with frames; text and one bool [T, h, w] array per object."""

    config_class = StandInConfig

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.post_init()

    def _init_weights(self, module):
        pass

    def predict_forward(self, image=None, video=None, text=None, past_text="", mask_prompts=None, tokenizer=None, processor=None):
        assert tokenizer is not None and processor is not None
        self.__dict__.setdefault("calls", []).append(([frame.size for frame in video], text))
        if "segment the objects" in text:
            width, height = video[0].size
            masks = []
            for part in (0, 1):
                mask = torch.zeros(len(video), height, width, dtype=torch.bool)
                for t in range(len(video)):
                    mask[t, t, 10 * part : 10 * part + 5] = True
                masks.append(mask.numpy())
            return {"prediction": "Sure, it is [SEG] and [SEG].<|im_end|>", "prediction_masks": masks}
        reply = "[[0.5, 1.0]]" if "JSON list" in text else "B"
        return {"prediction": reply + "<|im_end|>", "prediction_masks": []}
'''


@pytest.fixture(scope="module")
def stand_in(models, tmp_path_factory):
    """A folder with code of its own, in the place of Sa2VA's: ours to write, but loaded as published code is."""
    import shutil

    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("sa2va")
    shutil.copytree(models("qwen2_5_vl"), folder, dirs_exist_ok=True)
    (folder / "stand_in.py").write_text(CODE)
    auto = {"AutoConfig": "stand_in.StandInConfig", "AutoModel": "stand_in.StandIn"}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "sa2va_stand_in", "architectures": ["StandIn"], "auto_map": auto})
    )
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_sa2va_answers_and_segments(rows, stand_in, tmp_path):
    model = load_adapter(f"sa2va:{stand_in}", trust_remote_code=True, device="cpu", mask_frames="fps:3", max_side=32)
    log = run(model, rows[:1], tmp_path / "gen", progress=False).log
    got = log.predictions()["e000"]
    assert (got.status, got.answer, got.segments) == ("ok", "B", [[0.5, 1.0]])
    calls = model._model.calls
    assert [len(sizes) for sizes, _ in calls] == [5, 5, 6]  # five are seen; all are segmented, at 3 a second
    assert calls[0][0][0] == (32, 24)
    assert "Picture 5 is a frame of the video at 1.8 s." in calls[0][1]
    assert "Your answer was: B" in calls[1][1]
    assert len(got.masks) == 12
    from evqa import masks

    first = masks.decode(got.masks[0]["rle"])
    assert first.shape == (48, 64)
    assert first[0, :10].all()
    assert first[0, 20:30].all()
    assert first.sum() == 2 * 2 * 10
    assert got.masks[1]["rle"] == got.masks[0]["rle"]  # 0.17 s is as near to 0 s as to 0.33 s: the earlier
    assert got.masks[2]["rle"] != got.masks[0]["rle"]
    assert log.manifest["adapter"]["mask_frames"]["rate"] == 3.0


def test_sa2va_sees_one_frame_and_four_options(rows, stand_in, tmp_path):
    model = load_adapter(f"sa2va:{stand_in}", trust_remote_code=True, device="cpu")
    got = run(model, rows[:1], tmp_path / "mcq", task="mcq", progress=False).log.predictions()["e000"]
    assert (got.answer, got.temporal_choice, got.spatial_choice) == ("B", "B", "B")
    sizes, text = model._model.calls[2]
    assert sizes == [(64, 48)] + [(32, 24)] * 4
    assert "Picture 2 is Image A. Picture 3 is Image B." in text
    assert got.masks == []


def test_sa2va_runs_foreign_code_only_when_told_to(stand_in, monkeypatch):
    with pytest.raises(SetupError, match="trust_remote_code=True"):
        load_adapter(f"sa2va:{stand_in}")
    with pytest.raises(AdapterError, match="revision=COMMIT"):
        load_adapter("sa2va", trust_remote_code=True)


# ------------------------------------------------------------------------------------------------- vLLM
def test_vllm_is_handed_prompts_with_frames_and_times(rows, models, monkeypatch):
    """Our side of it: a scripted module takes the place of vLLM, which was not run."""
    import sys
    import types

    calls = []

    class Params:
        def __init__(self, **options):
            self.options = options

    class Llm:
        def __init__(self, **options):
            self.options = options

        def generate(self, prompts, sampling_params=None, use_tqdm=True):
            calls.append((prompts, sampling_params.options))
            said = types.SimpleNamespace(text='{"answer": "B"}', token_ids=[1, 2], finish_reason="stop")
            return [types.SimpleNamespace(outputs=[said], prompt_token_ids=[0] * 9) for _ in prompts]

    fake = types.SimpleNamespace(
        LLM=Llm, SamplingParams=Params, sampling_params=types.SimpleNamespace(StructuredOutputsParams=Params)
    )
    monkeypatch.setitem(sys.modules, "vllm", fake)
    model = load_adapter(
        f"qwen3_vl:{models('qwen3_vl')}", engine="vllm", workers=0, frames="fps:2,max=6", min_pixels=784, batch_size=4,
        engine_options={"tensor_parallel_size": 2},
    )  # fmt: skip
    out = model.predict([model.prepare(row, "gen") for row in rows], "gen")
    assert [p.answer for p in out] == ["B"] * 4
    assert out[0].usage == {"input_tokens": 9, "output_tokens": 2, "frames": 4}
    assert model._engine._model.options["tensor_parallel_size"] == 2
    assert model._engine._model.options["limit_mm_per_prompt"] == {"image": 4, "video": 1}
    (prompts, options), *_ = calls
    assert (options["temperature"], options["max_tokens"]) == (0.0, 1024)
    assert options["structured_outputs"].options["json"]["required"][0] == "answer"
    assert len(prompts) == 4
    frames, metadata = prompts[1]["multi_modal_data"]["video"][0]
    assert frames.shape[0] == 6
    assert metadata["frames_indices"] == [0, 1000, 2000, 2750, 3750, 4750]
    assert (metadata["fps"], metadata["do_sample_frames"]) == (1000.0, False)
    assert prompts[0]["prompt"].count("<|video_pad|>") == 1
    assert prompts[0]["mm_processor_kwargs"] == {"do_resize": False}
    model.predict([model.prepare(rows[0], "mcq")], "mcq")
    assert len(calls[-1][0][0]["multi_modal_data"]["image"]) == 4
    assert "structured_outputs" not in calls[-1][1]


def test_vllm_that_is_not_installed_is_named(models):
    import importlib.util

    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    with pytest.raises(Exception, match=r"evqa\[vllm\]"):
        adapter(models, "internvl", engine="vllm")
