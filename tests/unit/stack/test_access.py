"""The proof by a container, with docker replayed, and what docker's words mean."""

from __future__ import annotations

import pytest
from tests.unit.gpu.preflight.machines import UUIDS, card
from tests.unit.replay import Recording

from vaultcube.errors import EngineUnreachableError
from vaultcube.gpu.leases import DeviceRequest, GpuContainer, leased
from vaultcube.gpu.pinning import Pinning
from vaultcube.results.doctor import FindingStatus
from vaultcube.stack import access
from vaultcube.stack.access import compare, explain, prove, proving_image, run_args
from vaultcube.stack.docker import Docker

GPUS = [card(0), card(2)]
IDS = (UUIDS[0], UUIDS[2])
CDI = Pinning("cdi", "by UUID through CDI", tuple(f"nvidia.com/gpu={uuid}" for uuid in IDS))
HOOK = Pinning("nvidia", "by UUID through the NVIDIA hook", IDS)
IMAGE = "vaultcube/pytorch:cu128"
LISTED = f"GPU 0: NVIDIA GeForce RTX 5090 (UUID: {UUIDS[0]})\nGPU 1: NVIDIA GeForce RTX 5090 (UUID: {UUIDS[2]})\n"


@pytest.mark.parametrize(
    ("images", "flavour", "chosen"),
    [
        ({"vaultcube/recorder:1", IMAGE}, "cu128", "vaultcube/recorder:1"),
        ({"vaultcube/pytorch:cu124", IMAGE}, "cu128", IMAGE),
        ({"vaultcube/pytorch:cu124"}, "cu128", "vaultcube/pytorch:cu124"),
        # Whatever workload it is for, and the one that runs anywhere last.
        ({"vaultcube/tensorflow:cu124", "vaultcube/vllm:cu128"}, "cu128", "vaultcube/vllm:cu128"),
        ({"vaultcube/proxy:any", "vaultcube/vllm:cu124"}, "cu128", "vaultcube/vllm:cu124"),
        ({"vaultcube/proxy:any"}, "cu128", "vaultcube/proxy:any"),
        ({"vaultcube/base:bookworm"}, "cu128", None),
        (set(), None, None),
    ],
)
def test_which_image_proves_it(images: set[str], flavour: str | None, chosen: str | None) -> None:
    assert proving_image(images, flavour) == chosen


def test_the_container_is_confined_and_nothing_is_pulled() -> None:
    for way in (CDI, HOOK):
        args = " ".join(run_args("x", IMAGE, way))
        for part in ("--rm", "--pull never", "--read-only", "--cap-drop ALL", "--network none", "no-new-privileges"):
            assert part in args
        assert "--privileged" not in args
        assert "--user 0" not in args
        assert args.endswith(f"--entrypoint nvidia-smi {IMAGE} -L")


def test_gpus_are_named_as_the_engine_takes_them() -> None:
    by_cdi, by_hook = run_args("x", IMAGE, CDI), run_args("x", IMAGE, HOOK)
    named = [by_cdi[at + 1] for at, word in enumerate(by_cdi) if word == "--device"]
    assert named == list(CDI.devices)
    assert by_hook[by_hook.index("--gpus") + 1] == f'"device={UUIDS[0]},{UUIDS[2]}",capabilities=utility'


def test_it_holds_no_gpu() -> None:
    cdi = DeviceRequest("cdi", 0, CDI.devices, ())
    hook = DeviceRequest("", 0, IDS, (("gpu", "utility"),))
    assert leased(GpuContainer("a" * 64, "x", role="doctor", requests=(cdi,)), GPUS).uuids == ()
    assert leased(GpuContainer("a" * 64, "x", requests=(hook,)), GPUS).uuids == ()


def test_a_container_that_sees_its_gpus(recording: Recording) -> None:
    recording.says("run", LISTED)
    recording.says("rm")
    status, seen, _ = prove(Docker(), IMAGE, CDI, GPUS)
    assert status is FindingStatus.PASS
    assert seen == f"a container of {IMAGE} sees GPUs 0, 2 and no other, through CDI"
    assert recording.calls[-1].startswith("rm --force --volumes vaultcube-doctor-")


def test_a_container_that_hangs_is_removed(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.says("run", after_s=600)
    recording.says("rm")
    monkeypatch.setattr(access, "LIMIT_S", 0.3)
    with pytest.raises(EngineUnreachableError, match="did not answer within"):
        prove(Docker(), IMAGE, HOOK, GPUS)
    assert recording.calls[-1].startswith("rm --force")


@pytest.mark.parametrize(
    ("seen", "status", "said"),
    [
        (IDS, "PASS", "sees GPUs 0, 2 and no other, by hook"),
        (IDS[::-1], "PASS", "sees GPUs 0, 2"),
        (IDS[:1], "FAIL", "it does not see GPU 2"),
        ((), "FAIL", "it does not see GPUs 0, 2"),
        (UUIDS, "FAIL", f"it sees {UUIDS[1]}, {UUIDS[3]}, which it was not given"),
    ],
)
def test_what_it_sees_is_held_against_what_it_was_given(seen: tuple[str, ...], status: str, said: str) -> None:
    one = compare(seen, GPUS, IMAGE, HOOK)
    assert one.status == status
    assert said in one.seen


LIBRARY = "libnvidia-ml.so.1: cannot open shared object file"
LIBCUDA = "/lib/x86_64-linux-gnu/libcuda.so.575.57.08"
DAEMON = "docker: Error response from daemon: "
TASK = f"{DAEMON}failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
PRESTART = f"{TASK}unable to start container process: error during container init: error running hook #0: error running hook: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: "


@pytest.mark.parametrize(
    ("words", "said", "step"),
    [
        (
            f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].',
            "does not know the NVIDIA",
            "restart",
        ),
        (f'{DAEMON}could not select device driver "cdi" with capabilities: [].', "does no CDI", "features"),
        (
            f"{DAEMON}CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1",
            "no CDI device for these GPUs",
            "cdi generate",
        ),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "updated under the running", "Reboot"),
        ("Failed to initialize NVML: Unknown Error\n", "cgroup", "CDI"),
        (
            f"{PRESTART}initialization error: load library failed: {LIBRARY}: no such file or directory: unknown",
            "does not find the driver's libraries",
            "ldconfig",
        ),
        (f"{PRESTART}initialization error: nvml error: driver/library version mismatch: unknown", "updated", "Reboot"),
        (f"{PRESTART}device error: GPU-1: unknown device: unknown", "does not know these GPUs", "gpu-visibility"),
        (
            f'{TASK}error during container init: error mounting "{LIBCUDA}" to rootfs: no such file or directory: unknown',
            "its CDI specification is for another driver",
            "cdi generate",
        ),
        (
            f"{TASK}error setting rlimits for ready process: error setting rlimit type 8: operation not permitted",
            "unlimited locked memory",
            "memlock",
        ),
        ("something nobody has seen before", "something nobody has seen before", "words"),
        ("", "it said nothing", "words"),
    ],
)
def test_what_dockers_words_mean(words: str, said: str, step: str) -> None:
    one = explain(words)
    assert one.status is FindingStatus.FAIL
    assert said in one.seen
    assert "\n" not in one.seen
    assert len(one.seen) < 300
    assert step in (one.next_step or "")


def test_an_engine_that_went_away_says_nothing_about_gpus() -> None:
    one = explain("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
    assert one.status is FindingStatus.UNAVAILABLE
