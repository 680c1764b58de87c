from __future__ import annotations

import pytest

from vaultcube.host.words import Finding, HealthReport, Verdict
from vaultcube.report.health import report

SOME = (
    Finding(1, "sshd", Verdict.PASS, "ssh.service is active"),
    Finding(
        1, "firewall", Verdict.FAIL, "UFW is not active", "Provision it again: ansible-playbook playbooks/site.yml"
    ),
    Finding(3, "cdi-devices", Verdict.UNAVAILABLE, "no NVIDIA GPU on this machine"),
    Finding(3, "gpu-container", Verdict.INVALID, "docker run: did not answer in time", "See: docker logs"),
)


def health(
    *checks: Finding, simulated: bool = False, privileged: bool = True, expected: str = "/etc/host.json"
) -> HealthReport:
    layers = tuple(sorted({one.layer for one in checks}))
    return HealthReport("1", simulated, privileged, expected, layers, checks)


def test_a_row_a_check_by_layer_and_the_next_step_below() -> None:
    assert report(health(*SOME), width=80, color=False) == (
        "layer 1: base system\n"
        "sshd           PASS         ssh.service is active\n"
        "firewall       FAIL         UFW is not active\n"
        "                            next: Provision it again: ansible-playbook\n"
        "                            playbooks/site.yml\n"
        "\n"
        "layer 3: GPUs in containers\n"
        "cdi-devices    UNAVAILABLE  no NVIDIA GPU on this machine\n"
        "gpu-container  INVALID      docker run: did not answer in time\n"
        "                            next: See: docker logs\n"
        "\n"
        "1 PASS, 1 UNAVAILABLE, 1 INVALID, 1 FAIL; held against /etc/host.json\n"
        "verdict FAIL\n"
    )


def test_what_was_not_as_usual_is_said() -> None:
    text = report(health(SOME[0], simulated=True, privileged=False, expected="defaults"), width=80, color=False)
    assert text.startswith("SIMULATED: these are another machine's files\n")
    assert "held against the documents' values (no host.json); not as root, who sees more\n" in text
    assert text.endswith("verdict UNAVAILABLE\n")


@pytest.mark.parametrize("width", [80, 120])
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, report(health(*SOME), width=width, color=False).splitlines())) <= width


def test_colour_marks_the_verdicts() -> None:
    assert "\x1b[1;31mFAIL\x1b[0m" in report(health(*SOME), width=80, color=True)
