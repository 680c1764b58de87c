from pathlib import Path

import pytest

from common.outcome import Problem
from training import data

SUFFIXES = (".jpg", ".png")


def images(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def test_class_folders_with_images_are_taken(tmp_path: Path) -> None:
    data.check_images(images(tmp_path, "cat/1.jpg", "dog/deep/2.PNG"), SUFFIXES)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no class folders"),
        (["1.jpg"], "no class folders"),
        (["cat/1.jpg", "dog/readme.txt"], "no image in"),
        (["cat/a.txt", "dog/b.txt"], "and 1 more"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(Problem, match=says) as caught:
        data.check_images(images(tmp_path, *names), SUFFIXES)
    assert caught.value.exit_code == 64


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="is not a folder"):
        data.check_images(str(tmp_path / "none"), SUFFIXES)


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", deny)
    with pytest.raises(Problem, match="Permission denied"):
        data.check_images(str(tmp_path), SUFFIXES)
