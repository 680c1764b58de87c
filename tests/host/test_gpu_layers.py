"""Layers 2 and 3 on a bare machine, from stand-ins of Ubuntu's archive and NVIDIA's repositories: docs/known-issues.md."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.host.machine import Machine, Play, base_variables
from tests.host.photograph import differences, photograph
from tests.host.standin import ARCHIVE, CUDA, KERNEL, TOOLKIT, Archives, driver, toolkit

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]
LAYERS = ("--tags", "nvidia_driver,cuda_toolkit,nvidia_container_toolkit,first_boot")
DAEMON = {"features": {"cdi": True}, "live-restore": True}


@dataclass(frozen=True)
class Gpu:
    """A machine with layers 2 and 3, and how it came there.

    Attributes:
        archives: its stand-in repositories.
        before: what the machine was made of.
        check: the run in check mode, on the bare machine.
        first: the run that converged.
        second: the run after it.
    """

    machine: Machine
    archives: Archives
    before: dict[str, str]
    check: Play
    first: Play
    second: Play


def prepared(folder: Path, machine: Machine) -> Archives:
    """Give a machine its repositories, and the settings of an engine that layer 1 would have written."""
    archives = Archives(machine, folder)
    archives.publish_all()
    machine.variables = base_variables(machine) | archives.variables()
    machine.run(f"mkdir -p /etc/docker; echo '{json.dumps(DAEMON)}' >/etc/docker/daemon.json")
    # So that the handler has something to build, and shows when it did.
    machine.run("apt-get -qq -y --no-install-recommends install initramfs-tools", timeout=300)
    return archives


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory, machine_image: str) -> Iterator[Gpu]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("gpu")
    with Machine(folder) as machine:
        archives = prepared(folder, machine)
        check = machine.play("site.yml", *LAYERS, "--check").checked()
        # The local fact is layer 1's, and comes with every run.
        machine.play("site.yml", "--tags", "hardware_fact").checked()
        before = photograph(machine)
        first = machine.play("site.yml", *LAYERS).checked()
        second = machine.play("site.yml", *LAYERS).checked()
        yield Gpu(machine, archives, before, check, first, second)


def held(machine: Machine) -> set[str]:
    return set(machine.run("apt-mark showhold").split())


def refused(machine: Machine, *variables: str, tags: str = "nvidia_driver") -> str:
    """Run a layer with variables it must refuse, and return what it printed."""
    words = [word for variable in variables for word in ("-e", variable)]
    play = machine.play("site.yml", "--tags", tags, *words)
    assert play.code != 0, play.output[-3000:]
    # Folded at blanks by the callback.
    return " ".join(play.output.split())


def test_check_mode_works_on_a_machine_that_has_nothing(gpu: Gpu) -> None:
    assert gpu.check.counts["failed"] == 0
    assert gpu.check.counts["changed"] > 0


def test_the_second_run_changes_nothing(gpu: Gpu) -> None:
    assert gpu.second.counts["changed"] == 0, gpu.second.changed_tasks


def test_the_driver_comes_from_the_distribution(gpu: Gpu) -> None:
    installed = gpu.machine.run("dpkg-query -W -f '${Package} ${Version}\\n'")
    assert "nvidia-utils-580-server 580.173.02-0ubuntu0.24.04.1" in installed
    assert f"linux-modules-nvidia-580-server-open-{KERNEL}" in installed
    assert "999.0-1" not in installed, "a package came from NVIDIA's repository past the pins"
    assert "dkms" not in installed.replace("no-dkms", "")


def test_the_driver_and_the_toolkit_are_held(gpu: Gpu) -> None:
    wanted = {"nvidia-utils-580-server", "libnvidia-compute-580-server", "nvidia-headless-no-dkms-580-server-open"}
    wanted |= {f"linux-modules-nvidia-580-server-open-{KERNEL}", "linux-modules-nvidia-580-server-open-generic"}
    wanted |= {
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container1",
        "cuda-compiler-12-4",
    }
    assert wanted <= held(gpu.machine)


def test_nouveau_is_kept_out_and_the_initramfs_built_once(gpu: Gpu) -> None:
    text = gpu.machine.run("cat /etc/modprobe.d/vaultcube-nouveau.conf")
    assert "blacklist nouveau" in text
    assert "options nouveau modeset=0" in text
    # modprobe's own view of all its files.
    assert "blacklist nouveau" in gpu.machine.run("modprobe --showconfig")
    assert "nvidia_driver : Build the initramfs again" in gpu.first.changed_tasks
    assert "nvidia_driver : Build the initramfs again" not in gpu.second.changed_tasks


def test_modules_are_loaded_at_boot(gpu: Gpu) -> None:
    lines = gpu.machine.run("cat /etc/modules-load.d/nvidia.conf").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["nvidia", "nvidia-uvm", "nvidia-drm"]


def test_persistence_mode_replaces_what_ubuntu_starts(gpu: Gpu) -> None:
    unit = gpu.machine.run("systemctl show nvidia-persistenced.service -p ExecStart -p StopWhenUnneeded -p WantedBy")
    assert "--persistence-mode" in unit
    assert "--no-persistence-mode" not in unit
    assert "StopWhenUnneeded=no" in unit
    assert "WantedBy=multi-user.target" in unit
    # No driver is loaded here: the daemon is not started, and that is no failure.
    assert gpu.machine.run("systemctl is-failed nvidia-persistenced.service", check=False).strip() == "inactive"


def test_nvcc_is_in_the_path_of_a_login_shell(gpu: Gpu) -> None:
    assert "release 12.4," in gpu.machine.run("bash -lc 'nvcc --version'")
    assert gpu.machine.run("bash -lc 'echo ${LD_LIBRARY_PATH-unset}'").strip() == "unset"
    # Sourced twice it adds nothing.
    path = gpu.machine.run("bash -lc '. /etc/profile.d/cuda.sh; echo $PATH'").strip().split(":")
    assert path.count("/usr/local/cuda-12.4/bin") == 1


def test_the_loader_knows_cudnn_and_cuda(gpu: Gpu) -> None:
    assert "libcudnn.so.9" in gpu.machine.run("ldconfig -p")


def test_keys_and_sources_are_signed_by_path(gpu: Gpu) -> None:
    for name in ("nvidia-cuda", "nvidia-cudnn", "nvidia-toolkit"):
        source = gpu.machine.run(f"cat /etc/apt/sources.list.d/{name}.sources")
        assert "Signed-By: /etc/apt/keyrings/standin.asc" in source
    assert gpu.machine.code("test -e /etc/apt/trusted.gpg") != 0
    assert gpu.machine.run("ls /etc/apt/trusted.gpg.d | grep -v debian-archive || true").strip() == ""


def test_an_upgrade_moves_nothing_that_is_held(gpu: Gpu) -> None:
    gpu.archives.publish("archive", driver("580.999.99-0ubuntu0.24.04.1"))
    gpu.archives.publish("toolkit", toolkit("1.99.0-1"))
    gpu.machine.run("apt-get -qq update")
    assert "580.999.99" in gpu.machine.run("apt-cache policy nvidia-utils-580-server")
    simulated = gpu.machine.run("apt-get -s dist-upgrade")
    moved = [line for line in simulated.splitlines() if line.startswith(("Inst", "Remv"))]
    assert not [line for line in moved if "nvidia" in line or "cuda" in line], moved
    assert "kept back" in simulated
    assert "nvidia-utils-580-server" in simulated


def test_containers_cannot_take_gpus_by_themselves(gpu: Gpu) -> None:
    config = tomllib.loads(gpu.machine.run("cat /etc/nvidia-container-runtime/config.toml"))
    assert config["accept-nvidia-visible-devices-envvar-when-unprivileged"] is False
    assert config["accept-nvidia-visible-devices-as-volume-mounts"] is False
    # The rest is as the package left it.
    assert config["nvidia-container-runtime"]["mode"] == "auto"
    assert config["nvidia-container-cli"]["load-kmods"] is True


def test_the_cdi_specification_is_left_to_the_boot(gpu: Gpu) -> None:
    assert (
        gpu.machine.run("systemctl is-enabled nvidia-cdi-refresh.service nvidia-cdi-refresh.path").split()
        == ["enabled"] * 2
    )
    assert gpu.machine.code("test -e /etc/cdi") != 0


def test_the_local_fact_tells_hardware_and_pins(gpu: Gpu) -> None:
    fact = json.loads(gpu.machine.run("/etc/ansible/facts.d/vaultcube.fact"))
    assert fact["gpu_hardware_present"] is False
    assert fact["pinned"]["driver_branch"] == "580"


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("nvidia_driver_branch=550", "value of nvidia_driver_branch must be one of: 580, 590, 595, 610"),
        ("nvidia_driver_modules=closed", "closed kernel modules do not drive Blackwell cards"),
        ("nvidia_driver_modules=dkms", "value of nvidia_driver_modules must be one of: open, closed"),
        ("nvidia_driver_branch=590", "apt would install 595.71.05-0ubuntu0.24.04.1"),
        ("nvidia_driver_branch=610", "apt does not know linux-modules-nvidia-610-server-open-generic"),
        ("nvidia_driver_kernel=lowlatency", "nvidia_driver_kernel to the flavour of the installed kernel"),
        ("nvidia_driver_distribution=debian", "Set nvidia_driver_source: nvidia."),
    ],
)
def test_what_cannot_work_is_refused(gpu: Gpu, variable: str, words: str) -> None:
    assert words in refused(gpu.machine, variable)
    assert "nvidia-utils-580-server" in held(gpu.machine)


def test_an_image_never_carries_a_key_of_dkms(gpu: Gpu) -> None:
    told = refused(gpu.machine, "nvidia_driver_source=nvidia", "image_build_phase=true")
    assert "every machine made from the image would share that key" in told


def test_a_foreign_key_is_refused_before_it_is_installed(gpu: Gpu) -> None:
    fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
    told = refused(gpu.machine, f"cuda_toolkit_repository_fingerprint={fingerprint}", tags="cuda_toolkit")
    assert f"expected is {fingerprint}" in told


def test_a_toolkit_with_known_holes_is_refused(gpu: Gpu) -> None:
    gpu.archives.publish("toolkit", toolkit("1.17.8-1"))
    told = refused(gpu.machine, "nvidia_container_toolkit_version=1.17.8-1", tags="nvidia_container_toolkit")
    assert "a hostile image can break out of its container" in told
    assert "1.20.0-1" in gpu.machine.run("dpkg-query -W nvidia-container-toolkit")


def test_a_default_runtime_is_refused(gpu: Gpu) -> None:
    was = gpu.machine.run("cat /etc/docker/daemon.json")
    try:
        gpu.machine.run("""echo '{"features": {"cdi": true}, "default-runtime": "nvidia"}' >/etc/docker/daemon.json""")
        assert "neither a default runtime" in refused(gpu.machine, tags="nvidia_container_toolkit")
    finally:
        gpu.machine.run(f"cat >/etc/docker/daemon.json <<'E'\n{was}E")


def test_a_specification_written_by_hand_is_refused(gpu: Gpu) -> None:
    gpu.machine.run("mkdir -p /etc/cdi; touch /etc/cdi/nvidia.yaml")
    try:
        assert "outlives the driver it describes" in refused(gpu.machine, tags="nvidia_container_toolkit")
    finally:
        gpu.machine.run("rm -r /etc/cdi")


def test_modules_of_another_version_are_found(gpu: Gpu) -> None:
    """The newest kernel has modules that do not match the userspace: exactly what an unheld upgrade leaves."""
    path = f"/lib/modules/{KERNEL}/kernel/nvidia-580-server-open/nvidia.ko"
    gpu.machine.run(f"mv {path} {path}.away; depmod -a {KERNEL}")
    try:
        assert "no module nvidia" in refused(gpu.machine)
        gpu.machine.run(f"sed 's/580.173.02/580.173.99/' {path}.away >{path}; depmod -a {KERNEL}")
        assert "the module 580.173.99 with licence Dual MIT/GPL" in refused(gpu.machine)
        # The same length keeps the object file whole.
        gpu.machine.run(
            f"sed 's:Dual MIT/GPL:NVIDIA\\x00\\x00\\x00\\x00\\x00\\x00:' {path}.away >{path}; depmod -a {KERNEL}"
        )
        assert "with licence NVIDIA" in refused(gpu.machine)
    finally:
        gpu.machine.run(f"mv {path}.away {path}; depmod -a {KERNEL}")


def test_layers_3_and_2_are_taken_back(gpu: Gpu) -> None:
    """The last test of the file: the machine is bare again afterwards."""
    changed = differences(gpu.before, photograph(gpu.machine))
    assert {"hold nvidia-utils-580-server", "file /etc/modprobe.d/vaultcube-nouveau.conf"} <= set(changed)
    gpu.machine.play("rollback.yml", "--tags", "layer3,layer2").checked()
    left = differences(gpu.before, photograph(gpu.machine))
    # The repositories themselves are the tests' own, and have an upgrade in them since.
    assert {name for name in left if " /srv/" not in name} == set()
    repositories = gpu.machine.run("apt-cache policy")
    assert ARCHIVE in repositories
    assert CUDA not in repositories
    assert TOOLKIT not in repositories
