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
from vaultcube.stack.docker import LABEL_DIR, LABEL_INSTANCE, LABEL_RUN, LABEL_WORKLOAD
from vaultcube.stack.plan import (
    PROXY_IMAGE,
    PROXY_SERVICE,
    RECORDER_IMAGE,
    RECORDER_SERVICE,
    Address,
    Plan,
    Server,
)
from vaultcube.stack.secrets import SECRETS, secrets_folder

OVERRIDE = "compose.override.yml"
# The volume that keeps models, and where it is in a container.
CACHE_VOLUME, CACHE_MOUNT = "models", "/cache"
# Where every service answers inside its container, and the proxy in front of several.
SERVER_PORT = 8000
PROXY_CONFIG, PROXY_MOUNT = "haproxy.cfg", "/etc/haproxy/haproxy.cfg"
# What a copied service must not bring along: it is said anew for each.
REPLACED = frozenset({"command", "depends_on", "deploy", "labels", "ports", "volumes", "user", "image", "build"})
# The workers that compose/stress.yml has, and its judge.
WORKERS, JUDGE_SERVICE = frozenset({"gpu-0", "gpu-1", "gpu-2", "gpu-3"}), "judge"
# In the folder of a soak: the recorder's sign of life, what tells it that the soak is over, what the soak is held to.
BEAT, ENDED, PROFILE = "recorder.json", "ended", "profile.toml"
# What the image vaultcube/recorder runs.
JUDGE = ("python3", "-m", "vaultcube")
RECORDER = ("python3", "-m", "vaultcube.gpu.recorder")
# What JSON lets stand and YAML does not, or takes for the end of a line.
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Tagged:
    """A value with a YAML tag before it."""

    tag: str
    value: Any


def make_override(plan: Plan, run_dir: Path, copied: Mapping[str, Any] | None = None) -> str:
    """Return the override as YAML text.

    Args:
        plan: the run.
        run_dir: its directory; `results` in it is the container's /results.
        copied: the service of `copied_service` as compose resolved it, if there is one.
    """
    services: dict[str, Any] = {}
    if plan.command:
        services[plan.service] = _worker(plan, run_dir)
    for server in plan.servers:
        services[server.service] = _server(plan, server, run_dir, copied if server is not plan.servers[0] else None)
    for worker in plan.workers:
        services[worker.service] = _soaking(plan, worker, run_dir, None if worker.service in WORKERS else copied)
    if plan.judge:
        services[JUDGE_SERVICE] = _judge(plan, run_dir)
    if plan.proxied:
        services[PROXY_SERVICE] = _proxy(plan, run_dir)
    if plan.recorder == "container":
        services[RECORDER_SERVICE] = _recorder(plan, run_dir)
    whole: dict[str, Any] = {"services": services}
    if plan.cache:
        # Made before: it outlives every run, and is no run's own.
        whole["volumes"] = {CACHE_VOLUME: {"name": plan.cache, "external": True}}
        folder = secrets_folder(plan.target or plan.run_id)
        whole["secrets"] = {
            name: {"file": str(folder / name) if name in plan.secrets else "/dev/null"} for name in SECRETS
        }
    if plan.target:
        whole["networks"] = {"default": {"name": f"{plan.target}_default", "external": True}}
    return "# Written by vaultcube for one run.\n" + to_yaml(whole)


def _worker(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return the service that ends by itself: a job, or the client that measures a service."""
    alone = not plan.servers and not plan.target
    service: dict[str, Any] = {**_common(plan, run_dir), "command": Tagged("!override", list(plan.command))}
    resources: dict[str, Any] = {}
    if plan.memory_bytes is not None and not plan.servers:
        resources["limits"] = {"memory": str(plan.memory_bytes)}
    if plan.gpus and alone:
        resources["reservations"] = _pins(plan.pins or [gpu.uuid for gpu in plan.gpus], plan, "gpu")
    return {**service, "deploy": {"resources": resources}} if resources else service


def _common(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return what every container that runs the workload's image has."""
    volumes: list[dict[str, Any]] = [_results(run_dir)]
    volumes += [
        {"type": "bind", "source": source, "target": target, "read_only": True}
        for target, source in plan.data_folders.items()
    ]
    if plan.cache:
        volumes.append({"type": "volume", "source": CACHE_VOLUME, "target": CACHE_MOUNT})
    return {
        "image": plan.image,
        "user": plan.user,
        # The raw file's helper that prepares ./results is not needed: this directory is ours already.
        "depends_on": Tagged("!reset", None),
        "volumes": Tagged("!override", volumes),
        "labels": _labels(plan, run_dir),
    }


def _server(plan: Plan, server: Server, run_dir: Path, copied: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one replica. The first is the raw file's service; the others are copies of it."""
    ports = _ports(None if plan.proxied else plan.address)
    return {**_replica(plan, server, run_dir, copied or {}), "ports": ports}


def _soaking(plan: Plan, worker: Server, run_dir: Path, copied: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one worker of a soak: a service of the raw file, or a copy of its first."""
    service = _replica(plan, worker, run_dir, copied or {})
    if plan.device == "cpu":
        # The raw file's has fewer of them without a GPU.
        service["profiles"] = Tagged("!reset", [])
        resources = service.setdefault("deploy", {}).setdefault("resources", {})
        resources["reservations"] = {"devices": Tagged("!reset", [])}
    return service


def _replica(plan: Plan, server: Server, run_dir: Path, copied: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of several services that do the same; `copied` is the service that it has everything else of."""
    resources: dict[str, Any] = {}
    if plan.memory_bytes is not None:
        resources["limits"] = {"memory": str(plan.memory_bytes)}
    if server.gpus:
        resources["reservations"] = _pins(server.pins or server.gpus, plan, "gpu")
    limits = {**copied.get("deploy", {}).get("resources", {}).get("limits", {}), **resources.get("limits", {})}
    if limits:
        resources["limits"] = limits
    service = {
        **{key: value for key, value in copied.items() if key not in REPLACED},
        **_common(plan, run_dir),
        "command": Tagged("!override", list(server.command)),
    }
    return {**service, "deploy": {"resources": resources}} if resources else service


def _judge(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return the service that waits for the end of a soak and judges it; it reads what the recorder writes as root."""
    return {
        "image": RECORDER_IMAGE,
        "user": f"0:{plan.user.partition(':')[2]}",
        "command": Tagged("!override", [*JUDGE, *plan.judge, "--profile", f"/results/{PROFILE}"]),
        "depends_on": Tagged("!reset", None),
        "volumes": Tagged("!override", [_results(run_dir)]),
        "labels": _labels(plan, run_dir),
    }


def _results(run_dir: Path) -> dict[str, Any]:
    """Return the mount of the folder that a run's containers write to."""
    return {"type": "bind", "source": str(run_dir / "results"), "target": "/results"}


def _ports(address: Address | None) -> Tagged:
    """Return what is published: one port, or none."""
    if address is None:
        return Tagged("!reset", [])
    one = {"target": SERVER_PORT, "published": str(address.port), "host_ip": address.host, "protocol": "tcp"}
    return Tagged("!override", [one])


def _proxy(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return the one address in front of several servers."""
    source = {"type": "bind", "source": str(run_dir / PROXY_CONFIG), "target": PROXY_MOUNT, "read_only": True}
    return {
        "image": PROXY_IMAGE,
        "user": plan.user,
        "volumes": Tagged("!override", [source]),
        "labels": _labels(plan, run_dir),
        "ports": _ports(plan.address),
    }


def _labels(plan: Plan, run_dir: Path) -> dict[str, str]:
    """Return what every container of the run is found again by."""
    found = {LABEL_RUN: plan.run_id, LABEL_WORKLOAD: plan.workload, LABEL_DIR: str(run_dir)}
    return found | ({LABEL_INSTANCE: plan.instance} if plan.instance else {})


def _pins(ids: Sequence[str], plan: Plan, *capabilities: str) -> dict[str, Any]:
    """Return the reservation of GPUs.

    By the machine's names; inside the container they count from 0, so nothing else there may name a GPU.
    """
    pins = [{"driver": plan.pinning or "nvidia", "device_ids": list(ids), "capabilities": list(capabilities)}]
    return {"devices": Tagged("!override", pins)}


def _recorder(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """Return the service that records the GPUs; it writes into a folder of the group that the workload runs as."""
    # The judge of a soak reads it where the workers write.
    apart = {"type": "bind", "source": str((run_dir / TELEMETRY).parent), "target": "/results"}
    volumes: list[dict[str, Any]] = [_results(run_dir) if plan.judge else apart]
    told = ["--beat", f"/results/{BEAT}", "--until", f"/results/{ENDED}"] if plan.judge else []
    service: dict[str, Any] = {
        "image": RECORDER_IMAGE,
        "user": f"0:{plan.user.partition(':')[2]}",
        "command": Tagged(
            "!override", [*RECORDER, "--db", "/results/run.db", "--period", f"{1 / plan.telemetry_hz:g}", *told]
        ),
        "depends_on": Tagged("!reset", None),
        "labels": _labels(plan, run_dir),
        "deploy": {
            "resources": {"reservations": _pins(plan.pins or [gpu.uuid for gpu in plan.gpus], plan, "gpu", "utility")}
        },
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
    services = [server.service for server in (*plan.servers, *plan.workers)]
    services += [JUDGE_SERVICE] if plan.judge else []
    services += [PROXY_SERVICE] if plan.proxied else []
    services += [plan.service] if plan.command else []
    services += [RECORDER_SERVICE] if plan.recorder == "container" else []
    up = ["up", "--detach", "--no-build", "--pull", "never", *services]
    return [*compose_args(plan, compose_dir, run_dir), *up]


def copied_args(plan: Plan, compose_dir: Path) -> list[str]:
    """Return the arguments of docker that print the service which others are copies of as JSON, before the override."""
    named = [part for name in plan.compose_files for part in ("--file", str(compose_dir / name))]
    where = ["--project-name", plan.run_id, "--project-directory", str(compose_dir)]
    return ["compose", *where, *named, "config", "--format", "json", copied_service(plan)]


def copied_service(plan: Plan) -> str:
    """Return the service of the compose files that others are made after; empty when they have all there are."""
    if plan.proxied:
        return plan.servers[0].service
    return plan.service if any(worker.service not in WORKERS for worker in plan.workers) else ""


def proxy_config(plan: Plan) -> str:
    """Return HAProxy's configuration: the least busy server first, streams of hours, names looked up again and again.

    A server that does not answer /health is left out; that is its own word for "my engine lives". Until that is noticed
    a request that finds nobody there goes to another server after a second: on one machine's bridge who is there
    answers within a millisecond. A busy one gets longer to say that it lives.
    """
    servers = "".join(
        f"    server {server.service} {server.service}:{SERVER_PORT} check inter 2s fastinter 500ms downinter 500ms "
        "fall 3 rise 1 resolvers engine init-addr none\n"
        for server in plan.servers
    )
    return f"""global
    log stdout format raw local0 notice
    maxconn 4096
defaults
    mode http
    log global
    # A token at once: without this each waits up to 0.2 s for more to be sent with it.
    option http-no-delay
    timeout connect 1s
    timeout check 5s
    timeout client 1h
    timeout server 1h
    timeout queue 10m
    retries 3
    option redispatch 1
resolvers engine
    nameserver docker 127.0.0.11:53
    hold valid 2s
    # Enough for a container that is just starting again.
    resolve_retries 3
    timeout retry 1s
frontend in
    bind :{SERVER_PORT}
    default_backend servers
backend servers
    balance leastconn
    option httpchk GET /health
    http-check expect status 200
{servers}"""


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
