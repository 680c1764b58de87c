from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve import cli

from common.outcome import Problem
from vaultcube.workloads import vllm

LEAST = ["--results", "/r", "--model", "tiny"]


def refused(*argv: str) -> Problem:
    with pytest.raises(Problem) as caught:
        cli.parse(argv)
    assert (caught.value.code, caught.value.exit_code) == ("bad-parameter", 64)
    return caught.value


def test_defaults() -> None:
    options = cli.parse(LEAST)
    assert (options.device, options.replica, options.port, options.gpus) == ("cuda", 0, 8000, 1)
    assert (options.served_model_name, options.max_model_len, options.flags) == ("tiny", None, ())


def test_everything() -> None:
    argv = [
        *LEAST,
        "--stamp",
        "--replica",
        "3",
        "--device",
        "cpu",
        "--served-model-name",
        "it",
        "--tensor-parallel",
        "2",
    ]
    argv += ["--pipeline-parallel", "3", "--max-model-len", "512", "--port", "9", "--", "--enable-lora", "--seed=1"]
    options = cli.parse(argv)
    assert (options.replica, options.gpus, options.max_model_len, options.port) == (3, 6, 512, 9)
    assert options.flags == ("--enable-lora", "--seed=1")
    assert options.as_dict()["served_model_name"] == "it"
    assert not {"results", "stamp"} & set(options.as_dict())


def test_what_a_compose_file_leaves_empty_is_not_given() -> None:
    options = cli.parse([*LEAST, "--served-model-name", "", "--max-model-len", "", "--"])
    assert (options.served_model_name, options.max_model_len, options.flags) == ("tiny", None, ())


@pytest.mark.parametrize(
    "argv",
    [
        ["--results", "/r"],
        ["--results", "/r", "--model", ""],
        [*LEAST, "--max-model-len", "15"],
        [*LEAST, "--tensor-parallel", "0"],
        [*LEAST, "--port", "70000"],
        [*LEAST, "--device", "tpu"],
        [*LEAST, "--no-such-flag"],
    ],
)
def test_nonsense_is_refused(argv: list[str]) -> None:
    refused(*argv)


@pytest.mark.parametrize(
    "flag", ["--api-key", "--api_key=sk-1", "--api-ke=sk-1", "--hf-tok", "--hf-token", "--hf_token=hf_1"]
)
def test_a_secret_never_comes_by_argv(flag: str) -> None:
    problem = refused(*LEAST, "--", flag, "sk-1")
    assert "secret" in problem.message
    assert "sk-1" not in problem.message


@pytest.mark.parametrize("flag", sorted(cli.OUR_FLAGS))
def test_flags_that_are_ours_are_not_vllm_s(flag: str) -> None:
    assert flag in refused(*LEAST, "--", flag, "1").message


@given(st.lists(st.text(max_size=8) | st.sampled_from([*LEAST, "--", "--port", "--device", "cpu", "1"]), max_size=12))
def test_no_command_line_gets_past_as_anything_but_options_or_a_problem(argv: list[str]) -> None:
    with suppress(Problem, SystemExit):
        assert isinstance(cli.parse(argv), cli.Options)


def test_the_orchestrator_knows_the_same_flags() -> None:
    assert vllm.SECRET_FLAGS == cli.SECRET_FLAGS
    # In the container its name is said apart; there are neither replicas nor a choice of GPUs.
    assert set(cli.OUR_FLAGS) - set(vllm.OUR_FLAGS) == {"--served-model-name"}
    assert set(vllm.OUR_FLAGS) - set(cli.OUR_FLAGS) == {"--data-parallel-size", "-dp", "--device"}


@given(st.sampled_from(sorted({*vllm.OUR_FLAGS, *vllm.SECRET_FLAGS} - {"--device", "--data-parallel-size"})), st.data())
def test_the_orchestrator_reads_a_flag_as_this_program_does(flag: str, data: st.DataObject) -> None:
    short = flag[: data.draw(st.integers(1, len(flag)))] + data.draw(st.sampled_from(["", "=1", "_", "x"]))
    ours, theirs = vllm.spelled_out(short), cli.spelled_out(short)
    assert (ours in vllm.SECRET_FLAGS) == (theirs in cli.SECRET_FLAGS)
    assert theirs not in cli.OUR_FLAGS or ours in vllm.OUR_FLAGS or theirs == "--served-model-name"
