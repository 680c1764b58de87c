"""Stand-ins for the archives that cannot be had here: empty packages under the real names, in signed apt repositories.

They are built and served inside the machine that installs them. What a role asks of a package is in it: a module with
its version and licence, nvidia-smi, nvcc, the units, the settings; nothing in them drives a card. Names, versions and
dependencies are the ones that Ubuntu 24.04 and NVIDIA list.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docker.conftest import docker
from tests.host.machine import Machine

ROOT = "/srv/standin"
# apt tells repositories apart by the host's name: three names of one server are three origins, as on the real network.
ARCHIVE, CUDA, TOOLKIT = "http://localhost:8099", "http://127.0.0.1:8099", "http://127.0.0.2:8099"
KERNEL = "6.8.0-149-generic"
DRIVER = "580.173.02"
_DRIVER_PACKAGE = f"{DRIVER}-0ubuntu0.24.04.1"

# As the toolkit's package leaves it.
CONFIG = """\
#accept-nvidia-visible-devices-as-volume-mounts = false
#accept-nvidia-visible-devices-envvar-when-unprivileged = true
disable-require = false
supported-driver-capabilities = "compat32,compute,display,graphics,ngx,utility,video"
#swarm-resource = "DOCKER_RESOURCE_GPU"

[nvidia-container-cli]
#debug = "/var/log/nvidia-container-toolkit.log"
environment = []
ldconfig = "@/sbin/ldconfig.real"
load-kmods = true

[nvidia-container-runtime]
log-level = "info"
mode = "auto"
runtimes = ["runc", "crun"]
"""

# Ubuntu's, of nvidia-compute-utils: no [Install], no persistence mode, stopped when nothing needs it.
PERSISTENCED = """\
[Unit]
Description=NVIDIA Persistence Daemon
Wants=syslog.target
StopWhenUnneeded=true

[Service]
Type=forking
ExecStart=/usr/bin/nvidia-persistenced --user nvidia-persistenced --no-persistence-mode --verbose
ExecStopPost=/bin/rm -rf /var/run/nvidia-persistenced
"""

REFRESH = """\
[Unit]
Description=Refresh NVIDIA CDI specification file
ConditionPathExists=/usr/bin/nvidia-smi

[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate

[Install]
WantedBy=multi-user.target
"""

REFRESH_PATH = f"""\
[Unit]
Description=Trigger CDI refresh

[Path]
PathChanged=/lib/modules/{KERNEL}/modules.dep

[Install]
WantedBy=multi-user.target
"""

# What the real one prints of four cards, when the driver is loaded.
SMI = f"""\
#!/bin/sh
case "$*" in
*driver_version*) v={DRIVER}; [ ! -r /srv/fake/smi-version ] || v=$(cat /srv/fake/smi-version); for i in 1 2 3 4; do echo "$v"; done ;;
*persistence_mode*) for i in 1 2 3 4; do echo Enabled; done ;;
*) exit 9 ;;
esac
"""

CTK = """\
#!/bin/sh
case "$*" in
--version) echo "NVIDIA Container Toolkit CLI version VERSION"; echo "commit: 0000000" ;;
"cdi generate") mkdir -p /var/run/cdi; echo "cdiVersion: 0.5.0" >/var/run/cdi/nvidia.yaml ;;
"cdi list") [ -e /var/run/cdi/nvidia.yaml ] || exit 1
    for i in 0 1 2 3 all; do echo "nvidia.com/gpu=$i"; done ;;
*) exit 9 ;;
esac
"""

NVCC = """\
#!/bin/sh
echo "nvcc: NVIDIA (R) Cuda compiler driver"
echo "Cuda compilation tools, release 12.4, V12.4.131"
"""


@dataclass(frozen=True)
class Package:
    """A package: its name and version, what it depends on, and what is in it.

    Attributes:
        files: content by path; a program is one that begins with `#!`.
        conffiles: which of them dpkg keeps when they were edited.
        postinst: shell commands that run when it is installed.
    """

    name: str
    version: str
    depends: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    postinst: str = ""


def compiled(source: str, *flags: str) -> bytes:
    """Return what the C compiler makes of a source."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        subprocess.run(["cc", "-x", "c", "-", "-o", str(made), *flags], input=source.encode(), check=True)
        return made.read_bytes()


def module(version: str, licence: str = "Dual MIT/GPL") -> bytes:
    """Return an object file that says of itself what NVIDIA's module says; a kernel would not load it."""
    info = {"version": version, "license": licence, "vermagic": f"{KERNEL} SMP mod_unload modversions"}
    words = "".join(f"{key}={value}\\0" for key, value in info.items())
    return compiled(f'__attribute__((section(".modinfo"), used)) static const char info[] = "{words}";', "-c")


def driver(version: str = _DRIVER_PACKAGE, branch: str = "580", licence: str = "Dual MIT/GPL") -> list[Package]:
    """Return Ubuntu's packages of one driver, with the modules for the kernel that is installed."""
    upstream = version.partition("-")[0]
    b = f"{branch}-server"
    path = f"/lib/modules/{KERNEL}/kernel/nvidia-{b}-open/nvidia.ko"
    return [
        Package(
            f"linux-modules-nvidia-{b}-open-{KERNEL}",
            "6.8.0-149.149",
            f"linux-image-{KERNEL}",
            {path: module(upstream, licence)},
            postinst=f"depmod -a {KERNEL}",
        ),
        Package(
            f"linux-modules-nvidia-{b}-open-generic",
            "6.8.0-149.149",
            f"linux-modules-nvidia-{b}-open-{KERNEL}, nvidia-kernel-common-{b}",
        ),
        Package(f"nvidia-kernel-common-{b}", version),
        Package(f"libnvidia-compute-{b}", version, f"nvidia-kernel-common-{b}"),
        Package(
            f"nvidia-compute-utils-{b}",
            version,
            f"libnvidia-compute-{b} (= {version})",
            {
                "/usr/bin/nvidia-persistenced": '#!/bin/sh\necho "$@" >/srv/fake/persistenced\n',
                "/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED,
            },
        ),
        Package(
            f"nvidia-headless-no-dkms-{b}-open",
            version,
            f"libnvidia-compute-{b} (= {version}), nvidia-compute-utils-{b}",
        ),
        Package(f"nvidia-utils-{b}", version, f"libnvidia-compute-{b} (= {version})", {"/usr/bin/nvidia-smi": SMI}),
    ]


def archive() -> list[Package]:
    """Return what Ubuntu's archive has: a kernel, the branch 580, and the ended 590 as a transition to 595."""
    image = Package(
        f"linux-image-{KERNEL}",
        "6.8.0-149.149",
        files={f"/lib/modules/{KERNEL}/modules.{x}": "" for x in ("order", "builtin")}
        | {f"/boot/vmlinuz-{KERNEL}": ""},
    )
    return [image, *driver(), *driver("595.71.05-0ubuntu0.24.04.1", "590")]


def cuda() -> list[Package]:
    """Return NVIDIA's repository for Ubuntu 22.04: CUDA 12.4, and what must not come from there."""
    home = "/usr/local/cuda-12.4"
    return [
        Package("cuda-compiler-12-4", "12.4.1-1", files={f"{home}/bin/nvcc": NVCC}),
        Package("cuda-libraries-12-4", "12.4.1-1", files={f"{home}/lib64/README": "libraries\n"}),
        Package("cuda-libraries-dev-12-4", "12.4.1-1", "cuda-libraries-12-4"),
        Package("cuda-nvml-dev-12-4", "12.4.127-1"),
        Package("cuda-toolkit-12-4", "12.4.1-1", "cuda-compiler-12-4, libtinfo5"),
        Package("nvidia-utils-580-server", "999.0-1"),
        Package("nvidia-container-toolkit", "999.0-1"),
    ]


def cudnn() -> list[Package]:
    """Return NVIDIA's repository for Ubuntu 24.04: cuDNN."""
    library = compiled("int cudnn(void) { return 9; }", "-shared", "-nostdlib", "-Wl,-soname,libcudnn.so.9")
    return [
        Package(
            "libcudnn9-cuda-12",
            "9.10.2.21-1",
            files={"/usr/lib/x86_64-linux-gnu/libcudnn.so.9": library},
            postinst="ldconfig",
        )
    ]


def toolkit(version: str = "1.20.0-1") -> list[Package]:
    """Return NVIDIA's repository of the container toolkit."""
    base = {
        "/usr/bin/nvidia-ctk": CTK.replace("VERSION", version.partition("-")[0]),
        "/lib/systemd/system/nvidia-cdi-refresh.service": REFRESH,
        "/lib/systemd/system/nvidia-cdi-refresh.path": REFRESH_PATH,
    }
    made = "test -e /etc/nvidia-container-runtime/config.toml || "
    made += f"install -D -m 0644 /dev/stdin /etc/nvidia-container-runtime/config.toml <<'TOML'\n{CONFIG}TOML"
    return [
        Package("nvidia-container-toolkit-base", version, files=base, postinst=made),
        Package("libnvidia-container1", version),
        Package("libnvidia-container-tools", version, f"libnvidia-container1 (= {version})"),
        Package(
            "nvidia-container-toolkit",
            version,
            f"nvidia-container-toolkit-base (= {version}), libnvidia-container-tools (= {version})",
        ),
    ]


def _tree(folder: Path, package: Package) -> None:
    """Write what dpkg-deb makes a package of."""
    debian = folder / "DEBIAN"
    debian.mkdir(parents=True)
    lines = [f"Package: {package.name}", f"Version: {package.version}", "Architecture: amd64"]
    lines += ["Maintainer: Vault Cube's tests <root@localhost>", "Description: stand-in"]
    lines += [f"Depends: {package.depends}"] if package.depends else []
    (debian / "control").write_text("\n".join(lines) + "\n")
    if package.postinst:
        (debian / "postinst").write_text(f"#!/bin/sh\nset -e\n{package.postinst}\n")
        (debian / "postinst").chmod(0o755)
    if package.conffiles:
        (debian / "conffiles").write_text("\n".join(package.conffiles) + "\n")
    for path, content in package.files.items():
        # Merged /usr, as every machine has it that the roles support.
        target = folder / f"usr{path}" if path.startswith("/lib/") else folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        target.write_bytes(data)
        target.chmod(0o755 if data.startswith(b"#!") else 0o644)


# Indexes every folder of packages and signs it; the key is made once.
_PUBLISH = textwrap.dedent("""\
    export GNUPGHOME=/srv/gnupg
    if [ ! -d "$GNUPGHOME" ]; then
        install -d -m 0700 "$GNUPGHOME"
        gpg --batch --quiet --passphrase '' --quick-generate-key 'Stand-in <root@localhost>' rsa2048 sign never
    fi
    gpg --armor --export >/srv/standin/key.asc
    cd /srv/standin/"$1"
    for tree in /srv/trees/"$1"/*; do dpkg-deb --root-owner-group -Zgzip -b "$tree" . >/dev/null; done
    for deb in *.deb; do
        dpkg-deb --field "$deb"
        printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
    done >Packages
    printf 'Origin: Stand-in\\nLabel: %s\\nDate: %s\\nSHA256:\\n %s %s Packages\\n' "$1" "$(date -Ru)" \\
        "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)" >Release
    gpg --batch --yes --quiet --clearsign --output InRelease Release
    """)


class Archives:
    """The stand-in repositories of a machine: `archive` is Ubuntu's, `cuda`, `cudnn` and `toolkit` are NVIDIA's."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Install what builds and serves them, and start serving."""
        self._machine = machine
        self._folder = folder
        machine.run("apt-get -qq update && apt-get -qq -y --no-install-recommends install gpg gpg-agent", timeout=300)
        machine.run(f"mkdir -p {ROOT} /srv/trees /srv/fake")
        serve = f"python3 -m http.server 8099 --bind 0.0.0.0 --directory {ROOT}"
        machine.run(f"systemd-run --quiet --unit=standin {serve}")

    def publish(self, name: str, packages: Iterable[Package]) -> None:
        """Add packages to a repository, and sign its index anew."""
        trees = self._folder / name
        subprocess.run(["rm", "-rf", str(trees)], check=True)
        for package in packages:
            _tree(trees / f"{package.name}_{package.version.replace(':', '%')}", package)
        self._machine.run(f"rm -rf /srv/trees/{name}; mkdir -p {ROOT}/{name}")
        docker("cp", "--quiet", str(trees), f"{self._machine.name}:/srv/trees/{name}")
        self._machine.run(f"chown -R root:root /srv/trees; bash -euc {shlex.quote(_PUBLISH)} publish {name}")

    def publish_all(self) -> None:
        """Publish all four, and make the machine use Ubuntu's as its own archive."""
        for name, packages in (("archive", archive()), ("cuda", cuda()), ("cudnn", cudnn()), ("toolkit", toolkit())):
            self.publish(name, packages)
        source = f"deb [signed-by={ROOT}/key.asc] {ARCHIVE}/archive ./"
        self._machine.run(f"echo '{source}' >/etc/apt/sources.list.d/standin-archive.list; apt-get -qq update")

    def key(self) -> tuple[Path, str]:
        """Return the key that signs them, as a file of this machine, and its fingerprint."""
        path = self._folder / "standin.asc"
        docker("cp", "--quiet", f"{self._machine.name}:{ROOT}/key.asc", str(path))
        told = self._machine.run("GNUPGHOME=/srv/gnupg gpg --batch --with-colons --list-keys")
        return path, next(line.split(":")[9] for line in told.splitlines() if line.startswith("fpr:"))

    def variables(self) -> dict[str, object]:
        """Return what leads the roles to these repositories, as if the machine were Ubuntu."""
        path, fingerprint = self.key()
        roles = {
            "nvidia_driver": f"{CUDA}/cuda/",
            "cuda_toolkit": f"{CUDA}/cuda/",
            "nvidia_container_toolkit": f"{TOOLKIT}/toolkit/",
        }
        found: dict[str, object] = {"nvidia_driver_distribution": "ubuntu", "cuda_toolkit_distribution": "ubuntu"}
        for role, place in roles.items():
            found[f"{role}_repository_uri"] = place
            found[f"{role}_repository_key"] = str(path)
            found[f"{role}_repository_fingerprint"] = fingerprint
        return found | {"cuda_toolkit_cudnn_repository_uri": f"{CUDA}/cudnn/"}
