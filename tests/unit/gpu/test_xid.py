from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support import DATA

from vaultcube.gpu.xid import APPLICATION, HARDWARE, Fault, Parser, address, classify, meaning


def recorded(name: str) -> list[Fault]:
    parser = Parser()
    lines = (DATA / "kernel" / f"{name}.txt").read_text().splitlines()
    return [fault for line in lines for fault in parser.feed(line)]


def parsed(*lines: str) -> list[Fault]:
    parser = Parser()
    return [fault for line in lines for fault in parser.feed(line)]


def test_a_5090_that_fell_off_the_bus() -> None:
    xid, lost = recorded("5090-lost")
    assert xid == Fault("xid", "0000:06:00", 79, "GPU has fallen off the bus.")
    assert (lost.kind, lost.pci, lost.code) == ("lost", "0000:06:00", None)


def test_a_loss_without_any_number_on_three_lines() -> None:
    (lost,) = recorded("lost-without-xid")
    assert (lost.kind, lost.pci, lost.code) == ("lost", "0000:b3:00", None)


def test_the_three_lines_as_one_record() -> None:
    lines = (DATA / "kernel" / "lost-without-xid.txt").read_text().splitlines()
    (lost,) = Parser().feed("\n".join(lines[:3]))
    assert (lost.kind, lost.pci) == ("lost", "0000:b3:00")


def test_other_lines_between_the_three_do_no_harm_but_the_driver_s_own_end_them() -> None:
    first = "NVRM: The NVIDIA GPU 0000:b3:00.0"
    last = "NVRM: fallen off the bus and is not responding to commands."
    assert [fault.pci for fault in parsed(first, "usb 1-1: new device", last)] == ["0000:b3:00"]
    assert parsed(last) == []
    assert parsed(first, "NVRM: one", "NVRM: two", last) == []


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: GPU at 0000:02:00.0 has fallen off the bus.",
        "NVRM: GPU at PCI:0000:02:00: GPU has fallen off the bus.",
        "NVRM: GPU 0000:02:00.0: GPU has fallen off the bus.",
        "NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2b85) installed in this system has fallen off the bus",
        "<3>[   12.5] NVRM: GPU 00000000:02:00.0: GPU has fallen off the bus.",
    ],
)
def test_a_loss_without_any_number_on_one_line(line: str) -> None:
    (lost,) = parsed(line)
    assert (lost.kind, lost.pci) == ("lost", "0000:02:00")


def test_an_adapter_that_cannot_be_initialised() -> None:
    (failed,) = recorded("init-failed")
    assert failed == Fault("init-failed", "0000:01:00", text="RmInitAdapter failed! (0x22:0x56:884)")


def test_xids_of_programs_with_their_process() -> None:
    faults = recorded("page-fault")
    assert [(fault.code, fault.pci) for fault in faults] == [(code, "0000:0a:00") for code in (31, 62, 45)]
    assert faults[0].text.startswith("pid=13332, name=cuda_plot_k32_v, Ch 00000010")
    assert [classify(fault.code or 0) for fault in faults] == ["application", "hardware", "application"]


@pytest.mark.parametrize(
    ("line", "pci", "code", "text"),
    [
        ("NVRM: Xid (PCI:0000:06:00): 79 GPU has fallen off the bus.", "0000:06:00", 79, "GPU has fallen off the bus."),
        ("NVRM: Xid (0000:03:00): 13, 0003 00000000 000090c0", "0000:03:00", 13, "0003 00000000 000090c0"),
        ("NVRM: Xid (0001:00): 8, Channel 0000001e", "0000:01:00", 8, "Channel 0000001e"),
        ("NVRM: Xid (PCI:0000:01:00): 62", "0000:01:00", 62, ""),
        ("NVRM: Xid (PCI:0000:C8:00 GPU-I:05): 43, pid=7, name=a", "0000:c8:00", 43, "pid=7, name=a"),
        ("NVRM: Xid (PCI:0000:dc:00): 45, pid=1, name=x, caused by previous Xid 149", "0000:dc:00", 45, None),
        ("kernel: NVRM: Xid (PCI:10000:01:00): 154, pid='<unknown>'", "10000:01:00", 154, "pid='<unknown>'"),
    ],
)
def test_the_forms_of_an_xid(line: str, pci: str, code: int, text: str | None) -> None:
    (fault,) = parsed(line)
    assert (fault.kind, fault.pci, fault.code) == ("xid", pci, code)
    assert text is None or fault.text == text


def test_pcie_errors_are_told_by_port_sender_and_severity() -> None:
    found = [(fault.port, fault.pci, fault.severity) for fault in recorded("aer")]
    assert found == [
        ("0000:00:07.0", "0000:2b:00", "corrected"),
        ("0000:00:02.0", "0000:02:00", "non-fatal"),
        ("0000:00:03.0", "0000:00:03", "fatal"),
        ("0000:00:03.1", "0000:00:00", "corrected"),
        ("0000:00:1c.1", "0000:06:00", "corrected"),
    ]


def test_a_link_that_went_down_under_a_card() -> None:
    found = [(fault.kind, fault.code, fault.severity) for fault in recorded("surprise-down")]
    assert found == [("aer", None, "corrected"), ("aer", None, "fatal"), ("xid", 79, None)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  575.57.08",
        "NVRM: kgspRcAndNotifyAllChannels_IMPL: RC all channels for critical error 79.",
        "NVRM: Xid (PCI:zz): 79, no address",
        "NVRM: Xid (PCI:0000:06:00): seventy-nine",
        "NVRM: Xid (PCI:0000:06:00): 79999999999999999999999999",
        "pcieport 0000:00:03.0: AER: enabled with IRQ 63",
        "sshd: NVRM",
    ],
)
def test_what_is_no_fault(line: str) -> None:
    assert parsed(line) == []


def test_an_unknown_xid_counts_as_the_hardware_s() -> None:
    assert classify(9999) == "hardware"
    assert meaning(9999) == "not in Vault Cube's table"
    assert meaning(79) == "GPU has fallen off the bus"
    assert not APPLICATION.keys() & HARDWARE.keys()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("00000000:01:00.0", "0000:01:00"),
        ("0000:01:00", "0000:01:00"),
        ("0000:C1:1f.7", "0000:c1:1f"),
        ("01:00", "0000:01:00"),
        ("00010000:01:00.0", "10000:01:00"),
    ],
)
def test_addresses_have_one_spelling(text: str, plain: str) -> None:
    assert address(text) == plain
    assert address(plain) == plain


@pytest.mark.parametrize("text", ["", "GPU-1", "1", "0000:01:00.0.0", "x:01:00"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="no PCI address"):
        address(text)


PIECES = st.sampled_from(
    [
        *("NVRM: ", "Xid (PCI:", "0000:06:00", "): ", "79", ", ", "GPU ", "The NVIDIA GPU ", "fallen off the bus"),
        *(
            "RmInitAdapter failed!",
            "pcieport ",
            ": AER: ",
            "Corrected",
            " error received",
            "Multiple ",
            "\n",
            "\x00",
            "²",
        ),
    ]
)


@given(st.lists(st.one_of(st.text(), st.lists(PIECES).map("".join))))
def test_no_text_is_too_strange(lines: list[str]) -> None:
    parser = Parser()
    for line in lines:
        for fault in parser.feed(line):
            assert fault.kind in {"xid", "lost", "init-failed", "aer"}
            assert (fault.code is not None) == (fault.kind == "xid")
