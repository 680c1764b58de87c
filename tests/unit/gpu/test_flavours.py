from __future__ import annotations

import pytest
from tests.unit.support import gpu

from vaultcube.errors import FlavourError
from vaultcube.gpu.flavours import Capability, Flavour, Kernels, choose_flavour, runs_on

ADA, HOPPER, BLACKWELL = gpu(0, capability="8.9", name="RTX 4090"), gpu(1, capability="9.0", name="H200"), gpu(2)
KEPLER, VOLTA = gpu(3, capability="3.7", name="K80"), gpu(4, capability="6.1", name="GTX 1080")
RUBIN = gpu(5, capability="13.0", name="the next one")


def test_capabilities_are_ordered_as_numbers_and_not_as_text() -> None:
    assert Capability.parse("9.0") < Capability.parse("10.0") < Capability.parse("12.0") < Capability.parse("12.1")


@pytest.mark.parametrize(
    ("capability", "cu124", "cu128"),
    [
        ("3.7", False, False),
        ("5.0", True, False),
        ("6.1", True, False),
        ("7.0", True, True),
        ("8.9", True, True),
        ("9.0", True, True),
        ("10.0", False, True),
        ("12.0", False, True),
        ("12.1", False, True),
        ("13.0", False, False),
    ],
)
def test_which_flavour_has_kernels(capability: str, cu124: bool, cu128: bool) -> None:  # noqa: FBT001 - a table
    assert runs_on(Flavour.CU124, gpu(capability=capability)) is cu124
    assert runs_on(Flavour.CU128, gpu(capability=capability)) is cu128


def test_auto_takes_cu124_until_a_blackwell_is_chosen() -> None:
    assert choose_flavour("auto", [ADA, HOPPER])[0] is Flavour.CU124
    flavour, why = choose_flavour("auto", [ADA, BLACKWELL])
    assert flavour is Flavour.CU128
    assert why == "flavour cu128: NVIDIA GeForce RTX 5090 has compute capability 12.0"


def test_no_gpu_means_the_cpu_unless_an_image_is_named() -> None:
    assert choose_flavour("auto", [])[0] is Flavour.CPU
    assert choose_flavour("cpu", [])[0] is Flavour.CPU
    flavour, why = choose_flavour("cu128", [])
    assert flavour is Flavour.CU128
    assert "on the CPU" in why


def test_cpu_and_gpus_exclude_each_other() -> None:
    with pytest.raises(FlavourError) as seen:
        choose_flavour("cpu", [ADA])
    assert seen.value.next_step == "Add --gpus none."


def test_an_explicit_flavour_without_kernels_is_refused_with_the_one_that_has() -> None:
    with pytest.raises(FlavourError, match="GPU 2") as seen:
        choose_flavour("cu124", [ADA, BLACKWELL])
    assert seen.value.exit_code == 3
    assert seen.value.next_step == "Use --flavour cu128."
    with pytest.raises(FlavourError) as seen:
        choose_flavour("cu128", [VOLTA])
    assert seen.value.next_step == "Use --flavour cu124."


def test_a_workloads_own_image_may_have_kernels_for_less() -> None:
    own = {
        Flavour.CU124: Kernels(Capability(6, 0), Capability(9, 0)),
        Flavour.CU128: Kernels(Capability(9, 0), Capability(12, 0), ", which is somebody else's"),
    }
    assert choose_flavour("auto", [ADA], own)[0] is Flavour.CU124
    with pytest.raises(FlavourError, match="cu124 has no kernels for GPU 2") as seen:
        choose_flavour("cu124", [BLACKWELL], own)
    assert seen.value.next_step == "Use --flavour cu128, which is somebody else's."
    # What PyTorch's would run on.
    with pytest.raises(FlavourError, match="cu128 has no kernels"):
        choose_flavour("cu128", [ADA], own)


@pytest.mark.parametrize("one", [KEPLER, RUBIN])
def test_a_gpu_that_no_flavour_knows_is_to_be_left_out(one: object) -> None:
    with pytest.raises(FlavourError) as seen:
        choose_flavour("auto", [one])  # type: ignore[list-item]
    assert "leave this one out" in seen.value.next_step


def test_gpus_that_need_different_flavours_are_not_sent_in_a_circle() -> None:
    with pytest.raises(FlavourError) as seen:
        choose_flavour("auto", [VOLTA, BLACKWELL])
    # cu124, which the older one needs, would be refused for the newer one.
    assert "leave this one out" in seen.value.next_step
