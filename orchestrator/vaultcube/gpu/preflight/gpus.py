"""Checks of every GPU that is looked at, and of all of them against the profile."""

from __future__ import annotations

from collections import Counter
from typing import Final

from vaultcube.gpu import clockevents
from vaultcube.gpu.preflight.facts import Facts, Unseen
from vaultcube.gpu.preflight.judged import Judged, Looked, each, fail, good, looked_at, named, unavailable, warn
from vaultcube.results.profile import Hardware

THERMAL_MASK: Final = 0x60
# Closer than this to the card's own limit while nothing is measured, it will be slowed down under load.
MARGIN_LOW_C: Final = 10
# Cards of one kind differ in what their firmware keeps for itself.
MEMORY_TOLERANCE: Final = 0.98


def gpu_count(facts: Facts) -> Judged:
    """Are the GPUs here those that the profile says are in the box?"""
    found = looked_at(facts)
    if facts.asked.short:
        return fail(facts.asked.short, "Ask for fewer (--gpus), or see gpu-visibility.")
    if isinstance(found, Judged):
        return found
    have = "; ".join(f"{count} x {text}" for text, count in Counter(map(_described, found)).items())
    want = facts.asked.hardware
    # Some of them were chosen: then only their kind can be held against the profile.
    some = facts.asked.request.kind not in {"auto", "all"}
    if want is None:
        return good(f"{have}; the profile says nothing of the hardware")
    fitting = sum(_fits(one, want) for one in found)
    if fitting == len(found) and (some or fitting == want.gpu_count):
        return good(f"{have}, as in profile {facts.asked.profile}")
    expected = f"profile {facts.asked.profile} expects {want.gpu_count} x {want.gpu_name}"
    # A box with some of the profile's cards lacks the others; another machine was only meant if the user said so.
    if facts.asked.claimed or 0 < fitting < want.gpu_count:
        return fail(
            f"{have}; {expected}", "See gpu-visibility for a card that is missing, or name the right --profile."
        )
    return warn(
        f"{have}; {expected}", "Copy the profile, write this machine's hardware and targets, and use --profile."
    )


def _described(one: Looked) -> str:
    return f"{one.info.name} ({one.info.memory_total_bytes / 2**20:.0f} MiB, {one.info.compute_capability})"


def _fits(one: Looked, want: Hardware) -> bool:
    info = one.info
    enough = info.memory_total_bytes >= want.gpu_memory_total_bytes * MEMORY_TOLERANCE
    return info.name == want.gpu_name and info.compute_capability == want.compute_capability and enough


def pcie_link(facts: Facts) -> Judged:
    """Does every card have all its PCIe lanes? The generation is no sign: it drops when a card idles."""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    links = [
        (one.info.index, one.now.pcie_width, one.info.pcie_width_max)
        for one in found
        if one.now.pcie_width is not None and one.info.pcie_width_max is not None
    ]
    if not links:
        return unavailable("the driver does not tell the PCIe width")
    narrow = [(index, f"x{now} of x{most}") for index, now, most in links if now < most]
    if not narrow:
        return good(each((index, f"x{now}") for index, now, _ in links))
    step = (
        "Power off, reseat the card and its riser, look for a bent pin, and check the slot's bifurcation in the BIOS."
    )
    # Half the lanes is what many boards give on purpose; less is a fault.
    half = all(now * 2 >= most for _, now, most in links)
    return warn(each(narrow), step) if half else fail(each(narrow), step)


def temperature(facts: Facts) -> Judged:
    """Is every card well below the temperature at which it slows itself down?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    margins = [(one, margin) for one in found if (margin := _margin(one)) is not None]
    slowed = [one.info.index for one in found if (one.now.clock_events or 0) & THERMAL_MASK]
    step = "Clean fans and filters, look at the air flow, and leave a slot free between cards."
    over = [(one.info.index, f"{one.now.temperature_c} C, at its limit") for one, margin in margins if margin <= 0]
    over += [(index, "slowed down by heat now") for index in slowed if index not in dict(over)]
    if over:
        return fail(each(over), step)
    if not margins:
        return unavailable("no card tells its temperature limit")
    near = [
        (one.info.index, f"{one.now.temperature_c} C, {margin} below its limit")
        for one, margin in margins
        if margin < MARGIN_LOW_C
    ]
    if near:
        return warn(each(near), step)
    hottest, margin = min(margins, key=lambda pair: pair[1])
    return good(f"hottest is GPU {hottest.info.index}: {hottest.now.temperature_c} C, {margin} below its limit")


def _margin(one: Looked) -> int | None:
    if one.now.temperature_margin_c is not None:
        return one.now.temperature_margin_c
    limit, now = one.info.temperature_limit_c, one.now.temperature_c
    return None if limit is None or now is None else limit - now


def slowdown(facts: Facts) -> Judged:
    """Is a card slowed down right now by its hardware or by the power brake? Heat has a check of its own."""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    told = [one for one in found if one.now.clock_events is not None]
    if not told:
        return unavailable("the driver does not tell why clocks are lowered")
    mask = clockevents.THROTTLE_MASK & ~THERMAL_MASK
    slowed = [(one.info.index, ", ".join(clockevents.names((one.now.clock_events or 0) & mask))) for one in told]
    slowed = [(index, text) for index, text in slowed if text]
    if slowed:
        step = "Check the power supply and its cables. One look can be a flicker: look again, or record a run."
        return warn(each(slowed), step)
    return good("no card is held back by its hardware or a power brake")


def ecc(facts: Facts) -> Judged:
    """Has a card counted memory errors that it could not correct?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    able = [one for one in found if one.info.ecc is not None]
    if not able:
        return unavailable("these cards have no ECC counters (GeForce has none)")
    wrong = [
        (one.info.index, f"{one.now.ecc_uncorrected} uncorrected errors") for one in able if one.now.ecc_uncorrected
    ]
    if wrong:
        return fail(each(wrong), "Reset the card (sudo nvidia-smi -r) or reboot; if they come back, replace it.")
    off = [one.info.index for one in able if not one.info.ecc]
    if off:
        return warn(f"{named(off)}: ECC is off", f"Switch it on: sudo nvidia-smi -i {off[0]} -e 1, then reboot.")
    return good(f"{named(one.info.index for one in able)}: on, no uncorrected errors")


def mig(facts: Facts) -> Judged:
    """Is a card split into MIG instances? Only whole GPUs can be used."""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    split = [one.info.index for one in found if one.info.mig]
    if split:
        step = f"Switch MIG off: sudo nvidia-smi -i {','.join(map(str, split))} -mig 0; or leave them out of --gpus."
        return fail(f"{named(split)}: MIG is on, and only whole GPUs can be used", step)
    return good("whole GPUs" if any(one.info.mig is not None for one in found) else "these cards have no MIG")


def persistence(facts: Facts) -> Judged:
    """Does the driver keep cards set up while nobody uses them?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    known = [one for one in found if one.info.persistence is not None]
    if not known:
        return unavailable("the driver does not tell the persistence mode")
    off = [one.info.index for one in known if not one.info.persistence]
    if off:
        return warn(
            f"{named(off)}: off; every start waits for the card to be set up again",
            "sudo systemctl enable --now nvidia-persistenced, or until the next boot: sudo nvidia-smi -pm 1.",
        )
    return good("on")


def gpu_processes(facts: Facts) -> Judged:
    """Does anybody hold a GPU already?"""
    found = looked_at(facts)
    if isinstance(found, Judged):
        return found
    if isinstance(facts.holders, Unseen):
        return unavailable(facts.holders)
    holders = dict(facts.holders.by_gpu)
    held = [(one.info.index, ", ".join(holders.get(one.info.uuid, ()))) for one in found]
    held = [(index, text) for index, text in held if text]
    if held:
        return warn(each(held), "Wait for it or stop it; --share runs beside it, and measures nothing worth having.")
    return unavailable("; ".join(facts.holders.notes)) if facts.holders.notes else good("nobody is on them")
