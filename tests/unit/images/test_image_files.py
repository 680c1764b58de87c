"""What the files of the images promise each other."""

import ast
import re
import sys
from pathlib import Path

import pytest
import selfcheck

from common.libraries import parse_lock

IMAGES = Path(selfcheck.__file__).parents[1]
FLAVOURS = ("cu124", "cu128")
LOCKS = {flavour: IMAGES / "pytorch" / "requirements" / f"{flavour}.txt" for flavour in FLAVOURS}
# What a folder's programs may import besides the standard library and their shared modules.
ALLOWED = {
    "common": {"common"},
    "training": {"common", "training"},
    "pytorch": {"common", "training", "ddp", "stress", "torch", "torchvision"},
    "tensorflow": {"common", "training", "mirrored", "tensorflow"},
}
FRAMEWORKS = {"torch", "torchvision", "tensorflow"}
PROGRAMS = [path for folder in ALLOWED for path in sorted((IMAGES / folder).rglob("*.py"))]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_pin_has_hashes_and_no_address(flavour: str) -> None:
    text = LOCKS[flavour].read_text()
    assert not re.search(r"https?:|^ *--(extra-)?index-url|^ *--find-links", text, re.MULTILINE)
    pins = [block for block in re.split(r"\n(?=\S)", text) if re.match(r"[A-Za-z0-9]", block)]
    assert len(pins) >= 25
    for pin in pins:
        assert "==" in pin.splitlines()[0]
        assert "--hash=sha256:" in pin


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_labels_are_what_the_lock_installs(flavour: str) -> None:
    dockerfile = (IMAGES / "pytorch" / "Dockerfile").read_text()
    label = re.search(
        rf"LABEL io\.vaultcube\.flavour={flavour} io\.vaultcube\.torch=(\S+) io\.vaultcube\.cuda=(\S+)", dockerfile
    )
    assert label is not None
    lock = parse_lock(LOCKS[flavour].read_text())
    assert lock["torch"][0] == label[1]
    assert lock["nvidia-cuda-runtime-cu12"][0].startswith(label[2] + ".")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(IMAGES)))
def test_programs_need_the_framework_and_the_standard_library_only(path: Path) -> None:
    assert imports(path) <= sys.stdlib_module_names | ALLOWED[path.relative_to(IMAGES).parts[0]]


def starts_with_a_framework(path: Path) -> bool:
    """Say whether importing a module imports a framework: other imports stand inside functions."""
    lines = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return bool(FRAMEWORKS & {word for line in lines for word in re.findall(r"\w+", ast.unparse(line))})


def test_the_launcher_starts_without_a_framework() -> None:
    heavy = {path.relative_to(IMAGES) for path in PROGRAMS if starts_with_a_framework(path)}
    names = [f"pytorch/ddp/{name}.py" for name in ("gpu", "groups", "step")]
    names += [f"pytorch/stress/{name}.py" for name in ("engine", "loads")]
    names += [f"tensorflow/mirrored/{name}.py" for name in ("checks", "devices", "images", "step")]
    assert heavy == {Path(name) for name in names}


def test_no_program_outgrows_its_file() -> None:
    assert {path.name: length for path in PROGRAMS if (length := len(path.read_text().splitlines())) > 400} == {}
