"""Stand-ins for the host's files that tell of a driver and of the container toolkit. Pure text, but for `write`."""

from __future__ import annotations

from pathlib import Path

from tests.rig.profiles import Layout
from tests.rig.scenario import Scenario, SimGpu

TOOLKIT_CONFIG = """\
#accept-nvidia-visible-devices-as-volume-mounts = false
#accept-nvidia-visible-devices-envvar-when-unprivileged = true
disable-require = false
supported-driver-capabilities = "compat32,compute,display,graphics,ngx,utility,video"
#swarm-resource = "DOCKER_RESOURCE_GPU"

[nvidia-container-cli]
#debug = "/var/log/nvidia-container-toolkit.log"
environment = []
#ldcache = "/etc/ld.so.cache"
ldconfig = "@/sbin/ldconfig.real"
load-kmods = true
#no-cgroups = false
#path = "/usr/bin/nvidia-container-cli"
#root = "/run/nvidia/driver"
#user = "root:video"

[nvidia-container-runtime]
#debug = "/var/log/nvidia-container-runtime.log"
log-level = "info"
mode = "auto"
runtimes = ["runc", "crun"]

[nvidia-container-runtime.modes]

[nvidia-container-runtime.modes.cdi]
annotation-prefixes = ["cdi.k8s.io/"]
default-kind = "nvidia.com/gpu"
spec-dirs = ["/etc/cdi", "/var/run/cdi"]

[nvidia-container-runtime.modes.csv]
mount-spec-path = "/etc/nvidia-container-runtime/host-files-for-container.d"

[nvidia-container-runtime-hook]
path = "nvidia-container-runtime-hook"
skip-mode-detection = false

[nvidia-ctk]
path = "nvidia-ctk"
"""


def kernel_bus_id(gpu: SimGpu) -> str:
    """Return the kernel's spelling of a GPU's address, without the function: `0000:01:00`."""
    return gpu.text("bus_id")[4:-2].lower()


def driver_line(layout: Layout) -> str:
    """Return the first line of /proc/driver/nvidia/version."""
    if layout.open_module:
        builder = "Release Build  (dvs-builder@U22-I3-AE18-23-3)"
        return f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {layout.driver}  {builder}  {layout.built}"
    return f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {layout.driver}  {layout.built}"


def boot_lines(layout: Layout) -> list[str]:
    """Return what the driver writes into the kernel log when it is loaded."""
    module = driver_line(layout).removeprefix("NVRM version: NVIDIA UNIX ")
    mode = (
        driver_line(layout).removeprefix("NVRM version: NVIDIA UNIX ").replace("Kernel Module", "Kernel Mode Setting")
    )
    return [
        "nvidia: loading out-of-tree module taints kernel.",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 511",
        f"NVRM: loading NVIDIA UNIX {module}",
        f"nvidia-modeset: Loading NVIDIA UNIX {mode}",
        "[drm] [nvidia-drm] [GPU ID 0x00000100] Loading driver",
    ]


def write(root: Path, layout: Layout, scenario: Scenario) -> None:
    """Write the stand-ins under `root`, each at its place on a host."""
    _put(root / "proc/driver/nvidia/version", f"{driver_line(layout)}\nGCC version:  gcc version 13.3.0 (Ubuntu)\n")
    (root / "proc/driver/nvidia/gpus").mkdir(parents=True, exist_ok=True)
    for gpu in scenario.gpus:
        _put(root / f"proc/driver/nvidia/gpus/{kernel_bus_id(gpu)}.0/information", _information(gpu))
    _put(root / "etc/nvidia-container-runtime/config.toml", TOOLKIT_CONFIG)
    (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    for gpu in scenario.gpus:
        put_on_bus(root, f"{kernel_bus_id(gpu)}.0", gpu.number("pci_device_id") >> 16)


def put_on_bus(root: Path, address: str, device: int) -> None:
    """Let the PCI bus show an NVIDIA GPU, whether the driver lists it or not, and the sound function beside it."""
    for function, kind, number in (("0", 0x030000, device), ("1", 0x040300, 0x22E8)):
        folder = root / "sys/bus/pci/devices" / f"{address.removesuffix('.0')}.{function}"
        for name, value in (("vendor", 0x10DE), ("class", kind), ("device", number)):
            _put(folder / name, f"{value:#06x}\n" if name != "class" else f"{value:#08x}\n")


def _information(gpu: SimGpu) -> str:
    rows = {
        "Model:": gpu.text("name"),
        "IRQ:": str(120 + gpu.number("minor")),
        "GPU UUID:": gpu.text("uuid"),
        "Video BIOS:": gpu.text("vbios").lower(),
        "Bus Type:": "PCIe",
        "DMA Size:": "52 bits",
        "DMA Mask:": "0xfffffffffffff",
        "Bus Location:": f"{kernel_bus_id(gpu)}.0",
        "Device Minor:": str(gpu.number("minor")),
        "GPU Firmware:": gpu.text("gsp_version") if "gsp_version" in gpu.values else "N/A",
        "GPU Excluded:": "No",
    }
    return "".join(f"{label} \t {value}\n" for label, value in rows.items())


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
