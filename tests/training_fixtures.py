"""A training run that takes seconds: a model of 0.3 million parameters on clips of drawn frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mixture_rows import chat_row, instruct_row, segmentation_row

#: A vision tower, a language model and a SAM 2 of one or two layers each.
TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1}  # fmt: skip
VISION = {"depth": 2, "hidden_size": 48, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 48,
          "fullatt_block_indexes": [1]}  # fmt: skip
SAM2 = {"image_size": 64, "embed_dim": 8, "stages": [1, 1, 1, 1], "global_attention_blocks": [2], "window_spec": [8, 4, 4, 2],
        "background_size": [4, 4], "hidden_size": 32, "memory_dim": 16, "memory_attention_layers": 1,
        "memory_feed_forward": 32, "decoder_heads": 2, "decoder_mlp_dim": 32, "iou_head_dim": 16}  # fmt: skip


def make_model(seed: int = 0, *, tied: bool = True, **sam2: Any) -> tuple[Any, Any]:
    """A random model of the tiny family, smaller still, and its processor."""
    import torch

    from evqa.models.unipixel import UniPixelConfig, UniPixelForConditionalGeneration
    from evqa.models.unipixel.tiny_unipixel import tiny_config, tiny_processor

    processor = tiny_processor()
    config = tiny_config(processor.tokenizer).to_dict()
    config["text_config"].pop("layer_types", None)
    config["text_config"].update(TEXT, tie_word_embeddings=tied)
    config["text_config"]["rope_parameters"]["mrope_section"] = [4, 2, 2]
    config["vision_config"].update(VISION)
    config["sam2_video_config"].update({**SAM2, **sam2})
    config.update(sam2_image_size=64, tie_word_embeddings=tied)
    processor.sam_image_size = 64
    cell = 24
    processor.min_pixels, processor.max_pixels = 4 * cell**2, 8 * cell**2
    torch.manual_seed(seed)
    model = UniPixelForConditionalGeneration(UniPixelConfig.from_dict(config))
    model.initialize_new_parameters()
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    return model.eval(), processor


def make_mixture(folder: Path, *, evidence: int = 4, segmentation: int = 0, text: int = 0, **config: Any) -> Any:
    """So many samples of each data type; of one, two, one, ... objects, in their own ``<|seg|>``."""
    from evqa.training import FrameSampling, Mixture, MixtureConfig, Part

    parts = []
    if evidence:
        rows = [instruct_row(folder / "clip", i) for i in range(evidence)]
        for i in range(0, evidence, 2):
            rows[i]["objects"] = rows[i]["objects"][:1]
        parts.append(Part(rows, "evidence"))
    if segmentation:
        parts.append(Part([segmentation_row(folder / "clip", i) for i in range(segmentation)], "segmentation"))
    if text:
        parts.append(Part([chat_row(i) for i in range(text)], "text"))
    options = {"seed": 1, "style": "per_object", "isolate": False, "frames": FrameSampling(3), **config}
    return Mixture(parts, MixtureConfig(**options))


def make_trainer(
    output: Path,
    mixture: Any,
    *,
    lora: bool = False,
    evaluation: Any = None,
    sam2: Any = (),
    run_facts: Any = None,
    dtype: str = "float32",
    **args: Any,
):
    """A trainer of :func:`make_model`; ``args`` are its settings."""
    import torch

    from evqa.training.arguments import TrainingArguments
    from evqa.training.collator import UniPixelCollator
    from evqa.training.trainer import UniPixelTrainer
    from evqa.training.tuning import Tuning, prepare_for_training

    model, processor = make_model(**dict(sam2))
    model = model.to(getattr(torch, dtype))
    modules = ["embedding", "ref", "ref_enc", "msk", "seg", "sam2"] if lora else ["all"]
    adapter = {"lora": "qkvo_all", "lora_r": 2, "lora_alpha": 4} if lora else {}
    tuning = Tuning(modules, trained_dtype=dtype, **adapter)
    model = prepare_for_training(model, tuning)
    settings = {
        "max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no",
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(), "lr_scheduler_type": "constant", "disable_tqdm": True, "seed": 1, **args,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(output), **settings)
    return UniPixelTrainer(
        model, arguments, mixture, UniPixelCollator(processor, model.config), processor, evaluation=evaluation,
        run_facts=run_facts,
    )  # fmt: skip


def losses(trainer: Any) -> list[dict[str, float]]:
    """What was logged at each step, without times."""
    return [
        {name: value for name, value in line.items() if name.endswith("loss") or name in ("grad_norm", "step")}
        for line in trainer.state.log_history
        if "loss" in line
    ]


@pytest.fixture(autouse=True)
def one_thread():
    """For a module that imports it: sums in one order, and no more threads than cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
