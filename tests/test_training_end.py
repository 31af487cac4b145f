"""Around the trainer: what is trained, evaluation, saving, cards, the Hub, and the recipes' files."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

# ruff: noqa: E402 - what follows needs the two
from mixture_rows import segmentation_row
from test_hub import hub  # noqa: F401 - a fixture
from training_fixtures import losses, make_mixture, make_model, make_trainer

import evqa
from evqa.errors import DataError
from evqa.models.unipixel import UniPixelForConditionalGeneration, UniPixelProcessor
from evqa.training.arguments import RECOMPUTED, DataArguments, ModelArguments, TrainingArguments
from evqa.training.card import model_card
from evqa.training.collator import UniPixelCollator
from evqa.training.master import MasterAdamW
from evqa.training.models import load_model, save_final
from evqa.training.referring import score_referring, summarize
from evqa.training.resuming import load_trained
from evqa.training.tuning import Tuning, group_of, prepare_for_training

ROOT = Path(__file__).parents[1]


def import_recipe(name):
    """A recipe as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return make_mixture(tmp_path_factory.mktemp("mixture"), evidence=4, text=1)


# -------------------------------------------------------------------------------------- what is trained
def test_only_what_is_named_is_trained():
    model, _ = make_model()
    tuned = prepare_for_training(model, Tuning(["seg", "sam2_decoder"], lora="qkvo_all", lora_r=2))
    trained = {n for n, p in tuned.named_parameters() if p.requires_grad}
    assert {group_of(n) for n in trained} == {"lora", "base", "sam2"}
    adapted = {n.split(".lora_")[0].removeprefix("base_model.model.") for n in trained if ".lora_" in n}
    text = {f"model.language_model.layers.{i}.self_attn.{x}_proj" for i in range(2) for x in "qkvo"}
    assert adapted == text | {f"model.visual.blocks.{i}.attn.{x}" for i in range(2) for x in ("qkv", "proj")}
    whole = {n.removeprefix("base_model.model.") for n in trained if ".lora_" not in n}
    named = {n for n, _ in make_model()[0].named_parameters()}
    assert whole == {
        n for n in named if n.startswith("seg_head.") or (n.startswith("sam2.") and "image_encoder" not in n)
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules": ["segg"]}, "segg"),
        ({}, "nothing would be trained"),
        ({"lora": "everything"}, "everything"),
        ({"lora": "qkvo_all", "modules": ["llm"]}, "use one of them"),
        ({"lora": "qkvo_all", "lora_r": 0}, "rank of at least 1"),
        ({"modules": ["seg"], "trained_dtype": "int8"}, "int8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Tuning(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor would change nothing"),
        ({"packing": True}, "packing and padding_free are for text"),
        ({"remove_unused_columns": True}, "remove_unused_columns must be false"),
        ({"checkpoint_modules": ["head"]}, "none of vision, llm"),
        ({"checkpoint_modules": ["llm:2"]}, "share of layers"),
        ({"save_dtype": "int4"}, "int4"),
    ],
)
def test_arguments_that_would_not_be_heeded_are_refused(settings, message, tmp_path):
    with pytest.raises(DataError, match=message):
        TrainingArguments(output_dir=str(tmp_path), bf16=False, use_cpu=True, **settings)


def test_a_second_adapter_is_refused():
    tuned = prepare_for_training(make_model()[0], Tuning(lora="qkvo_llm", lora_r=2))
    with pytest.raises(DataError, match="has an adapter already"):
        prepare_for_training(tuned, Tuning(lora="qkvo_llm", lora_r=2))


def test_recomputing_is_where_it_is_wanted(mixture, tmp_path):
    """The same gradients wherever activations are recomputed, and only there."""
    found = {}
    for parts in ([], ["vision", "sam2_tracker"], ["llm:0.5", "sam2_encoder:0.5", "vision:0"], list(RECOMPUTED)):
        trainer = make_trainer(tmp_path / str(len(parts)), mixture, max_steps=1, checkpoint_modules=parts, optim="sgd")
        trainer.train()
        on = {n for n, m in trainer.unipixel.named_modules() if getattr(m, "gradient_checkpointing", False)}
        blocks = {n for n in on if n.split(".")[-1].isdigit()}
        if "llm:0.5" in parts:
            layers = {n.rpartition(".")[2] for n in blocks if n.startswith("model.language_model.layers")}
            assert layers == {str(i) for i in range(1, len(trainer.unipixel.model.language_model.layers), 2)}
            assert not any(n.startswith("model.visual") for n in on)
            found[3] = losses(trainer)[0]
            continue
        assert any(n.startswith("model.visual.blocks") for n in blocks) == ("vision" in parts)
        assert any(n.startswith("model.language_model.layers") for n in blocks) == ("llm" in parts)
        assert any(n.startswith("sam2.image_encoder") for n in blocks) == ("sam2_encoder" in parts)
        assert any(n.startswith("sam2.sam_mask_decoder") for n in on) == ("sam2_tracker" in parts)
        found[len(parts)] = losses(trainer)[0]
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert found[0] == pytest.approx(found[3], rel=1e-5)
    assert found[0] == pytest.approx(found[4], rel=1e-5)


def test_recorded_tracking_changes_nothing(mixture, tmp_path):
    found = []
    for recorded in (False, True):
        trainer = make_trainer(
            tmp_path / str(recorded), mixture, max_steps=4, lora=True, graph_tracking=recorded, gradient_accumulation_steps=2
        )  # fmt: skip
        trainer.train()
        assert trainer.unipixel.runtime.graph_tracking == recorded
        found.append(losses(trainer))
    assert len(found[0]) == 4
    for plain, graphs in zip(*found, strict=True):
        assert graphs == pytest.approx(plain, rel=1e-4)


def test_half_precision_weights_take_small_steps():
    """Against float32 AdamW; and the copies survive saving and loading, which torch would round."""
    torch.manual_seed(0)
    start = torch.randn(40)
    half = torch.nn.Parameter(start.bfloat16())
    full = torch.nn.Parameter(half.detach().float())
    ours, theirs = (
        MasterAdamW([half], lr=1e-4, weight_decay=0.01),
        torch.optim.AdamW([full], lr=1e-4, weight_decay=0.01),
    )
    for i in range(60):
        gradient = torch.randn(40, generator=torch.Generator().manual_seed(i)).bfloat16()
        half.grad, full.grad = gradient, gradient.float()
        ours.step()
        theirs.step()
        if i == 30:
            state = ours.state_dict()
            ours = MasterAdamW([half], lr=1e-4, weight_decay=0.01)
            ours.load_state_dict(state)
    copy = ours.state[half]["master"]
    assert copy.dtype == torch.float32
    assert torch.allclose(copy, full, atol=1e-6, rtol=0)
    assert torch.equal(half, copy.bfloat16())
    assert not torch.equal(copy, copy.bfloat16().float())


# ------------------------------------------------------------------------------------------- evaluation
def test_evaluation_leaves_no_trace_in_training(mixture, tmp_path):
    def evaluate(trainer):
        with trainer.model_for_generation() as model:
            assert not model.training
            assert not model.runtime.supervised_logits
        return {"accuracy": float(torch.rand(1)) * 100}

    settings = {"max_steps": 3, "lora": True, "sam2": {"memory_dropout": 0.1}}
    plain = make_trainer(tmp_path / "a", mixture, **settings)
    plain.train()
    looked = make_trainer(tmp_path / "b", mixture, evaluation=evaluate, eval_strategy="steps", eval_steps=1, **settings)
    looked.train()
    assert losses(looked) == losses(plain)
    assert len([line for line in looked.state.log_history if "eval_accuracy" in line]) == 3
    with pytest.raises(DataError, match="nothing to evaluate"):
        plain.evaluate()


# ----------------------------------------------------------------------------------------------- saving
@pytest.mark.parametrize("tied", [True, False])
def test_adapter_and_merged_model_are_the_trained_one(tied, mixture, tmp_path):
    base, processor = make_model(tied=tied)
    base.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    model = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "base")
    tuned = prepare_for_training(model, Tuning(["embedding", "seg"], lora="qkvo_all", lora_r=2))
    batch = UniPixelCollator(processor, model.config)([mixture[0]])
    del batch["report"]
    torch.manual_seed(1)
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):  # from the second step on both halves of the adapters move
        tuned(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = tuned.eval()(**batch)
    save_final(tuned, tmp_path / "part", processor, merge=False, base=str(tmp_path / "base"))
    again = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "part").eval()
    assert torch.allclose(again(**batch).logits, expected.logits, atol=2e-4)  # merging rounds
    fresh = prepare_for_training(
        UniPixelForConditionalGeneration.from_pretrained(tmp_path / "base"),
        Tuning(["embedding", "seg"], lora="qkvo_all", lora_r=2),
    )
    load_trained(fresh, tmp_path / "part")
    assert torch.equal(fresh.eval()(**batch).logits, expected.logits)
    other = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "base")
    other = prepare_for_training(other, Tuning(["embedding", "seg", "projector"], lora="qkvo_all", lora_r=2))
    with pytest.raises(DataError, match="lacks 5 weights that are trained.*merger"):
        load_trained(other, tmp_path / "part")
    save_final(tuned, tmp_path / "whole", processor, merge=True, base=None, dtype=torch.float32)
    whole = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "whole").eval()
    result = whole(**batch)
    assert torch.allclose(result.logits, expected.logits, atol=2e-4)  # merging rounds
    assert float(result.focal_loss) == pytest.approx(float(expected.focal_loss), rel=1e-4)
    assert UniPixelProcessor.from_pretrained(tmp_path / "whole").sam_image_size == 64


_TRAIN_AND_PUSH = """
import sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from training_fixtures import make_mixture, make_trainer
import evqa
from evqa.training.finish import finish
torch.set_num_threads(1)
here = Path({here!r})
trainer = make_trainer(
    here / "out", make_mixture(here / "data"), max_steps=1, per_device_eval_batch_size=2, push_to_hub=True,
    hub_model_id="evqa/trained", save_dtype="float32", save_strategy="steps", save_steps=1,
)
trainer.train()
from huggingface_hub import HfApi
early = set(HfApi().list_repo_files("evqa/trained"))
assert {{"pytorch_model.safetensors", "config.json"}} <= early and "optimizer.pt" not in early, early
rows = evqa.load_dataset("st_evidence", "sample", split="test[:2]")
scores = finish(trainer, benchmark=rows, name="sample", base="evqa/unipixel-tiny", max_new_tokens=6)
print("SCORES", dict(scores)["num_samples"])
"""

_RELOAD = """
import json, torch
import evqa
from transformers import AutoModelForImageTextToText, AutoProcessor
from evqa.training.evaluation import BenchmarkEvaluation
torch.set_num_threads(1)
model = AutoModelForImageTextToText.from_pretrained("evqa/trained").eval()
processor = AutoProcessor.from_pretrained("evqa/trained")
rows = evqa.load_dataset("st_evidence", "sample", split="test[:2]")
said, scores = BenchmarkEvaluation(rows, batch_size=2, max_new_tokens=6).scores(model, processor)
print("SAID" + json.dumps([p.to_json() for p in said]))
"""


def test_pushed_model_is_reloaded_with_the_same_numbers(hub, tmp_path):  # noqa: F811
    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**hub, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert "SCORES 2" in run(_TRAIN_AND_PUSH.format(tests=str(Path(__file__).parent), here=str(tmp_path)))
    before = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    listed = "from huggingface_hub import HfApi; print(*HfApi().list_repo_files('evqa/trained'))"
    files = set(run(listed).split())
    assert {"model.safetensors", "README.md", "predictions.jsonl"} <= files
    assert not {"pytorch_model.safetensors", "trainer_state.json"} & files
    after = json.loads(run(_RELOAD).partition("SAID")[2])
    assert len(after) == 2
    assert after == before
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == "sample"
    assert 'from_pretrained("evqa/trained")' in card
    assert "accuracy" in card


def test_card_says_what_a_part_needs(mixture):
    card = model_card(
        name="me/part", base="PolyU-ChenLab/UniPixel-3B", mixture=mixture.describe(), settings={"learning_rate": 1e-3},
        scores={}, steps=7, whole=False, trainable=12345,
    )  # fmt: skip
    assert "the rest comes from `PolyU-ChenLab/UniPixel-3B`" in card
    assert "12,345 parameters" in card
    assert "| evidence | 4 | 4 | none |" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "PolyU-ChenLab/UniPixel-3B"


def test_what_could_not_be_saved_in_the_end_is_refused_at_the_start(mixture, tmp_path):
    with pytest.raises(DataError, match="made on the spot"):
        make_trainer(tmp_path, mixture, lora=True, run_facts={"model": "evqa/unipixel-tiny"})


# -------------------------------------------------------------------------------------------- referring
def test_expressions_are_segmented_scored_and_recorded(tmp_path):
    from evqa.models.unipixel.inference_unipixel import UniPixelInference
    from evqa.models.unipixel.processing_unipixel import Grounded

    rows = [segmentation_row(tmp_path / "clip", i) for i in range(3)]
    rows[1]["objects"] = rows[1]["objects"][:1]
    inference = object.__new__(UniPixelInference)
    model, inference.processor = make_model()
    asked = []

    def told(samples, **options):
        """The truth about the first two, nothing about the third."""
        asked.append(inference.processor.tokenizer.decode(samples[0]["input_ids"]))
        clip = samples[0]["clip"]
        assert len(clip.sam_positions) == 12
        assert len(clip.times) == 8
        number = len(asked) - 1
        if number == 2:
            return [Grounded("I see nothing.")]
        return [Grounded("It is <|seg|>.", [item["masks"] for item in rows[number]["objects"]])]

    inference.generate = told
    record = tmp_path / "record" / "revos.jsonl"
    entries = score_referring(inference, rows[:2], record, frames=8, progress=False)
    assert [entry.values["J&F"] for entry in entries] == [1.0, 1.0]
    assert "Segment what this is about" not in asked[0]
    with open(record, "a") as file:
        file.write('{"entry_id": "half')  # a process that was killed while it wrote
    entries = score_referring(inference, rows, record, frames=8, progress=False)
    assert len(asked) == 3  # the first two were not asked again
    assert (entries[2].status, entries[2].values["J&F"]) == ("parse_failed", 0.0)
    numbers = summarize(entries)
    assert numbers["J&F"] == pytest.approx(200 / 3)
    assert (numbers["num_expressions"], numbers["num_failed"]) == (3, 1)
    del inference.generate
    inference.__dict__["model"] = model  # the whole way, with a model that knows nothing
    entry = score_referring(inference, rows[:1], tmp_path / "real.jsonl", frames=4, max_new_tokens=4, progress=False)[0]
    assert entry.frames == 12
    with pytest.raises(DataError, match="nothing to score"):
        summarize([])


# ---------------------------------------------------------------------------------------------- recipes
@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configs_have_known_fields_and_sound_values(path):
    values = yaml.safe_load(path.read_text())
    known = {f.name: f for cls in (ModelArguments, DataArguments, TrainingArguments) for f in dataclasses.fields(cls)}
    assert not set(values) - set(known)
    own = {f.name for f in dataclasses.fields(ModelArguments)}
    ModelArguments(**{k: v for k, v in values.items() if k in own}).tuning()
    assert (ROOT / values["mixture"]).is_file()


def test_configs_of_the_original_have_its_settings():
    for name in ("3b_base", "3b_large", "7b_base", "7b_large"):
        values = yaml.safe_load((ROOT / "recipes" / "configs" / f"{name}.yaml").read_text())
        assert (values["lora_r"], values["lora_alpha"], values["lora_dropout"]) == (128, 256, 0.1)
        assert (values["learning_rate"], values["sam2_learning_rate"]) == (2e-5, 5e-6)
        assert values["tuning_modules"] == ["embedding", "ref", "ref_enc", "msk", "seg", "sam2"]
        assert (values["lr_scheduler_type"], values["warmup_steps"], values["num_train_epochs"]) == ("cosine", 0.03, 1)
        assert values["per_device_train_batch_size"] == 4


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_accelerate_files_fix_no_number_of_processes(path):
    from accelerate.commands.config.config_args import ClusterConfig

    values = yaml.safe_load(path.read_text())
    assert not {"num_processes", "gpu_ids", "machine_rank"} & set(values)
    assert not set(values) - {field.name for field in dataclasses.fields(ClusterConfig)}
    if "deepspeed_config" in values:
        json.loads((ROOT / values["deepspeed_config"]["deepspeed_config_file"]).read_text())


def test_recipe_runs_from_its_command_line(tmp_path):
    """recipes/sft.py with the tiny config: trained, evaluated, saved; the same command again does nothing over."""
    command = [
        sys.executable, str(ROOT / "recipes" / "sft.py"), "--config", "recipes/configs/tiny.yaml", "--use_cpu", "true",
        "--output_dir", str(tmp_path / "out"), "--max_steps", "1", "--save_steps", "1", "--eval_strategy", "no",
        "--per_device_train_batch_size", "1", "--final_benchmark", "false", "--disable_tqdm", "true",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'lm_loss'" in done.stdout
    assert "'focal_loss'" in done.stdout
    model = UniPixelForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.seg_head[1].weight.dtype == torch.bfloat16
    assert model.tem_pe.positional_encoding_gaussian_matrix.dtype == torch.float32
    assert sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")) < 8e6
    assert (tmp_path / "out" / "README.md").is_file()


def test_evaluation_recipe_measures_and_says_what_it_could_not(tmp_path, capsys):
    recipe = import_recipe("evaluate_checkpoint")
    model, processor = make_model()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    arguments = SimpleNamespace(
        checkpoint=str(tmp_path / "model"), base=None, out=tmp_path / "out", sets=["gen", "revos"], split="test",
        benchmark="evqa/st_evidence:sample", data_root=tmp_path / "nothing", limit=2, max_tokens=4, batch_size=2,
    )  # fmt: skip
    assert recipe.main(arguments) == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["gen"]["num_samples"] == 2
    assert summary["gen"]["num_failed"] == 2  # random weights say nothing that can be read
    assert "J&F" in summary["gen"]["intervals"]
    assert "revos" in summary["revos"]["not_measured"]
    arguments.sets = ["gen"]
    arguments.checkpoint = str(tmp_path / "model")
    assert recipe.main(arguments) == 0  # recorded: no entry is run again


# ------------------------------------------------------------------------------- plain video language models
def _plain_model(kind, folder):
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    from evqa.models.unipixel.tiny_unipixel import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ids = {
        n: tokenizer.convert_tokens_to_ids(f"<|{n}|>") for n in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    tokens = {"image_token_id": ids["image_pad"], "video_token_id": ids["video_pad"],
              "vision_start_token_id": ids["vision_start"], "vision_end_token_id": ids["vision_end"]}  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": len(tokenizer), "head_dim": 16, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4}}  # fmt: skip
    if kind == "qwen2_5_vl":
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

        vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32,
                  "fullatt_block_indexes": [0]}  # fmt: skip
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))
        images, videos, processor = Qwen2VLImageProcessor(), Qwen2VLVideoProcessor(), Qwen2_5_VLProcessor
    else:
        from transformers import (
            Qwen3VLConfig,
            Qwen3VLForConditionalGeneration,
            Qwen3VLProcessor,
            Qwen3VLVideoProcessor,
        )

        vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32,
                  "deepstack_visual_indexes": [0], "num_position_embeddings": 64}  # fmt: skip
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **tokens))
        images, videos = Qwen2VLImageProcessor(patch_size=16), Qwen3VLVideoProcessor()
        processor = Qwen3VLProcessor
    model.save_pretrained(folder)
    processor(images, tokenizer, videos, chat_template=tokenizer.chat_template).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_plain_video_language_models_train_with_stock_trl(kind, tmp_path):
    recipe = import_recipe("sft_qwen_vl")
    from transformers import AutoProcessor
    from trl import ModelConfig, SFTConfig

    from evqa.training.vlm_collator import VideoChatCollator, evidence_reply

    _plain_model(kind, tmp_path / "model")
    rows = evqa.load_dataset("st_evidence", "sample", split="test[:2]")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    batch = VideoChatCollator(processor, "uniform:4", 64)([rows[0], rows[1]])
    for row, labels in enumerate(batch["labels"]):
        learnt = processor.tokenizer.decode(labels[labels != -100])
        assert learnt == evidence_reply(rows[row]) + "<|im_end|>"
    settings = SFTConfig(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, logging_steps=1, bf16=False,
        use_cpu=True, learning_rate=1e-2, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    recipe.main(
        ModelConfig(model_name_or_path=str(tmp_path / "model"), dtype="float32"),
        recipe.DataArguments(data="evqa/st_evidence:sample", split="test[:2]", frames="uniform:4", max_side=64),
        settings,
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()
    with pytest.raises(DataError, match="none of the options"):
        evidence_reply({**rows[0], "answer_index": None})


def test_frames_that_a_trained_model_is_shown_go_into_its_processor():
    arguments = ModelArguments(tuning_modules=["all"], dtype="float32", frame_policy="uniform:8")
    _, processor = load_model(arguments)
    assert processor.frame_policy == "uniform:8"
    assert load_model(ModelArguments(tuning_modules=["all"], dtype="float32"))[1].frame_policy != "uniform:8"
    with pytest.raises(DataError, match="frame_policy: "):
        load_model(ModelArguments(tuning_modules=["all"], dtype="float32", frame_policy="sometimes"))
