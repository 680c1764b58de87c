from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from tests.unit.gpustates import OLD, OURS, PROCESS, RUN, frame, snapshot, state
from tests.unit.support import ROOT

from vaultcube.gpu.leases import Holder
from vaultcube.report.gpujson import document, monitor_document
from vaultcube.results.gpus import GpusDocument, MonitorDocument
from vaultcube.results.schema import Model
from vaultcube.stack.snapshot import Process, Snapshot

BASH = Process(4711, "compute", 3 << 30, "python3", "ada")
SEEN = {
    "four": snapshot(*(state(index) for index in range(4))),
    "held": snapshot(state(0, holders=[OURS], processes=[BASH]), state(1, holders=[PROCESS]), notes=("a note",)),
    "lost": snapshot(state(0), state(1, problem="lost"), missing=((2, "unknown"),)),
    "old": snapshot(state(0, silent=True, card=OLD | {"cores": None, "memory_bus_bits": None})),
    "none": snapshot(reason="the driver lists no GPU", holders_reason="there is no docker command on the PATH"),
    "no driver": Snapshot(problem="no-library", reason="NVML: not found"),
    "simulated": snapshot(state(card={"ecc": True, "mig": False}, ecc_uncorrected=0), simulated=True),
}


def held_to(model: type[Model], made: dict[str, Any], schema: str) -> None:
    """Hold a document, as JSON writes it, to the model and to the published schema: no key more, none less."""
    read: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    assert model.model_validate(read).model_dump(mode="json", by_alias=True) == read
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema" / schema).read_text())).validate(read)


@pytest.mark.parametrize("name", SEEN)
def test_what_gpus_prints_is_what_was_published(name: str) -> None:
    held_to(GpusDocument, document(SEEN[name]), "gpus.schema.json")


@pytest.mark.parametrize("name", SEEN)
def test_what_monitor_prints_is_what_was_published(name: str) -> None:
    made = monitor_document(frame(SEEN[name]))
    # Times are written with Z by pydantic, with +00:00 by datetime: both are RFC 3339.
    made["time"] = made["time"].replace("+00:00", "Z")
    held_to(MonitorDocument, made, "monitor.schema.json")


def test_units_are_those_of_the_names() -> None:
    told = document(SEEN["four"])["gpus"][0]
    assert told["power_watts"] == 556.25
    assert told["power_limit_watts"] == 575
    assert told["energy_joules"] == 812345.678
    assert told["memory_used_bytes"] == 30 * 2**30
    assert told["temperature_limit_celsius"] == 90
    assert told["computed"]["memory_bandwidth_bytes_per_s"] == pytest.approx(1792.1e9, rel=1e-3)
    assert told["computed"]["tensor_peak_flop_per_s"] == 170 * 3090e6 * 512


def test_what_slows_down_is_told_in_words_and_as_a_verdict() -> None:
    seen = snapshot(state(0), state(1, clock_events=0xC8), state(2, clock_events=0), state(3, clock_events=None))
    told = [(gpu["clock_events"], gpu["throttled"]) for gpu in document(seen)["gpus"]]
    assert told == [
        (["power cap"], False),
        (["hardware slowdown", "hardware thermal slowdown", "power brake"], True),
        ([], False),
        (None, None),
    ]


def test_a_sensor_that_is_not_there_is_null_and_never_0() -> None:
    told = document(SEEN["old"])["gpus"][0]
    for key in ("utilisation_percent", "power_watts", "energy_joules", "temperature_celsius", "ecc", "pcie_replays"):
        assert told[key] is None
    assert told["computed"] == {"memory_bandwidth_bytes_per_s": None, "tensor_peak_flop_per_s": None}


def test_who_holds_a_gpu_and_what_runs_on_it() -> None:
    held, other = document(SEEN["held"])["gpus"]
    assert held["holders"] == [{"kind": "container", "name": OURS.name, "run": RUN, "pid": None}]
    assert other["holders"] == [{"kind": "process", "name": "python3", "run": None, "pid": 4711}]
    assert held["processes"] == [
        {"pid": 4711, "kind": "compute", "memory_bytes": 3 << 30, "name": "python3", "user": "ada"}
    ]


def test_a_lost_gpu_has_a_problem_and_no_readings() -> None:
    told = document(SEEN["lost"])
    assert [gpu["problem"] for gpu in told["gpus"]] == [None, "lost"]
    assert told["gpus"][1]["temperature_celsius"] is None
    assert told["missing"] == [{"index": 2, "problem": "unknown"}]
    assert told["next_step"]


def test_the_kinds_of_holders_are_those_of_the_schema() -> None:
    kinds = Holder.__annotations__["kind"].__args__
    schema = json.loads((ROOT / "docs/schema/gpus.schema.json").read_text())
    assert schema["$defs"]["HolderStatus"]["properties"]["kind"]["enum"] == list(kinds)
