"""Checks of the NVIDIA driver: does it run, does it fit these cards, does it fit the images."""

from __future__ import annotations

from typing import Final

from vaultcube.errors import FlavourError
from vaultcube.gpu.flavours import BLACKWELL, Capability, Flavour, choose_flavour
from vaultcube.gpu.inventory import to_gpu
from vaultcube.gpu.preflight.facts import Facts, Nvml, PciGpu, Unseen
from vaultcube.gpu.preflight.judged import Judged, absence, fail, good, looked_at, named, unavailable, warn
from vaultcube.gpu.versions import version_of
from vaultcube.gpu.xid import address

# The first driver that knows a Blackwell card (570.86.16; the open modules only).
BLACKWELL_DRIVER: Final = (570, 86, 16)
# PCI device ids count up with the generations; GB100 begins here, and every older chip is below.
BLACKWELL_DEVICE: Final = 0x2900
# What the CUDA runtime in the images asks for, and from where its minor-version compatibility lets it run all the same.
DRIVER_FLOORS: Final = {Flavour.CU124: (550, 54, 14), Flavour.CU128: (570,)}
COMPATIBLE: Final = (525,)
OPEN_PACKAGE: Final = (
    "Install a 580 driver with the open kernel modules (Ubuntu: nvidia-driver-580-server-open), reboot."
)

_BROKEN: Final = {
    "mismatch": (
        "the driver was updated under the running kernel module (driver/library version mismatch)",
        "Reboot. To keep it from happening again, hold the nvidia packages back from automatic upgrades.",
    ),
    "permission": (
        "the driver's device files may not be opened by this user",
        "Look at ls -l /dev/nvidia*: they are 0666 unless somebody changed it (NVreg_DeviceFileMode).",
    ),
    "lost": ("a GPU has fallen off the bus and NVML does not start", "Reboot; see xid for what the kernel logged."),
}


def driver(facts: Facts) -> Judged:
    """Does the driver run?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    nvml = facts.nvml
    if isinstance(nvml, Nvml):
        return good(f"driver {nvml.driver}" + (f", CUDA up to {nvml.cuda}" if nvml.cuda else ""))
    if nvml.code in _BROKEN:
        return fail(*_BROKEN[nvml.code])
    if nvml.code not in {"no-library", "no-driver"}:
        return fail(nvml.reason, "Reboot; inside a container, make it anew: the engine took its devices away.")
    count = f"{len(facts.pci)} NVIDIA GPU(s) on the PCI bus, and " if not isinstance(facts.pci, Unseen) else ""
    if nvml.code == "no-library":
        return fail(f"{count}no driver is installed", OPEN_PACKAGE)
    if facts.nouveau is True:
        return fail(f"{count}nouveau holds them, so that the driver cannot", "See nouveau.")
    step = "Load it (sudo modprobe nvidia) and read why it fails: sudo dmesg | grep -i -e nvidia -e NVRM."
    if facts.secure_boot is True:
        step += " Secure Boot is on: its modules must be signed."
    return fail(f"{count}the driver's kernel module is not loaded", step)


def gpu_visibility(facts: Facts) -> Judged:
    """Does every GPU on the PCI bus answer?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    nvml, pci = facts.nvml, facts.pci
    if isinstance(nvml, Unseen):
        return unavailable("NVML does not answer (see driver)")
    if nvml.missing:
        lost, whys = [index for index, _ in nvml.missing], {why for _, why in nvml.missing}
        return fail(
            f"{named(lost)} of {len(nvml.gpus) + len(lost)}: does not answer ({', '.join(sorted(whys))})",
            "Only a reboot brings a lost GPU back. See xid; then look at power, seating and riser of that card.",
        )
    broken = [gpu.index for gpu, now in zip(nvml.gpus, nvml.readings, strict=False) if now.problem]
    if broken:
        return fail(f"{named(broken)} stopped answering", "Reboot; see xid for what the kernel logged.")
    if isinstance(pci, Unseen):
        return good(f"{len(nvml.gpus)} listed; the PCI bus could not be looked at ({pci.reason})")
    listed = {_address(gpu.pci_bus_id) for gpu in nvml.gpus}
    hidden = [one for one in pci if _address(one.address) not in listed]
    if not hidden or len(nvml.gpus) >= len(pci):
        return good(f"{len(nvml.gpus)} on the PCI bus, and all answer")
    where = ", ".join(one.address for one in hidden)
    return fail(f"{len(hidden)} of {len(pci)} on the PCI bus are not in NVML: {where}", _why_hidden(facts, hidden))


def _why_hidden(facts: Facts, hidden: list[PciGpu]) -> str:
    module = facts.driver
    blackwell = any(one.device >= BLACKWELL_DEVICE for one in hidden)
    if blackwell and not isinstance(module, Unseen) and not module.open_modules:
        return f"Blackwell cards need the open kernel modules. {OPEN_PACKAGE}"
    step = "Switch on Above 4G Decoding and Resizable BAR in the BIOS"
    if not isinstance(facts.faults, Unseen) and any(one.kind == "init-failed" for one in facts.faults):
        return f"{step}: the driver could not start them (RmInitAdapter failed)."
    return f"{step}, and read why the driver refuses: sudo dmesg | grep NVRM."


def _address(text: str) -> str:
    """Return a PCI address in one spelling; what is none stays as it is."""
    try:
        return address(text)
    except ValueError:
        return text


def driver_generation(facts: Facts) -> Judged:
    """Is the driver new enough for these cards, and has it the modules that they need?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    blackwell = _blackwells(facts)
    module = facts.driver
    version = (
        facts.nvml.driver if isinstance(facts.nvml, Nvml) else "" if isinstance(module, Unseen) else module.version
    )
    if not version:
        return unavailable("no driver is loaded (see driver)")
    kind = "" if isinstance(module, Unseen) else ", open modules" if module.open_modules else ", proprietary modules"
    if not blackwell:
        return good(f"driver {version}{kind}; no card here needs a newer one")
    if version_of(version) < BLACKWELL_DRIVER:
        return fail(f"driver {version} is older than 570.86.16, the first for {blackwell}", OPEN_PACKAGE)
    if isinstance(module, Unseen):
        return unavailable(f"driver {version} is new enough; which modules it has cannot be seen ({module.reason})")
    if not module.open_modules:
        return fail(f"driver {version} with proprietary modules, and {blackwell} needs the open ones", OPEN_PACKAGE)
    return good(f"driver {version}{kind}, for {blackwell}")


def _blackwells(facts: Facts) -> str:
    """Return what makes this a machine with Blackwell, or nothing."""
    if isinstance(facts.nvml, Nvml):
        for gpu in facts.nvml.gpus:
            if Capability.parse(gpu.compute_capability) >= BLACKWELL:
                return f"{gpu.name} (compute capability {gpu.compute_capability})"
    if not isinstance(facts.pci, Unseen):
        for one in facts.pci:
            if one.device >= BLACKWELL_DEVICE:
                return f"the Blackwell card at {one.address}"
    return ""


def driver_flavour(facts: Facts) -> Judged:
    """Is the driver new enough for the CUDA in the images?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    flavour = _flavour(facts)
    floor = DRIVER_FLOORS.get(flavour) if flavour else None
    if floor is None:
        return unavailable("no flavour runs on these cards (see flavour)" if flavour is None else "no GPU is used")
    version = facts.nvml.driver if isinstance(facts.nvml, Nvml) else ""
    asked = ".".join(map(str, floor))
    if version_of(version) >= floor:
        return good(f"driver {version} for {flavour}, which asks for {asked}")
    step = f"Install driver {asked} or newer (580 runs every flavour), and reboot."
    if version_of(version) >= COMPATIBLE:
        return warn(
            f"driver {version}; {flavour} asks for {asked}, and only minor-version compatibility lets it run", step
        )
    return fail(f"driver {version} is too old for {flavour}, which asks for {asked}", step)


def flavour(facts: Facts) -> Judged:
    """Have the images kernels for these cards?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    try:
        _, why = choose_flavour(facts.asked.flavour, [to_gpu(one.info) for one in found])
    except FlavourError as error:
        return fail(error.message, error.next_step)
    return good(why)


def _flavour(facts: Facts) -> Flavour | None:
    found = looked_at(facts)
    try:
        return (
            None
            if isinstance(found, Judged)
            else choose_flavour(facts.asked.flavour, [to_gpu(x.info) for x in found])[0]
        )
    except FlavourError:
        return None


def nouveau(facts: Facts) -> Judged:
    """Is nouveau loaded, which keeps the NVIDIA driver from the cards?"""
    if (reason := absence(facts)) is not None:
        return unavailable(reason)
    seen = facts.nouveau
    if isinstance(seen, Unseen):
        return unavailable(seen)
    if not seen:
        return good("not loaded")
    step = (
        "Blacklist it (blacklist nouveau, options nouveau modeset=0 in /etc/modprobe.d), update-initramfs -u, reboot."
    )
    works = isinstance(facts.nvml, Nvml) and bool(facts.nvml.gpus)
    return (
        warn("nouveau is loaded beside the driver", step) if works else fail("nouveau is loaded and holds cards", step)
    )
