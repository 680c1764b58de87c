"""The devices TensorFlow computes on: found, set up, and described. Imports TensorFlow."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf

from common.libraries import dotted, nccl_version
from common.outcome import CANNOT_RUN_HERE, Problem
from mirrored import startlog
from training import arch, machine
from training.params import Params

_KEPT_THREADS = 2
"""Least threads between operations: collective operations of one wait for those of another."""


@dataclass(frozen=True)
class Found:
    """What TensorFlow lists.

    Attributes:
        wanted: how many devices the run is for.
        listed: the names of what there is, whether used or not.
        names: the devices the run is on, by rank; fewer than wanted where fewer are listed.
        architectures: what the build carries kernels for, as "sm_86" or "compute_90"; empty on the CPU.
    """

    wanted: int
    listed: list[str]
    names: list[str]
    architectures: list[str]


def set_up(params: Params) -> None:
    """Choose arithmetic and threads. Comes before TensorFlow has started any device."""
    # Both ways and explicitly: TensorFlow's default is on, so that "fp32" would silently be tf32.
    tf.config.experimental.enable_tensor_float_32_execution(params.precision == "tf32")
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if params.precision == "bf16" else "float32")
    if params.device == "cpu":
        # One thread a rank: two ranks on two cores then measure the program, not the scheduler.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(max(params.ranks, _KEPT_THREADS))


def find(params: Params) -> Found:
    """Return the devices of a run; GPUs take memory as they need it from here on."""
    if params.device == "cpu":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * params.ranks)
        names = [f"/device:CPU:{rank}" for rank in range(params.ranks)]
        return Found(params.ranks, names, names, [])
    gpus = tf.config.list_physical_devices("GPU")
    used = gpus[: params.ranks]
    tf.config.set_visible_devices(used, "GPU")
    for gpu in used:
        tf.config.experimental.set_memory_growth(gpu, True)
    build = tf.sysconfig.get_build_info()
    names = [f"/device:GPU:{rank}" for rank in range(len(used))]
    return Found(params.ranks, [gpu.name for gpu in gpus], names, list(build.get("cuda_compute_capabilities", [])))


def start() -> None:
    """Start the devices. Raises RuntimeError when one cannot be started."""
    tf.config.list_logical_devices()


def fewer(found: Found, log: str) -> Problem:
    """Return the problem of TensorFlow listing fewer devices than wanted; its log may say why."""
    count = f"TensorFlow lists {len(found.listed)} of {found.wanted} GPUs"
    why = startlog.cause(log)
    if why and why.exit_code == CANNOT_RUN_HERE:
        return Problem(why.code, f"{count}: {why.message}", why.next_step, why.exit_code)
    next_step = "see the container's log for what TensorFlow says of the others, and `nvidia-smi` on the host"
    return Problem("fewer-devices", count, next_step, CANNOT_RUN_HERE)


def one(found: Found, rank: int) -> tf.distribute.Strategy:
    """Return the strategy that trains on the device of `rank` alone."""
    return tf.distribute.OneDeviceStrategy(found.names[rank])


def all_together(found: Found) -> tf.distribute.Strategy:
    """Return the strategy that trains on all devices: NCCL between GPUs, a ring through memory on the CPU."""
    return tf.distribute.MirroredStrategy(found.names)


def describe(params: Params, found: Found, rank: int) -> dict[str, Any]:
    """Return the fields of the `device` event of `rank`.

    Raises:
        Problem: the image has no kernels for this GPU, or the GPU not the precision (exit code 69).
    """
    if params.device == "cpu":
        return {
            "device_index": rank,
            "name": machine.cpu_name(),
            "uuid": None,
            "compute_capability": None,
            "memory_bytes": machine.memory_bytes(),
            "architectures": [],
        }
    gpu = tf.config.list_physical_devices("GPU")[rank]
    details = tf.config.experimental.get_device_details(gpu)
    name, capability = details.get("device_name", "a GPU"), details.get("compute_capability")
    if capability and found.architectures:
        flavour = os.environ.get("VAULTCUBE_FLAVOUR", "")
        arch.check(name, capability, usable(found.architectures, capability), params.precision, flavour)
    card = machine.card(rank)
    return {
        "device_index": rank,
        "name": name,
        "uuid": card.uuid,
        "compute_capability": arch.dotted(capability) if capability else None,
        "memory_bytes": card.memory_bytes,
        "architectures": found.architectures,
    }


def usable(architectures: list[str], capability: arch.Capability) -> list[str]:
    """Return what of a build's code runs on a GPU of `capability`.

    Blackwell refuses the PTX of TensorFlow's older builds (tensorflow#99592): only code made for it counts there.
    """
    if capability < arch.BLACKWELL:
        return architectures
    return [one for one in architectures if not one.startswith("compute_")]


def versions() -> dict[str, str | None]:
    """Return the versions of the frameworks, None for what this build has not."""
    build = tf.sysconfig.get_build_info()
    return {
        "tensorflow": tf.__version__,
        "keras": tf.keras.__version__,
        "cuda": _installed("cuda-runtime"),
        "cudnn": _installed("cudnn"),
        "nccl": _nccl(),
        "cuda_built_with": build.get("cuda_version"),
        "cudnn_built_with": build.get("cudnn_version"),
    }


def _installed(library: str) -> str | None:
    """Return the version of a CUDA library that came as a package, None where it came otherwise or not at all."""
    try:
        return metadata.version(f"nvidia-{library}-cu12")
    except metadata.PackageNotFoundError:
        return None


def _nccl() -> str | None:
    """Return the version of the NCCL that is compiled into TensorFlow; that of the package where none is."""
    library, number = ctypes.CDLL(str(Path(tf.__file__).with_name("libtensorflow_framework.so.2"))), ctypes.c_int()
    try:
        library.ncclGetVersion(ctypes.byref(number))
    except AttributeError:
        return _installed("nccl")
    return dotted(nccl_version(number.value))


def peak_memory(name: str) -> int | None:
    """Return the most bytes that tensors took on the device at once, None on the CPU."""
    if "GPU" not in name:
        return None
    return int(tf.config.experimental.get_memory_info(name.removeprefix("/device:"))["peak"])
