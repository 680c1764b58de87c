"""What only `tensorflow` has: its switch, its checks of devices, and which cards its images are for."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.support import DATA, STARTED, event, gpu

from vaultcube.errors import FlavourError
from vaultcube.gpu.flavours import Flavour, choose_flavour
from vaultcube.results.events import AnyEvent, EventLog
from vaultcube.results.judge import Measurement, judge
from vaultcube.results.schema import Status, Verdict
from vaultcube.workloads.tensorflow import OPERATIONS, WORKLOAD, TensorflowParams

RANKS = 4


def params(preset: str = "acceptance", **given: Any) -> TensorflowParams:
    found = WORKLOAD.resolve(preset, given, "cuda")
    assert isinstance(found, TensorflowParams)
    return found


def test_the_command_of_the_acceptance_run() -> None:
    assert " ".join(WORKLOAD.command(params(), world_size=4, device="cuda")) == (
        "python3 -m mirrored --results /results --device cuda --ranks 4 --model resnet50 --batch-size 256 "
        "--image-size 224 --precision bf16 --windows 10 --steps-per-window 20 --warmup-steps 20 --max-warmup-steps 200 "
        "--allreduce-timeout-s 60 --hang-timeout-s 300 --seed 0 --no-xla"
    )
    assert WORKLOAD.command(params(xla=True), world_size=1, device="cuda")[-1] == "--xla"


def test_checks_that_need_no_gpu_hold_on_the_cpu_too() -> None:
    specs = {spec.name: spec for spec in WORKLOAD.checks(WORKLOAD.targets_type())}
    assert {name for name, spec in specs.items() if not spec.needs_gpu} == {
        "no_rank_lost",
        "allreduce_correct",
        "loss_finite",
        "devices_detected",
        "operations_correct",
        "memory_allocated",
    }


# --- a run -----------------------------------------------------------------------------------------------------


def devices(rank: int, **spoilt: Any) -> list[AnyEvent]:
    """Return what a rank says of its device before it trains."""
    placed = f"/job:localhost/replica:0/task:0/device:GPU:{rank}"
    operation: dict[str, Any] = {"placed": placed, "elements": 64, "mismatches": 0} | spoilt
    told = [event("operation", rank=rank, name=name, **operation) for name in OPERATIONS]
    return [*told, event("allocation", rank=rank, growth=True, bytes=2**28, peak_bytes=2**28)]


def measure(found: list[AnyEvent]) -> Measurement:
    """Return what is made of a good recorded run with these events in it."""
    log = EventLog()
    log.feed((DATA / "runs/good/events.jsonl").read_bytes())
    events = [*log.events[:1], *found, *log.events[1:]]
    counts: dict[int, int] = {}
    numbered = []
    for one in events:
        numbered.append(one.model_copy(update={"seq": counts.get(one.rank, 0)}))
        counts[one.rank] = numbered[-1].seq + 1
    return WORKLOAD.measure(
        numbered, [], params(windows=5), world_size=RANKS, status=Status.COMPLETED, gpus=[gpu(i) for i in range(RANKS)]
    )


def verdicts(found: Measurement) -> dict[str, Verdict]:
    checks, _ = judge(WORKLOAD.checks(WORKLOAD.targets_type()), found, device="cuda", simulated=False)
    return {check.name: check.verdict for check in checks}


DETECTED = event("detection", wanted=4, found=4, names=[f"/physical_device:GPU:{rank}" for rank in range(4)])


def test_a_good_run_is_measured_as_ddps_is_and_its_devices_are_proven() -> None:
    found = measure([DETECTED, *(one for rank in range(RANKS) for one in devices(rank))])
    assert found.disturbances == []
    told = verdicts(found)
    for name in ("scaling_efficiency", "throughput", "devices_detected", "operations_correct", "memory_allocated"):
        assert told[name] is Verdict.PASS, name
    assert found.metrics["throughput_samples_per_s"].value == pytest.approx(7600, rel=0.01)


def test_a_run_that_proves_no_device_is_not_passed() -> None:
    told = verdicts(measure([]))
    for name in ("devices_detected", "operations_correct", "memory_allocated"):
        assert told[name] is Verdict.UNAVAILABLE
    assert told["throughput"] is Verdict.PASS


def test_a_wrong_product_of_one_device_fails_the_run() -> None:
    good = [one for rank in range(RANKS - 1) for one in devices(rank)]
    told = verdicts(measure([DETECTED, *good, *devices(RANKS - 1, mismatches=3)]))
    assert told["operations_correct"] is Verdict.FAIL
    assert told["memory_allocated"] is Verdict.PASS


def test_a_run_that_never_started_says_so_of_every_figure() -> None:
    found = WORKLOAD.measure([], [], params(), world_size=2, status=Status.FAILED)
    assert set(found.missing.values()) == {"the workload never started"}
    assert {"devices_missing", "ranks_lost"} <= found.missing.keys()
    started = WORKLOAD.measure(
        [event("started", rank=-1, world_size=2, **STARTED)], [], params(), world_size=2, status=Status.FAILED
    )
    assert started.missing["allocations_failed"] == "only 0 of 2 devices reported it"


# --- which image for which card --------------------------------------------------------------------------------


def test_the_wheels_image_is_refused_on_blackwell_with_the_way_out() -> None:
    with pytest.raises(FlavourError, match="flavour cu124 has no kernels for GPU 0") as seen:
        choose_flavour("cu124", [gpu(0)], WORKLOAD.kernels)
    assert seen.value.exit_code == 3
    assert seen.value.next_step == (
        "Use --flavour cu128, which is built FROM NVIDIA's own image nvcr.io/nvidia/tensorflow:25.02-tf2-py3."
    )


def test_auto_takes_nvidias_image_on_blackwell_and_the_wheels_elsewhere() -> None:
    assert choose_flavour("auto", [gpu(0)], WORKLOAD.kernels)[0] is Flavour.CU128
    assert choose_flavour("auto", [gpu(0, capability="8.9")], WORKLOAD.kernels)[0] is Flavour.CU124


def test_a_maxwell_card_is_for_pytorch_only() -> None:
    maxwell = gpu(0, capability="5.2", name="GTX 980")
    assert choose_flavour("auto", [maxwell])[0] is Flavour.CU124
    with pytest.raises(FlavourError, match="GTX 980") as seen:
        choose_flavour("auto", [maxwell], WORKLOAD.kernels)
    assert "leave this one out" in seen.value.next_step
