from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import box, gpu

from vaultcube.errors import GpuSelectionError, GpuUnavailableError, VaultCubeError
from vaultcube.gpu.selection import GpuRequest, choose, parse_gpus
from vaultcube.results.schema import Gpu

BOX = box(4).gpus
UUID = BOX[2].uuid


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (None, GpuRequest("auto")),
        ("all", GpuRequest("all")),
        ("none", GpuRequest("none")),
        (" all ", GpuRequest("all")),
        ("1", GpuRequest("count", count=1)),
        ("004", GpuRequest("count", count=4)),
        ("device=0", GpuRequest("named", names=("0",))),
        ("device=0,2", GpuRequest("named", names=("0", "2"))),
        ("0,2", GpuRequest("named", names=("0", "2"))),
        ("0, 2", GpuRequest("named", names=("0", "2"))),
        (UUID, GpuRequest("named", names=(UUID,))),
        (f"device={UUID},1", GpuRequest("named", names=(UUID, "1"))),
    ],
)
def test_the_grammar(text: str | None, request_: GpuRequest) -> None:
    assert parse_gpus(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two",
        "-1",
        "1.5",
        "1000",
        "device=",
        "device=,",
        "0,",
        ",",
        "device=all",
        "gpu0",
        "0;1",
        "ALL",
        "device=-1",
        "²",
        "٣",
    ],
)
def test_what_is_not_in_the_grammar_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(GpuSelectionError) as seen:
        parse_gpus(text)
    assert seen.value.exit_code == 2
    assert "device=0,2" in seen.value.next_step


def test_zero_is_refused_with_both_readings() -> None:
    for text in ("0", "00"):
        with pytest.raises(GpuSelectionError, match="no GPU or the first one") as seen:
            parse_gpus(text)
        assert "--gpus none" in seen.value.next_step
        assert "device=0" in seen.value.next_step


def test_a_slice_of_a_gpu_is_refused() -> None:
    with pytest.raises(GpuSelectionError, match="MIG-123") as seen:
        parse_gpus("device=MIG-123")
    assert "whole GPU" in seen.value.next_step


def test_auto_takes_all_or_the_cpu_and_all_insists() -> None:
    assert choose(GpuRequest("auto"), BOX) == BOX
    assert choose(GpuRequest("auto"), ()) == ()
    assert choose(GpuRequest("all"), BOX) == BOX
    assert choose(GpuRequest("none"), BOX) == ()
    with pytest.raises(GpuUnavailableError, match="NVML says no"):
        choose(GpuRequest("all"), (), "NVML says no")


@pytest.mark.parametrize("text", ["1", "device=0", "all", UUID])
def test_asking_for_gpus_where_none_is_here_is_refused(text: str) -> None:
    with pytest.raises(GpuUnavailableError) as seen:
        choose(parse_gpus(text), ())
    assert seen.value.exit_code == 3


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(GpuUnavailableError, match="only 4 GPU"):
        choose(GpuRequest("count", count=5), BOX)


def test_names_keep_their_order_and_find_uuids_in_any_case() -> None:
    assert choose(parse_gpus(f"3,{UUID.lower().replace('gpu-', 'GPU-')},00"), BOX) == (BOX[3], BOX[2], BOX[0])


@pytest.mark.parametrize("text", ["device=7", "0,9", "GPU-ffffffff", "device=999"])
def test_an_unknown_name_tells_which_there_are(text: str) -> None:
    with pytest.raises(GpuSelectionError) as seen:
        choose(parse_gpus(text), BOX)
    assert seen.value.next_step == "GPUs here: 0, 1, 2, 3."


@pytest.mark.parametrize("text", ["1,1", f"2,{UUID}", f"{UUID},{UUID}", "1,01"])
def test_the_same_gpu_twice_is_refused(text: str) -> None:
    with pytest.raises(GpuSelectionError, match="twice"):
        choose(parse_gpus(text), BOX)


def test_indices_are_nvmls_and_need_not_begin_at_zero() -> None:
    left = (gpu(1), gpu(3))
    assert choose(parse_gpus("device=3"), left) == (left[1],)
    with pytest.raises(GpuSelectionError):
        choose(parse_gpus("device=0"), left)


# --- for all texts ---------------------------------------------------------------------------------------------

words = st.text(alphabet="0123456789,=-GPUdevicealn ", max_size=20) | st.text(max_size=12)


@given(words, st.integers(0, 4))
def test_any_text_is_either_understood_or_refused(text: str, count: int) -> None:
    gpus = box(count).gpus
    try:
        chosen = choose(parse_gpus(text), gpus)
    except VaultCubeError as error:
        chosen = ()
        told = error.message + error.next_step
        assert "\n" not in told
    assert set(chosen) <= set(gpus)
    assert len(set(chosen)) == len(chosen)


@given(st.lists(st.sampled_from(BOX), min_size=1, unique=True), st.data())
def test_naming_gpus_in_any_way_chooses_exactly_those(gpus: list[Gpu], data: st.DataObject) -> None:
    names = [data.draw(st.sampled_from([str(one.index), one.uuid])) for one in gpus]
    assert choose(parse_gpus("device=" + ",".join(names)), BOX) == tuple(gpus)


@given(st.integers(1, 4))
def test_a_count_takes_the_first_ones(count: int) -> None:
    assert choose(parse_gpus(str(count)), BOX) == BOX[:count]
