"""`python3 -m serve.fetch MODEL`: asks the hub about a model and downloads it. Started by serve.hub, and killed at will.

A process of its own: huggingface_hub blocks for minutes, and no signal would be answered meanwhile. It writes one JSON
object a line: `found` (before any weights are downloaded), then waits for a line on stdin; `progress`; `done`. Or `problem`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.outcome import BAD_PARAMETERS, CANNOT_RUN_HERE, FAILED, Problem, first_line
from common.processes import die_with_parent
from serve import directory
from vaultcube.gpu.fit import GB, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ASK_TIMEOUT_S = 10.0
PROGRESS_S = 0.5
_CHECK_NETWORK = "check the network and proxies, or give the directory of a model"
# Beside the weights: what configures a model, its tokenizer, and code of its own.
_SMALL = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".yaml")
# The same weights once more, in formats of others.
_ELSEWHERE = ("original/", "onnx/", "openvino/", "metal/", "coreml/", "gguf/")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and the name its content has in the cache."""

    name: str
    size: int
    blob: str


def wanted(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files that vLLM would load: one format of weights, and everything small."""
    weights = set(weight_files([file.name for file in files]))
    return [
        file
        for file in files
        if file.name in weights or (file.name.endswith(_SMALL) and not file.name.startswith(_ELSEWHERE))
    ]


def on_disk(blobs: Path, files: Iterable[RemoteFile]) -> int:
    """Return how many bytes of `files` the cache's folder `blobs` holds, unfinished downloads included."""
    total = 0
    for file in files:
        # An unfinished one has a suffix, and may have its full length with holes in it.
        held = [0]
        for path in blobs.glob(f"{file.blob}*") if file.blob else ():
            with contextlib.suppress(OSError):
                seen = path.stat()
                held.append(min(seen.st_size, seen.st_blocks * 512))
        total += min(file.size, max(held))
    return total


def say(kind: str, **fields: Any) -> None:
    """Write one line to whoever started this."""
    sys.stdout.write(json.dumps({"kind": kind, **fields}) + "\n")
    sys.stdout.flush()


def explain(error: Exception, model: str, *, token: bool) -> Problem:
    """Turn what huggingface_hub raised into a problem. Goes by names: its classes differ between versions."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = words_of(error)
    if "GatedRepoError" in names or (status in {401, 403} and "RepositoryNotFoundError" not in names):
        next_step = (
            "the token that was given has no access: accept the licence on the model's page with its account, or mend it"
            if token
            else "accept the licence on the model's page, then give a token (HF_TOKEN, or the secret hf_token)"
        )
        return Problem("model-gated", f"the hub does not give out {model}: {words}", next_step, CANNOT_RUN_HERE)
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError", "EntryNotFoundError"}:
        next_step = "check the name on the hub" + ("" if token else "; a private model needs a token (HF_TOKEN)")
        return Problem("model-not-found", f"the hub has no model {model}: {words}", next_step, BAD_PARAMETERS)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _disk_full(f"the disk filled up while {model} was downloaded")
    if isinstance(error, PermissionError):
        message = f"cannot write the model cache: {error.filename}: {error.strerror}"
        return Problem("disk-too-small", message, "let the container's user write /cache", CANNOT_RUN_HERE)
    return Problem("hub-unreachable", f"the hub cannot be asked for {model}: {words}", _CHECK_NETWORK, CANNOT_RUN_HERE)


def words_of(error: Exception) -> str:
    """Return what the hub said of it, in a line: without addresses of requests, which say nothing to people."""
    said = getattr(error, "server_message", None)
    if isinstance(said, str) and said.strip():
        return first_line(said)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Request ID" not in line and not line.startswith("For more details")]
    return (telling or [type(error).__name__])[0][:300]


def _disk_full(message: str) -> Problem:
    next_step = "free space: the model cache is a volume (docker system df -v shows its size)"
    return Problem("disk-too-small", message, next_step, CANNOT_RUN_HERE)


def fetch(model: str, *, token: bool) -> None:
    """Do it all.

    Raises:
        Problem: the model cannot be had.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    blobs = cached / "blobs"
    try:
        info = HfApi().model_info(model, files_metadata=True, timeout=ASK_TIMEOUT_S)
        files = [_remote(sibling) for sibling in info.siblings or ()]
        config = None
        if any(file.name == "config.json" for file in files):
            config = hf_hub_download(model, "config.json", revision=info.sha)
    except Exception as error:
        problem = explain(error, model, token=token)
        if problem.code != "hub-unreachable":
            raise problem from error
        _offline(cached, problem)
        return
    needed = wanted(files)
    weights = set(weight_files([file.name for file in files]))
    total, held = sum(file.size for file in needed), on_disk(blobs, needed)
    say(
        "found",
        config=json.loads(Path(config).read_text(encoding="utf-8")) if config else {},
        weights_bytes=sum(file.size for file in files if file.name in weights),
        revision=info.sha,
        missing_bytes=total - held,
    )
    if not sys.stdin.readline():
        return
    free = shutil.disk_usage(_existing(blobs)).free
    if free < total - held:
        raise _disk_full(f"{model} needs {(total - held) / GB:.1f} GB of disk, and {free / GB:.1f} GB are free")
    done = threading.Event()
    if held < total:
        threading.Thread(target=_report, args=(done, blobs, needed, total), daemon=True).start()
    try:
        path = snapshot_download(model, revision=info.sha, allow_patterns=[file.name for file in needed])
    except Exception as error:
        raise explain(error, model, token=token) from error
    finally:
        done.set()
    say("done", path=path)


def _remote(sibling: Any) -> RemoteFile:
    lfs = getattr(sibling, "lfs", None)
    digest = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return RemoteFile(str(sibling.rfilename), int(sibling.size or 0), str(digest or sibling.blob_id or ""))


def _offline(cached: Path, problem: Problem) -> None:
    """Serve what the cache's folder of a model holds; raises `problem` if that is not all of it."""
    for path in snapshots(cached):
        try:
            config = directory.read_config(path)
            weights = directory.check_files(path)
        except Problem:
            continue
        say("found", config=config, weights_bytes=weights, revision=path.name, missing_bytes=0)
        if sys.stdin.readline():
            say("done", path=str(path))
        return
    raise problem


def snapshots(cached: Path) -> list[Path]:
    """Return the versions of a model that the cache has, the newest download first."""
    try:
        found = [entry for entry in (cached / "snapshots").iterdir() if entry.is_dir()]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


def _report(done: threading.Event, blobs: Path, files: Sequence[RemoteFile], total: int) -> None:
    while not done.wait(PROGRESS_S):
        say("progress", done=on_disk(blobs, files), total=total)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def main(argv: Sequence[str]) -> int:
    """Fetch the model that `argv` names; `--token` says that one is in the environment."""
    die_with_parent()
    model = argv[0]
    try:
        fetch(model, token="--token" in argv)
    except Problem as problem:
        say("problem", **vars(problem))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, not lost
        message = f"downloading {model} failed: {type(error).__name__}: {first_line(str(error))}"
        say("problem", code="workload-failed", message=message, next_step="try again", exit_code=FAILED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
