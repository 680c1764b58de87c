from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from vaultcube.errors import PortTakenError, UsageError
from vaultcube.stack import ports
from vaultcube.stack.ports import check_host, choose_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(("host", "alone"), [("127.0.0.1", True), ("::1", True), ("127.1.2.3", True), ("0.0.0.0", False), ("::", False), ("192.168.1.5", False)])  # noqa: S104  # fmt: skip
def test_which_addresses_only_this_machine_reaches(host: str, *, alone: bool) -> None:
    assert check_host(host) is alone


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1:80", "1.2.3", "eth0"])
def test_a_host_that_is_no_address(host: str) -> None:
    with pytest.raises(UsageError, match="is no IP address"):
        check_host(host)


def test_a_port_that_somebody_has_is_refused(taken: int) -> None:
    with pytest.raises(PortTakenError, match=f"port {taken} of 127.0.0.1 is taken"):
        choose_port("127.0.0.1", taken)
    with pytest.raises(PortTakenError):
        choose_port("0.0.0.0", taken)  # noqa: S104


def test_a_free_one_is_taken_as_asked(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = int(server.getsockname()[1])
    assert free != taken
    assert choose_port("127.0.0.1", free) == free


def test_the_first_free_one_is_found(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST", taken)
    assert taken < choose_port("127.0.0.1", None) < taken + 100
    monkeypatch.setattr(ports, "TRIED", 1)
    with pytest.raises(PortTakenError, match="all ports"):
        choose_port("127.0.0.1", None)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(UsageError, match="no address of this machine"):
        choose_port("192.0.2.1", 8000)
