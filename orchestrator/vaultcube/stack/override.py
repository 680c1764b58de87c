"""The compose override of a run, and the exact docker commands. Pure.

The override is YAML with compose's own tags: `!override` replaces a list that would otherwise be appended to, `!reset`
removes a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultcube.gpu import kernellog
from vaultcube.results.store import TELEMETRY
from vaultcube.stack.docker import LABEL_DIR, LABEL_RUN, LABEL_WORKLOAD
from vaultcube.stack.plan import RECORDER_IMAGE, RECORDER_SERVICE, Plan

OVERRIDE = "compose.override.yml"
# What the image vaultcube/recorder runs.
RECORDER = ("python3", "-m", "vaultcube.gpu.recorder")
# What JSON lets stand and YAML does not, or takes for the end of a line.
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Tagged:
    """A value with a YAML tag before it."""

    tag: str
    value: Any


def make_override(plan: Plan, run_dir: Path) -> str:
    """Return the override as YAML text.

    Args:
        plan: the run.
        run_dir: its directory; `results` in it is the container's /results.
    """
    volumes: list[dict[str, Any]] = [{"type": "bind", "source": str(run_dir / "results"), "target": "/results"}]
    volumes += [
        {"type": "bind", "source": source, "target": target, "read_only": True}
        for target, source in plan.data_folders.items()
    ]
    service: dict[str, Any] = {
        "image": plan.image,
        "user": plan.user,
        "command": Tagged("!override", list(plan.command)),
        # The raw file's helper that prepares ./results is not needed: this directory is ours already.
        "depends_on": Tagged("!reset", None),
        "volumes": Tagged("!override", volumes),
        "labels": _labels(plan, run_dir),
    }
    resources: dict[str, Any] = {}
    if plan.memory_bytes is not None:
        resources["limits"] = {"memory": str(plan.memory_bytes)}
    if plan.gpus:
        resources["reservations"] = _pins(plan, "gpu")
    if resources:
        service["deploy"] = {"resources": resources}
    services = {plan.service: service}
    if plan.recorder == "container":
        services[RECORDER_SERVICE] = _recorder(plan, run_dir)
    return "# Written by vaultcube for one run.\n" + to_yaml({"services": services})


def _labels(plan: Plan, run_dir: Path) -> dict[str, str]:
    """Return what every container of the run is found again by."""
    return {LABEL_RUN: plan.run_id, LABEL_WORKLOAD: plan.workload, LABEL_DIR: str(run_dir)}


def _pins(plan: Plan, *capabilities: str) -> dict[str, Any]:
    """Return the reservation of the plan's GPUs.

    By the machine's names; inside the container they count from 0, so nothing else there may name a GPU.
    """
    ids = plan.pins or [gpu.uuid for gpu in plan.gpus]
    pins = [{"driver": plan.pinning or "nvidia", "device_ids": list(ids), "capabilities": list(capabilities)}]
    return {"devices": Tagged("!override", pins)}


def _recorder(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return the service that records the GPUs; it writes into a folder of the group that the workload runs as."""
    telemetry = (run_dir / TELEMETRY).parent
    volumes: list[dict[str, Any]] = [{"type": "bind", "source": str(telemetry), "target": "/results"}]
    service: dict[str, Any] = {
        "image": RECORDER_IMAGE,
        "user": f"0:{plan.user.partition(':')[2]}",
        "command": Tagged(
            "!override", [*RECORDER, "--db", "/results/run.db", "--period", f"{1 / plan.telemetry_hz:g}"]
        ),
        "depends_on": Tagged("!reset", None),
        "labels": _labels(plan, run_dir),
        "deploy": {"resources": {"reservations": _pins(plan, "gpu", "utility")}},
    }
    if plan.kernel_log != kernellog.DEVICE:
        service["devices"] = Tagged("!reset", [])
    if plan.kernel_log not in {kernellog.DEVICE, None}:
        target = "/run/kernel.log"
        volumes.append({"type": "bind", "source": plan.kernel_log, "target": target, "read_only": True})
        service["environment"] = {kernellog.VARIABLE: target}
    service["volumes"] = Tagged("!override", volumes)
    return service


def up_args(plan: Plan, compose_dir: Path, run_dir: Path) -> list[str]:
    """Return the arguments of docker that start the run."""
    services = [plan.service] + ([RECORDER_SERVICE] if plan.recorder == "container" else [])
    up = ["up", "--detach", "--no-build", "--pull", "never", *services]
    return [*compose_args(plan, compose_dir, run_dir), *up]


def compose_args(plan: Plan, compose_dir: Path, run_dir: Path) -> list[str]:
    """Return the arguments of docker up to compose's own verb: project, directory and files are always said."""
    files = [compose_dir / name for name in plan.compose_files] + [run_dir / OVERRIDE]
    named = [part for file in files for part in ("--file", str(file))]
    where = ["--project-name", plan.run_id, "--project-directory", str(compose_dir)]
    return ["compose", "--progress", "plain", *where, *named]


def to_yaml(value: Any, indent: int = 0) -> str:
    """Write mappings as block YAML with JSON scalars, which YAML reads as they are; `$` is doubled for compose."""
    lines: list[str] = []
    for key, item in value.items():
        head = "  " * indent + f"{_scalar(key)}:"
        if isinstance(item, Mapping) and item:
            lines += [head, to_yaml(item, indent + 1).rstrip("\n")]
        else:
            lines.append(f"{head} {_inline(item)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, Tagged):
        return f"{value.tag} {_inline(value.value)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    text = UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    return text.replace("$", "$$") if isinstance(value, str) else text
