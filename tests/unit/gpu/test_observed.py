"""What telemetry makes of a run, on files as the recorder writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from tests.unit.support import gpu

from vaultcube.gpu.observed import NAMES, hardware_checks, observe
from vaultcube.gpu.readings import GpuInfo, Reading
from vaultcube.gpu.rundb import Begun, Writer
from vaultcube.gpu.telemetry import Telemetry
from vaultcube.results.intervals import Interval
from vaultcube.results.judge import Measurement

GPUS = [gpu(index).model_copy(update={"pcie_gen_max": 5, "pcie_width_max": 16}) for index in range(2)]
RANKS = {one.index: one.uuid for one in GPUS}
ALL = Interval(1010.0, 1060.0, samples=5000)
ALONE = Interval(1000.0, 1005.0, samples=100, rank=1)
BUSY = Reading(
    temperature_c=70,
    temperature_margin_c=20,
    power_mw=500_000,
    sm_clock_mhz=2400,
    memory_clock_mhz=14001,
    utilisation_percent=98,
    memory_utilisation_percent=60,
    memory_used_bytes=20 * 2**30,
    pcie_gen=5,
    pcie_width=16,
    pcie_replays=0,
    clock_events=0x4,
)
# What a reading says at a second and on a GPU.
Says = Callable[[int, int], Reading]


def busy(second: int, _gpu: int) -> Reading:
    return BUSY._replace(
        energy_mj=second * 500_000,
        power_cap_ns=second * 10**9,
        sw_thermal_ns=0,
        hw_thermal_ns=0,
        power_brake_ns=0,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def record(
    path: Path,
    says: Says = busy,
    *,
    seconds: int = 80,
    events: Callable[[Writer], object] | None = None,
    xid_events: bool = True,
) -> None:
    infos = [GpuInfo(one.uuid, one.index, one.name, one.pci_bus_id, "12.0", one.memory_total_bytes) for one in GPUS]
    begun = Begun(
        990_000,
        1_700_000_000_000,
        "boot",
        1000,
        "580.95.05",
        "13.0",
        simulated=True,
        kernel_log=None,
        xid_events=xid_events,
    )
    writer = Writer(str(path), begun, infos)
    for second in range(990, 990 + seconds):
        for one in GPUS:
            writer.reading(one.index, second * 1000, says(second, one.index))
    if events is not None:
        events(writer)
    writer.close((990 + seconds) * 1000, "SIGTERM")


def seen(path: Path, *intervals: Interval, containers: Collection[str] = ()) -> Measurement:
    with Telemetry.open(path) as telemetry:
        return observe(GPUS, telemetry, intervals or (ALONE, ALL), RANKS, containers=containers)


def test_a_good_run_has_every_figure(path: Path) -> None:
    record(path)
    found = seen(path)
    assert found.disturbances == []
    assert found.missing == {}
    figures = {name: metric.value for name, metric in found.metrics.items()}
    assert figures.keys() >= set(NAMES)
    assert figures["gpu_utilisation"] == 0.98
    assert figures["power_mean_watts"] == 1000
    assert figures["pcie_link_ratio"] == 1
    assert figures["gpus_lost"] == 0
    assert figures["throttle_share_ratio"] == 0
    assert figures["power_cap_share_ratio"] == pytest.approx(1, abs=0.01)
    # Two GPUs of 500 W for 50 s, and 5000 samples.
    assert figures["energy_per_sample_joules"] == pytest.approx(10, rel=0.01)
    assert found.metrics["energy_per_sample_joules"].unit == "J/sample"
    assert figures["gpu_memory_used_max_ratio"] == pytest.approx(20 * 2**30 / GPUS[0].memory_total_bytes)


def test_the_unit_of_the_work_names_the_figures_of_energy(path: Path) -> None:
    record(path)
    found = seen(path, Interval(1010.0, 1060.0, samples=100_000, unit="token"))
    assert found.metrics["energy_per_token_joules"].value == pytest.approx(0.5, rel=0.01)
    assert found.metrics["energy_per_token_joules"].unit == "J/token"
    assert found.metrics["tokens_per_joule"].value == pytest.approx(2, rel=0.01)
    assert "energy_per_sample_joules" not in {*found.metrics, *found.missing}
    short = seen(path, Interval(1010.0, 1020.0, samples=10, unit="token"))
    assert set(short.missing) == {"energy_per_token_joules"}
    assert "tokens_per_joule" not in short.metrics


def test_a_replica_that_is_held_back_is_called_one(path: Path) -> None:
    record(path, lambda second, index: busy(second, index)._replace(clock_events=0x44, hw_thermal_ns=second * 10**9))
    both = Interval(1010.0, 1060.0, samples=10, unit="token")
    alone = Interval(1000.0, 1005.0, samples=10, rank=1, unit="token")
    said = " ".join(seen(path, alone, both).disturbances)
    assert "while all replicas worked" in said
    assert "while replica 1 worked alone" in said


def test_the_hardware_is_judged_by_figures_that_telemetry_has(path: Path) -> None:
    record(path)
    specs = hardware_checks()
    assert [spec.name for spec in specs] == ["pcie_link", "no_gpu_lost", "no_xid"]
    assert {spec.metric for spec in specs} <= {*NAMES} & {*seen(path).metrics}
    assert all(spec.needs_gpu and not spec.timed for spec in specs)


def test_the_least_busy_gpu_and_the_slowest_link_count(path: Path) -> None:
    record(
        path, lambda second, index: busy(second, index)._replace(utilisation_percent=95 - index, pcie_width=16 >> index)
    )
    found = seen(path).metrics
    assert found["gpu_utilisation"].value == pytest.approx(0.94)
    assert found["pcie_link_ratio"].value == 0.5


def test_a_generation_is_half_a_link(path: Path) -> None:
    record(path, lambda second, index: busy(second, index)._replace(pcie_gen=4))
    assert seen(path).metrics["pcie_link_ratio"].value == 0.5


@pytest.mark.parametrize(("interval", "words"), [(ALL, "while all ranks worked"), (ALONE, "while rank 1 worked alone")])
def test_clocks_that_are_held_back_disturb_what_was_timed_meanwhile(path: Path, interval: Interval, words: str) -> None:
    def hot(second: int, index: int) -> Reading:
        slow = index == 1 and interval.start_s <= second <= interval.end_s
        held = max(min(second, interval.end_s) - interval.start_s, 0) if index == 1 else 0
        return busy(second, index)._replace(clock_events=0x44 if slow else 0x4, hw_thermal_ns=int(held * 10**9))

    record(path, hot)
    (said,) = seen(path).disturbances
    assert words in said
    assert "GPU 1 were held back for 100% of the time" in said
    assert "(hardware thermal slowdown)" in said


def test_a_flicker_at_a_change_of_p_state_disturbs_nothing(path: Path) -> None:
    record(path, lambda second, index: busy(second, index)._replace(clock_events=0xC if second == 1030 else 0x4))
    assert seen(path).disturbances == []


def test_a_gpu_that_another_rank_left_idle_is_not_looked_at(path: Path) -> None:
    record(path, lambda second, index: busy(second, index)._replace(hw_thermal_ns=0 if index else second * 10**9))
    assert seen(path, ALONE).disturbances == []


def test_lost_gpus_and_xids_are_counted_by_class(path: Path) -> None:
    def faults(writer: Writer) -> None:
        writer.event(1_020_000, "lost", position=1)
        writer.event(1_020_000, "xid", position=1, code=79)
        writer.event(1_021_000, "xid", position=0, code=31)
        writer.event(1_022_000, "xid", code=9999)

    record(path, events=faults)
    found = seen(path).metrics
    assert found["gpus_lost"].value == 1
    assert (found["xids_hardware"].value, found["xids_application"].value) == (2, 1)


def test_a_gpu_that_is_not_recorded_may_be_lost(path: Path) -> None:
    record(path, events=lambda writer: writer.event(1_020_000, "lost", detail={"pci": "0000:06:00"}))
    assert seen(path).metrics["gpus_lost"].value == 0


def test_a_gpu_that_a_container_was_given_and_never_saw_is_ours(path: Path) -> None:
    record(path, events=lambda writer: writer.event(990_000, "lost", detail={"nvml_index": 1, "problem": "lost"}))
    assert seen(path).metrics["gpus_lost"].value == 1


def computes(at_ms: int, pid: int, *containers: str) -> Callable[[Writer], int]:
    detail = {"pid": pid, "name": "python3", "containers": list(containers)}
    return lambda writer: writer.event(at_ms, "process", position=1, detail=detail)


def ended(at_ms: int, pid: int) -> Callable[[Writer], int]:
    return lambda writer: writer.event(at_ms, "process_ended", position=1, detail={"pid": pid})


@pytest.mark.parametrize(
    ("story", "disturbed"),
    [
        ([computes(1_020_000, 7)], True),
        ([computes(1_020_000, 7, "other")], True),
        ([computes(995_000, 7), ended(1_030_000, 7)], True),
        # Ours, gone before anything was timed, and come after it.
        ([computes(1_020_000, 7, "outer", "ours")], False),
        ([computes(995_000, 7), ended(996_000, 7)], False),
        ([computes(1_065_000, 7)], False),
    ],
)
def test_a_guest_on_a_gpu_disturbs_what_was_timed_meanwhile(
    path: Path, story: list[Callable[[Writer], int]], *, disturbed: bool
) -> None:
    record(path, events=lambda writer: [tell(writer) for tell in story])
    found = seen(path, containers=["ours"]).disturbances
    assert found == (["process 7 (python3) computed on GPU 1 at the same time"] if disturbed else [])


def test_nobody_who_could_have_told_of_an_xid_is_no_proof_that_there_was_none(path: Path) -> None:
    record(path, xid_events=False)
    assert seen(path).missing == {"xids_hardware": "neither the kernel's log nor NVML's events could be read"}


def test_telemetry_that_broke_off_proves_little(path: Path) -> None:
    record(path, seconds=40)
    found = seen(path)
    assert found.metrics["telemetry_coverage_ratio"].value < 0.5
    assert found.missing["gpu_utilisation"].startswith("telemetry covers 38%")
    assert "gpu_utilisation" not in found.metrics


def test_energy_needs_time_and_a_counter_that_goes_on(path: Path) -> None:
    record(path, lambda second, index: busy(second, index)._replace(energy_mj=None))
    assert seen(path).missing == {"energy_per_sample_joules": "the card has no energy counter"}
    short = Interval(1010.0, 1020.0, samples=10)
    assert seen(path, short).missing == {"energy_per_sample_joules": "the windows lasted 10 s, and 30 s are needed"}


def test_what_a_card_does_not_tell_is_missing_and_never_zero(path: Path) -> None:
    record(path, lambda _second, _index: Reading(temperature_c=40))
    found = seen(path)
    assert {
        "gpu_utilisation",
        "pcie_link_ratio",
        "gpu_memory_used_max_ratio",
        "energy_per_sample_joules",
    } == set(found.missing)
    assert not {"power_mean_watts", "throttle_share_ratio", "sm_clock_mean_mhz"} & set(found.metrics)
    assert found.disturbances == []


@pytest.mark.parametrize("far", [Interval(1.0, 2.0, 1), Interval(1e300, 1.1e300, 1), Interval(-1e308, 1e308, 1)])
def test_a_clock_that_is_not_ours_breaks_nothing(path: Path, far: Interval) -> None:
    record(path)
    found = seen(path, far)
    assert "gpu_utilisation" in found.missing
    assert found.metrics["gpus_lost"].value == 0


def test_without_telemetry_or_gpus_everything_says_why() -> None:
    asked = (*NAMES, "energy_per_sample_joules")
    assert observe(GPUS, None, [ALL], RANKS).missing == dict.fromkeys(asked, "no telemetry was recorded")
    assert observe([], None, [ALL], {}).missing == dict.fromkeys(asked, "no GPU was used")
    assert observe([], None, [], {}).missing == dict.fromkeys(NAMES, "no GPU was used")
