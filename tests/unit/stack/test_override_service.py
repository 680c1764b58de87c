"""What compose is told about a service: its servers, the address in front, the client that measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.composefile import read
from tests.unit.stack.test_plan_service import RUN, plan
from tests.unit.support import box, gpu

from vaultcube.stack.override import copied_args, make_override, proxy_config, up_args
from vaultcube.stack.plan import Plan
from vaultcube.stack.secrets import secrets_folder

DIRECTORY = Path("/data/runs") / RUN
COPIED: dict[str, Any] = {
    "image": "vaultcube/vllm:cu124",
    "command": ["python3"],
    "depends_on": {"results": {}},
    "ports": [{"target": 8000, "published": "8000"}],
    "read_only": True,
    "cap_drop": ["ALL"],
    "shm_size": "17179869184",
    "deploy": {
        "resources": {
            "limits": {"memory": "68719476736", "pids": 4096},
            "reservations": {"devices": [{"driver": "nvidia", "device_ids": ["0"]}]},
        }
    },
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def override(one: Plan, copied: dict[str, Any] | None = None) -> Any:
    return read(make_override(one, DIRECTORY, copied))


def devices(service: dict[str, Any]) -> list[str]:
    tag, found = service["deploy"]["resources"]["reservations"]["devices"]
    assert tag == "!override"
    return list(found[0]["device_ids"])


def test_one_server_answers_on_one_port_of_this_machine_alone() -> None:
    found = override(plan())
    service = found["services"]["vllm"]
    published = {"target": 8000, "published": "8000", "host_ip": "127.0.0.1", "protocol": "tcp"}
    assert service["ports"] == ("!override", [published])
    assert devices(service) == [gpu(0).uuid]
    assert service["labels"]["io.vaultcube.instance"] == "vllm"
    assert {"type": "volume", "source": "models", "target": "/cache"} in service["volumes"][1]
    assert found["volumes"] == {"models": {"name": "vaultcube-models-1000", "external": True}}
    assert list(found["services"]) == ["vllm"]


def test_secrets_are_files_and_never_values() -> None:
    found = override(plan(secrets=("api_key",)))
    folder = secrets_folder(RUN)
    assert found["secrets"] == {"hf_token": {"file": "/dev/null"}, "api_key": {"file": str(folder / "api_key")}}


def test_replicas_are_copies_of_the_first_with_gpus_of_their_own_and_no_port() -> None:
    found = override(plan(given={"replicas": 3}), COPIED)
    first, second, third = (found["services"][name] for name in ("vllm", "vllm-1", "vllm-2"))
    assert [devices(one) for one in (first, second, third)] == [[gpu(0).uuid], [gpu(1).uuid], [gpu(2).uuid]]
    for one in (second, third):
        assert (one["read_only"], one["cap_drop"], one["shm_size"]) == (True, ["ALL"], "17179869184")
        assert one["deploy"]["resources"]["limits"] == {"memory": "68719476736", "pids": 4096}
        assert one["image"] == "vaultcube/vllm:cu128"
        assert one["ports"] == ("!reset", [])
    assert first["ports"] == ("!reset", [])
    proxy = found["services"]["proxy"]
    assert proxy["ports"][1][0]["published"] == "8000"
    assert proxy["volumes"][1][0]["source"] == f"{DIRECTORY}/haproxy.cfg"


def test_replicas_on_the_cpu_reserve_no_gpu() -> None:
    cpu = {**COPIED, "deploy": {"resources": {"limits": {"memory": "1"}}}}
    found = override(plan(box(0), given={"replicas": 2}), cpu)
    assert found["services"]["vllm-1"]["deploy"] == {"resources": {"limits": {"memory": "1"}}}
    assert "deploy" not in found["services"]["vllm"]


def test_a_memory_limit_is_each_servers() -> None:
    found = override(plan(given={"replicas": 2}, memory_bytes=2**33), COPIED)
    for name in ("vllm", "vllm-1"):
        assert found["services"][name]["deploy"]["resources"]["limits"]["memory"] == str(2**33)
    assert found["services"]["vllm-1"]["deploy"]["resources"]["limits"]["pids"] == 4096


def test_everything_that_runs_is_named_to_compose() -> None:
    up = up_args(plan(given={"replicas": 2}), Path("/c"), DIRECTORY)
    assert up[-3:] == ["vllm", "vllm-1", "proxy"]
    assert up_args(plan(purpose="bench"), Path("/c"), DIRECTORY)[-2:] == ["vllm", "client"]
    asked = copied_args(plan(given={"replicas": 2}), Path("/c"))
    assert asked[-4:] == ["config", "--format", "json", "vllm"]
    assert "/c/proxy.yml" in asked


def test_the_proxy_knows_every_server() -> None:
    text = proxy_config(plan(given={"replicas": 3}))
    # Or streamed tokens are held back: docs/performance.md.
    assert "\n    option http-no-delay\n" in text.partition("frontend")[0]
    for name in ("vllm", "vllm-1", "vllm-2"):
        assert f"    server {name} {name}:8000 check" in text
    assert "balance leastconn" in text


def test_a_client_gets_the_servers_gpus_measured_and_not_pinned() -> None:
    found = override(plan(purpose="bench"))
    assert "deploy" not in found["services"]["client"]
    assert devices(found["services"]["vllm"]) == [gpu(0).uuid]
    assert found["services"]["vllm"]["ports"] == ("!reset", [])
    assert "io.vaultcube.instance" not in found["services"]["vllm"]["labels"]


def test_a_client_of_a_running_instance_joins_its_network_with_its_key() -> None:
    one = plan(secrets=("api_key",)).model_copy(
        update={
            "run_id": "vllm-x",
            "servers": (),
            "target": RUN,
            "purpose": "bench",
            "service": "client",
            "command": ("c",),
        }
    )
    found = override(one)
    assert list(found["services"]) == ["client"]
    assert found["networks"] == {"default": {"name": f"{RUN}_default", "external": True}}
    assert found["secrets"]["api_key"] == {"file": str(secrets_folder(RUN) / "api_key")}
    assert "deploy" not in found["services"]["client"]
