"""The proof that containers get GPUs: one is started with them, and says which it sees."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import Final

from vaultcube.gpu.flavours import ANY
from vaultcube.gpu.leases import DOCTOR, LABEL_ROLE
from vaultcube.gpu.pinning import GENERATE, HOOK, Pinning
from vaultcube.gpu.preflight.judged import Judged, fail, good, named, unavailable
from vaultcube.gpu.readings import GpuInfo
from vaultcube.stack.docker import Docker
from vaultcube.stack.dockerwords import known_error, last_line
from vaultcube.stack.environment import container_user
from vaultcube.stack.images import image_names

# A container that computes nothing is up within a second; a driver that is loaded for it takes longer.
LIMIT_S: Final = 60.0
_LISTED: Final = re.compile(r"UUID: (GPU-[0-9a-fA-F-]+)")
# Words of docker, the toolkit and NVML, what they mean, and what to do.
_KNOWN: Final = (
    (
        "error setting rlimit",
        "the engine may not give unlimited locked memory, which the compose files ask for",
        "See memlock.",
    ),
    (
        'could not select device driver "cdi"',
        "the engine does no CDI",
        'Set "features": {"cdi": true} in /etc/docker/daemon.json and restart docker.',
    ),
    (
        "could not select device driver",
        "the engine does not know the NVIDIA Container Toolkit",
        f"Install it, and restart docker so that it finds {HOOK}.",
    ),
    ("unresolvable cdi devices", "the engine has no CDI device for these GPUs", f"Make the specification: {GENERATE}"),
    (
        "driver/library version mismatch",
        "the driver was updated under the running kernel module",
        "Reboot.",
    ),
    (
        "failed to initialize nvml: unknown error",
        "the container's cgroup does not let it open the GPUs",
        f"Change over to CDI: {GENERATE}; a running container must be made anew.",
    ),
    (
        "load library failed: libnvidia-ml.so.1",
        "the toolkit does not find the driver's libraries",
        "Install the driver whole (libnvidia-ml.so.1 comes with its compute libraries), and run sudo ldconfig.",
    ),
    ("unknown device", "the toolkit does not know these GPUs", "See gpu-visibility and driver."),
    (
        "insufficient privileges to read device list",
        "the hook is told not to hear NVIDIA_VISIBLE_DEVICES",
        "See env-leak.",
    ),
    (
        "no such file or directory",
        "something that the toolkit mounts is not there: its CDI specification is for another driver",
        f"Make it anew: {GENERATE}",
    ),
)


def proving_image(images: Collection[str], flavour: str | None) -> str | None:
    """Return which image of ours that is here can prove it: the recorder's, else one of the flavour, else any."""
    known = image_names()

    def order(name: str) -> tuple[bool, bool, bool, str]:
        image, _, tag = name.partition(":")
        return image != "vaultcube/recorder", tag != flavour, tag == ANY, name

    ours = [name for name in images if name.partition(":")[0].removeprefix("vaultcube/") in known]
    return min(ours, key=order, default=None)


def run_args(name: str, image: str, pinning: Pinning) -> list[str]:
    """Return the arguments of docker that start the container: confined as a workload, without computing."""
    uid, gid = container_user()
    if pinning.method == "cdi":
        pins = [word for device in pinning.devices for word in ("--device", device)]
    else:
        pins = ["--gpus", f'"device={",".join(pinning.devices)}",capabilities=utility']
    confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    confined += ["--user", f"{uid}:{gid}", "--memory", "256m", "--pids-limit", "64"]
    # As the compose files ask for it: not every engine may give it.
    confined += ["--ulimit", "memlock=-1:-1"]
    # The label keeps it from counting as somebody who holds the GPUs.
    labels = ["--label", f"{LABEL_ROLE}={DOCTOR}"]
    start = ["run", "--rm", "--pull", "never", "--name", name, *labels, *confined, *pins]
    return [*start, "--entrypoint", "nvidia-smi", image, "-L"]


def prove(docker: Docker, image: str, pinning: Pinning, gpus: Sequence[GpuInfo]) -> Judged:
    """Start a container with these GPUs and compare what it sees; whatever comes, it is removed.

    Raises:
        InterruptedRunError: a stop was asked for.
        EngineMissingError, EngineUnreachableError: the engine went away.
    """
    name = f"vaultcube-doctor-{os.urandom(4).hex()}"
    try:
        seen = docker.call(run_args(name, image, pinning), timeout=LIMIT_S)
    finally:
        # Nothing is there after a container that ended by itself; one that was broken off is.
        docker.shielded().call(["rm", "--force", "--volumes", name])
    if not seen.ok:
        return explain(seen.stderr + seen.stdout)
    return compare(_LISTED.findall(seen.stdout), gpus, image, pinning)


def explain(text: str) -> Judged:
    """Return what the words of a container that could not use its GPUs mean."""
    error = known_error(text)
    if error is not None:
        return unavailable(error.message, error.next_step)
    words = _shortened(last_line(text))
    for sign, meaning, step in _KNOWN:
        if sign in text.lower():
            return fail(f"{meaning} ({words})", step)
    return fail(f"the container could not use its GPUs: {words or 'it said nothing'}", "Read the words of the engine.")


def _shortened(line: str) -> str:
    """Return what an engine's chain of causes comes to: its end says most."""
    text = line.removeprefix("docker: ").removeprefix("Error response from daemon: ").rstrip(".")
    return text if len(text) <= 160 else "... " + text[-156:].partition(" ")[2]  # noqa: PLR2004 - two lines


def compare(seen: Sequence[str], gpus: Sequence[GpuInfo], image: str, pinning: Pinning) -> Judged:
    """Hold the GPUs that a container sees against those it was given."""
    given = {gpu.uuid: gpu.index for gpu in gpus}
    way = "through CDI" if pinning.method == "cdi" else "by hook"
    if set(seen) == set(given):
        return good(f"a container of {image} sees {named(given.values())} and no other, {way}")
    lacking = [index for uuid, index in given.items() if uuid not in seen]
    foreign = [uuid for uuid in seen if uuid not in given]
    said = [f"it does not see {named(lacking)}"] if lacking else []
    said += [f"it sees {', '.join(foreign)}, which it was not given"] if foreign else []
    step = (
        f"Make the CDI specification anew: {GENERATE}"
        if pinning.method == "cdi"
        else "See default-runtime and env-leak."
    )
    return fail(f"a container was given {named(given.values())} {way}: {'; '.join(said)}", step)
