"""Checks of the way from the engine to the GPUs: the NVIDIA Container Toolkit, CDI, the classic hook."""

from __future__ import annotations

from typing import Final

from vaultcube.errors import PinningError
from vaultcube.gpu.pinning import GENERATE, HOOK, Pinning, PinningFacts, choose_pinning
from vaultcube.gpu.preflight.facts import Engine, Facts, Nvml, Toolkit, Unseen
from vaultcube.gpu.preflight.judged import Judged, Looked, absence, fail, good, looked_at, named, unavailable, warn
from vaultcube.gpu.versions import ACCEPT_ENVVAR, TOOLKIT_FLOOR, toolkit_holes, version_of

INSTALL: Final = "Install the NVIDIA Container Toolkit (package nvidia-container-toolkit, 1.17.8 or newer)"
ENABLE_CDI: Final = 'set "features": {"cdi": true} in /etc/docker/daemon.json and restart docker'


def pinned(facts: Facts, gpus: list[Looked]) -> Pinning | None:
    """Return how these GPUs would be pinned, or None where they cannot be."""
    try:
        return None if isinstance(facts.offers, Unseen) else choose_pinning(facts.offers, [one.info for one in gpus])
    except PinningError:
        return None


def toolkit(facts: Facts) -> Judged:
    """Is the toolkit installed, and does the engine know of it? The one does not follow from the other."""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    tools, engine = facts.toolkit, facts.engine
    if isinstance(tools, Unseen):
        return unavailable(tools)
    ways = [f"the hook {tools.hook}"] if tools.hook else []
    if isinstance(engine, Engine):
        ways += ["the engine's runtime nvidia"] if "nvidia" in engine.runtimes else []
    if isinstance(facts.offers, PinningFacts) and facts.offers.cdi:
        ways.append(f"{len(facts.offers.cdi)} CDI devices")
    if ways and tools.version:
        return good(f"nvidia-ctk {tools.version}; {', '.join(ways)}")
    if ways:
        return warn(f"{', '.join(ways)}; nvidia-ctk is not on the PATH", f"{INSTALL} as a whole.")
    if not tools.version:
        return fail("the NVIDIA Container Toolkit is not installed", f"{INSTALL}, then: {GENERATE}")
    if isinstance(engine, Unseen):
        return unavailable(f"nvidia-ctk {tools.version}; no engine answers (see docker)")
    step = GENERATE if engine.cdi_dirs else f"{GENERATE}; then {ENABLE_CDI}."
    return fail(f"nvidia-ctk {tools.version} is installed, and the engine is not set up for it", step)


def toolkit_version(facts: Facts) -> Judged:
    """Is the toolkit without its known ways out of a container?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    tools = facts.toolkit
    if isinstance(tools, Unseen) or tools.version is None:
        return unavailable("nvidia-ctk is not on the PATH" if isinstance(tools, Toolkit) else tools)
    if version_of(tools.version) >= TOOLKIT_FLOOR:
        return good(tools.version)
    holes = toolkit_holes(tools.version)
    step = "Upgrade nvidia-container-toolkit to 1.17.8 or newer, and libnvidia-container with it."
    return fail(f"{tools.version} lets an image break out of its container ({holes})", step)


def cdi_devices(facts: Facts) -> Judged:
    """Has the engine CDI devices for the cards that are here, and for the driver that is loaded?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    offers, specs = facts.offers, facts.cdi
    if isinstance(offers, Unseen) or isinstance(specs, Unseen):
        return unavailable("no engine answers (see docker)")
    if offers.cdi is None:
        return warn("the engine does no CDI", f"With Docker Engine 25 or newer, {ENABLE_CDI}; then {GENERATE}")
    where = ", ".join(specs.files) or "the engine's CDI"
    if not offers.cdi:
        return warn("the engine finds no CDI device of a GPU", GENERATE)
    stale = _stale(facts, found, offers.cdi, specs.drivers)
    if not stale:
        return good(f"{named(one.info.index for one in found)} in {where}")
    # With CDI the container would not start, or start with a library that does not fit.
    way = pinned(facts, found)
    judge = fail if way is None or way.method == "cdi" else warn
    return judge(f"{where} is out of date: {stale}", f"Make it anew: {GENERATE}")


def _stale(facts: Facts, found: list[Looked], names: frozenset[str], drivers: frozenset[str]) -> str:
    """Return what a specification has that is no longer so, or nothing."""
    by_uuid = {name for name in names if name.startswith("GPU-")}
    here = {gpu.uuid for gpu in facts.nvml.gpus} if isinstance(facts.nvml, Nvml) else set[str]()
    lacking = [one.info.index for one in found if by_uuid and one.info.uuid not in by_uuid]
    gone = sorted(by_uuid - here)
    said = [f"it does not know {named(lacking)}"] if lacking else []
    said += (
        [f"it names {gone[0]}, which is not here" + (f", and {len(gone) - 1} more" if gone[1:] else "")] if gone else []
    )
    driver = facts.nvml.driver if isinstance(facts.nvml, Nvml) else ""
    if drivers and driver not in drivers:
        said.append(f"it mounts the libraries of driver {', '.join(sorted(drivers))}, and {driver} is loaded")
    return "; ".join(said)


def pinning(facts: Facts) -> Judged:
    """By which way do chosen GPUs get into a container, and why by that one?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    if isinstance(facts.offers, Unseen):
        return unavailable("no engine answers (see docker)")
    try:
        return good(choose_pinning(facts.offers, [one.info for one in found]).reason)
    except PinningError as error:
        return fail(error.message, error.next_step)


def default_runtime(facts: Facts) -> Judged:
    """Does every container get the GPUs unasked?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    engine = facts.engine
    if isinstance(engine, Unseen):
        return unavailable("no engine answers (see docker)")
    if engine.default_runtime.startswith("nvidia"):
        return warn(
            f"the default runtime is {engine.default_runtime}: images that set NVIDIA_VISIBLE_DEVICES get all GPUs unasked",
            'Take "default-runtime" out of /etc/docker/daemon.json and restart docker.',
        )
    return good(f"the default runtime is {engine.default_runtime or 'runc'}")


def env_leak(facts: Facts) -> Judged:
    """Can a container take GPUs by setting an environment variable? And does the hook still serve the engine?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    config = facts.hook_config
    if isinstance(config, Unseen):
        return unavailable(config)
    if config.broken:
        return fail(f"{config.path}: {config.broken}", "Mend it, or write it anew: sudo nvidia-ctk config --in-place.")
    way = pinned(facts, found)
    by_hook = way is not None and way.method == "nvidia"
    if config.accepts_envvar and by_hook:
        # The engine's own request reaches the hook by the same variable.
        return warn(
            "any container may take GPUs with NVIDIA_VISIBLE_DEVICES, and the hook needs it so",
            f"Change over to CDI ({GENERATE}); then set {ACCEPT_ENVVAR} = false in {config.path}.",
        )
    if config.accepts_envvar:
        step = f"Set {ACCEPT_ENVVAR} = false in {config.path}."
        return warn("a container of the NVIDIA runtime may take GPUs with NVIDIA_VISIBLE_DEVICES", step)
    if by_hook:
        return fail(
            f"{ACCEPT_ENVVAR} = false: the hook will not hear the engine either, and containers see no GPU",
            f"Change over to CDI: {GENERATE}; or take the entry out of {config.path}.",
        )
    return good("containers cannot take GPUs with NVIDIA_VISIBLE_DEVICES")


def cgroup_driver(facts: Facts) -> Judged:
    """Will `systemctl daemon-reload` take the GPUs away from running containers (nvidia-container-toolkit issue 48)?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    engine = facts.engine
    if isinstance(engine, Unseen):
        return unavailable("no engine answers (see docker)")
    way = pinned(facts, found)
    if way is None:
        return unavailable("GPUs cannot be pinned (see pinning)")
    if way.method == "nvidia" and engine.cgroup_driver == "systemd":
        return warn(
            f"systemd and the classic {HOOK}: daemon-reload, as in any upgrade, takes the GPUs from running containers",
            f"Change over to CDI: {GENERATE}; or set the engine's native.cgroupdriver to cgroupfs.",
        )
    return good(
        f"{engine.cgroup_driver or 'not told'}, and GPUs come {'through CDI' if way.method == 'cdi' else 'by hook'}"
    )
