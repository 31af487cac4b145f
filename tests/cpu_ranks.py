"""FSDP and DeepSpeed between processes without a GPU: accelerate itself offers ranks on a CPU for DDP alone."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def spread_on_cpu(config: str) -> None:
    """Let accelerate spread a model over ranks that talk through gloo; before anything of accelerate is made.

    Args:
        config: A file of recipes/accelerate; what `accelerate launch` would set is set here.
    """
    import yaml
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    values = yaml.safe_load((ROOT / "recipes" / "accelerate" / f"{config}.yaml").read_text())
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if values["distributed_type"] == "FSDP":
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        for name, value in values["fsdp_config"].items():
            os.environ[name.upper().replace("_LAYER_CLS", "_CLS")] = str(value)
    elif values["distributed_type"] == "DEEPSPEED":
        os.environ.update(
            ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_ZERO3_INIT="false", DS_ACCELERATOR="cpu"
        )
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(ROOT / values["deepspeed_config"]["deepspeed_config_file"])
    else:
        raise ValueError(f"{config} spreads nothing")
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
