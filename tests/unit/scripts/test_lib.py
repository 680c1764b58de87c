"""scripts/lib.sh: what the system is called, versions, and Debian sources for another release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Machine

# As Debian's own container images and cloud images carry it.
DEB822 = """\
Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

DEB822_DERIVED = """\
Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

# As the installer writes it, with a private mirror's options.
ONE_LINE = """\
#deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main non-free-firmware

deb [arch=amd64,arm64 signed-by=/etc/apt/keyrings/mirror.gpg check-valid-until=no] http://mirror.example/debian/ bookworm main non-free-firmware # ours
deb-src http://mirror.example/debian/ bookworm main
deb http://mirror.example/debian-security bookworm-security main contrib
deb http://mirror.example/debian bookworm-backports main
"""

ONE_LINE_DERIVED = """\
Types: deb
URIs: http://mirror.example/debian/
Suites: trixie
Components: main
Architectures: amd64 arm64
Signed-By: /etc/apt/keyrings/mirror.gpg
check-valid-until: no

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
"""

EMBEDDED_KEY = """\
Types: deb deb-src
URIs: https://mirror.example/pub/debian/
Suites: stable
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----
"""

EMBEDDED_KEY_DERIVED = """\
Types: deb
URIs: https://mirror.example/pub/debian/
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----
"""

# Third parties name their suites after Debian's too; a disabled stanza is no source.
FOREIGN = """\
Types: deb
URIs: https://packages.example/linux/debian
Suites: bookworm
Components: stable

Types: deb
URIs: https://apt.releases.example
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
"""


@pytest.mark.parametrize(
    ("name", "source", "derived"),
    [
        ("debian.sources", DEB822, DEB822_DERIVED),
        ("debian.list", ONE_LINE, ONE_LINE_DERIVED),
        ("mirror.sources", EMBEDDED_KEY, EMBEDDED_KEY_DERIVED),
    ],
)
def test_another_release_is_derived_with_the_same_mirror_and_keyring(
    machine: Machine, name: str, source: str, derived: str
) -> None:
    (machine.apt / "sources.list.d" / name).write_text(source)
    done = machine.library("derive_sources bookworm trixie")
    assert done.returncode == 0
    assert done.stdout == derived


def test_all_source_files_count(machine: Machine) -> None:
    (machine.apt / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (machine.apt / "sources.list.d/two.sources").write_text(DEB822)
    done = machine.library("derive_sources bookworm trixie")
    uris = [line for line in done.stdout.splitlines() if line.startswith("URIs")]
    assert uris == [
        "URIs: http://one.example/debian",
        "URIs: http://mirror.example/debian",
        "URIs: http://mirror.example/debian-security",
    ]


@pytest.mark.parametrize("source", [FOREIGN, "", "# nothing\n"])
def test_nothing_is_derived_from_sources_that_are_not_debians(machine: Machine, source: str) -> None:
    (machine.apt / "sources.list.d/foreign.sources").write_text(source)
    done = machine.library("derive_sources bookworm trixie")
    assert (done.returncode, done.stdout) == (1, "")


def test_our_own_derivation_is_not_derived_from_again(machine: Machine) -> None:
    (machine.apt / "sources.list.d/vaultcube-trixie.sources").write_text(DEB822_DERIVED.replace("trixie", "bookworm"))
    assert machine.library("derive_sources bookworm trixie").returncode == 1


@pytest.mark.parametrize(
    ("os_release", "kind"),
    [
        ('ID=debian\nVERSION_ID="12"', "debian12"),
        ('ID=debian\nVERSION_ID="13"', "debian13"),
        ("ID=debian\nVERSION_CODENAME=forky", "debian13"),
        ('ID=debian\nVERSION_ID="11"', "other"),
        ('ID=ubuntu\nVERSION_ID="24.04"', "ubuntu"),
        ('ID=ubuntu\nVERSION_ID="26.04"', "ubuntu"),
        ('ID=ubuntu\nVERSION_ID="22.04"', "other"),
        ('ID=fedora\nVERSION_ID="41"', "other"),
        ("", "other"),
    ],
)
def test_systems_are_told_apart(machine: Machine, os_release: str, kind: str) -> None:
    machine.system(os_release)
    assert machine.library("os_kind").stdout.strip() == kind


def test_a_machine_without_os_release_is_another_system(machine: Machine) -> None:
    assert machine.library("os_kind", OS_RELEASE="/nonexistent").stdout.strip() == "other"


@pytest.mark.parametrize(
    ("have", "want", "enough"),
    [
        ("2.24.4", "2.24.4", True),
        ("2.26.1-4", "2.24.4", True),
        ("v2.40.3+ds1", "2.24.4", True),
        ("2.9.0", "2.24.4", False),
        ("1.29.2", "2.24.4", False),
        ("3.9", "3.11", False),
    ],
)
def test_versions_compare_by_number(machine: Machine, have: str, want: str, enough: bool) -> None:  # noqa: FBT001
    assert (machine.library(f"version_at_least {have} {want}").returncode == 0) is enough
