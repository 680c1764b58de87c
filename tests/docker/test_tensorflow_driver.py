"""What the real TensorFlow in its image says of GPUs that it cannot use, over a stand-in for the CUDA driver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.docker.conftest import docker

IMAGE = "vaultcube/tensorflow:cu124"
HERE = Path(__file__).parent
pytestmark = [pytest.mark.docker, pytest.mark.image]
CUDNN = "import nvidia.cudnn; print(nvidia.cudnn.__path__[0])"


class Ended(NamedTuple):
    """How the program ended: its exit code and the last two lines that it wrote for people."""

    code: int
    error: str
    next_step: str


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Return what starts the program in the image, with a driver that shows two GPUs and cannot compute."""
    if not docker("image", "ls", "--quiet", IMAGE):
        pytest.fail(f"these tests need {IMAGE} (make setup)")
    folder = tmp_path_factory.mktemp("driver")
    library = [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*library, "-o", folder / "libcuda.so.1", HERE / "cuda.c"], check=True)
    folder.chmod(0o755)

    def run(*options: str) -> Ended:
        confined = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp:mode=1777"]
        mounted = ["--volume", f"{folder}:/driver:ro", "--env", "LD_LIBRARY_PATH=/driver", "--env", "GPUS=2"]
        program = ["python3", "-m", "mirrored", "--results", "/tmp/results", "--preset", "smoke", "--device", "cuda"]
        seen = subprocess.run(
            ["docker", "run", "--rm", *confined, *mounted, *options, IMAGE, *program],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        lines = seen.stderr.splitlines()
        return Ended(seen.returncode, lines[-2], lines[-1])

    return run


def test_memory_that_another_process_holds(start: Callable[..., Ended]) -> None:
    ended = start("--env", "FULL=1")
    assert ended.code == 70
    assert ended.error.startswith("error [gpu-memory]: rank 0: GPU 0 has no memory left: ")
    assert "CUDA_ERROR_OUT_OF_MEMORY" in ended.error
    assert "nvidia-smi" in ended.next_step


def test_a_library_that_is_not_in_the_image_is_named(start: Callable[..., Ended]) -> None:
    folder = docker("run", "--rm", "--network", "none", IMAGE, "python3", "-c", CUDNN).strip()
    ended = start("--tmpfs", f"{folder}/lib")
    assert ended.code == 69
    assert ended.error == (
        "error [library-missing]: rank 0: TensorFlow lists 0 of 2 GPUs: TensorFlow cannot load libcudnn.so.8"
    )
    assert "images build" in ended.next_step


def test_fewer_devices_than_the_driver_shows(start: Callable[..., Ended]) -> None:
    ended = start("--env", "SMALL=1")
    assert ended.code == 69
    assert ended.error.startswith("error [fewer-devices]: rank 0: TensorFlow lists 1 of 2 GPUs: ")
    assert "name: Stand-in 1" in ended.error


def test_a_gpu_that_does_not_start(start: Callable[..., Ended]) -> None:
    ended = start()
    assert ended.code == 69
    assert ended.error == "error [cuda-unavailable]: rank 0: GPU 0 does not start: CUDA_ERROR_UNKNOWN: unknown error"
