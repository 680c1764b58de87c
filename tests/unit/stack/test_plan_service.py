"""Plans of services: which GPUs each server gets, what it is called, which image and files it needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import NOON, box, gpu

from vaultcube import workloads
from vaultcube.errors import (
    BadParameterError,
    FlavourError,
    GpuBusyError,
    GpuUnavailableError,
    InstanceNameError,
)
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.leases import Holder
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import NOBODY, Held, parse_gpus
from vaultcube.results.profile import load_profile
from vaultcube.stack.assets import PROFILES
from vaultcube.stack.measurement import plan_measurement
from vaultcube.stack.plan import INSTANCE_NAME, Address, Plan, Request, cache_volume, instance_name, make_plan
from vaultcube.workloads import Service

RUN = "vllm-20260101-120000-ab12"
HOOK = PinningFacts(cdi=None, hook=True)


def service() -> Service:
    found = workloads.load("vllm")
    assert isinstance(found, Service)
    return found


def plan(
    inventory: Inventory | None = None,
    *,
    gpus: str | None = None,
    held: Held = NOBODY,
    taken: tuple[str, ...] = (),
    user: str = "1000:1000",
    purpose: str = "up",
    **asked: Any,
) -> Plan:
    return make_plan(
        service(),
        Request(gpus=parse_gpus(gpus), purpose=purpose, address=Address(host="127.0.0.1", port=8000), **asked),
        profile=load_profile("vault-cube-5090", PROFILES),
        inventory=box() if inventory is None else inventory,
        run_id=RUN,
        created=NOON,
        user=user,
        held=held,
        engine=HOOK,
        taken=taken,
    )


def test_one_server_takes_one_gpu_and_leaves_the_others() -> None:
    found = plan()
    assert [one.uuid for one in found.gpus] == [gpu(0).uuid]
    assert (found.service, found.command, found.recorder) == ("vllm", (), "off")
    assert found.servers[0].pins == (gpu(0).uuid,)
    assert found.params["model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert (found.image, found.compose_files) == ("vaultcube/vllm:cu128", ("vllm.yml",))
    assert (found.instance, found.cache) == ("vllm", "vaultcube-models-1000")
    assert not found.proxied


def test_without_a_gpu_it_serves_the_tiny_model_in_the_cpus_own_image() -> None:
    found = plan(box(0))
    assert (found.image, found.device, found.world_size) == ("vaultcube/vllm:cpu", "cpu", 1)
    assert found.params["model"] == "tiny"
    assert found.compose_files == ("vllm.yml", "vllm.cpu.yml")
    assert found.servers[0].gpus == ()


def test_every_replica_has_gpus_of_its_own_behind_one_address() -> None:
    found = plan(given={"replicas": 2, "tensor_parallel": 2})
    assert [one.service for one in found.servers] == ["vllm", "vllm-1"]
    assert [one.gpus for one in found.servers] == [(gpu(0).uuid, gpu(1).uuid), (gpu(2).uuid, gpu(3).uuid)]
    assert found.proxied
    assert found.images == ("vaultcube/vllm:cu128", "vaultcube/proxy:any")
    assert found.compose_files == ("vllm.yml", "proxy.yml")
    assert "--replica" in found.servers[1].command
    assert found.servers[1].command[found.servers[1].command.index("--replica") + 1] == "1"


@given(
    tensor=st.integers(1, 3),
    pipeline=st.integers(1, 3),
    replicas=st.integers(1, 4),
    count=st.integers(1, 16),
)
def test_servers_share_no_gpu_and_use_all_that_were_taken(
    tensor: int, pipeline: int, replicas: int, count: int
) -> None:
    given_params = {"tensor_parallel": tensor, "pipeline_parallel": pipeline, "replicas": replicas}
    needed = tensor * pipeline * replicas
    if needed > count:
        with pytest.raises(GpuUnavailableError):
            plan(box(count), given=given_params)
        return
    found = plan(box(count), given=given_params)
    used = [uuid for one in found.servers for uuid in one.gpus]
    assert len(used) == len(set(used)) == needed
    assert used == [one.uuid for one in found.gpus]
    assert all(one.pins == one.gpus and len(one.gpus) == tensor * pipeline for one in found.servers)


def test_gpus_that_nobody_divided_split_the_model() -> None:
    found = plan(gpus="2")
    assert (found.params["tensor_parallel"], len(found.gpus)) == (2, 2)
    with pytest.raises(BadParameterError, match="3 GPUs were asked for") as seen:
        plan(gpus="3")
    assert "--replicas" in seen.value.next_step
    with pytest.raises(BadParameterError, match="tensor 2 x pipeline 1 x replicas 1 take 2"):
        plan(gpus="all", given={"tensor_parallel": 2})


def test_gpus_in_use_are_left_alone() -> None:
    held = {gpu(0).uuid: (Holder("container", "other", "", None, "run other"),)}
    assert [one.index for one in plan(held=held).gpus] == [1]
    with pytest.raises(GpuBusyError):
        plan(held=held, gpus="device=0")


def test_the_cpu_divides_nothing_and_has_its_own_image_only() -> None:
    with pytest.raises(BadParameterError, match="divide GPUs"):
        plan(gpus="none", given={"tensor_parallel": 2})
    with pytest.raises(FlavourError, match="needs a GPU"):
        plan(gpus="none", flavour="cu124")
    assert len(plan(gpus="none", given={"replicas": 2}).servers) == 2


@pytest.mark.parametrize("flag", ["--api-key", "--api_key=sk-1", "--hf-token=hf_x"])
def test_a_secret_is_never_taken_as_a_flag(flag: str) -> None:
    with pytest.raises(BadParameterError, match="would show a secret"):
        plan(given={"flags": (flag, "sk-1")})


@pytest.mark.parametrize(
    "flag", ["--port", "--tensor-parallel-size=2", "--tensor_par=2", "--max-model", "--model", "-tp"]
)
def test_what_is_ours_to_say_is_not_taken_as_a_flag(flag: str) -> None:
    with pytest.raises(BadParameterError, match="before the --"):
        plan(given={"flags": (flag, "1")})


def test_further_flags_come_last() -> None:
    found = plan(given={"flags": ("--enable-lora", "--dtype", "half")})
    assert found.servers[0].command[-4:] == ("--", "--enable-lora", "--dtype", "half")


def test_a_directory_is_mounted_and_served_by_its_own_name() -> None:
    found = plan(given={"model": "/data/my models/Llama 2"})
    assert found.data_folders == {"/model": "/data/my models/Llama 2"}
    command = found.servers[0].command
    assert command[command.index("--model") + 1] == "/model"
    assert command[command.index("--served-model-name") + 1] == "Llama-2"


def test_names_are_numbered_where_nobody_chose_one() -> None:
    assert plan(taken=("vllm", "vllm-2")).instance == "vllm-3"
    assert plan(name="chat").instance == "chat"
    with pytest.raises(InstanceNameError, match="an instance named chat is running"):
        plan(name="chat", taken=("chat",))


@pytest.mark.parametrize("name", ["", "Chat", "a b", "-x", "../x", "a" * 41, "ä"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InstanceNameError, match="is no name"):
        plan(name=name)


@given(st.sets(st.from_regex(r"vllm(-[1-9][0-9]?)?", fullmatch=True)))
def test_a_chosen_name_is_always_free_and_a_name(taken: set[str]) -> None:
    found = instance_name(None, "vllm", taken)
    assert found not in taken
    assert INSTANCE_NAME.fullmatch(found)


def test_models_of_one_user_are_not_anothers() -> None:
    assert cache_volume("10001:10001") == "vaultcube-models"
    assert cache_volume("1000:50") == "vaultcube-models-1000"


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::1", "http://[::1]:1"), ("::", "http://[::1]:1"), ("10.0.0.5", "http://10.0.0.5:1")])  # fmt: skip  # noqa: S104
def test_an_address_as_a_client_says_it(host: str, url: str) -> None:
    assert Address(host=host, port=1).url == url


def test_a_measurement_brings_server_and_client() -> None:
    found = plan(purpose="bench")
    assert (found.service, found.address, found.instance) == ("client", None, "")
    assert found.compose_files == ("vllm.yml", "vllm.bench.yml")
    assert (found.recorder, len(found.servers)) == ("process", 1)
    assert found.command[:3] == ("python3", "-m", "measure")


def test_a_running_instance_is_measured_as_it_was_started() -> None:
    target = plan(given={"replicas": 2, "max_model_len": 4096}, name="chat", secrets=("api_key",))
    found = plan_measurement(
        service(),
        Request(gpus=parse_gpus(None), given={"input_len": 100, "replicas": 1}),
        target,
        profile=load_profile("vault-cube-5090", PROFILES),
        inventory=box(),
        run_id="vllm-20260101-130000-cd34",
        created=NOON,
    )
    assert (found.target, found.servers, found.purpose) == (RUN, (), "bench")
    assert (found.params["replicas"], found.params["max_model_len"], found.params["input_len"]) == (2, 4096, 100)
    assert (found.gpus, found.secrets, found.cache) == (target.gpus, ("api_key",), target.cache)
    assert found.compose_files == ("vllm.yml", "vllm.bench.yml")
    assert not found.proxied
