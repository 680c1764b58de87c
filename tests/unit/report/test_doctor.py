from __future__ import annotations

import re

import pytest

from vaultcube.report.doctor import report
from vaultcube.results.doctor import DoctorReport, Finding, FindingStatus

NO_GPU = "no NVIDIA GPU on this machine"
LONG = "/etc/cdi/nvidia.yaml is out of date: it mounts the libraries of driver 575.57.08, and 580.95.05 is loaded"
STEP = "Make it anew: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def finding(code: str, status: str, seen: str, next_step: str | None = None) -> Finding:
    return Finding(code=code, status=FindingStatus(status), seen=seen, next_step=next_step)


def doctor(*checks: Finding, simulated: bool = False) -> DoctorReport:
    return DoctorReport(
        vaultcube="1",
        simulated=simulated,
        engine="28.3.3",
        driver=None,
        flavour="cpu",
        profile="p",
        gpus=[],
        checks=list(checks),
    )


SOME = doctor(
    finding("docker", "PASS", "engine 28.3.3"),
    finding("cdi-devices", "FAIL", LONG, STEP),
    finding("clock", "WARN", "nothing synchronises the clock", "Install chrony."),
    finding("ecc", "UNAVAILABLE", "these cards have no ECC counters"),
)


def test_a_row_a_check_and_the_next_step_below() -> None:
    assert report(SOME, width=80, color=False) == (
        "docker       PASS         engine 28.3.3\n"
        "cdi-devices  FAIL         /etc/cdi/nvidia.yaml is out of date: it mounts the\n"
        "                          libraries of driver 575.57.08, and 580.95.05 is loaded\n"
        "                          next: Make it anew: sudo nvidia-ctk cdi generate\n"
        "                          --output=/etc/cdi/nvidia.yaml\n"
        "clock        WARN         nothing synchronises the clock\n"
        "                          next: Install chrony.\n"
        "ecc          UNAVAILABLE  these cards have no ECC counters\n"
        "\n"
        "1 PASS, 1 WARN, 1 FAIL, 1 UNAVAILABLE\n"
    )


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, report(SOME, width=width, color=False).splitlines())) <= width


def test_a_narrow_terminal_still_shows_every_word() -> None:
    text = report(SOME, width=20, color=False)
    assert all(word in text for word in f"{LONG} {STEP}".split())


def test_checks_that_miss_the_same_thing_share_a_row() -> None:
    many = [finding(code, "UNAVAILABLE", NO_GPU) for code in ("driver", "mig", "ecc")]
    text = report(doctor(finding("docker", "PASS", "x"), *many), width=80, color=False)
    assert text.count(NO_GPU) == 1
    assert f"UNAVAILABLE: {NO_GPU}\n  driver, mig, ecc\n" in text


def test_one_that_can_be_helped_keeps_its_row() -> None:
    both = [finding("xid", "UNAVAILABLE", "x", "Run it with sudo."), finding("ecc", "UNAVAILABLE", "x")]
    text = report(doctor(*both), width=80, color=False)
    assert "Run it with sudo." in text
    assert "xid  UNAVAILABLE  x\n" in text


def test_a_simulation_is_said_first() -> None:
    assert report(doctor(simulated=True), width=80, color=False).startswith("SIMULATED")


def test_colour_changes_nothing_else() -> None:
    plain, painted = report(SOME, width=80, color=False), report(SOME, width=80, color=True)
    assert painted.count("\x1b[1;") == 4
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain
