"""Checks of the Docker engine and of the room that it has."""

from __future__ import annotations

from typing import Final

from vaultcube.errors import FlavourError
from vaultcube.gpu.flavours import Flavour, choose_flavour
from vaultcube.gpu.inventory import to_gpu
from vaultcube.gpu.preflight.facts import Facts, Unseen
from vaultcube.gpu.preflight.judged import Judged, absence, fail, good, looked_at, unavailable, warn
from vaultcube.gpu.versions import version_of

# The first engine that does CDI.
CDI_ENGINE: Final = (25, 0)
COMPOSE_FLOOR: Final = (2, 24, 4)
BUILDX_FLOOR: Final = (0, 13)
START_ENGINE: Final = "Start it (sudo systemctl start docker), or point DOCKER_HOST at one."
# Below these a container's layers and logs, or a run's own files, soon have no room.
IMAGES_LOW_BYTES: Final = 2 * 10**9
RESULTS_LOW_BYTES: Final = 10**9
RESULTS_FLOOR_BYTES: Final = 10 * 10**6


def docker(facts: Facts) -> Judged:
    """Does the engine answer, and is it one that can do CDI where there are GPUs?"""
    engine = facts.engine
    if isinstance(engine, Unseen):
        steps = {
            "docker-missing": "Install Docker Engine with the compose and buildx plugins.",
            "engine-permission": "See socket-permission.",
        }
        if engine.code == "engine-permission":
            return unavailable(engine, steps[engine.code])
        return fail(engine.reason, steps.get(engine.code, START_ENGINE))
    if absence(facts) is None and version_of(engine.version) < CDI_ENGINE:
        return warn(
            f"engine {engine.version} cannot do CDI, the safer way to give GPUs to containers",
            "Install Docker Engine 28.2 or newer (25 to 28.1 do CDI when told to).",
        )
    return good(f"engine {engine.version}")


def socket_permission(facts: Facts) -> Judged:
    """May this user talk to the engine?"""
    engine = facts.engine
    if not isinstance(engine, Unseen):
        return good("this user may use the engine's socket" + (" (rootless engine)" if engine.rootless else ""))
    if engine.code == "engine-permission":
        step = "Join the docker group (sudo usermod -aG docker $USER) and log in again, or use sudo."
        return fail(engine.reason, step)
    return unavailable("no engine answers (see docker)")


def compose(facts: Facts) -> Judged:
    """Is compose there, and new enough for `!override` and `!reset`?"""
    step = "Install Docker Compose 2.24.4 or newer (Debian: docker-compose, Ubuntu: docker-compose-v2)."
    seen = facts.compose
    if isinstance(seen, Unseen):
        return fail(seen.reason, step) if seen.code == "compose-missing" else unavailable(seen)
    if version_of(seen) < COMPOSE_FLOOR:
        return fail(f"compose {seen} is older than 2.24.4", step)
    return good(f"compose {seen}")


def buildx(facts: Facts) -> Judged:
    """Is buildx there, and new enough for its log of raw JSON? Needed only where an image is yet to be built."""
    step = "Install Docker Buildx 0.13 or newer (Debian and Ubuntu: docker-buildx)."
    seen = facts.buildx
    if isinstance(seen, Unseen):
        if seen.code != "buildx-missing":
            return unavailable(seen)
        bad = seen.reason
    elif version_of(seen) < BUILDX_FLOOR:
        bad = f"buildx {seen} is older than 0.13"
    else:
        return good(f"buildx {seen}")
    missing = missing_image(facts)
    if missing is None:
        return warn(f"{bad}; the image is here, and no other can be built", step)
    return fail(f"{bad}, and {missing} is yet to be built", step)


def missing_image(facts: Facts) -> str | None:
    """Return the name of the image that a run would have to build first, or None."""
    found = looked_at(facts)
    gpus = [] if isinstance(found, Judged) else [to_gpu(one.info) for one in found]
    try:
        flavour, _ = choose_flavour(facts.asked.flavour, gpus)
    except FlavourError:
        return None
    name = f"vaultcube/{facts.asked.image}:{Flavour.CU124 if flavour is Flavour.CPU else flavour}"
    return name if isinstance(facts.images, Unseen) or name not in facts.images else None


def disk_images(facts: Facts) -> Judged:
    """Is there room where the engine keeps images?"""
    disk = facts.images_disk
    if isinstance(disk, Unseen):
        return unavailable(disk)
    free = f"{disk.free_bytes / 1e9:.1f} GB free in {disk.path}"
    step = "Free space (docker system df shows what Docker holds, docker builder prune clears its cache)."
    missing, needed = missing_image(facts), facts.asked.build_bytes
    if missing is not None and disk.free_bytes < needed:
        return fail(f"{free}; building {missing} needs about {needed / 1e9:.0f} GB", step)
    if disk.free_bytes < IMAGES_LOW_BYTES:
        return warn(f"only {free}", step)
    return good(free)


def disk_results(facts: Facts) -> Judged:
    """Can runs be kept?"""
    disk = facts.results_disk
    if isinstance(disk, Unseen):
        return unavailable(disk)
    elsewhere = "Choose another place with --results-dir or VAULTCUBE_RESULTS_DIR."
    if disk.unwritable:
        return fail(f"runs cannot be kept in {disk.path}: {disk.unwritable}", elsewhere)
    free = f"{disk.free_bytes / 1e9:.1f} GB free in {disk.path}"
    if disk.free_bytes < RESULTS_FLOOR_BYTES:
        return fail(f"only {free}", elsewhere)
    return warn(f"only {free}", elsewhere) if disk.free_bytes < RESULTS_LOW_BYTES else good(free)
