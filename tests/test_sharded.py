"""FSDP2: one step is that of one process, whatever modules a rank uses; whole checkpoints; exact resuming."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

# ruff: noqa: E402 - what follows needs the two
from child_train import sharded
from training_fixtures import losses, make_mixture, make_model, one_thread

from evqa.training import checkpoints
from evqa.training.resuming import load_trained
from evqa.training.sharded import local, put, touched

__all__ = ["one_thread"]  # fixtures

CHILD = Path(__file__).with_name("child_train.py")
ROOT = CHILD.parents[1]
PATHS = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(CHILD.parent), str(ROOT), os.environ.get("PYTHONPATH")])),
    "OMP_NUM_THREADS": "1",
}


def two_ranks(folder: Path, *words: str) -> tuple[list[dict], dict]:
    child = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
            "--rdzv_endpoint", "localhost:0", str(CHILD), str(folder), "sharded", *words,
        ],
        capture_output=True, text=True, timeout=300, env={**os.environ, **PATHS},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads((folder / "losses.json").read_text()), torch.load(folder / "weights.pt")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fsdp2_is_one_process_and_resumes_exactly(tmp_path, dtype):
    seen, weights = two_ranks(tmp_path, dtype, "4")
    mixture = make_mixture(tmp_path / "data", evidence=8, text=4)
    alone = sharded(tmp_path / "alone", mixture, per_device_train_batch_size=4, dtype=dtype)
    alone.train()
    near = {"float32": 1e-4, "bfloat16": 2e-2}[dtype]
    for one, two in zip(losses(alone), seen, strict=True):
        assert one == pytest.approx(two, rel=near)
    own = {name: p.detach() for name, p in alone.model.named_parameters() if p.requires_grad}
    assert set(own) <= set(weights)
    apart = sum(float((own[name].float() - weights[name].float()).square().sum()) for name in own) ** 0.5
    start = sharded(tmp_path / "start", mixture, dtype=dtype).model.state_dict()
    moved = sum(float((own[name].float() - start[name].float()).square().sum()) for name in own) ** 0.5
    assert apart < {"float32": 0.02, "bfloat16": 0.2}[dtype] * moved

    # The checkpoint is that of a run without FSDP: the same files, and what was trained and no more in them.
    last = tmp_path / "out" / "checkpoint-4"
    assert checkpoints.check_checkpoint(last) is None
    names = {path.name for path in last.iterdir() if "rng_state" not in path.name}
    assert names == {path.name for path in (tmp_path / "alone" / last.name).iterdir() if "rng_state" not in path.name}
    again = sharded(tmp_path / "again", mixture, dtype=dtype)
    load_trained(again.model, last)
    for name, parameter in again.model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, weights[name]), name
    saved = torch.load(last / "optimizer.pt", weights_only=True)
    plain = torch.load(tmp_path / "alone" / last.name / "optimizer.pt", weights_only=True)
    assert saved["state"].keys() == plain["state"].keys()  # what was never used has no state in either
    for number, state in plain["state"].items():
        assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
            k: (v.shape, v.dtype) for k, v in saved["state"][number].items()
        }

    # Two ranks go on from the second step, and one process from where two ranks were.
    shutil.rmtree(last)
    resumed, final = two_ranks(tmp_path, dtype, "4")
    assert resumed == seen
    assert all(torch.equal(final[name], weights[name]) for name in weights)
    if dtype == "float32":
        shutil.rmtree(last)
        other = sharded(tmp_path / "out", mixture, per_device_train_batch_size=4, resume="auto")
        other.train()
        assert other.state.global_step == 4
        for one, two in zip(losses(other), seen, strict=True):
            assert one == pytest.approx(two, rel=near)


def test_touched_parameters_have_gradients():
    used, unused = (torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(2))
    loss = touched((used**2).sum(), [used, unused])
    assert float(loss) == 12
    loss.backward()
    assert used.grad.tolist() == [4, 4, 4]
    assert unused.grad.tolist() == [0, 0, 0]


def test_plain_tensors_are_left_alone():
    target = torch.zeros(2)
    assert local(target) is target
    put(target, torch.ones(2))
    assert target.tolist() == [1, 1]


def test_many_labels_are_one_call_of_the_head(monkeypatch):
    """Ranks with more tokens than others must not call wrapped modules more often."""
    from evqa.models.unipixel import losses_unipixel

    head, calls = make_model(tied=False)[0].lm_head, []
    handle = head.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, head.in_features, requires_grad=True)
    labels = torch.randint(0, 50, (2, 7))
    found = []
    for size in (1024, 3):
        monkeypatch.setattr(losses_unipixel, "_CHUNK", size)
        loss, right = losses_unipixel.supervised_loss(head, hidden, labels)
        (gradient,) = torch.autograd.grad(loss, hidden)
        found.append((float(loss.detach()), int(right), gradient))
    handle.remove()
    assert len(calls) == 2
    assert "forward" not in vars(head)
    assert found[0][:2] == pytest.approx(found[1][:2])
    torch.testing.assert_close(found[0][2], found[1][2])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_are_one(tmp_path):
    """DDP, FSDP2 and, where it is installed, ZeRO-2 through the recipe; loss curves, weights and files compared."""
    ways = ["one", "ddp", "fsdp2", *(["zero2"] if _has_deepspeed() else [])]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "multi_gpu.py"), "--out", str(tmp_path), "--ways", *ways],
        capture_output=True, text=True, timeout=900, env={**os.environ, **PATHS},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


def _has_deepspeed() -> bool:
    import importlib.util

    return importlib.util.find_spec("deepspeed") is not None
