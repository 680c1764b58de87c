"""What holds for every check."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpu.preflight.machines import bare, box, card, nvml, one_of, reading

from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.preflight import CHECKS, CODES, Check, examine, needs
from vaultcube.gpu.preflight.facts import (
    Asked,
    CdiSpecs,
    Disk,
    Driver,
    Engine,
    Facts,
    Holders,
    HookConfig,
    Memlock,
    Memory,
    Nvml,
    PciGpu,
    Port,
    Toolkit,
    Unseen,
)
from vaultcube.gpu.readings import GpuInfo, Problem, Reading
from vaultcube.gpu.selection import GpuRequest
from vaultcube.gpu.xid import Fault
from vaultcube.results.doctor import FindingStatus

# What is no observation.
GIVEN = {"asked", "simulated"}
every_check = pytest.mark.parametrize("check", CHECKS, ids=CODES)


def test_codes_are_unique_kebab_case_nouns() -> None:
    assert len(set(CODES)) == len(CODES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in CODES)


def test_a_healthy_box_passes_everything_it_can() -> None:
    statuses = {one.code: one.status for one in examine(box(), CODES)}
    assert {code for code, status in statuses.items() if status is not FindingStatus.PASS} == {"ecc"}
    assert statuses["ecc"] is FindingStatus.UNAVAILABLE


def test_a_machine_without_gpu_is_unavailable_for_one_reason_and_nothing_worse() -> None:
    findings = examine(bare(), CODES)
    assert {one.status for one in findings} == {FindingStatus.PASS, FindingStatus.UNAVAILABLE}
    reasons = {one.seen for one in findings if one.status is FindingStatus.UNAVAILABLE}
    assert reasons == {"no NVIDIA GPU on this machine"}
    passed = [one.code for one in findings if one.status is FindingStatus.PASS]
    assert passed == [
        *("docker", "socket-permission", "compose", "buildx", "disk-images", "disk-results"),
        *("shm", "ports", "clock"),
    ]


def test_gpus_that_nobody_asked_for_are_not_judged() -> None:
    facts = box(asked=Asked(GpuRequest("none")), nvml=Unseen("broken", "mismatch"))
    assert {one.seen for one in examine(facts, CODES) if one.status is FindingStatus.UNAVAILABLE} == {
        "no GPU is asked for"
    }


def test_only_the_named_checks_run_and_in_the_order_of_all() -> None:
    assert [one.code for one in examine(box(), ["xid", "docker"])] == ["docker", "xid"]
    assert needs(["clock", "ports"]) == {"synchronised", "ports"}
    assert needs([]) == frozenset()


@every_check
def test_a_check_needs_fields_that_there_are(check: Check) -> None:
    assert check.needs <= {field.name for field in fields(Facts)}


def only(facts: Facts, names: frozenset[str]) -> Facts:
    return Facts(asked=facts.asked, **{name: getattr(facts, name) for name in names})


SICK = box(
    nvml=one_of(one_of(nvml(), 2, reading(pcie_width=4, temperature_margin_c=0), mig=True), 1, persistence=False),
    faults=(Fault("xid", "0000:01:00", 79),),
    images=frozenset(),
    nouveau=True,
    offers=PinningFacts(None, hook=False),
)


@every_check
@pytest.mark.parametrize("facts", [box(), bare(), SICK], ids=["healthy", "bare", "sick"])
def test_a_check_says_the_same_when_nothing_but_its_needs_was_looked_at(check: Check, facts: Facts) -> None:
    assert check.run(only(facts, check.needs)) == check.run(facts)


@every_check
def test_what_cannot_be_seen_never_passes(check: Check) -> None:
    blind: dict[str, Any] = {
        field.name: Unseen("it is dark", "no-driver") for field in fields(Facts) if field.name != "asked"
    }
    assert check.run(Facts(**blind)).status in {FindingStatus.UNAVAILABLE, FindingStatus.FAIL}
    assert check.run(Facts()).status in {FindingStatus.UNAVAILABLE, FindingStatus.FAIL}


# --- anything at all -----------------------------------------------------------------------------------------

words = st.sampled_from(["", "x", "28.3.3", "26.1.5+dfsg1", "580.95.05", "525.1", "cu128", "0000:01:00.0", "1.17.8"])
names = st.frozensets(st.sampled_from(["0", "1", "gpu0", "all", *(card(index).uuid for index in range(5))]))
unseen = st.builds(Unseen, words, st.sampled_from(["", "no-library", "no-driver", "mismatch", "permission", "lost"]))
numbers = st.integers(0, 2**50)
infos = st.builds(
    card,
    st.integers(0, 20),
    compute_capability=st.sampled_from(["6.1", "8.9", "12.0", "99.9"]),
    temperature_limit_c=st.none() | st.integers(0, 200),
    pcie_width_max=st.none() | st.integers(0, 32),
    ecc=st.none() | st.booleans(),
    mig=st.none() | st.booleans(),
    persistence=st.none() | st.booleans(),
)
readings = st.builds(
    Reading,
    problem=st.none() | st.just("lost"),
    temperature_c=st.none() | st.integers(0, 200),
    temperature_margin_c=st.none() | st.integers(-50, 150),
    pcie_width=st.none() | st.integers(0, 32),
    clock_events=st.none() | st.integers(0, 2**12),
    ecc_uncorrected=st.none() | st.integers(0, 9),
)


@st.composite
def nvmls(draw: st.DrawFn) -> Nvml:
    pairs: list[tuple[GpuInfo, Reading]] = draw(st.lists(st.tuples(infos, readings), max_size=5))
    missing: list[tuple[int, Problem]] = draw(st.lists(st.tuples(st.integers(0, 20), st.just("lost")), max_size=3))
    gpus, now = tuple(gpu for gpu, _ in pairs), tuple(one for _, one in pairs)
    return Nvml(draw(words), draw(st.none() | words), gpus, now, tuple(missing))


kinds = st.sampled_from(["xid", "lost", "init-failed", "aer"])
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "asked": st.builds(
        Asked,
        st.builds(GpuRequest, st.sampled_from(["auto", "all", "none", "count", "named"])),
        st.none() | st.lists(st.sampled_from([card(0).uuid, "GPU-none"])).map(tuple),
        words,
        st.sampled_from(["auto", "cu124", "cu128"]),
        st.none() | st.just(box().asked.hardware),
    ),
    "engine": st.builds(Engine, words, words, names, words, words, st.lists(words).map(tuple), st.none() | names),
    "compose": words,
    "buildx": words,
    "images": names,
    "images_disk": st.builds(Disk, words, numbers),
    "results_disk": st.builds(Disk, words, numbers, words),
    "toolkit": st.builds(Toolkit, st.none() | words, st.none() | words),
    "hook_config": st.builds(HookConfig, words, st.booleans(), words),
    "offers": st.builds(PinningFacts, st.none() | names, st.booleans()),
    "cdi": st.builds(CdiSpecs, st.lists(words).map(tuple), st.frozensets(words)),
    "driver": st.builds(Driver, words, st.booleans()),
    "nouveau": st.booleans(),
    "secure_boot": st.booleans(),
    "pci": st.lists(st.builds(PciGpu, words, st.integers(0, 0xFFFF))).map(tuple),
    "nvml": nvmls(),
    "holders": st.builds(Holders, st.just(((card(0).uuid, ("x",)),)), st.lists(words).map(tuple)),
    "memory": st.builds(Memory, numbers, numbers),
    "memlock": st.builds(Memlock, st.none() | numbers, st.booleans()),
    "ports": st.lists(st.builds(Port, st.integers(1, 65535), words, st.booleans())).map(tuple),
    "synchronised": st.booleans(),
    "faults": st.lists(st.builds(Fault, kinds, st.none() | words, st.none() | st.integers(0, 200))).map(tuple),
}
anything = st.fixed_dictionaries(
    {}, optional={name: part if name == "asked" else part | unseen for name, part in PARTS.items()}
)


@given(anything)
def test_no_check_ever_raises_and_each_says_one_line(parts: dict[str, Any]) -> None:
    for one in examine(replace(box(), **parts), CODES):
        assert "\n" not in one.seen
        bad = one.status in {FindingStatus.WARN, FindingStatus.FAIL}
        assert not bad or one.next_step
        assert one.status is not FindingStatus.PASS or one.next_step is None


def test_every_field_is_tried() -> None:
    assert set(PARTS) | {"simulated"} == {field.name for field in fields(Facts)}
