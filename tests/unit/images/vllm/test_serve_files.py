import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve import directory, tiny

from common.outcome import Problem


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the directory of a whole model."""
    folder = tmp_path / "my model"
    folder.mkdir()
    for name, content in tiny.files().items():
        (folder / name).write_bytes(content)
    return folder


def refused(folder: Path) -> Problem:
    def look() -> None:
        directory.read_config(folder)
        directory.check_files(folder)

    with pytest.raises(Problem) as caught:
        look()
    return caught.value


def test_the_tiny_model_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    folder = tiny.prepare(tmp_path)
    assert folder == tmp_path / "tiny" / f"v{tiny.VERSION}"
    config = directory.read_config(folder)
    assert directory.check_files(folder) == (folder / "model.safetensors").stat().st_size
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert tiny.files() == tiny.files()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == tiny.files()


def test_a_tiny_model_that_is_there_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.prepare(tmp_path)
    monkeypatch.setattr(tiny, "files", lambda: pytest.fail("made again"))
    assert tiny.prepare(tmp_path) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_two_may_make_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny.files()
    folder = tmp_path / "tiny" / f"v{tiny.VERSION}"

    def slow() -> dict[str, bytes]:
        # The other one is done before this one is.
        monkeypatch.setattr(tiny, "files", lambda: files)
        assert tiny.prepare(tmp_path) == folder
        return files

    monkeypatch.setattr(tiny, "files", slow)
    assert tiny.prepare(tmp_path) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_where_the_cache_cannot_be_written_it_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tiny.prepare(tmp_path / "cache")
    assert directory.check_files(folder) > 0
    assert tiny.prepare(tmp_path / "cache") == folder


def test_its_vocabulary_and_weights_agree() -> None:
    files = tiny.files()
    config, tokenizer = json.loads(files["config.json"]), json.loads(files["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    ids = [*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])]
    assert sorted(ids) == list(range(config["vocab_size"]))
    assert all("".join(pair) in vocabulary for pair in tokenizer["model"]["merges"])
    length = int.from_bytes(files["model.safetensors"][:8], "little")
    header = json.loads(files["model.safetensors"][8 : 8 + length])
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert sum(key.startswith("model.layers.") for key in header) == 9 * config["num_hidden_layers"]
    parameters = (
        sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values() if "shape" in entry) // 2
    )
    assert 4_000_000 < parameters < 6_000_000


def test_its_weights_are_small_and_of_both_signs() -> None:
    data = tiny.files()["model.safetensors"]
    length = int.from_bytes(data[:8], "little")
    # bfloat16 is the upper half of a float32.
    raw = [struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(8 + length, 8 + length + 20_000, 2)]
    assert {0.007 < abs(value) < 0.04 for value in raw} == {True}
    assert abs(sum(value > 0 for value in raw) / len(raw) - 0.5) < 0.03


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda folder: cut(folder / "model.safetensors", 5_000_000),
            "is cut short: 5000000 bytes are there, and 8977328 should be",
        ),
        (
            lambda folder: cut(folder / "model.safetensors", 100),
            "is cut short: 100 bytes are there, its header alone has",
        ),
        (lambda folder: cut(folder / "model.safetensors", 0), "is no safetensors file (0 bytes)"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"garbage" * 100), "is no safetensors file"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"oops"),
            "its header is not readable",
        ),
        (lambda folder: cut(folder / "model.safetensors", 9_000_000), "is too long"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
        (
            lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
            "holds no tokenizer",
        ),
        (
            lambda folder: (folder / directory.INDEX).write_text(json.dumps({"weight_map": {"a": "m-1.safetensors"}})),
            "m-1.safetensors is missing: model.safetensors.index.json names 1 files",
        ),
        (lambda folder: (folder / directory.INDEX).write_text("[]"), "is not an index of weights"),
    ],
)
def test_damage_is_named(model: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(model)
    problem = refused(model)
    assert (problem.code, problem.exit_code) == ("model-unreadable", 69)
    assert says in problem.message


def test_a_directory_without_a_model_is_no_model(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        problem = refused(folder)
        assert (problem.code, problem.exit_code) == ("model-not-found", 64)


def test_files_of_somebody_else_are_named_with_what_to_do(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def deny(path: Path, *args: object, **options: object) -> object:
        if path.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)  # type: ignore[call-overload]

    # Root may read everything: the answer of the system is what is tested against.
    monkeypatch.setattr(Path, "open", deny)
    problem = refused(model)
    assert problem.message == f"cannot read {model / 'model.safetensors'}: Permission denied"
    assert problem.next_step.startswith(f"let user {os.getuid()} read")


def test_older_formats_are_taken_as_they_are(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert directory.check_files(model) == (model / "pytorch_model.bin").stat().st_size
    (model / "pytorch_model.bin").write_bytes(b"")
    assert "is empty" in refused(model).message


@given(content=st.binary(max_size=64))
def test_no_file_of_weights_is_too_strange(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(content)
    with suppress(Problem):
        assert directory.check_weights(path) == len(content)
