"""Sentences that a server dies with, made from the format strings of the sources that stand above them.

Where only a file is named, the sentence is the same in vLLM 0.8.5.post1 and 0.10.2. None was seen on a GPU.
"""

import pytest
from serve.death import explain


@pytest.mark.parametrize(
    ("line", "code", "exit_code"),
    [
        # Recorded from 0.32.0 with a tokenizer.json cut short.
        (
            "json.decoder.JSONDecodeError: Expecting ',' delimiter: line 4410 column 4 (char 41721)",
            "model-unreadable",
            69,
        ),
        # torch/cuda/__init__.py of 2.6.0, and CUDA itself.
        (
            "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.",
            "flavour-unsupported",
            69,
        ),
        (
            (
                "(EngineCore_DP0 pid=9) ERROR 07-28 15:07:12 [core.py:718] RuntimeError: CUDA error: no kernel image is "
                "available for execution on the device"
            ),
            "flavour-unsupported",
            69,
        ),
        # vllm/transformers_utils/tokenizer.py asks for it, transformers from 4.54 on have it no more (vllm#22178).
        (
            (
                "AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended. Did you mean: "
                "'num_special_tokens_to_add'?"
            ),
            "model-unsupported",
            69,
        ),
        # vllm/v1/core/kv_cache_utils.py:527 of 0.8.5.post1, :691 of 0.10.2; vllm/worker/worker.py.
        (
            (
                "ERROR 05-01 12:00:00 [core.py:396] ValueError: No available memory for the cache blocks. Try increasing "
                "`gpu_memory_utilization` when initializing the engine."
            ),
            "gpu-memory",
            70,
        ),
        # vllm/v1/worker/gpu_worker.py:180 of 0.10.2; 0.8.5.post1 does not look.
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
        # safetensors: variants' names up to 0.5, sentences in the 0.8.0 of our images.
        ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", "model-unreadable", 69),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: header too large",
            "model-unreadable",
            69,
        ),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
            "model-unreadable",
            69,
        ),
        # bind() in vllm/entrypoints/openai/api_server.py.
        ("OSError: [Errno 98] Address already in use", "port-taken", 69),
        ("OSError: [Errno 28] No space left on device", "disk-too-small", 69),
        # vllm/config.py:935 of 0.8.5.post1, vllm/config/__init__.py:1356 of 0.10.2.
        (
            "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (3).",
            "bad-parameter",
            64,
        ),
        # vllm/distributed/utils.py.
        ("AssertionError: 18944 is not divisible by 3", "bad-parameter", 64),
        # vllm/model_executor/layers/quantization/fp8.py, gptq.py.
        (
            (
                "(VllmWorker rank=1 pid=8) ERROR 05-01 12:00:00 [multiproc_executor.py:435] ValueError: Weight "
                "input_size_per_partition = 4736 is not divisible by weight quantization block_k = 128."
            ),
            "bad-parameter",
            64,
        ),
        (
            (
                "ValueError: The input size is not aligned with the quantized weight shape. This can be caused by too "
                "large tensor parallel size."
            ),
            "bad-parameter",
            64,
        ),
        # vllm/config.py:945 of 0.8.5.post1, vllm/config/__init__.py:1368 of 0.10.2.
        (
            (
                "NotImplementedError: Pipeline parallelism is not supported for this model. Supported models implement "
                "the `SupportsPP` interface."
            ),
            "bad-parameter",
            64,
        ),
        # vllm/config.py:3096 of 0.8.5.post1; in 0.10.2 (vllm/config/__init__.py:2929) pydantic puts its words before.
        (
            (
                "ValueError: User-specified max_model_len (8192) is greater than the derived max_model_len "
                "(max_position_embeddings=2048 or model_max_length=None in model's config.json). This may lead to "
                "incorrect model outputs or CUDA errors. To allow overriding this maximum, set the env var "
                "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
            ),
            "bad-parameter",
            64,
        ),
        (
            (
                "  Value error, User-specified max_model_len (8192) is greater than the derived max_model_len "
                "(max_position_embeddings=2048 or model_max_length=None in model's config.json). To allow overriding "
                "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be "
                "used with extreme caution."
            ),
            "bad-parameter",
            64,
        ),
        # argparse, as vllm/utils has it answer for `vllm serve`.
        ("vllm serve: error: ambiguous option: --max-num could match --max-num-batched-tokens", "bad-parameter", 64),
        # vllm/model_executor/model_loader/utils.py:59 and :76 of 0.8.5.post1, which lets transformers try first.
        (
            (
                "ERROR 05-01 12:00:00 [core.py:396] ValueError: Cannot find model module. 'NoSuchForCausalLM' is not a "
                "registered model in the Transformers library (only relevant if the model is meant to be in "
                "Transformers) and 'AutoModel' is not present in the model config's 'auto_map' (relevant if the model "
                "is custom)."
            ),
            "model-unsupported",
            69,
        ),
        (
            (
                "ValueError: NoSuchForCausalLM has no vLLM implementation and the Transformers implementation is not "
                "compatible with vLLM. Try setting VLLM_USE_V1=0."
            ),
            "model-unsupported",
            69,
        ),
        # vllm/model_executor/models/registry.py:597, :517 and :523 of 0.10.2, :415 and :420 of 0.8.5.post1.
        (
            "ValueError: The Transformers implementation of 'NoSuchForCausalLM' is not compatible with vLLM.",
            "model-unsupported",
            69,
        ),
        (
            (
                "  Value error, Model architecture Phi3SmallForCausalLM was supported in vLLM until v0.9.2, and is not "
                "supported anymore. Please use an older version of vLLM if you want to use this model architecture."
            ),
            "model-unsupported",
            69,
        ),
        (
            (
                "  Value error, Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported "
                "architectures: dict_keys(['ApertusForCausalLM'])"
            ),
            "model-unsupported",
            69,
        ),
        (
            (
                "ValueError: Model architectures ['TransformersForCausalLM'] failed to be inspected. Please check the "
                "logs for more details."
            ),
            "model-unsupported",
            69,
        ),
        # transformers/models/auto of 4.53.3: configuration_auto.py, tokenization_auto.py.
        (
            (
                "ValueError: The checkpoint you are trying to load has model type `nosuch` but Transformers does not "
                "recognize this architecture. This could be because of an issue with the checkpoint, or because your "
                "version of Transformers is out of date."
            ),
            "model-unsupported",
            69,
        ),
        ("ValueError: Unrecognized model in /model. Should have a `model_type` key", "model-unsupported", 69),
        (
            "ValueError: Tokenizer class NoSuchTokenizer does not exist or is not currently imported.",
            "model-unsupported",
            69,
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


@pytest.mark.parametrize(
    ("line", "code", "next_step"),
    [
        # vllm/worker/worker.py:565 of 0.8.5.post1, its older engine.
        (
            (
                "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be "
                "stored in KV cache (103632). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
                "initializing the engine."
            ),
            "gpu-memory",
            "use --max-model-len 103632 or less",
        ),
        # vllm/v1/core/kv_cache_utils.py:708 of 0.10.2.
        (
            (
                "(EngineCore_DP0 pid=9) ERROR 07-28 15:07:12 [core.py:718] ValueError: To serve at least one request with "
                "the models's max seq len (131072), (7.00 GiB KV cache is needed, which is larger than the available KV "
                "cache memory (5.53 GiB). Based on the available memory, the estimated maximum model length is 103632. "
                "Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
            ),
            "gpu-memory",
            "use --max-model-len 103632 or less",
        ),
        # :545 of 0.8.5.post1, which loses its estimate in line 543.
        (
            (
                "ERROR 05-01 12:00:00 [core.py:396] ValueError: To serve at least one request with the models's max seq "
                "len (131072), (7.00 GiB KV cache is needed, which is larger than the available KV cache memory (5.53 "
                "GiB). Based on the available memory,  Try increasing `gpu_memory_utilization` or decreasing "
                "`max_model_len` when initializing the engine."
            ),
            "gpu-memory",
            "use a shorter context",
        ),
        # vllm/v1/worker/gpu_model_runner.py:1549 of 0.8.5.post1, :2879 and :2958 of 0.10.2.
        (
            (
                "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try "
                "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
            ),
            "gpu-memory",
            "answer fewer requests at once (-- --max-num-seqs",
        ),
        # vllm/v1/worker/gpu_worker.py:345 and vllm/worker/worker.py:546 of 0.8.5.post1, vllm/platforms/cuda.py:576 of 0.10.2.
        (
            (
                "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
                "has compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI, "
                "for example: --dtype=half."
            ),
            "model-unsupported",
            "let vLLM compute in float16: -- --dtype half",
        ),
        # vllm/config.py:3806 of 0.8.5.post1, vllm/config/__init__.py:3289 of 0.10.2.
        (
            (
                "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 80. "
                "Current capability: 75."
            ),
            "model-unsupported",
            "use the model in another quantisation",
        ),
    ],
)
def test_what_vllm_says_of_a_way_out_is_the_advice(line: str, code: str, next_step: str) -> None:
    first = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 296.00 MiB." if "sampler" in line else ""
    problem = explain([first, line], 1, ready=False)
    assert problem.code == code
    assert problem.next_step.startswith(next_step)
