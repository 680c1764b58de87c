from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import box, gpu

from vaultcube.errors import GpuBusyError, GpuSelectionError, GpuUnavailableError, MigError, VaultCubeError
from vaultcube.gpu.leases import Holder
from vaultcube.gpu.readings import Link
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


# --- held GPUs ---------------------------------------------------------------------------------------------------

RUN = "ddp-20260101-120000-ab12"
OURS = Holder("container", f"{RUN}-ddp-1", RUN, None, f"run {RUN} (container {RUN}-ddp-1)")
FOREIGN = Holder("container", "foo", "", None, "container foo")
PROCESS = Holder("process", "python3", "", 1234, "process 1234 (python3)")


def held(**by: Holder | list[Holder]) -> dict[str, list[Holder]]:
    """Return who holds which GPU of the box: `_0=OURS`."""
    return {BOX[int(name[1:])].uuid: [who] if isinstance(who, Holder) else who for name, who in by.items()}


def busy(text: str | None, **by: Holder | list[Holder]) -> GpuBusyError:
    with pytest.raises(GpuBusyError) as seen:
        choose(parse_gpus(text), BOX, held=held(**by))
    assert (seen.value.code, seen.value.exit_code) == ("gpu-busy", 3)
    assert "\n" not in seen.value.message
    assert "--share" in seen.value.next_step
    return seen.value


def test_a_count_takes_free_ones() -> None:
    taken = held(_0=OURS, _2=PROCESS)
    assert choose(parse_gpus("1"), BOX, held=taken) == (BOX[1],)
    assert choose(parse_gpus("2"), BOX, held=taken) == (BOX[1], BOX[3])


def test_too_few_free_ones_are_told_with_who_holds_the_others() -> None:
    error = busy("3", _0=OURS, _2=PROCESS)
    assert error.message == (
        f"--gpus 3: 2 of 4 GPUs are free; GPU 0 is held by {OURS.said}; GPU 2 is held by process 1234 (python3)"
    )
    assert error.next_step == "--gpus 2 takes the 2 free ones; --share takes held ones."
    assert busy("2", _0=OURS, _1=OURS, _2=OURS).message == (
        f"--gpus 2: 1 of 4 GPUs is free; GPUs 0, 1, 2 are held by {OURS.said}"
    )


@pytest.mark.parametrize("text", ["all", None])
def test_all_of_a_machine_that_is_partly_held_is_refused_with_what_can_be_had(text: str | None) -> None:
    error = busy(text, _1=FOREIGN)
    assert error.message == "GPU 1 is held by container foo"
    assert error.next_step.startswith("--gpus 3 takes the 3 free ones")


def test_a_named_gpu_that_is_held_is_refused_and_a_free_one_is_not() -> None:
    assert choose(parse_gpus("device=3,0"), BOX, held=held(_1=OURS)) == (BOX[3], BOX[0])
    assert busy("device=3,1", _1=OURS, _0=FOREIGN).message == f"GPU 1 is held by {OURS.said}"
    assert busy(UUID, _2=FOREIGN).message == "GPU 2 is held by container foo"


def test_when_nothing_is_free_the_one_run_that_could_be_stopped_is_named() -> None:
    error = busy("1", _0=OURS, _1=OURS, _2=FOREIGN, _3=OURS)
    assert error.message.startswith("--gpus 1: 0 of 4 GPUs are free; ")
    assert f"vaultcube down {RUN}" in error.next_step
    other = OURS._replace(run="vllm-20260101-120000-ab12")
    assert "Wait until one is free" in busy("1", _0=OURS, _1=other, _2=FOREIGN, _3=OURS).next_step


def test_a_message_stays_one_line_however_many_hold() -> None:
    many = [Holder("process", "python3", "", pid, f"process {pid} (python3)") for pid in range(16)]
    with pytest.raises(GpuBusyError) as seen:
        choose(parse_gpus("all"), box(16).gpus, held={gpu.uuid: many[at:] for at, gpu in enumerate(box(16).gpus)})
    assert "GPU 0 is held by process 0 (python3) and 15 more; " in seen.value.message
    assert seen.value.message.endswith("; and 13 more")
    assert len(seen.value.message) < 300


def test_sharing_takes_what_is_held() -> None:
    taken = held(_0=OURS, _2=[PROCESS, FOREIGN])
    for text, expected in (("all", [0, 1, 2, 3]), (None, [0, 1, 2, 3]), ("device=2", [2]), ("4", [0, 1, 2, 3])):
        chosen = choose(parse_gpus(text), BOX, held=taken, share=True)
        assert [one.index for one in chosen] == expected


def test_sharing_takes_free_ones_first() -> None:
    taken = held(_0=OURS, _1=OURS, _3=OURS)
    near = [Link(BOX[0].uuid, BOX[1].uuid, "NV", 4, None)]
    assert choose(parse_gpus("1"), BOX, held=taken, links=near, share=True) == (BOX[2],)
    assert choose(parse_gpus("2"), BOX, held=taken, links=near, share=True) == (BOX[2], BOX[3])


def test_a_count_takes_those_that_are_near_each_other() -> None:
    near = [Link(BOX[1].uuid, BOX[3].uuid, "PIX", 0, None)]
    assert choose(parse_gpus("2"), BOX, links=near) == (BOX[1], BOX[3])


def test_no_gpus_are_nobodys() -> None:
    assert choose(parse_gpus("none"), BOX, held=held(_0=OURS)) == ()


# --- GPUs that are cut into slices -------------------------------------------------------------------------------

SLICED = (BOX[0], BOX[1].model_copy(update={"mig": True}), BOX[2].model_copy(update={"mig": False}), BOX[3])


@pytest.mark.parametrize("text", ["all", None, "device=1", "0,1", "4"])
@pytest.mark.parametrize("share", [False, True])
def test_a_gpu_with_mig_is_refused(text: str | None, share: bool) -> None:  # noqa: FBT001 - a table
    with pytest.raises(MigError, match="GPU 1 is cut into MIG devices") as seen:
        choose(parse_gpus(text), SLICED, share=share)
    assert seen.value.exit_code == 3
    assert "nvidia-smi -i 1 -mig 0" in seen.value.next_step


def test_a_count_passes_a_gpu_with_mig_by() -> None:
    assert [one.index for one in choose(parse_gpus("2"), SLICED)] == [0, 2]
    assert [one.index for one in choose(parse_gpus("3"), SLICED, held=held(_0=OURS), share=True)] == [0, 2, 3]
    with pytest.raises(GpuBusyError, match="2 of 4 GPUs are free"):
        choose(parse_gpus("3"), SLICED, held=held(_0=OURS))


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


@given(
    words,
    st.lists(st.sampled_from([(), (OURS,), (FOREIGN, PROCESS)]), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_no_request_gets_a_held_gpu_or_fewer_than_asked_for(
    text: str, holders: list[tuple[Holder, ...]], sliced: list[bool]
) -> None:
    gpus = [one.model_copy(update={"mig": mig}) for one, mig in zip(BOX, sliced, strict=True)]
    taken = {one.uuid: who for one, who in zip(gpus, holders, strict=True)}
    try:
        request = parse_gpus(text)
        chosen = choose(request, gpus, held=taken)
    except VaultCubeError:
        return
    assert not any(taken[one.uuid] or one.mig for one in chosen)
    if request.kind == "count":
        assert len(set(chosen)) == request.count
    if request.kind in {"all", "auto"}:
        assert chosen == tuple(gpus)
