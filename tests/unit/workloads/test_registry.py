from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.support import ROOT

from vaultcube import workloads
from vaultcube.errors import BadParameterError, NotFoundError, ProfileError
from vaultcube.gpu.observed import NAMES as FROM_TELEMETRY
from vaultcube.results.judge import Measurement
from vaultcube.results.profile import Profile, load_profile
from vaultcube.results.schema import Status
from vaultcube.stack.assets import PROFILES
from vaultcube.workloads import Soak, Workload

ALL = workloads.names()


def test_the_workloads_are_found_by_name() -> None:
    assert "ddp" in ALL
    assert sorted(ALL) == ALL


@pytest.mark.parametrize("name", ["nonsuch", "", "DDP", "ddp.py", "__init__", "../ddp"])
def test_an_unknown_workload_tells_which_there_are(name: str) -> None:
    with pytest.raises(NotFoundError) as seen:
        workloads.load(name)
    assert "ddp" in seen.value.next_step


@pytest.fixture(params=ALL)
def workload(request: pytest.FixtureRequest) -> Workload:
    return workloads.load(request.param)


def test_every_workload_is_named_as_its_module_and_has_its_files(workload: Workload) -> None:
    assert workloads.load(workload.name) is workload
    assert (ROOT / "images" / workload.image).is_dir()
    assert not workload.summary.endswith(".")
    assert {"acceptance", "smoke"} <= set(workload.presets)


def test_every_preset_is_valid_and_survives_json(workload: Workload) -> None:
    for preset in workload.presets:
        params = workload.resolve(preset, {}, "cuda")
        assert workload.params_type.model_validate(json.loads(params.model_dump_json())) == params
        for device in ("cuda", "cpu"):
            assert workload.timeout_s(params, world_size=4, device=device) > 0
            assert all(isinstance(word, str) for word in workload.command(params, world_size=4, device=device))


def test_every_parameter_has_a_help_text(workload: Workload) -> None:
    for name, field in workload.params_type.model_fields.items():
        assert field.description, name
        assert not field.description.endswith("."), name


def test_every_check_looks_at_a_metric_that_is_measured_or_explained(workload: Workload) -> None:
    if isinstance(workload, Soak):
        # Measured GPU by GPU elsewhere: tests/unit/stack/soak/test_soak_end.py.
        assert workload.measure([], [], None, world_size=2, status=Status.FAILED) == Measurement()
        return
    params = workload.resolve("smoke", {}, "cpu")
    found = workload.measure([], [], params, world_size=2, status=Status.FAILED)
    specs = workload.checks(workload.targets_type())
    assert {spec.metric for spec in specs} <= {*found.metrics, *found.missing, *FROM_TELEMETRY}
    assert len({spec.name for spec in specs}) == len(specs)


def test_a_device_has_its_own_preset(workload: Workload) -> None:
    assert workload.resolve(None, {}, "cuda") == workload.resolve("acceptance", {}, "cuda")
    assert workload.resolve(None, {}, "cpu") == workload.resolve("smoke", {}, "cpu")


def test_an_unknown_preset_tells_which_there_are(workload: Workload) -> None:
    with pytest.raises(BadParameterError) as seen:
        workload.resolve("nonsuch", {}, "cuda")
    assert "smoke" in seen.value.next_step


def test_the_built_in_profile_speaks_every_workloads_language(workload: Workload) -> None:
    profile = load_profile("vault-cube-5090", PROFILES)
    assert workload.targets(profile) == workload.targets_type()


@pytest.mark.parametrize("targets", [{"nonsuch": 1.0}, {"scaling_efficiency": -1.0}, {"scaling_efficiency": 0.0}])
def test_a_target_that_makes_no_sense_is_the_profiles_fault(targets: dict[str, Any]) -> None:
    with pytest.raises(ProfileError, match=r"profile mine: targets\.ddp\.") as seen:
        workloads.load("ddp").targets(Profile(name="mine", targets={"ddp": targets}))
    assert "scaling_efficiency" in seen.value.next_step


def test_targets_that_are_left_out_keep_their_default() -> None:
    profile = Profile(name="mine", targets={"ddp": {"throughput_samples_per_s": 7000.0}, "other": {"x": 1.0}})
    found = workloads.load("ddp").targets(profile)
    assert found.model_dump() == {
        "scaling_efficiency": 0.8,
        "throughput_samples_per_s": 7000,
        "gpu_utilisation": 0.9,
    }
