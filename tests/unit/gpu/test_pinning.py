from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import box

from vaultcube.errors import PinningError
from vaultcube.gpu.pinning import GENERATE, HOOK, PinningFacts, cdi_names, choose_pinning, qualified
from vaultcube.results.schema import Gpu

BOX = box(4).gpus
UUIDS = [gpu.uuid for gpu in BOX]
CHOSEN = (BOX[2], BOX[0])
NAMES = frozenset({"0", "1", "2", "3", *UUIDS, "all"})


def test_cdi_by_uuid_comes_first_in_the_order_of_the_gpus() -> None:
    for hook in (True, False):
        found = choose_pinning(PinningFacts(NAMES, hook), CHOSEN)
        assert found.method == "cdi"
        assert found.devices == (f"nvidia.com/gpu={UUIDS[2]}", f"nvidia.com/gpu={UUIDS[0]}")
        assert found.reason == "by UUID through CDI"


@pytest.mark.parametrize("form", ["{}", "gpu{}"])
def test_a_specification_without_uuids_is_used_by_index_and_that_is_said(form: str) -> None:
    names = frozenset(form.format(index) for index in range(4)) | {"all"}
    found = choose_pinning(PinningFacts(names, hook=True), CHOSEN)
    assert found.devices == (f"nvidia.com/gpu={form.format(2)}", f"nvidia.com/gpu={form.format(0)}")
    assert "no UUIDs" in found.reason


@pytest.mark.parametrize(
    ("cdi", "said"),
    [
        (None, "the engine does no CDI"),
        (frozenset(), "finds no CDI device"),
        # Made before the third card was put in: its index may mean another card.
        (NAMES - {UUIDS[2]}, f"does not know GPU 2 ({UUIDS[2]})"),
        (frozenset({"0", "1", "all"}), f"does not know GPU 2 ({UUIDS[2]})"),
        (frozenset({"all"}), "does not know GPU 2"),
    ],
)
def test_else_the_hook_takes_uuids_and_else_there_is_no_way(cdi: frozenset[str] | None, said: str) -> None:
    found = choose_pinning(PinningFacts(cdi, hook=True), CHOSEN)
    assert (found.method, found.devices) == ("nvidia", (UUIDS[2], UUIDS[0]))
    assert said in found.reason
    with pytest.raises(PinningError) as seen:
        choose_pinning(PinningFacts(cdi, hook=False), CHOSEN)
    assert seen.value.exit_code == 3
    assert said in seen.value.message
    assert HOOK in seen.value.message
    assert "nvidia-ctk" in seen.value.next_step
    # The engine's settings are changed only where they are in the way.
    assert (GENERATE in seen.value.next_step) == (cdi is not None)


@given(st.none() | st.frozensets(st.sampled_from(sorted(NAMES))), st.booleans(), st.lists(st.sampled_from(BOX)))
def test_only_names_that_the_engine_knows_are_used(cdi: frozenset[str] | None, hook: bool, chosen: list[Gpu]) -> None:  # noqa: FBT001 - hypothesis gives it
    gpus = list(dict.fromkeys(chosen)) or [BOX[0]]
    try:
        found = choose_pinning(PinningFacts(cdi, hook), gpus)
    except PinningError:
        assert not hook
        return
    assert len(found.devices) == len(gpus)
    if found.method == "cdi":
        names = [one.removeprefix("nvidia.com/gpu=") for one in found.devices]
        assert cdi is not None
        assert cdi.issuperset(names)
        for name, gpu in zip(names, gpus, strict=True):
            assert name in {gpu.uuid, str(gpu.index)}
    else:
        assert found.devices == tuple(gpu.uuid for gpu in gpus)


# --- specifications ----------------------------------------------------------------------------------------------

# As nvidia-ctk 1.17 writes it, without most of its mounts.
GENERATED = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-modeset
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
    - nosuid
    - nodev
    - bind
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: "1"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-0b6b7808-c002-f593-ac86-cd8e57757b94
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
  name: all
kind: nvidia.com/gpu
"""
# The newer writer's order and indentation.
NEWER = """\
cdiVersion: 0.7.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
    - name: '1:0'
      containerEdits: {}
    - name: all
containerEdits:
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
"""


def test_the_names_in_a_specification() -> None:
    assert cdi_names(GENERATED) == {"0", "1", "GPU-0b6b7808-c002-f593-ac86-cd8e57757b94", "all"}
    assert cdi_names(NEWER) == {"0", "1:0", "all"}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_specification_in_json(indent: int | None) -> None:
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {}}, {"name": UUIDS[1]}],
        "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/x"}]},
    }
    assert cdi_names(json.dumps(document, indent=indent)) == {"0", UUIDS[1]}


@pytest.mark.parametrize("text", ["", "kind: vendor.example/gpu\ndevices:\n- name: all\n", "\0", "devices: [", "kind:"])
def test_what_is_no_specification_of_our_kind_has_no_names(text: str) -> None:
    assert cdi_names(text) == frozenset()


def test_an_engine_that_lists_its_devices() -> None:
    listed = [
        {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
        {"Source": "cdi", "ID": f"nvidia.com/gpu={UUIDS[0]}"},
        {"Source": "cdi", "ID": "vendor.example/fpga=9"},
        {"Source": "other", "ID": "nvidia.com/gpu=1"},
        {"Source": "cdi"},
    ]
    assert qualified(listed) == {"0", UUIDS[0]}
    assert qualified([]) == frozenset()
