"""The trainer: one step is that of one large batch, a resumed run is an uninterrupted one, and checkpoints are whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

# ruff: noqa: E402 - what follows needs the two
from child_train import RANKS, RESUMED
from training_fixtures import losses, make_mixture, make_model, make_trainer, one_thread

from evqa.errors import DataError, MissingDataError, TrainingError
from evqa.training import checkpoints
from evqa.training.collator import UniPixelCollator
from evqa.training.loading import Loaded, RankBatches, StandIn
from evqa.training.sampler import MixtureSampler

__all__ = ["one_thread"]  # fixtures

CHILD = Path(__file__).with_name("child_train.py")


def weights(trainer) -> dict:
    return {name: p.detach().clone() for name, p in trainer.unipixel.named_parameters() if p.requires_grad}


def differences(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def run(folder, mixture, **settings):
    trainer = make_trainer(folder, mixture, **settings)
    trainer.train()
    return trainer


# ------------------------------------------------------------------------------------------ the loss
@pytest.fixture(scope="module")
def four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    return make_mixture(folder, evidence=4)


def test_loss_is_that_of_the_plain_path_term_by_term(four, tmp_path):
    trainer = run(tmp_path, four, per_device_train_batch_size=4, max_steps=1, optim="sgd")
    logged = losses(trainer)[0]
    model, processor = make_model()
    model.train()
    batch = UniPixelCollator(processor, model.config)([four[i] for i in range(4)])
    assert batch.pop("report")["masks"] == 4
    labels, masks = batch["labels"], batch["label_mask"]
    for name in ("label_positions", "mask_weights"):
        del batch[name]
    host = batch.pop("host")  # the plain path: all logits, values looked up on the device, a mask for the fillers
    output = model(
        **batch, input_ids=host.input_ids, video_grid_thw=host.video_grid_thw,
        attention_mask=(host.input_ids != processor.tokenizer.pad_token_id).long(),
    )  # fmt: skip
    # By hand from all logits: what stands one to the right is predicted.
    scores, wanted = output.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
    lm = torch.nn.functional.cross_entropy(scores, wanted, ignore_index=-100)
    assert logged["lm_loss"] == pytest.approx(float(lm), rel=1e-5)
    assert [mask.shape[1] for mask in masks] == [1, 2, 1, 2]
    total = float(lm)
    for i, (name, weight) in enumerate((("focal", 100), ("dice", 5), ("iou", 5), ("presence", 5))):
        mean = sum(float(terms[i]) for terms in output.sample_losses) / 4
        assert logged[f"{name}_loss"] == pytest.approx(mean, rel=1e-4)
        total += weight * mean
    assert logged["loss"] == pytest.approx(total, rel=1e-5)


def test_accumulation_and_padding_change_nothing(four, tmp_path):
    settings = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.01}
    whole = run(tmp_path / "a", four, per_device_train_batch_size=4, **settings)
    for size, filled in ((2, 1), (1, 64)):
        other = make_trainer(
            tmp_path / f"b{size}",
            four,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            **settings,
        )
        other.data_collator.pad_to_multiple_of = filled
        other.train()
        for one, two in zip(losses(whole), losses(other), strict=True):
            assert one == pytest.approx(two, rel=1e-4)
        assert differences(weights(whole), weights(other)) < 2e-6


def test_workers_of_the_loader_change_nothing(four, tmp_path):
    settings = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.01}
    one = run(tmp_path / "a", four, **settings)
    other = run(
        tmp_path / "b", four, dataloader_num_workers=2, dataloader_persistent_workers=True, dataloader_prefetch_factor=2,
        **settings,
    )  # fmt: skip
    assert losses(one) == losses(other)
    assert differences(weights(one), weights(other)) == 0


def test_stand_ins_and_failures_count_for_nothing(four):
    model, processor = make_model()
    model.train()
    model.runtime.supervised_logits = True
    collator = UniPixelCollator(processor, model.config)

    def loss(places):
        batch = collator(places)
        report = batch.pop("report")
        tokens, masks = torch.tensor(float(report["tokens"])), torch.tensor(float(max(report["masks"], 1)))
        output = model(**batch, num_items_in_batch=tokens.clamp(min=1), num_masks_in_batch=masks)
        return output, report

    alone, _ = loss([four[1]])
    filled, report = loss([four[1], Loaded(four[2], counts=False)])
    assert float(filled.loss) == pytest.approx(float(alone.loss), rel=1e-5)
    assert (report["tried"], report["masks"]) == (1, 1)
    broken = four[2]
    broken.masks[0] = [{"size": [24, 32], "counts": b"?"}] * 3
    failed, report = loss([four[1], broken])
    assert float(failed.loss) == pytest.approx(float(alone.loss), rel=1e-5)
    assert [failure.entry_id for failure in report["failures"]] == [broken.entry_id]
    nothing, report = loss([broken])
    assert (float(nothing.loss), report["masks"], len(report["failures"])) == (0, 0, 1)
    nothing.loss.backward()  # all ranks go backward, also one that has nothing


def test_too_many_failures_stop_the_run(tmp_path):
    mixture = make_mixture(tmp_path, evidence=4, errors={"max_fraction": 0.0, "min_tried": 1})
    for part in mixture.parts:
        for mask in part.rows[1]["objects"][1]["masks"]:
            mask["rle"] = {"size": [24, 32], "counts": b"?"}
    trainer = make_trainer(tmp_path / "out", mixture)
    with pytest.raises(DataError, match="ask_1"):
        trainer.train()
    assert "ask_1" in (tmp_path / "out" / "failed_samples.jsonl").read_text()


# --------------------------------------------------------------------------------------- parameters
def test_groups_have_their_own_learning_rates(four, tmp_path):
    trainer = make_trainer(
        tmp_path, four, lora=True, learning_rate=1e-3, lora_learning_rate=2e-3, sam2_learning_rate=3e-3,
        sam2_encoder_learning_rate=4e-3, weight_decay=0.1,
    )  # fmt: skip
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    seen = set()
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            rate = (
                2e-3
                if "lora_" in name
                else 4e-3
                if "sam2.image_encoder." in name
                else 3e-3
                if "sam2." in name
                else 1e-3
            )
            assert group["lr"] == rate, name
            if "bias" in name or "norm" in name:
                assert group["weight_decay"] == 0, name
    assert seen == {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 0.1}


# ------------------------------------------------------------------------------------------- resuming
@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Six steps with dropout, adapters, and checkpoints at 2, 4 and 6; an epoch has four."""
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    mixture = make_mixture(folder, evidence=8)
    trainer = run(folder / "out", mixture, lora=True, sam2={"memory_dropout": 0.1}, **RESUMED)
    return folder, mixture, losses(trainer), weights(trainer)


def resumed(folder, mixture, **settings):
    return run(folder, mixture, lora=True, sam2={"memory_dropout": 0.1}, **{**RESUMED, **settings})


def test_stopped_and_resumed_is_uninterrupted(undisturbed, tmp_path):
    _, mixture, expected, final = undisturbed
    # Stopped in the middle of an epoch, with another number of steps to come in mind: a constant rate does not care.
    first = resumed(tmp_path, mixture, max_steps=3, save_steps=3)
    assert losses(first) == expected[:3]
    second = resumed(tmp_path, mixture)
    assert losses(second) == expected
    assert differences(weights(second), final) == 0


def test_bfloat16_run_is_resumed_exactly(undisturbed, tmp_path):
    """The way of the ready configs: bfloat16 weights, whose float32 copies are in the optimiser's state."""
    _, mixture, _, _ = undisturbed
    settings = {"lora": True, "dtype": "bfloat16", "optim": "adamw_torch_fused", "learning_rate": 1e-4, "save_steps": 2}
    whole = run(tmp_path / "a", mixture, **{**RESUMED, **settings, "max_steps": 4})
    first = run(tmp_path / "b", mixture, **{**RESUMED, **settings, "max_steps": 2})
    second = run(tmp_path / "b", mixture, **{**RESUMED, **settings, "max_steps": 4})
    assert losses(second) == losses(whole)
    assert differences(weights(second), weights(whole)) == 0
    assert all(p.dtype == torch.bfloat16 for p in second.unipixel.parameters())
    copies = [state["master"] for state in second.optimizer.state.values()]
    assert copies
    assert all(copy.dtype == torch.float32 for copy in copies)
    assert any((copy != copy.bfloat16().float()).any() for copy in copies)
    assert losses(first) == losses(whole)[:2]


def test_resume_modes_do_what_they_say(undisturbed, tmp_path):
    folder, mixture, expected, final = undisturbed
    with pytest.raises(DataError, match=r"holds 3 checkpoints"):
        make_trainer(folder / "out", mixture, lora=True, resume="never", **RESUMED).train()
    with pytest.raises(MissingDataError, match="not there"):
        make_trainer(tmp_path, mixture, lora=True, resume=str(tmp_path / "checkpoint-9"), **RESUMED).train()
    # This very one, though there are newer ones, and into another folder.
    explicit = resumed(tmp_path / "other", mixture, resume=str(folder / "out" / "checkpoint-2"))
    assert losses(explicit) == expected
    assert differences(weights(explicit), final) == 0
    theirs = resumed(tmp_path / "theirs", mixture, resume_from_checkpoint=str(folder / "out" / "checkpoint-4"))
    assert losses(theirs) == expected  # transformers' own name for it is not passed over
    with pytest.raises(DataError, match="give one of them"):
        make_trainer(tmp_path, mixture, resume="never", resume_from_checkpoint="x")
    fresh = resumed(tmp_path / "fresh", mixture, resume="never", max_steps=2)
    assert losses(fresh) == expected[:2]
    with pytest.raises(DataError, match="global_batch was 2, is 4"):
        resumed(folder / "out", mixture, per_device_train_batch_size=4)
    with pytest.raises(DataError, match="mixture was "):  # as many samples, other frames and words
        resumed(folder / "out", make_mixture(tmp_path / "new", evidence=8, seed=2))


@pytest.mark.parametrize("mode", ["kill-in-step", "kill-in-save"])
def test_killed_and_resumed_is_uninterrupted(undisturbed, tmp_path, mode):
    _, mixture, expected, final = undisturbed
    child = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), mode], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHILD.parent), str(CHILD.parents[1])])},
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    out = tmp_path / "out"
    if mode == "kill-in-save":
        assert (out / ".checkpoint-4.incomplete" / "checkpoint-4" / "optimizer.pt").exists()
        assert checkpoints.find_checkpoint(out) == out / "checkpoint-2"
    else:
        assert checkpoints.find_checkpoint(out) == out / "checkpoint-4"
    again = resumed(out, mixture)
    assert losses(again)[-2:] == expected[-2:]
    assert differences(weights(again), final) == 0
    assert not list(out.glob(".checkpoint*"))


def test_full_disk_leaves_the_last_checkpoint(undisturbed, tmp_path):
    _, mixture, expected, final = undisturbed
    trainer = make_trainer(tmp_path, mixture, lora=True, sam2={"memory_dropout": 0.1}, **RESUMED)
    save, before = trainer._save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(model, trial):
        if trainer.state.global_step == 4:  # no file may be longer than this: the kernel refuses the rest
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        save(model, trial)

    trainer._save_checkpoint = fill
    try:
        with pytest.raises(TrainingError, match=r"step 4 could not be written .* goes on from checkpoint-2") as error:
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.__cause__ is not None
    assert sorted(p.name for p in tmp_path.iterdir() if "checkpoint" in p.name) == ["checkpoint-2"]
    again = resumed(tmp_path, mixture)
    assert losses(again) == expected
    assert differences(weights(again), final) == 0


def test_a_second_run_into_the_same_folder_is_refused(four, tmp_path):
    trainer = make_trainer(tmp_path, four, max_steps=1)
    with checkpoints.only_run(tmp_path), pytest.raises(TrainingError, match="another process is training"):
        trainer.train()
    trainer.train()  # nobody holds it any more


def test_damaged_checkpoints_are_passed_over(undisturbed, tmp_path, caplog):
    import shutil

    folder, _, _, _ = undisturbed
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    assert checkpoints.find_checkpoint(out).name == "checkpoint-6"
    with open(out / "checkpoint-6" / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    (out / "checkpoint-4" / "adapter_model.safetensors").unlink()
    assert checkpoints.find_checkpoint(out).name == "checkpoint-2"
    assert "optimizer.pt has 100 bytes" in caplog.text
    assert "adapter_model.safetensors is not there" in caplog.text
    with pytest.raises(MissingDataError, match="optimizer.pt has 100 bytes"):
        checkpoints.resolve_resume(str(out / "checkpoint-6"), out)
    (out / "checkpoint-2" / checkpoints.MANIFEST).write_text("{")
    assert checkpoints.find_checkpoint(out) is None
    assert checkpoints.find_checkpoint(tmp_path / "nowhere") is None


# ----------------------------------------------------------------------------------------------- ranks
def test_two_ranks_are_one_large_batch(tmp_path):
    """Also where a rank's part of a batch is a stand-in: five and three samples in batches of four."""
    child = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
            "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(CHILD), str(tmp_path), "ranks",
        ],
        capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHILD.parent), str(CHILD.parents[1])]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-3000:]
    assert [(tmp_path / f"world-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]
    mixture = make_mixture(tmp_path / "data", evidence=5, text=3)
    alone = run(tmp_path / "alone", mixture, **{**RANKS, "per_device_train_batch_size": 4})
    for one, two in zip(losses(alone), json.loads((tmp_path / "losses.json").read_text()), strict=True):
        assert one == pytest.approx(two, rel=2e-4)
    both = torch.load(tmp_path / "weights.pt")
    assert differences({n: p.detach() for n, p in alone.unipixel.named_parameters()}, both) < 1e-5
    saved = tmp_path / "out" / "checkpoint-4"
    assert checkpoints.check_checkpoint(saved) is None
    assert {path.name for path in saved.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_rank_batches_are_equal_work():
    class Sampler:
        def __iter__(self):
            yield from ([1, 2, 3, 4, 5, 6], [7, 8, 9], [10])

        def __len__(self):
            return 3

    ranks = [list(RankBatches(Sampler(), rank=r, world_size=3, batch_size=2)) for r in range(3)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[2, 1, 1]] * 3
    real = [x for batches in ranks for batch in batches for x in batch if not isinstance(x, StandIn)]
    assert sorted(real) == list(range(1, 11))
    assert [batches[2][0] for batches in ranks] == [10, StandIn(10), StandIn(10)]


def test_batches_that_are_not_full_can_be_left_out(four, tmp_path):
    mixture = make_mixture(tmp_path, evidence=3, text=2)
    sampler = MixtureSampler(mixture, 2)
    full = RankBatches(sampler, rank=0, world_size=1, batch_size=2, drop_last=True)
    batches = list(full)
    assert [len(batch) for batch in batches] == [2, 2]
    assert len(full) == 2
    with pytest.raises(DataError, match="no data type fills a global batch"):
        make_trainer(tmp_path / "out", four, per_device_train_batch_size=8, dataloader_drop_last=True).train()
