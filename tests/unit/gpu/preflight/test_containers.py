"""The way from the engine to the GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.gpu.preflight.machines import UUIDS, box, found, nvml

from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.preflight.facts import CdiSpecs, Engine, Facts, HookConfig, Toolkit, Unseen

DEAF = Unseen("docker info did not answer within 10 s", "engine-unreachable")
BLIND: dict[str, Any] = {"engine": DEAF, "offers": DEAF, "cdi": DEAF}
HOOK = "/usr/bin/nvidia-container-runtime-hook"
NO_CDI = PinningFacts(None, hook=True)
NEITHER = PinningFacts(None, hook=False)
EMPTY = PinningFacts(frozenset(), hook=True)
BY_INDEX = PinningFacts(frozenset({"0", "1", "2", "3", "all"}), hook=False)
ALL = frozenset({"all", *UUIDS})
OF_580 = CdiSpecs(("/etc/cdi/nvidia.yaml",), frozenset({"580.95.05"}))
OF_575 = CdiSpecs(("/etc/cdi/nvidia.yaml",), frozenset({"575.57.08"}))


def config(*, accepts: bool, broken: str = "") -> HookConfig:
    return HookConfig("/etc/nvidia-container-runtime/config.toml", accepts, broken)


def runtime(name: str) -> Engine:
    return Engine("28.3.3", "/var/lib/docker", frozenset({"runc", "nvidia"}), name, "systemd", ("/etc/cdi",))


@pytest.mark.parametrize(
    ("code", "changes", "status", "said"),
    [
        ("toolkit", {}, "PASS", f"nvidia-ctk 1.18.1; the hook {HOOK}, 9 CDI devices"),
        ("toolkit", {"toolkit": Toolkit(None, HOOK)}, "WARN", "nvidia-ctk is not on the PATH"),
        ("toolkit", {"toolkit": Toolkit(None, None), "offers": NEITHER}, "FAIL", "is not installed"),
        ("toolkit", {"toolkit": Toolkit("1.18.1", None), "offers": NEITHER}, "FAIL", "not set up for it"),
        (
            "toolkit",
            {"toolkit": Toolkit("1.18.1", None), "offers": NEITHER, "engine": runtime("runc")},
            "PASS",
            "the engine's runtime nvidia",
        ),
        ("toolkit", {"toolkit": Toolkit("1.18.1", None), **BLIND}, "UNAVAILABLE", "no engine answers"),
        ("toolkit", {"toolkit": Toolkit(None, None), **BLIND}, "FAIL", "is not installed"),
        ("toolkit-version", {"toolkit": Toolkit("1.17.8", None)}, "PASS", "1.17.8"),
        ("toolkit-version", {"toolkit": Toolkit("1.17.7", None)}, "FAIL", "(CVE-2025-23266)"),
        ("toolkit-version", {"toolkit": Toolkit("1.17.3", None)}, "FAIL", "(CVE-2025-23359, CVE-2025-23266)"),
        ("toolkit-version", {"toolkit": Toolkit("1.13.5", None)}, "FAIL", "(CVE-2024-0132, CVE-2024-0134, CVE-2025"),
        ("toolkit-version", {"toolkit": Toolkit("1.18.0-rc.2", None)}, "PASS", "1.18.0-rc.2"),
        ("toolkit-version", {"toolkit": Toolkit(None, HOOK)}, "UNAVAILABLE", "not on the PATH"),
        ("cdi-devices", {}, "PASS", "GPUs 0-3 in /etc/cdi/nvidia.yaml"),
        ("cdi-devices", {"cdi": CdiSpecs()}, "PASS", "GPUs 0-3 in the engine's CDI"),
        ("cdi-devices", {"offers": BY_INDEX}, "PASS", "GPUs 0-3"),
        ("cdi-devices", {"offers": NO_CDI}, "WARN", "the engine does no CDI"),
        ("cdi-devices", {"offers": EMPTY}, "WARN", "no CDI device of a GPU"),
        ("cdi-devices", BLIND, "UNAVAILABLE", "no engine answers"),
        # A card was added or changed, and the way is CDI or none.
        ("cdi-devices", {"offers": PinningFacts(ALL - {UUIDS[3]}, hook=False)}, "FAIL", "does not know GPU 3"),
        # There is still the hook.
        ("cdi-devices", {"offers": PinningFacts(ALL - {UUIDS[3]}, hook=True)}, "WARN", "does not know GPU 3"),
        (
            "cdi-devices",
            {"offers": PinningFacts(ALL | {"GPU-gone"}, hook=True)},
            "FAIL",
            "names GPU-gone, which is not",
        ),
        ("cdi-devices", {"cdi": OF_575}, "FAIL", "the libraries of driver 575.57.08, and 580.95.05 is loaded"),
        ("cdi-devices", {"cdi": OF_580}, "PASS", ""),
        ("pinning", {}, "PASS", "by UUID through CDI"),
        ("pinning", {"offers": NO_CDI}, "PASS", "by UUID through the NVIDIA hook: the engine does no CDI"),
        ("pinning", {"offers": BY_INDEX}, "PASS", "by index through CDI"),
        ("pinning", {"offers": NEITHER}, "FAIL", "no container can get a GPU"),
        ("pinning", BLIND, "UNAVAILABLE", "no engine answers"),
        ("default-runtime", {}, "PASS", "runc"),
        ("default-runtime", {"engine": runtime("nvidia")}, "WARN", "the default runtime is nvidia"),
        ("default-runtime", BLIND, "UNAVAILABLE", "no engine answers"),
        ("env-leak", {}, "PASS", "cannot take GPUs"),
        ("env-leak", {"hook_config": config(accepts=True)}, "WARN", "may take GPUs"),
        ("env-leak", {"hook_config": config(accepts=True), "offers": NO_CDI}, "WARN", "the hook needs it so"),
        ("env-leak", {"offers": NO_CDI}, "FAIL", "will not hear the engine either"),
        ("env-leak", {"hook_config": config(accepts=True, broken="not valid TOML: x")}, "FAIL", "not valid TOML: x"),
        ("env-leak", {"hook_config": Unseen("no such file")}, "UNAVAILABLE", "no such file"),
        ("cgroup-driver", {}, "PASS", "systemd, and GPUs come through CDI"),
        ("cgroup-driver", {"offers": NO_CDI}, "WARN", "daemon-reload"),
        ("cgroup-driver", {"offers": NO_CDI, "engine": Engine("1", "/", cgroup_driver="cgroupfs")}, "PASS", "by hook"),
        ("cgroup-driver", {"offers": NEITHER}, "UNAVAILABLE", "see pinning"),
        ("cgroup-driver", BLIND, "UNAVAILABLE", "no engine answers"),
    ],
)
def test_what_is_said(code: str, changes: dict[str, Any], status: str, said: str) -> None:
    one = found(code, box(**changes))
    assert one.status == status, one
    assert said in one.seen


def test_only_the_chosen_gpus_have_to_be_in_a_specification() -> None:
    facts: Facts = box(offers=PinningFacts(ALL - {UUIDS[3]}, hook=False))
    assert found("cdi-devices", facts).status == "FAIL"
    chosen = facts.asked._replace(uuids=UUIDS[:2])
    assert found("cdi-devices", box(asked=chosen, offers=facts.offers)).status == "PASS"


def test_a_stale_specification_is_made_anew() -> None:
    assert "nvidia-ctk cdi generate" in (found("cdi-devices", box(cdi=OF_575)).next_step or "")


def test_an_old_specification_of_an_old_driver_is_no_fault() -> None:
    assert found("cdi-devices", box(cdi=OF_575, nvml=nvml(driver="575.57.08"))).status == "PASS"
