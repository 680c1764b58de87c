"""What only `ddp` has; the rest is in test_training.py."""

from __future__ import annotations

from vaultcube.workloads.ddp import WORKLOAD, DdpParams


def test_the_command_of_the_acceptance_run() -> None:
    params = WORKLOAD.resolve("acceptance", {}, "cuda")
    assert isinstance(params, DdpParams)
    assert " ".join(WORKLOAD.command(params, world_size=4, device="cuda")) == (
        "python3 -m ddp --results /results --device cuda --ranks 4 --model resnet50 --batch-size 256 --image-size 224 "
        "--precision bf16 --windows 10 --steps-per-window 20 --warmup-steps 20 --max-warmup-steps 200 "
        "--allreduce-timeout-s 60 --hang-timeout-s 300 --seed 0 --channels-last"
    )


def test_the_command_of_the_smoke_run() -> None:
    params = WORKLOAD.resolve("smoke", {}, "cpu")
    assert isinstance(params, DdpParams)
    assert " ".join(WORKLOAD.command(params, world_size=2, device="cpu")) == (
        "python3 -m ddp --results /results --device cpu --ranks 2 --model resnet50 --batch-size 4 --image-size 64 "
        "--precision fp32 --windows 5 --steps-per-window 2 --warmup-steps 2 --max-warmup-steps 8 "
        "--allreduce-timeout-s 30 --hang-timeout-s 120 --seed 0 --no-channels-last"
    )


def test_what_is_not_given_is_the_presets() -> None:
    found = WORKLOAD.resolve("acceptance", {"batch_size": None, "windows": 7, "channels_last": False}, "cuda")
    assert isinstance(found, DdpParams)
    assert (found.batch_size, found.windows, found.channels_last) == (256, 7, False)


def test_checks_that_need_no_gpu_hold_on_the_cpu_too() -> None:
    specs = {spec.name: spec for spec in WORKLOAD.checks(WORKLOAD.targets_type())}
    assert {name for name, spec in specs.items() if not spec.needs_gpu} == {
        "no_rank_lost",
        "allreduce_correct",
        "loss_finite",
    }
