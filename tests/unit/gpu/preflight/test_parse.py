"""Reading what docker, the toolkit, the driver and /proc were recorded to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import DATA

from vaultcube.gpu.pinning import cdi_names
from vaultcube.gpu.preflight.facts import Driver, Engine, HookConfig, Memlock, Unseen
from vaultcube.gpu.preflight.parse import (
    parse_cdi_drivers,
    parse_driver,
    parse_engine,
    parse_hook_config,
    parse_memlock,
)
from vaultcube.gpu.versions import ACCEPT_ENVVAR, parse_toolkit_version, version_of

RECORDED = DATA / "preflight"
CONFIG = """\
#accept-nvidia-visible-devices-as-volume-mounts = false
#accept-nvidia-visible-devices-envvar-when-unprivileged = true
disable-require = false

[nvidia-container-cli]
environment = []
ldconfig = "@/sbin/ldconfig.real"
load-kmods = true
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max core file size        unlimited            unlimited            bytes
Max locked memory         {soft}              {hard}              bytes
Max file locks            unlimited            unlimited            locks
"""
ALL_CAPABILITIES = "Name:\tdockerd\nCapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\n"
NO_RESOURCE = ALL_CAPABILITIES.replace("CapEff:\t000001ffff", "CapEff:\t000001fffe")
HOST = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def test_a_real_engine_without_cdi() -> None:
    assert parse_engine(recorded("docker-info-26.1.json")) == Engine(
        "26.1.5+dfsg1",
        "/var/lib/docker",
        frozenset({"io.containerd.runc.v2", "runc"}),
        "runc",
        "cgroupfs",
    )


def test_an_engine_that_lists_cdi_devices() -> None:
    engine = parse_engine(recorded("docker-info-28.3.json"))
    assert isinstance(engine, Engine)
    assert engine.cdi_dirs == ("/etc/cdi", "/var/run/cdi")
    uuids = {"GPU-0b6b7808-c002-f593-ac86-cd8e57757b94", "GPU-1c7c8919-d113-06a4-bd97-de9f68868ca5"}
    assert engine.cdi_devices == frozenset({"0", "1", "all", *uuids})
    assert "nvidia" in engine.runtimes
    assert engine.cgroup_driver == "systemd"
    assert not engine.rootless


@pytest.mark.parametrize("info", [None, [], {}, "text", {"ServerVersion": ""}, {"ServerVersion": 28}])
def test_an_engine_that_does_not_say_its_version(info: Any) -> None:
    assert isinstance(parse_engine(info), Unseen)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(recorded("docker-info-28.3.json"), json_values)))
def test_an_engine_may_say_anything(info: dict[str, Any]) -> None:
    assert isinstance(parse_engine({"ServerVersion": "28.3.3", **info}), Engine | Unseen)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVIDIA Container Toolkit CLI version 1.12.0\ncommit: 62bd015475656ef795cb0d59cc4030a6bd4a9526\n", "1.12.0"),
        ("NVIDIA Container Toolkit CLI version 1.18.0-rc.2\ncommit: x\n", "1.18.0-rc.2"),
        ("", None),
        ("command not found", None),
    ],
)
def test_the_toolkits_version(text: str, version: str | None) -> None:
    assert parse_toolkit_version(text) == version


@pytest.mark.parametrize(
    ("text", "accepts"),
    [(CONFIG, True), (f"{ACCEPT_ENVVAR} = false\n{CONFIG}", False), (f"{ACCEPT_ENVVAR} = true", True), ("", True)],
)
def test_the_hooks_settings(text: str, accepts: bool) -> None:  # noqa: FBT001 - a table
    assert parse_hook_config("/x", text) == HookConfig("/x", accepts)


@pytest.mark.parametrize("text", ["= 1", f'{ACCEPT_ENVVAR} = "false"', "[a", "\0"])
def test_broken_settings_are_told_as_such(text: str) -> None:
    assert parse_hook_config("/x", text).broken


@pytest.mark.parametrize(
    ("name", "names", "driver"),
    [
        ("cdi-1.12.yaml.txt", {"0", "all"}, "520.61.05"),
        (
            "cdi-1.18.yaml.txt",
            {
                *("0", "1", "all"),
                "GPU-0b6b7808-c002-f593-ac86-cd8e57757b94",
                "GPU-1c7c8919-d113-06a4-bd97-de9f68868ca5",
            },
            "580.95.05",
        ),
    ],
)
def test_cdi_specifications_of_both_orders(name: str, names: set[str], driver: str) -> None:
    text = (RECORDED / name).read_text()
    assert cdi_names(text) == names
    assert parse_cdi_drivers(text) == {driver}


def test_the_drivers_modules() -> None:
    assert parse_driver((RECORDED / "driver-open.txt").read_text()) == Driver("575.57.08", open_modules=True)
    closed = parse_driver((RECORDED / "driver-proprietary.txt").read_text())
    assert closed == Driver("550.127.05", open_modules=False)
    arch = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  525.60.11  Release Build  (archlinux-builder@x)  \n"
    )
    assert parse_driver(arch) == Driver("525.60.11", open_modules=True)
    assert parse_driver("") is None


@pytest.mark.parametrize(
    ("hard", "status", "uid_map", "limit"),
    [
        ("unlimited", NO_RESOURCE, HOST, Memlock(None, may_raise=False)),
        ("8388608", NO_RESOURCE, HOST, Memlock(8388608, may_raise=False)),
        ("8388608", ALL_CAPABILITIES, HOST, Memlock(8388608, may_raise=True)),
        ("8388608", ALL_CAPABILITIES, ROOTLESS, Memlock(8388608, may_raise=False)),
        ("8388608", "", HOST, Memlock(8388608, may_raise=False)),
        ("many", ALL_CAPABILITIES, HOST, None),
    ],
)
def test_the_engines_limit_of_locked_memory(hard: str, status: str, uid_map: str, limit: Memlock | None) -> None:
    assert parse_memlock(LIMITS.format(soft=hard, hard=hard), status, uid_map) == limit


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("v2.24.4", (2, 24, 4)),
        ("570.86.16", (570, 86, 16)),
        ("1.18.0-rc.2", (1, 18, 0)),
        ("none", ()),
        ("", ()),
    ],
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for read in (parse_toolkit_version, parse_cdi_drivers, parse_driver, version_of):
        read(text)
    parse_hook_config("/x", text)
    parse_memlock(text, text, text)
    parse_memlock(LIMITS.format(soft=1, hard=1), text, text)
