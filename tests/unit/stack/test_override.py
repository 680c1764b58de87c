from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.composefile import read
from tests.unit.support import RUN_ID, box, plan

from vaultcube.gpu.pinning import PinningFacts
from vaultcube.stack.override import OVERRIDE, Tagged, compose_args, make_override, to_yaml, up_args
from vaultcube.stack.plan import Plan

RUN = Path("/data/runs") / RUN_ID


def test_the_override_of_a_run_on_gpus() -> None:
    service = read(make_override(plan(gpus="device=2,0", memory_bytes=2**33), RUN))["services"]["ddp"]
    assert service == {
        "image": "vaultcube/pytorch:cu128",
        "user": "1000:1000",
        "command": ("!override", list(plan(gpus="2").command)),
        "depends_on": ("!reset", None),
        "volumes": ("!override", [{"type": "bind", "source": f"{RUN}/results", "target": "/results"}]),
        "labels": {
            "io.vaultcube.run": RUN_ID,
            "io.vaultcube.workload": "ddp",
            "io.vaultcube.run-dir": str(RUN),
        },
        "deploy": {
            "resources": {
                "limits": {"memory": "8589934592"},
                "reservations": {
                    "devices": (
                        "!override",
                        [
                            {
                                "driver": "nvidia",
                                # In the order they were asked for, never by index.
                                "device_ids": [box().gpus[2].uuid, box().gpus[0].uuid],
                                "capabilities": ["gpu"],
                            }
                        ],
                    )
                },
            }
        },
    }


def test_cdi_names_go_to_the_cdi_driver_in_the_order_of_the_gpus() -> None:
    names = frozenset(gpu.uuid for gpu in box().gpus)
    found = plan(gpus="device=2,0", engine=PinningFacts(names, hook=True))
    (tag, devices) = read(make_override(found, RUN))["services"]["ddp"]["deploy"]["resources"]["reservations"][
        "devices"
    ]
    assert tag == "!override"
    ids = [f"nvidia.com/gpu={box().gpus[index].uuid}" for index in (2, 0)]
    assert devices == [{"driver": "cdi", "device_ids": ids, "capabilities": ["gpu"]}]


def test_the_hook_gets_uuids_and_a_plan_of_before_pins_as_well() -> None:
    by_hook = plan(gpus="1", engine=PinningFacts(None, hook=True))
    assert make_override(by_hook, RUN) == make_override(plan(gpus="1"), RUN)
    older = Plan.model_validate({**by_hook.model_dump(by_alias=True), "pinning": None, "pins": ()})
    assert make_override(older, RUN) == make_override(by_hook, RUN)


def test_on_the_cpu_nothing_is_said_of_devices_and_the_files_limit_stays() -> None:
    service = read(make_override(plan(box(0)), RUN))["services"]["ddp"]
    assert "deploy" not in service


def test_data_is_mounted_read_only() -> None:
    found = plan(given={"data": "/photo sets/$HOME/ü"})
    volumes = read(make_override(found, RUN))["services"]["ddp"]["volumes"][1]
    assert volumes[1] == {"type": "bind", "source": "/photo sets/$HOME/ü", "target": "/data", "read_only": True}


def test_the_commands_are_exact() -> None:
    found = plan(box(0))
    compose = Path("/usr/share/vault cube/compose")
    assert compose_args(found, compose, RUN) == [
        "compose",
        "--progress",
        "plain",
        "--project-name",
        RUN_ID,
        "--project-directory",
        "/usr/share/vault cube/compose",
        "--file",
        "/usr/share/vault cube/compose/ddp.yml",
        "--file",
        "/usr/share/vault cube/compose/ddp.cpu.yml",
        "--file",
        f"{RUN}/{OVERRIDE}",
    ]
    up = ["up", "--detach", "--no-build", "--pull", "never", "ddp"]
    assert up_args(found, compose, RUN) == [*compose_args(found, compose, RUN), *up]
    assert compose_args(plan(), compose, RUN)[-4:] == ["--file", f"{compose}/ddp.yml", "--file", f"{RUN}/{OVERRIDE}"]


# --- for all paths ---------------------------------------------------------------------------------------------

# Every character that a path can have and that UTF-8 can say.
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)


@given(paths)
@example("plain")
@example("with spaces")
@example("$HOME ${HOME} $$ $")
@example("quotes ' \" ` \\")
@example("# : - { } [ ] , & * ! | > % @ ~ ? =")
@example("null")
@example("ünïcödé 日本 🚀")
@example("line\nbreak\ttab\r")
@example("del\x7f nel\x85 separator\u2028 paragraph\u2029 bom\ufeff nonchar\uffff private\ue000")
def test_any_path_survives_yaml_and_compose(name: str) -> None:
    run_dir = Path("/") / name
    found = plan(given={"data": f"/{name}"})
    service = read(make_override(found, run_dir))["services"]["ddp"]
    assert service["volumes"][1][0]["source"] == f"/{name}/results"
    assert service["volumes"][1][1]["source"] == f"/{name}"
    assert service["labels"]["io.vaultcube.run-dir"] == f"/{name}"


scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=10
)


@given(st.dictionaries(keys, values, min_size=1, max_size=3))
def test_any_document_survives(document: dict[str, Any]) -> None:
    assert read(to_yaml(document)) == document


def test_tags_stand_before_their_value() -> None:
    text = to_yaml({"a": Tagged("!override", ["x", 1]), "b": Tagged("!reset", None), "c": {}})
    assert text == '"a": !override ["x", 1]\n"b": !reset null\n"c": {}\n'


def test_plain_paths_stay_readable() -> None:
    assert to_yaml({"source": "/daten/größe 日本"}) == '"source": "/daten/größe 日本"\n'
    assert json.loads(to_yaml({"x": "a$b"}).partition(": ")[2]) == "a$$b"
