"""What the files of the TensorFlow image promise each other, the PyTorch image and the package."""

import re
from pathlib import Path

import pytest
from tests.unit.images.conftest import IMAGES

from common.libraries import parse_lock

DOCKERFILE = (IMAGES / "tensorflow" / "Dockerfile").read_text()
FLAVOURS = ("cu124", "cu128")


def text(flavour: str, kind: str = "txt") -> str:
    return (IMAGES / "tensorflow" / "requirements" / f"{flavour}.{kind}").read_text()


def stage(dockerfile: str, name: str) -> str:
    """Return the lines of a stage of a Dockerfile."""
    (body,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", dockerfile, re.DOTALL | re.MULTILINE)
    return str(body)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_pin_has_hashes_and_no_address(flavour: str) -> None:
    lock = text(flavour)
    assert not re.search(r"https?:|^ *--(extra-)?index-url|^ *--find-links", lock, re.MULTILINE)
    pins = [block for block in re.split(r"\n(?=\S)", lock) if re.match(r"[A-Za-z0-9]", block)]
    assert len(pins) >= {"cu124": 35, "cu128": 8}[flavour]
    for pin in pins:
        assert "==" in pin.splitlines()[0]
        assert "--hash=sha256:" in pin


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_a_lock_leaves_out_is_not_in_it(flavour: str) -> None:
    excluded = set(re.findall(r"^#: exclude (\S+)$", text(flavour, "in"), re.MULTILINE))
    assert len(excluded) >= 5
    assert not excluded & parse_lock(text(flavour)).keys()


def test_the_labels_are_what_the_lock_installs() -> None:
    lock = parse_lock(text("cu124"))
    labels = stage(DOCKERFILE, "flavour-cu124")
    assert f"io.vaultcube.flavour=cu124 io.vaultcube.tensorflow={lock['tensorflow'][0]} " in labels
    assert "io.vaultcube.cuda=12.4 " in labels
    assert lock["nvidia-cuda-runtime-cu12"][0].startswith("12.4.")


def test_no_library_of_another_cuda_is_in_the_lock() -> None:
    versions = {name: version for name, (version, _) in parse_lock(text("cu124")).items() if name.startswith("nvidia-")}
    assert versions.pop("nvidia-cudnn-cu12") == "8.9.7.29"
    # Each at the version that CUDA 12.4.1 has.
    assert versions == {
        "nvidia-cublas-cu12": "12.4.5.8",
        "nvidia-cuda-cupti-cu12": "12.4.127",
        "nvidia-cuda-nvcc-cu12": "12.4.131",
        "nvidia-cuda-nvrtc-cu12": "12.4.127",
        "nvidia-cuda-runtime-cu12": "12.4.127",
        "nvidia-cufft-cu12": "11.2.1.3",
        "nvidia-cusolver-cu12": "11.6.1.9",
        "nvidia-cusparse-cu12": "12.3.1.170",
        "nvidia-nvjitlink-cu12": "12.4.127",
    }


def test_both_flavours_have_the_same_keras() -> None:
    ours, over = parse_lock(text("cu124")), parse_lock(text("cu128"))
    shared = ours.keys() & over.keys()
    assert "keras" in shared
    assert {name: (ours[name], over[name]) for name in shared if ours[name] != over[name]} == {}
    # What NVIDIA's image has is not replaced, but for what does not work there.
    assert not {"tensorflow", "numpy", "h5py", "protobuf"} & over.keys()


def test_the_python_below_is_the_layer_that_the_pytorch_image_has() -> None:
    pytorch = (IMAGES / "pytorch" / "Dockerfile").read_text()
    assert stage(DOCKERFILE, "python") == stage(pytorch, "python")


def test_nvidia_s_image_is_named_by_its_tag_and_the_same_everywhere() -> None:
    (image,) = re.findall(r"^ARG NGC_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"\S+/nvidia/tensorflow:\d\d\.\d\d-tf2-py3", image)
    compose = (IMAGES.parent / "compose" / "tensorflow.yml").read_text()
    for other in (compose, (IMAGES / "docker-bake.hcl").read_text()):
        assert image in other
    assert "latest" not in DOCKERFILE


def test_bake_knows_every_flavour() -> None:
    bake = (IMAGES / "docker-bake.hcl").read_text()
    for flavour in FLAVOURS:
        (body,) = re.findall(rf'target "tensorflow-{flavour}" {{\n(.*?)\n}}', bake, re.DOTALL)
        assert re.search(rf'FLAVOUR\s+= "{flavour}"', body)
        assert ("NGC_IMAGE" in body) is (flavour == "cu128")


def test_where_xla_looks_is_where_the_wheels_are() -> None:
    builder, runtime = stage(DOCKERFILE, "builder-cu124"), stage(DOCKERFILE, "flavour-cu124")
    assert 'ln -s "$site/nvidia" /opt/venv/nvidia' in builder
    assert "XLA_FLAGS=--xla_gpu_cuda_data_dir=/opt/venv/nvidia/cuda_nvcc " in runtime
    (path,) = re.findall(r"LD_LIBRARY_PATH=(\S+)", runtime)
    assert path.split(":") == [f"/opt/venv/nvidia/{name}/lib" for name in ("cuda_nvrtc", "cuda_cupti")]


def test_the_programs_that_are_copied_are_there() -> None:
    copied = re.findall(r"^COPY --chmod=755 (\S+) /opt/vaultcube/", DOCKERFILE, re.MULTILINE)
    there = [Path(IMAGES, name.replace("${FLAVOUR}", flavour)) for name in copied for flavour in FLAVOURS]
    assert [path for path in there if not path.exists()] == []
    assert {"common", "training", "tensorflow/mirrored"} <= {*copied}
