"""nvmlDeviceGetFieldValues: each field with its number, its type and a status of its own."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.rig.inside import Inside

NOT_SUPPORTED = 3
UINT, ULONGLONG, INT = 1, 3, 5
ALL = [*range(1, 7), 74, 75, 76, 82, 83, 90, 91, 94, 95, *range(142, 146), 164, *range(185, 191), 192, *range(193, 197)]
ALL += [230, 269, 270, 271]
H100 = pytest.mark.parametrize("inside", ["8xh100"], indirect=True)


def fields(inside: Inside, *ids: int) -> dict[int, tuple[int, Any]]:
    """Return status and value of each field, the value by its own type."""
    answers = inside(f"""[
        (one.fieldId, one.nvmlReturn, one.valueType, one.value.uiVal, one.value.ullVal, one.value.siVal)
        for one in p.nvmlDeviceGetFieldValues(h[0], {list(ids)})
    ]""")
    values = {UINT: 3, ULONGLONG: 4, INT: 5}
    return {answer[0]: (answer[1], answer[values[answer[2]]] if not answer[1] else None) for answer in answers}


def test_limits_are_degrees_from_where_clocks_go_down(inside: Inside) -> None:
    assert fields(inside, 193, 194, 195, 196) == {193: (0, -5), 194: (0, -2), 195: (NOT_SUPPORTED, None), 196: (0, 0)}


def test_a_field_fails_alone(inside: Inside) -> None:
    inside.box.set_gpu(0, pcie_replay="permission", violation_power_ns="lost", violation_sw_thermal_ns=77)
    inside.wait("p.nvmlDeviceGetFieldValues(h[0], [94])[0].nvmlReturn", lambda seen: seen == 4)

    assert fields(inside, 74, 94, 269, 82, 9999) == {
        74: (15, None),
        94: (4, None),
        269: (0, 77),
        82: (NOT_SUPPORTED, None),
        9999: (NOT_SUPPORTED, None),
    }


@H100
def test_a_data_centre_card_has_every_field(inside: Inside) -> None:
    seen = fields(inside, *ALL)

    assert {field: status for field, (status, _) in seen.items() if status} == {}
    assert seen[91] == (0, 18)
    assert seen[186] == (0, inside("p.nvmlDeviceGetPowerUsage(h[0])"))
    assert seen[188] == (0, 700_000)


def test_fields_agree_with_the_calls_of_the_same_thing(inside: Inside) -> None:
    inside.box.set_gpu(0, pcie_replay=12, power_mw=0, energy_mj=1 << 41)
    inside.wait("p.nvmlDeviceGetPcieReplayCounter(h[0])", lambda seen: seen == 12)

    assert fields(inside, 94, 83, 190) == {94: (0, 12), 83: (0, 1 << 41), 190: (0, 575_000)}
    assert inside("p.nvmlDeviceGetTotalEnergyConsumption(h[0])") == 1 << 41


def test_a_field_says_when_it_was_read(inside: Inside) -> None:
    before = time.time()
    stamp = inside("p.nvmlDeviceGetFieldValues(h[0], [74])[0].timestamp") / 1e6
    assert before - 1 <= stamp <= time.time() + 1


def test_counters_say_what_the_reasons_say(inside: Inside) -> None:
    """SwPowerCap, SyncBoost, SwThermal, HwThermal and PowerBrake each have a counter of their own."""
    for reason, field in {0x4: 74, 0x10: 76, 0x20: 269, 0x40: 270, 0x80: 271}.items():
        inside.box.set_gpu(0, reasons=reason)
        inside.wait(f"p.nvmlDeviceGetFieldValues(h[0], [{field}])[0].value.ullVal", lambda seen: seen > 0)
    inside.box.set_gpu(0, reasons=1)
    inside.wait("p.nvmlDeviceGetCurrentClocksEventReasons(h[0])", lambda seen: seen == 1)

    assert fields(inside, 74, 76, 269, 270, 271) == fields(inside, 74, 76, 269, 270, 271)
    assert fields(inside, 75)[75][1] == fields(inside, 269)[269][1] + fields(inside, 270)[270][1]
