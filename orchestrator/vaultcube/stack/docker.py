"""The only file that talks to docker, through its command line, which carries contexts, DOCKER_HOST and TLS with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NamedTuple

from vaultcube.errors import (
    BuildxMissingError,
    ComposeMissingError,
    EngineMissingError,
    EngineUnreachableError,
)
from vaultcube.stack.dockerwords import checked, diagnose
from vaultcube.stack.process import Child, CommandTimeoutError, Finished, replace
from vaultcube.stack.signals import Stop

LABEL_RUN = "io.vaultcube.run"
LABEL_WORKLOAD = "io.vaultcube.workload"
LABEL_DIR = "io.vaultcube.run-dir"
LABEL_INSTANCE = "io.vaultcube.instance"
# The states of a container that has its devices, or will have them without anybody asking again.
LIVE = ("created", "running", "paused", "restarting")

# 2.24.4 is the first with working `!override` and `!reset`.
COMPOSE_FLOOR = (2, 24, 4)
# 0.13 is the first with `--progress rawjson`.
BUILDX_FLOOR = (0, 13, 0)
QUICK_S = 30.0
# The first question of a command: an engine that does not answer it is not there.
PROBE_S = 10.0


class EngineInfo(NamedTuple):
    """Versions of the engine and of compose, and the names of the images of ours that it has."""

    engine: str
    compose: str
    images: frozenset[str] = frozenset()


class ImageInfo(NamedTuple):
    """A local image: its id, size in bytes, creation time (RFC 3339), labels and names."""

    id: str
    size_bytes: int
    created: str
    labels: Mapping[str, str]
    tags: tuple[str, ...]


class Container(NamedTuple):
    """A container as `docker ps` lists it."""

    id: str
    name: str
    state: str
    status: str
    run: str
    workload: str
    run_dir: str
    instance: str = ""


class Exit(NamedTuple):
    """How a container stands: running or not, exit code, killed for memory, the image it ran, whether we stopped it.

    `started` is when it last did, as the engine says it (RFC 3339).
    """

    id: str
    service: str
    running: bool
    exit_code: int
    oom_killed: bool
    error: str
    image_id: str
    stopped: bool = False
    started: str = ""


class Docker:
    """Calls of the docker command. Every call has a time limit; `stop` ends it early.

    Args:
        stop: asked for between polls of every call; None for calls that must not be cut short.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop = stop

    def shielded(self) -> Docker:
        """Return one that no signal cuts short, for cleaning up."""
        return Docker(None)

    @cached_property
    def _environment(self) -> dict[str, str]:
        """Ours without what would change the meaning of our compose files."""
        ours = ("COMPOSE_", "VAULTCUBE_", "DDP_", "STRESS_", "VLLM_", "HF_TOKEN", "BASE_IMAGE")
        return {key: value for key, value in os.environ.items() if not key.startswith(ours)}

    def start(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        merged: bool = False,
        inherit: Sequence[int] = (),
    ) -> Child:
        """Start `docker ARGS`, with `env` added to our environment; it inherits these open files.

        Raises:
            EngineMissingError: there is no docker command.
        """
        try:
            whole = {**self._environment, **(env or {})}
            return Child(["docker", *args], env=whole, merged=merged, inherit=inherit)
        except FileNotFoundError as error:
            raise EngineMissingError("there is no docker command on the PATH") from error
        except OSError as error:
            raise EngineMissingError(f"the docker command on the PATH cannot be run: {error.strerror}") from error

    def call(self, args: Sequence[str], *, timeout: float = QUICK_S, inherit: Sequence[int] = ()) -> Finished:
        """Run `docker ARGS` to its end, whatever its exit status.

        Raises:
            EngineMissingError: there is no docker command.
            EngineUnreachableError: it did not answer in time.
            InterruptedRunError: `stop` was asked for.
        """
        return self.finish(self.start(args, inherit=inherit), timeout)

    def finish(self, child: Child, timeout: float = QUICK_S) -> Finished:
        """Wait for a started command.

        Raises:
            EngineUnreachableError: it did not answer in time.
            InterruptedRunError: `stop` was asked for.
        """
        try:
            return child.result(timeout=timeout, stop=self.stop)
        except CommandTimeoutError as error:
            raise EngineUnreachableError(str(error)) from error

    def ask(self, args: Sequence[str], *, timeout: float = QUICK_S) -> str:
        """Run `docker ARGS` and return its stdout.

        Raises:
            VaultCubeError: it failed; the class says how (`diagnose`).
        """
        return checked(self.call(args, timeout=timeout)).stdout

    def begin_probe(self) -> Probe:
        """Ask for the versions of engine and compose, and for our images; other work can be done meanwhile.

        Raises:
            EngineMissingError: there is no docker command.
        """
        return Probe(
            *self._start_all(
                ["version", "--format", "{{json .Server.Version}}"],
                ["compose", "version", "--short"],
                ["image", "ls", "--filter", "reference=vaultcube/*", "--format", "{{.Repository}}:{{.Tag}}"],
            )
        )

    def _start_all(self, *commands: Sequence[str]) -> list[Child]:
        """Start commands side by side: all of them, or none is left."""
        started: list[Child] = []
        with ExitStack() as left:
            for args in commands:
                child = self.start(args)
                left.callback(child.end)
                started.append(child)
            left.pop_all()
        return started

    def probe_buildx(self) -> str:
        """Return the version of buildx.

        Raises:
            BuildxMissingError: there is none, or it is too old.
        """
        seen = self.call(["buildx", "version"])
        found = _version(seen.stdout) if seen.ok else None
        if found is None or found < BUILDX_FLOOR:
            raise BuildxMissingError(
                "docker has no buildx plugin" if found is None else f"buildx {_dotted(found)} is older than 0.13"
            )
        return _dotted(found)

    def info(self) -> dict[str, Any]:
        """Return `docker info` as a dictionary."""
        found: dict[str, Any] = json.loads(self.ask(["info", "--format", "{{json .}}"]))
        return found

    def image(self, name: str) -> ImageInfo | None:
        """Return a local image, or None when there is none of that name."""
        seen = self.call(["image", "inspect", name])
        if not seen.ok:
            if "no such image" in seen.stderr.lower():
                return None
            raise diagnose(seen)
        raw = json.loads(seen.stdout)[0]
        labels = (raw.get("Config") or {}).get("Labels") or {}
        return ImageInfo(raw["Id"], int(raw["Size"]), raw["Created"], labels, tuple(raw.get("RepoTags") or ()))

    def containers(self, run_id: str | None = None) -> list[Container]:
        """Return the containers of one run, or of all runs, stopped ones too."""
        return parse_containers(self.ask(containers_args(run_id)))

    def everything(self) -> tuple[list[Container], list[str]]:
        """Return the containers of all runs, and the ids of runs that still have networks, asked side by side."""
        containers, networks = self._start_all(
            containers_args(None),
            ["network", "ls", "--filter", f"label={LABEL_RUN}", "--format", f'{{{{.Label "{LABEL_RUN}"}}}}'],
        )
        try:
            seen = self.finish(containers, PROBE_S)
            held = self.finish(networks, PROBE_S)
        finally:
            containers.end()
            networks.end()
        return parse_containers(checked(seen).stdout), sorted(set(checked(held).stdout.split()))

    def exits(self, ids: Sequence[str]) -> list[Exit]:
        """Return how containers stand; those that are gone are left out."""
        return [_exit(raw) for raw in self._inspect(ids)]

    def live(self) -> list[dict[str, Any]]:
        """Return `docker inspect` of every container that runs or may be about to, whoever made it."""
        states = [word for state in LIVE for word in ("--filter", f"status={state}")]
        return self._inspect(self.ask(["ps", "--quiet", "--no-trunc", *states]).split())

    def _inspect(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return `docker inspect` of containers; those that are gone are left out."""
        if not ids:
            return []
        seen = self.call(["inspect", "--type", "container", *ids])
        if not seen.ok and "no such" not in seen.stderr.lower():
            raise diagnose(seen)
        found: list[dict[str, Any]] = json.loads(seen.stdout or "[]")
        return found

    def become_logs(self, project: str, *, follow: bool) -> None:
        """Become `docker compose logs` of a project; does not return."""
        argv = ["docker", "compose", "--project-name", project, "logs", *(["--follow"] if follow else [])]
        replace(argv, self._environment)

    def remove_project(self, project: str, *, grace_s: int) -> None:
        """Stop and remove every container and network of a compose project. Nothing there is no error.

        Raises:
            VaultCubeError: the engine did not do it.
        """
        self.ask(
            ["compose", "--project-name", project, "down", "--remove-orphans", "--timeout", str(grace_s)],
            timeout=grace_s + 60,
        )


class Probe:
    """A question to engine and compose that is under way."""

    def __init__(self, engine: Child, compose: Child, images: Child) -> None:
        self._children = (engine, compose, images)

    def cancel(self) -> None:
        """Forget the question. Nothing happens when it was answered."""
        for child in self._children:
            child.end()

    def finish(self, docker: Docker) -> EngineInfo:
        """Return the answer.

        Args:
            docker: whose `stop` ends the waiting.

        Raises:
            EngineUnreachableError, EnginePermissionError, ComposeMissingError: as named.
            InterruptedRunError: a stop was asked for.
        """
        try:
            engine, compose, images = (docker.finish(child, PROBE_S) for child in self._children)
        finally:
            self.cancel()
        version = json.loads(checked(engine).stdout)
        return EngineInfo(version, compose_version(compose), frozenset(checked(images).stdout.split()))


def containers_args(run_id: str | None) -> list[str]:
    """Return the argv (after `docker`) that lists containers of one run or of all, one JSON array a line."""
    wanted = f"label={LABEL_RUN}" + (f"={run_id}" if run_id else "")
    fields = [".ID", ".Names", ".State", ".Status"] + [
        f'(.Label "{k}")' for k in (LABEL_RUN, LABEL_WORKLOAD, LABEL_DIR, LABEL_INSTANCE)
    ]
    row = "[" + ",".join(f"{{{{json {name}}}}}" for name in fields) + "]"
    return ["ps", "--all", "--no-trunc", "--filter", wanted, "--format", row]


def parse_containers(text: str) -> list[Container]:
    """Read what `containers_args` printed."""
    return [Container(*json.loads(line)) for line in text.splitlines() if line.strip()]


def _exit(raw: Mapping[str, Any]) -> Exit:
    state = raw["State"]
    return Exit(
        id=raw["Id"],
        service=(raw["Config"].get("Labels") or {}).get("com.docker.compose.service", ""),
        running=bool(state["Running"]),
        exit_code=int(state["ExitCode"]),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        image_id=raw["Image"],
        started=state.get("StartedAt") or "",
    )


def compose_version(seen: Finished) -> str:
    """Return compose's version from `docker compose version --short`.

    Raises:
        ComposeMissingError: docker does not know the command, or it is too old.
    """
    found = _version(seen.stdout) if seen.ok else None
    if found is None:
        raise ComposeMissingError("docker has no compose v2 plugin")
    if found < COMPOSE_FLOOR:
        raise ComposeMissingError(f"compose {_dotted(found)} is older than {_dotted(COMPOSE_FLOOR)}")
    return _dotted(found)


def _version(text: str) -> tuple[int, int, int] | None:
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in version)
