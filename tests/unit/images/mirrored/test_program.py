import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ddp.program import PROGRAM as DDP
from mirrored.program import PROGRAM, MirroredParams, autopsy, environment

from common.outcome import Problem
from training import cli
from training.params import Job

LOGS = Path(__file__).resolve().parents[3] / "data" / "tensorflow"


def test_presets_are_those_of_ddp_but_for_the_switches_and_the_smallest_model() -> None:
    for name, values in DDP.presets.items():
        same = {key: values[key] for key in values if key != "channels_last"} | {"xla": False}
        # ResNet-50 takes TensorFlow minutes to trace on two cores.
        assert PROGRAM.presets[name] == same | ({"model": "mobilenet"} if name == "smoke" else {})


def test_the_command_line_is_that_of_ddp_but_for_the_switches() -> None:
    options = cli.parse(["--results", "/r", "--preset", "smoke", "--xla", "--model", "mobilenet_v2"], PROGRAM)
    assert options.values == dict(PROGRAM.presets["smoke"]) | {"preset": "smoke", "xla": True, "model": "mobilenet_v2"}
    with pytest.raises(Problem, match="--channels-last"):
        cli.parse(["--results", "/r", "--channels-last"], PROGRAM)


def test_a_job_survives_its_journey(mirrored: Callable[..., MirroredParams]) -> None:
    job = Job(mirrored(xla=True), "/e", "/b", "/r", "/l")
    assert Job.from_json(job.to_json(), MirroredParams) == job


def test_the_worker_s_environment(monkeypatch: pytest.MonkeyPatch, mirrored: Callable[..., MirroredParams]) -> None:
    for name in ("NVIDIA_TF32_OVERRIDE", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_XLA_FLAGS", "TF_USE_LEGACY_KERAS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_cuda_data_dir=/x")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = environment(mirrored(device="cuda"))
    assert found == {
        name: value
        for name, value in os.environ.items()
        if name not in {"NVIDIA_TF32_OVERRIDE", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_XLA_FLAGS", "TF_USE_LEGACY_KERAS"}
    } | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NCCL_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_CPP_VMODULE": "dso_loader=1",
    }
    assert environment(mirrored())["CUDA_VISIBLE_DEVICES"] == ""


def test_the_autopsy_knows_whether_there_were_gpus(mirrored: Callable[..., MirroredParams], tmp_path: Path) -> None:
    on_gpu = autopsy(mirrored(device="cuda"), LOGS / "no-driver.txt")
    assert on_gpu is not None
    assert on_gpu.code == "cuda-unavailable"
    assert autopsy(mirrored(), LOGS / "no-driver.txt") is None
    for device in ("cuda", "cpu"):
        assert autopsy(mirrored(device=device), tmp_path / "none") is None
        aborted = autopsy(mirrored(device=device), LOGS / "aborted.txt")
        assert aborted is not None
        assert aborted.message.startswith("TensorFlow gave up: external/local_xla")
