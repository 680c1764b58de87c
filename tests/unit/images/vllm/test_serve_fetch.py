"""Without huggingface_hub, which the images carry: what is asked of it, and what is made of its errors."""

import errno
import os
from pathlib import Path

import pytest
from serve.fetch import RemoteFile, explain, on_disk, snapshots, wanted, words_of


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, 100, f"blob-{name.replace('/', '-')}") for name in names]


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["config.json", "pytorch_model.bin", "README.md"], ["README.md"]),
        (
            ["model-1.safetensors", "model.safetensors.index.json", "consolidated.safetensors", "original/params.json"],
            ["consolidated.safetensors", "original/params.json"],
        ),
        (["model.safetensors", "1_Pooling/config.json", "onnx/config.json"], ["onnx/config.json"]),
        (
            ["model.safetensors", "tokenizer.model", "chat_template.jinja", "modeling_x.py", "flax_model.msgpack"],
            ["flax_model.msgpack"],
        ),
    ],
)
def test_only_what_is_loaded_is_downloaded(names: list[str], left_out: list[str]) -> None:
    assert [file.name for file in wanted(files(*names))] == [name for name in names if name not in left_out]


def test_what_is_on_disk_counts_unfinished_files_by_what_they_hold(tmp_path: Path) -> None:
    whole, half, none = files("whole", "half", "none")
    (tmp_path / "blob-whole").write_bytes(bytes(100))
    with (tmp_path / "blob-half.5f.incomplete").open("wb") as file:
        file.truncate(10**6)
    assert on_disk(tmp_path, [whole, half, none]) == 100
    (tmp_path / "blob-half.5f.incomplete").write_bytes(bytes(40))
    assert on_disk(tmp_path, [whole, half, none]) == 140
    assert on_disk(tmp_path / "no such folder", [whole]) == 0


class Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class HfHubHTTPError(Exception):
    """Named as the hub's own."""

    def __init__(self, status: int, server_message: str | None = None) -> None:
        super().__init__(f"{status} Client Error. (Request ID: Root=1-2)\n\nSomething happened.")
        self.response = Response(status)
        self.server_message = server_message


class RepositoryNotFoundError(HfHubHTTPError):
    """Named as the hub's own."""


class GatedRepoError(RepositoryNotFoundError):
    """Named as the hub's own."""


class ConnectError(Exception):
    """Named as httpx's own."""


@pytest.mark.parametrize(
    ("error", "token", "code", "exit_code", "says", "next_step"),
    [
        (RepositoryNotFoundError(404, "Repository not found"), False, "model-not-found", 64, "Repository not found", "a private model needs a token"),
        (RepositoryNotFoundError(401), True, "model-not-found", 64, "Something happened.", "check the name on the hub"),
        (GatedRepoError(401, "Access to model is restricted"), False, "model-gated", 69, "restricted", "then give a token"),
        (GatedRepoError(403), True, "model-gated", 69, "does not give out", "the token that was given has no access"),
        (HfHubHTTPError(401, "Invalid credentials"), True, "model-gated", 69, "Invalid credentials", "mend it"),
        (HfHubHTTPError(503), False, "hub-unreachable", 69, "Something happened.", "check the network"),
        (ConnectError("[Errno 111] Connection refused"), False, "hub-unreachable", 69, "Connection refused", "proxies"),
        (OSError(errno.ENOSPC, "No space left on device"), False, "disk-too-small", 69, "filled up", "free space"),
        (PermissionError(13, "Permission denied", "/cache/x"), False, "disk-too-small", 69, "/cache/x", "write /cache"),
    ],
)  # fmt: skip
def test_what_the_hub_says(
    error: Exception,
    token: bool,  # noqa: FBT001
    code: str,
    exit_code: int,
    says: str,
    next_step: str,
) -> None:
    problem = explain(error, "acme/model", token=token)
    assert (problem.code, problem.exit_code) == (code, exit_code)
    assert says in problem.message
    assert next_step in problem.next_step


def test_an_error_without_words_has_its_name() -> None:
    assert words_of(ConnectError("")) == "ConnectError"


def test_the_newest_version_in_the_cache_comes_first(tmp_path: Path) -> None:
    assert snapshots(tmp_path) == []
    for name in ("old", "new"):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
    os.utime(tmp_path / "snapshots" / "old", (1, 1))
    assert [path.name for path in snapshots(tmp_path)] == ["new", "old"]
