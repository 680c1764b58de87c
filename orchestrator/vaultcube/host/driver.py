"""Layer 2: the NVIDIA driver, its modules against its libraries, the CUDA toolkit."""

from __future__ import annotations

from vaultcube.gpu.kernellog import since_boot
from vaultcube.gpu.versions import Module, parse_module
from vaultcube.gpu.xid import Parser, classify, meaning
from vaultcube.host.machine import Machine
from vaultcube.host.parse import assignments, csv_rows, cuda_release, cudnn_majors, fields_of, mapping
from vaultcube.host.words import Judged, JudgedError, Unseen, again, fail, good, invalid, together, unavailable

FIRST_BOOT = "vaultcube-firstboot.service"
FIRST_BOOT_STATE = "/var/lib/vaultcube/firstboot.json"
LOADED = "/proc/driver/nvidia/version"
REBOOT = "Reboot, so that module and libraries are the same again."
ROLE = "nvidia_driver"
NVCC = "/usr/local/cuda/bin/nvcc"
OPEN_LICENCES = ("Dual MIT/GPL", "MIT", "GPL")


def gpu_count(machine: Machine) -> Judged:
    """Are as many GPUs on the PCI bus as there should be, and does the driver list all of them?"""
    wanted, found = machine.expected.gpus, machine.need_gpu()
    faults = []
    if wanted and len(found) != wanted:
        faults.append(f"{len(found)} on the PCI bus instead of {wanted}")
    answer = machine.ask("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader", limit_s=60)
    if answer.ok and len(rows := csv_rows(answer.stdout)) != len(found):
        faults.append(f"the driver lists {len(rows)} of {len(found)}")
    where = ", ".join(address for address, _ in found)
    return together(faults, f"{len(found)}: {where}", "Look at seating, power and BIOS (Above 4G Decoding); see xid.")


def _loaded(machine: Machine) -> Module:
    machine.need_gpu()
    text = machine.text(LOADED)
    if isinstance(text, Unseen):
        raise JudgedError(fail("the driver's kernel module is not loaded", "See: modprobe nvidia; dmesg | grep NVRM"))
    module = parse_module(text)
    if module is None:
        raise JudgedError(invalid(f"{LOADED} names no module", f"See: cat {LOADED}"))
    return module


def module(machine: Machine) -> Judged:
    """Is the driver's module loaded, of the branch that was pinned?"""
    version, branch = _loaded(machine).version, machine.expected.driver.branch
    if branch and version.partition(".")[0] != branch:
        return fail(f"{version} is not of branch {branch}", again(ROLE))
    return good(version)


def module_flavour(machine: Machine) -> Judged:
    """Are the modules the open ones, as loaded and as installed for this kernel? Blackwell runs with no others."""
    loaded, wanted = _loaded(machine), machine.expected.driver.modules
    faults = []
    flavour = "open" if loaded.open_modules else "proprietary"
    if flavour != wanted:
        faults.append(f"the {flavour} module is loaded")
    answer = machine.ask("modinfo", "nvidia")
    licence = fields_of(answer.stdout).get("license", "")
    if not answer.ok or not licence:
        faults.append("none is installed for this kernel: it will not load after a reboot")
    elif (installed := "open" if licence in OPEN_LICENCES else "proprietary") != wanted:
        faults.append(f"the {installed} module is installed ({licence})")
    return together(faults, f"{flavour}, licence {licence}", again(ROLE))


def versions(machine: Machine) -> Judged:
    """Are the loaded module, the module on the disk and the libraries of one version?"""
    loaded = _loaded(machine).version
    answer = machine.ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", limit_s=60)
    if answer.missing:
        return fail(answer.why, again(ROLE))
    if not answer.ok:
        said = (answer.stdout + answer.stderr).lower()
        step = REBOOT if "mismatch" in said else "See: nvidia-smi; dmesg | grep NVRM"
        return fail(f"nvidia-smi: {' '.join((answer.stdout or answer.stderr).split())[:160] or answer.why}", step)
    told = {row[0] for row in csv_rows(answer.stdout)}
    faults = [f"module {loaded}, libraries {', '.join(sorted(told)) or '?'}"] if told != {loaded} else []
    disk = fields_of(machine.ask("modinfo", "nvidia").stdout).get("version", "")
    if disk and disk != loaded:
        faults.append(f"module {loaded} is loaded, and {disk} is on the disk")
    return together(faults, f"{loaded}, module and libraries", REBOOT)


def persistence(machine: Machine) -> Judged:
    """Does the driver keep the cards initialised?"""
    machine.need_gpu()
    if not machine.expected.driver.persistence:
        return good("not asked for")
    text = machine.output("nvidia-smi", "--query-gpu=index,persistence_mode", "--format=csv,noheader", role=ROLE)
    off = [row[0] for row in csv_rows(text) if row[1:] != ["Enabled"]]
    faults = [f"off for GPU {', '.join(off)}"] if off else []
    return together(faults, "on for every GPU", "systemctl enable --now nvidia-persistenced")


def nouveau(machine: Machine) -> Judged:
    """Is nouveau neither loaded nor allowed?"""
    if machine.path("/sys/module/nouveau").is_dir():
        return fail("nouveau is loaded", f"{again(ROLE)}, then reboot.")
    if not machine.provisioned(2) and not machine.gpus:
        return machine.without_gpu()
    answer = machine.ask("modprobe", "--showconfig")
    if not answer.ok:
        return unavailable(f"not loaded; {answer.why}")
    if "blacklist nouveau" not in (" ".join(line.split()) for line in answer.stdout.splitlines()):
        return fail("not loaded, and nothing keeps it from being", again(ROLE))
    return good("not loaded, and blacklisted")


def cuda(machine: Machine) -> Judged:
    """Is the CUDA toolkit's compiler there, of the pinned version?"""
    wanted = _of_layer(machine, machine.expected.cuda)
    if not wanted:
        return good("none is asked for")
    program = NVCC if machine.path(NVCC).exists() else "nvcc"
    answer = machine.ask(program, "--version")
    if answer.missing:
        return fail("nvcc is not installed", again("cuda_toolkit"))
    release = cuda_release(answer.stdout)
    if not answer.ok or release is None:
        return invalid(f"nvcc names no release ({answer.why})", "See: nvcc --version")
    if release != wanted:
        return fail(f"CUDA {release} instead of {wanted}", again("cuda_toolkit"))
    return good(f"CUDA {release}")


def cudnn(machine: Machine) -> Judged:
    """Does the loader find cuDNN?"""
    wanted = _of_layer(machine, machine.expected.cudnn_major)
    if not wanted:
        return good("none is asked for")
    if wanted in cudnn_majors(machine.output("ldconfig", "-p", role="cuda_toolkit")):
        return good(f"cuDNN {wanted}")
    return fail(f"cuDNN {wanted} is not among the loader's libraries", again("cuda_toolkit"))


def _of_layer(machine: Machine, wanted: str) -> str:
    """Return what is wanted, where layer 2 was provisioned or should have been.

    Raises:
        JudgedError: it never was, and there is no GPU to provision it for: UNAVAILABLE.
    """
    if not machine.provisioned(2):
        machine.need_gpu()
    return wanted


def xid(machine: Machine) -> Judged:
    """Does the kernel log blame the hardware since boot?"""
    machine.need_gpu()
    messages, why_not = since_boot()
    if why_not:
        return unavailable(f"the kernel log cannot be read: {why_not}")
    parser = Parser()
    faults = [fault for text in messages for fault in parser.feed(text)]
    said = [
        f"Xid {one.code} ({meaning(one.code)}) at {one.pci}"
        for one in faults
        if one.kind == "xid" and one.code is not None and classify(one.code) == "hardware"
    ]
    said += [f"{one.pci}: {one.text}" for one in faults if one.kind in {"lost", "init-failed"}]
    said += [f"fatal PCIe error at {one.port}" for one in faults if one.kind == "aer" and one.severity == "fatal"]
    grave = list(dict.fromkeys(said))
    step = "See: dmesg | grep -e NVRM -e AER; then look at power, cooling and seating of that card."
    return together(grave[:5], "nothing since boot", step)


def first_boot(machine: Machine) -> Judged:
    """Did the first boot with the cards do what the build without them could not?"""
    show = ("systemctl", "show", FIRST_BOOT, "-p", "LoadState,ActiveState")
    told = assignments(machine.output(*show, role="first_boot"))
    if told.get("LoadState") != "loaded":
        if machine.expected.image_build_phase:
            return fail(f"there is no {FIRST_BOOT}", again("first_boot"))
        return good("nothing was put off to it")
    text = machine.text(FIRST_BOOT_STATE)
    state = {} if isinstance(text, Unseen) else mapping(text)
    if told.get("ActiveState") == "failed":
        return fail(
            f"{FIRST_BOOT} failed at {state.get('step', '?')}: {state.get('reason', '?')}",
            f"See journalctl -u {FIRST_BOOT}, mend it, then: systemctl restart {FIRST_BOOT}",
        )
    if state.get("status") == "waiting":
        return unavailable(str(state.get("reason")))
    if machine.expected.image_build_phase and not state:
        return unavailable(f"{FIRST_BOOT} waits for the first boot with the cards")
    return good(f"{FIRST_BOOT}: {told.get('ActiveState', '?')}")
