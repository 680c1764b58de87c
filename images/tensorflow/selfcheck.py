"""Proves, without a GPU, that TensorFlow finds all it opens on one, in the pinned version: CUDA, and XLA's tools.

Run it as `python3 -m selfcheck [--json]`. Exit codes: 0 all is well; 1 something is not, and what.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess  # noqa: TID251 - the rule is the package's; ptxas is a program
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.libraries import (
    Finding,
    distributions,
    dotted,
    inspect,
    library_files,
    load_cudnn,
    load_the_rest,
    mapped,
    nccl_version,
    parse_lock,
    read_version,
    run,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OPENED = {
    "CudaRuntime": "libcudart",
    "Cublas": "libcublas",
    "CublasLt": "libcublasLt",
    "Cufft": "libcufft",
    "Cusolver": "libcusolver",
    "Cusparse": "libcusparse",
    "Cudnn": "libcudnn",
    "Cupti": "libcupti",
}
"""What TensorFlow opens when it starts on a GPU or, CUPTI, profiles: its own word for each, and the library's."""
CUDNN_CHECKS = {
    "libcudnn.so.8": [f"cudnn{part}VersionCheck" for part in ("OpsInfer", "OpsTrain", "CnnInfer", "CnnTrain")]
    + ["cudnnAdvInferVersionCheck", "cudnnAdvTrainVersionCheck"],
    "libcudnn.so.9": [f"cudnn{part}VersionCheck" for part in ("Graph", "Ops", "Cnn", "Adv")],
}
"""A function of each of cuDNN's parts."""
NVRTC = "libnvrtc.so.12"
"""What cuDNN opens by name to compile the kernels it fuses."""
BASE = {"cu128": {"libcudart": "12.8", "libcudnn": "9", "libnvrtc": "12.8"}}
"""By flavour: what an image that is not ours has, as far as it matters to us."""
NCCL = {"cu124": (2, 19, 3)}
"""By flavour: the NCCL that is compiled into TensorFlow; any other opens a library."""
ARCHITECTURES = {"cu124": ("sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"), "cu128": ("sm_90", "sm_120")}
"""By flavour: what ptxas has to know."""
PTX = ".version {version}\n.target {architecture}\n.address_size 64\n.visible .entry answer() {{ ret; }}\n"
BITCODE = b"BC\xc0\xde"
_DATA_DIR = "--xla_gpu_cuda_data_dir="
_RELEASE = re.compile(r"release \S+, V(?P<version>\S+)")


class _StatusOr(ctypes.Structure):
    """absl::StatusOr of anything up to the size of a std::string, as it is returned through memory."""

    _fields_ = (("status", ctypes.c_uint64), ("value", ctypes.c_uint64 * 4))

    @property
    def ok(self) -> bool:
        # The status OK is a small number, by version of absl; any other is an address.
        return self.status in (0, 1)


def opened(library: ctypes.CDLL, words: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Have TensorFlow open each library in its own way; yield the library's stem and whether it could."""
    for word, name in words.items():
        opener = getattr(library, f"_ZN3tsl8internal9DsoLoader{len(word) + 12}Get{word}DsoHandleEv")
        opener.restype, opener.argtypes = None, [ctypes.POINTER(_StatusOr)]
        result = _StatusOr()
        opener(ctypes.byref(result))
        yield name, result.ok


def found_tool(library: ctypes.CDLL, name: str, preferred: str) -> str | None:
    """Return the path of the CUDA program that XLA would run, None where it finds none; `preferred` as in XLA_FLAGS."""
    finder = library._ZN15stream_executor18FindCudaExecutableB5cxx11ESt17basic_string_viewIcSt11char_traitsIcEES3_
    finder.restype = None
    result, words = _StatusOr(), [word.encode() for word in (name, preferred)]
    # A std::string_view is passed as its length and its address.
    views = [part for word in words for part in (ctypes.c_size_t(len(word)), ctypes.c_char_p(word))]
    finder(ctypes.byref(result), *views)
    # A std::string begins with the address and the length of its text.
    return ctypes.string_at(result.value[0], result.value[1]).decode() if result.ok else None


def data_dir(flags: str) -> str:
    """Return where XLA_FLAGS has XLA look for its tools, "" where it does not say."""
    told = [flag.removeprefix(_DATA_DIR) for flag in shlex.split(flags) if flag.startswith(_DATA_DIR)]
    return told[-1] if told else ""


def tool_version(text: str) -> str | None:
    """Return the version in what `ptxas --version` prints: "12.4.131"."""
    found = _RELEASE.search(text)
    return found["version"] if found else None


def program(*argv: str) -> tuple[int, str]:
    """Run it; return its exit code and what it said."""
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return ran.returncode, ran.stdout + ran.stderr


def assembler(path: str | None, pinned: str | None, architectures: tuple[str, ...]) -> Finding:
    """Judge ptxas: the pinned one, and it makes code for every GPU of the flavour."""
    if path is None:
        return Finding("ptxas", None, None, pinned, "is not found by XLA")
    version = tool_version(program(path, "--version")[1])
    if version is None:
        return Finding("ptxas", path, None, pinned, "does not tell its version")
    if pinned and version != pinned:
        return Finding("ptxas", path, version, pinned, f"says it is {version}, the lock says {pinned}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "answer.ptx")
        for architecture in architectures:
            # The PTX of CUDA 11.8 is the first with sm_89 and sm_90, that of 12.8 the first with sm_120.
            ptx = "8.7" if architecture == "sm_120" else "7.8"
            source.write_text(PTX.format(version=ptx, architecture=architecture), encoding="utf-8")
            code, said = program(path, f"-arch={architecture}", str(source), "-o", str(Path(folder, "answer.cubin")))
            if code:
                return Finding("ptxas", path, version, pinned, f"makes nothing for {architecture}: {said.strip()}")
    return Finding("ptxas", path, version, pinned, None)


def libdevice(tool: str | None) -> Finding:
    """Judge the mathematics that XLA links into its kernels: it is in the folder where ptxas is."""
    if tool is None:
        return Finding("libdevice", None, None, None, "cannot be looked for without ptxas")
    path = Path(tool).parent.parent / "nvvm" / "libdevice" / "libdevice.10.bc"
    try:
        with path.open("rb") as file:
            problem = None if file.read(4) == BITCODE else "is not LLVM bitcode"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    return Finding("libdevice", str(path), None, None, problem)


def compiled_nccl(library: ctypes.CDLL, wanted: tuple[int, ...]) -> Finding:
    """Judge the NCCL that is compiled into TensorFlow."""
    value = ctypes.c_int()
    library.ncclGetVersion(ctypes.byref(value))
    version = nccl_version(value.value)
    wrong = None if version == wanted else f"says it is {dotted(version)}"
    return Finding("nccl", None, dotted(version), dotted(wanted), wrong)


def trained() -> str | None:
    """Take a step of a small Keras model on the CPU, compiled by XLA; return what is wrong."""
    import tensorflow as tf

    keras = tf.keras
    if keras.__version__ != metadata.version("keras"):
        return f"is {keras.__version__} for TensorFlow"
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    def step(images: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(images, training=True) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    compiled, images = tf.function(step, jit_compile=True), tf.ones((2, 8, 8, 3))
    first, second = float(compiled(images)), float(compiled(images))
    return None if 0 < second < first else f"the loss goes from {first} to {second}"


def load_everything(
    library: ctypes.CDLL, words: Mapping[str, str], files: Mapping[str, tuple[str, str]]
) -> list[Finding]:
    """Open all that TensorFlow and cuDNN open by name; return what TensorFlow could not.

    Raises:
        OSError: cuDNN cannot use its parts, or something cannot be loaded.
    """
    refused = [name for name, could in opened(library, words) if not could]
    for path in sorted(mapped()):
        if stem(path) == "libcudnn":
            load_cudnn(path, CUDNN_CHECKS[path.rpartition("/")[2][: len("libcudnn.so.N")]])
    if not refused:
        # By its name alone, as cuDNN does.
        ctypes.CDLL(NVRTC)
        load_the_rest(files)
    return [Finding(name, None, None, None, "cannot be opened by TensorFlow") for name in refused]


def check(lock_path: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Return all findings, and the versions of the framework itself."""
    lock = parse_lock(lock_path.read_text(encoding="utf-8"))
    flavour = os.environ.get("VAULTCUBE_FLAVOUR", "cu124")
    # It has a lot to say, all of it about GPUs that are not here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf

        files = library_files()
        folder = Path(tf.__file__).parent
        library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
        words = OPENED if flavour in NCCL else {**OPENED, "Nccl": "libnccl"}
        findings = load_everything(library, words, files)
    except (OSError, ImportError, RuntimeError, AttributeError) as error:
        return [Finding("loader", None, None, None, str(error))], {}
    refused = {finding.library for finding in findings}
    required = {*words.values(), *([] if refused else [stem(NVRTC)])} - refused
    findings += distributions(lock, cuda=True)
    findings += inspect(mapped(), files, lock, sorted(required), read_version, BASE.get(flavour))
    if flavour in NCCL:
        findings.append(compiled_nccl(ctypes.CDLL(str(folder / "libtensorflow_framework.so.2")), NCCL[flavour]))
    tool = found_tool(library, "ptxas", data_dir(os.environ.get("XLA_FLAGS", "")))
    findings.append(assembler(tool, lock.get("nvidia-cuda-nvcc-cu12", (None, False))[0], ARCHITECTURES[flavour]))
    findings.append(libdevice(tool))
    findings.append(Finding("keras", None, metadata.version("keras"), None, trained()))
    built = tf.sysconfig.get_build_info()
    runtime = next((one.version for one in findings if one.library == "libcudart"), None)
    versions = {"tensorflow": tf.__version__, "cuda": runtime, "built for CUDA": built.get("cuda_version")}
    return findings, {**versions, "architectures": built.get("cuda_compute_capabilities", [])}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], (__doc__ or "").splitlines()[0], Path(__file__).with_name("lock.txt"), check))
