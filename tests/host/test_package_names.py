"""Which packages and repositories the roles of layers 2 and 3 name, on systems that are not here: facts in, names out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UBUNTU = {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
DEBIAN = {"distribution": "Debian", "distribution_version": "12.11", "distribution_major_version": "12"}
REPOS = "https://developer.download.nvidia.com/compute/cuda/repos"


def named(folder: Path, role: str, facts: dict[str, str], variables: dict[str, Any], *wanted: str) -> dict[str, Any]:
    """Return what variables of a role are on a machine with such facts."""
    out = folder / "out.json"
    reads = {name: f"{{{{ {name} }}}}" for name in wanted}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "become": False,
        "vars_files": [str(ROOT / "ansible/versions.yml")],
        "tasks": [
            {"ansible.builtin.set_fact": {"ansible_facts": {"architecture": "x86_64", **facts}}},
            {"ansible.builtin.include_vars": {"file": str(ROOT / f"ansible/roles/{role}/defaults/main.yml")}},
            {"ansible.builtin.include_vars": {"file": str(ROOT / f"ansible/roles/{role}/vars/main.yml")}},
            {
                "ansible.builtin.copy": {"content": "{{ reads | to_json }}", "dest": str(out), "mode": "0600"},
                "vars": {"reads": reads},
            },
        ],
    }
    book = folder / "play.yml"
    book.write_text(yaml.safe_dump([play]))
    argv = [
        str(ROOT / "scripts/ansible.sh"),
        "ansible-playbook",
        "-i",
        "localhost,",
        str(book),
        "-e",
        json.dumps(variables),
    ]
    env = {**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory"}
    seen = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=120)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize(
    ("facts", "variables", "packages"),
    [
        (
            UBUNTU,
            {},
            [
                "linux-modules-nvidia-580-server-open-generic",
                "nvidia-headless-no-dkms-580-server-open",
                "nvidia-utils-580-server",
            ],
        ),
        (
            UBUNTU,
            {"nvidia_driver_branch": "595", "nvidia_driver_kernel": "generic-hwe-24.04"},
            [
                "linux-modules-nvidia-595-server-open-generic-hwe-24.04",
                "nvidia-headless-no-dkms-595-server-open",
                "nvidia-utils-595-server",
            ],
        ),
        (
            UBUNTU,
            {"nvidia_driver_modules": "closed"},
            [
                "linux-modules-nvidia-580-server-generic",
                "nvidia-headless-no-dkms-580-server",
                "nvidia-utils-580-server",
            ],
        ),
        (
            UBUNTU,
            {"nvidia_driver_source": "nvidia"},
            ["libnvidia-compute-580", "nvidia-dkms-580-open", "nvidia-utils-580", "nvidia-compute-utils-580"],
        ),
        (
            UBUNTU,
            {"nvidia_driver_source": "nvidia", "nvidia_driver_branch": "610"},
            ["libnvidia-compute", "nvidia-dkms-open", "nvidia-utils", "nvidia-compute-utils"],
        ),
        (
            DEBIAN,
            {"nvidia_driver_source": "nvidia"},
            ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"],
        ),
        (DEBIAN, {}, []),
    ],
)
def test_the_driver(tmp_path: Path, facts: dict[str, str], variables: dict[str, str], packages: list[str]) -> None:
    found = named(tmp_path, "nvidia_driver", facts, variables, "nvidia_driver_packages", "nvidia_driver_pin_packages")
    assert found["nvidia_driver_packages"] == packages
    branch = variables.get("nvidia_driver_branch", "580")
    ours = [f"nvidia-driver-pinning-{branch}"] if variables.get("nvidia_driver_source") == "nvidia" else []
    assert found["nvidia_driver_pin_packages"] == ours


@pytest.mark.parametrize(("facts", "place"), [(UBUNTU, "ubuntu2404"), (DEBIAN, "debian12")])
def test_the_drivers_repository(tmp_path: Path, facts: dict[str, str], place: str) -> None:
    found = named(tmp_path, "nvidia_driver", facts, {}, "nvidia_driver_repository_uri")
    assert found["nvidia_driver_repository_uri"] == f"{REPOS}/{place}/x86_64/"


@pytest.mark.parametrize(
    ("facts", "version", "place", "cudnn", "packages"),
    [
        (
            UBUNTU,
            "12.4",
            "ubuntu2204",
            "ubuntu2404",
            ["cuda-compiler-12-4", "cuda-libraries-12-4", "cuda-libraries-dev-12-4", "cuda-nvml-dev-12-4"],
        ),
        (UBUNTU, "12.8", "ubuntu2404", "ubuntu2404", ["cuda-toolkit-12-8"]),
        (DEBIAN, "12.4", "debian12", "debian12", ["cuda-toolkit-12-4"]),
    ],
)
def test_cuda(tmp_path: Path, facts: dict[str, str], version: str, place: str, cudnn: str, packages: list[str]) -> None:
    uri, cudnn_uri = "cuda_toolkit_repository_uri", "cuda_toolkit_cudnn_repository_uri"
    found = named(
        tmp_path, "cuda_toolkit", facts, {"cuda_toolkit_version": version}, "cuda_toolkit_packages", uri, cudnn_uri
    )
    assert found[uri] == f"{REPOS}/{place}/x86_64/"
    assert found[cudnn_uri] == f"{REPOS}/{cudnn}/x86_64/"
    assert found["cuda_toolkit_packages"] == packages
