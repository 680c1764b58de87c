import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serve import cards, cli, launcher, model, tiny
from serve.cards import Card
from serve.model import Model
from serve.secrets import Secrets

from common import memory
from common.outcome import Problem

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}
RTX_5090 = Card(0, "NVIDIA GeForce RTX 5090", 34_190_458_880, 33_500_000_000, (12, 0))


def options(*argv: str) -> cli.Options:
    return cli.parse(["--results", "/r", "--model", "acme/llama", *argv])


def llama(**changes: Any) -> Model:
    return Model("hub", "/m", LLAMA | changes, 13_476_839_424, "abc")


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets the GPUs and the flavour."""

    def found(*seen: Card, flavour: str = "cu128", nvml: bool = True) -> None:
        monkeypatch.setattr(cards, "read", lambda: list(seen) if nvml else None)
        monkeypatch.setenv("VAULTCUBE_FLAVOUR", flavour)

    return found


def refused(found: Model, *argv: str) -> Problem:
    with pytest.raises(Problem) as caught:
        model.check_memory(found, options(*argv))
    return caught.value


def test_the_model_event() -> None:
    assert llama().event(options("--served-model-name", "it")) == {
        "model": "it",
        "source": "hub",
        "revision": "abc",
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "weights_bytes": 13_476_839_424,
        "active_weights_bytes": 13_476_839_424 - 32000 * 4096 * 2,
        "kv_bytes_per_token": 524288,
        "max_model_len": 4096,
        "random_weights": False,
        "generates": True,
    }
    unknown = Model("directory", "/m.gguf", {}, 0).event(options())
    assert unknown["kv_bytes_per_token"] is unknown["weights_bytes"] is unknown["max_model_len"] is None


@pytest.mark.parametrize(
    ("flags", "architecture", "generates"),
    [
        ([], "LlamaForCausalLM", True),
        ([], "BertModel", False),
        (["--task", "embed"], "Qwen2ForCausalLM", False),
        (["--runner=pooling"], "Qwen2ForCausalLM", False),
        (["--runner", "generate"], "Strange", True),
        (["--task", "generate"], "Strange", True),
    ],
)
def test_who_writes_text(flags: list[str], architecture: str, generates: bool) -> None:  # noqa: FBT001
    assert llama(architectures=[architecture]).generates(flags) is generates


def test_a_model_that_fits(box: Callable[..., None]) -> None:
    box(RTX_5090)
    assert model.check_memory(llama(), options()) == "needs 16.1 GB of 30.8 GB"


def test_a_model_that_does_not_fit(box: Callable[..., None]) -> None:
    box(RTX_5090)
    problem = refused(llama(max_position_embeddings=131072))
    assert (problem.code, problem.exit_code) == ("model-too-large", 69)
    assert "--max-model-len" in problem.next_step


def test_heads_that_cannot_be_divided(box: Callable[..., None]) -> None:
    box(*[RTX_5090] * 3)
    assert (refused(llama(), "--tensor-parallel", "3").code, refused(llama(), "--tensor-parallel", "3").exit_code) == (
        "bad-parameter",
        64,
    )


def test_fewer_gpus_than_needed(box: Callable[..., None]) -> None:
    box(RTX_5090)
    problem = refused(llama(), "--tensor-parallel", "2")
    assert (problem.code, problem.exit_code) == ("gpu-unavailable", 69)


def test_a_flavour_without_kernels(box: Callable[..., None]) -> None:
    box(RTX_5090, flavour="cu124")
    problem = refused(llama())
    assert (problem.code, problem.exit_code) == ("flavour-unsupported", 69)
    assert problem.message == "flavour cu124 has no kernels for NVIDIA GeForce RTX 5090 (compute capability 12.0)"


def test_a_gpu_that_something_else_uses(box: Callable[..., None]) -> None:
    box(Card(0, "NVIDIA GeForce RTX 5090", 34_190_458_880, 17_000_000_000, (12, 0)))
    problem = refused(llama())
    assert problem.code == "gpu-memory"
    assert problem.message.startswith(
        "GPU 0 (NVIDIA GeForce RTX 5090) has 17.0 of 34.2 GB free, and vLLM wants 90% of it"
    )
    assert problem.next_step.endswith("--gpu-memory-utilization 0.49")
    assert model.check_memory(llama(), options("--", "--gpu-memory-utilization", "0.49"))


def test_what_is_not_known_is_not_checked(box: Callable[..., None]) -> None:
    box(nvml=False)
    assert "no NVML" in model.check_memory(llama(), options())
    box(RTX_5090)
    assert "size is not known" in model.check_memory(Model("hub", "/m", {}, 1), options())


def test_on_the_cpu_the_host_s_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 8 * 2**30)
    assert refused(llama(), "--device", "cpu").code == "model-too-large"
    monkeypatch.setattr(memory, "available", lambda: 64 * 2**30)
    assert model.check_memory(llama(), options("--device", "cpu")).startswith("needs ")
    assert model.kv_space_gib(llama(), options("--device", "cpu")) == 4
    assert model.kv_space_gib(llama(max_position_embeddings=16384), options("--device", "cpu")) == 8
    assert model.kv_space_gib(Model("tiny", "/m", LLAMA, 1), options()) == 1
    monkeypatch.setattr(memory, "available", lambda: None)
    assert "not checked" in model.check_memory(llama(), options("--device", "cpu"))


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    for name, content in tiny.files().items():
        (tmp_path / name).write_bytes(content)
    found = model.local(options("--model", str(tmp_path)))
    assert found is not None
    assert (found.source, found.location, found.weights_bytes) == ("directory", str(tmp_path), 8977328)
    assert found.environment == {"HF_HUB_OFFLINE": "1"}
    assert model.local(options("--model", "acme/llama")) is None


def test_weights_that_are_not_read_need_not_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = model.local(options("--model", str(tmp_path), "--", "--load-format", "dummy", "--skip-tokenizer-init"))
    assert found is not None
    assert found.event(options("--", "--load-format=dummy"))["random_weights"] is True


def test_a_file_of_gguf_is_left_to_vllm(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    found = model.local(options("--model", str(tmp_path / "m.gguf")))
    assert found is not None
    assert (found.location, found.config) == (str(tmp_path / "m.gguf"), {})


def test_secrets_go_by_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf_token").write_text("hf_secret\n")
    (tmp_path / "api_key").write_text("sk-secret")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "")
    secrets = Secrets(tmp_path)
    assert (secrets.token, secrets.api_key) == ("hf_secret", "sk-secret")
    found = launcher.environment(options("--device", "cpu"), llama(), secrets)
    assert (found["HF_TOKEN"], found["VLLM_API_KEY"]) == ("hf_secret", "sk-secret")
    assert found["VLLM_CPU_KVCACHE_SPACE"].isdigit()
    assert secrets.strike("a sk-secret b hf_secret") == "a *** b ***"


def test_a_secret_in_the_container_s_environment_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_given")
    assert Secrets(tmp_path).strike("a hf_given") == "a ***"


def test_an_empty_file_or_none_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hf_token").touch()
    secrets = Secrets(tmp_path)
    assert (secrets.token, secrets.api_key, secrets.environment()) == (None, None, {})
    assert secrets.strike("text") == "text"


def test_without_a_library_there_are_no_cards() -> None:
    assert cards.read("libnone.so.1") is None


def test_memory_of_a_container(tmp_path: Path) -> None:
    assert memory.available(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable:    64 kB\n")
    assert memory.available(tmp_path) == 65536
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    assert memory.available(tmp_path) == 65536
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("31000\n")
    assert memory.available(tmp_path) == 30000
    (tmp_path / "sys/fs/cgroup/memory.events").write_text("oom 3\noom_kill 2\n")
    assert memory.oom_kills(tmp_path) == 2
