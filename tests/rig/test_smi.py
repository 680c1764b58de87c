"""nvidia-smi over the mock: NVIDIA's words, columns and exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.rig.box import Box
from tests.rig.inside import still_box


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    return still_box(tmp_path / "box", getattr(request, "param", "4x5090"))


def smi(box: Box, *args: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing but the box's variables: it must need no more."""
    return subprocess.run(["nvidia-smi", *args], env=box.env(), capture_output=True, text=True, check=False, timeout=60)


def lines(box: Box, *args: str) -> list[str]:
    seen = smi(box, *args)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    return seen.stdout.splitlines()


def test_list(box: Box) -> None:
    assert lines(box, "-L") == [
        f"GPU {index}: NVIDIA GeForce RTX 5090 (UUID: {uuid})" for index, uuid in enumerate(box.uuids)
    ]


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_list_with_mig(box: Box) -> None:
    box.mig(0, 1)

    listed = lines(box, "-L")
    assert listed[1].startswith("  MIG 1g.10gb     Device  0: (UUID: MIG-")
    assert listed[2].startswith("GPU 1: ")


def test_query(box: Box) -> None:
    box.load(1)
    asked = (
        "--query-gpu=index,gpu_uuid,memory.total,power.draw,temperature.gpu,clocks.sm,pcie.link.width.current,pstate"
    )
    header, *rows = lines(box, asked, "--format=csv")

    assert header == (
        "index, uuid, memory.total [MiB], power.draw [W], temperature.gpu, clocks.current.sm [MHz], "
        "pcie.link.width.current, pstate"
    )
    assert rows[0] == f"0, {box.uuids[0]}, 32607 MiB, 12.00 W, 31, 180 MHz, 16, P8"
    assert rows[1] == f"1, {box.uuids[1]}, 32607 MiB, 556.00 W, 71, 2580 MHz, 16, P0"


def test_query_without_header_and_units(box: Box) -> None:
    assert lines(box, "--query-gpu=memory.total,power.limit", "--format=csv,noheader,nounits", "-i", "2") == [
        "32607, 575.00"
    ]


@pytest.mark.parametrize("wanted", ["2", "uuid", "00000000:81:00.0", "0000:81:00.0"])
def test_one_gpu_by_every_name(box: Box, wanted: str) -> None:
    name = box.uuids[2] if wanted == "uuid" else wanted
    assert lines(box, "--query-gpu=index", "--format=csv,noheader", f"--id={name}") == ["2"]


def test_what_a_geforce_does_not_tell(box: Box) -> None:
    asked = (
        "--query-gpu=ecc.mode.current,ecc.errors.uncorrected.volatile.total,temperature.memory,mig.mode.current,serial"
    )
    assert lines(box, asked, "--format=csv,noheader", "-i", "0") == ["[N/A], [N/A], [N/A], [N/A], [N/A]"]


def test_a_reading_that_fails_alone(box: Box) -> None:
    box.set_gpu(0, power_mw="permission", fan_percent="unknown")
    asked = "--query-gpu=power.draw,fan.speed,name"
    assert lines(box, asked, "--format=csv,noheader", "-i", "0") == [
        "[Insufficient Permissions], [Unknown Error], NVIDIA GeForce RTX 5090"
    ]


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_every_field_has_a_value_on_a_data_centre_card(box: Box) -> None:
    source = (Path(__file__).parent / "nvml/smi_query.c").read_text()
    names = re.findall(r'^    {"([\w.]+)", (?:NULL|"([\w.]+)"),', source, re.MULTILINE)
    fields = [field for pair in names for field in pair if field and field != "fan.speed"]
    assert len(fields) > 45

    (row,) = lines(box, f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "-i", "0")
    assert "[" not in row
    assert len(row.split(", ")) == len(fields)


def test_an_unknown_field(box: Box) -> None:
    seen = smi(box, "--query-gpu=name,watts", "--format=csv")
    assert (seen.returncode, seen.stdout) == (2, 'Field "watts" is not a valid field to query.\n\n')


@pytest.mark.parametrize(
    "args", [["--frobnicate"], ["--query-gpu=name"], ["--query-gpu=name", "--format=xml"], ["--format=csv"]]
)
def test_wrong_arguments(box: Box, args: list[str]) -> None:
    seen = smi(box, *args)
    assert seen.returncode == 2
    assert seen.stdout.startswith("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")


def test_compute_apps(box: Box) -> None:
    box.add_process(1, 1, 3 << 30)
    listed = lines(box, "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv")
    assert listed == ["gpu_uuid, pid, used_gpu_memory [MiB]", f"{box.uuids[1]}, 1, 3072 MiB"]


def test_the_table_is_as_wide_as_the_real_one_and_says_what_it_is(box: Box) -> None:
    box.load()
    box.add_process(0, 4242, 3 << 30)
    _, *table, last = lines(box)

    assert {len(line) for line in table if line} == {91}
    assert "| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |" in table
    assert "| 62%   71C    P0            556W /  575W |    3074MiB /  32607MiB |     99%      Default |" in table
    assert last == "Simulated: there is no such hardware here."


def test_a_loop_goes_on_until_it_is_ended(box: Box) -> None:
    argv = ["nvidia-smi", "--query-gpu=index", "--format=csv", "-lms", "1", "-i", "0"]
    with subprocess.Popen(argv, env=box.env(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        seen = [child.stdout.readline() for _ in range(4)]
        child.send_signal(signal.SIGTERM)
    assert seen == ["index\n", "0\n", "0\n", "0\n"]


def test_a_lost_gpu(box: Box) -> None:
    box.lose(1)
    for args in ([], ["-L"], ["--query-gpu=name", "--format=csv"]):
        seen = smi(box, *args)
        assert seen.stdout == "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error\n"
        assert seen.returncode == 255


def test_driver_mismatch(box: Box) -> None:
    box.driver_mismatch()
    seen = smi(box)
    assert seen.stdout == "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"
    assert seen.returncode == 18


def test_no_permission(box: Box) -> None:
    box.permission_denied()
    seen = smi(box)
    assert (seen.returncode, seen.stdout) == (4, "Failed to initialize NVML: Insufficient Permissions\n")


def test_no_driver(box: Box) -> None:
    box.set(init_error="not_loaded")
    seen = smi(box, "-L")
    assert seen.returncode == 9
    assert seen.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_devices_taken_away_from_a_container(box: Box) -> None:
    box.set(init_error="unknown")
    seen = smi(box, "-L")
    assert (seen.returncode, seen.stdout) == (255, "Failed to initialize NVML: Unknown Error\n")


@pytest.mark.parametrize("box", ["none"], indirect=True)
def test_no_gpu(box: Box) -> None:
    seen = smi(box, "-L")
    assert (seen.returncode, seen.stdout) == (6, "No devices were found\n")


def test_no_library(box: Box) -> None:
    seen = subprocess.run([box.path / "bin/nvidia-smi"], env={}, capture_output=True, text=True, check=False)
    assert seen.returncode == 12
    assert seen.stdout.startswith("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.")


def test_help_says_that_it_is_simulated(box: Box) -> None:
    assert "simulated" in lines(box, "-h")[0]
