"""The boxes that can be simulated: which cards, in which slots, under which driver."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from tests.rig.cards import GTX_1060, H100, RTX_4090, RTX_5090, STILL, Card
from tests.rig.scenario import Scenario, SimGpu

NAMESPACE = uuid.UUID("5ca1ab1e-0000-4000-8000-000000005090")


class Layout(NamedTuple):
    """A box: its driver, its card, and the PCI buses they sit on (the first half on NUMA node 0).

    Attributes:
        driver: version of the driver.
        cuda: as in cuda_version.
        open_module: the kernel module is the open one.
        built: when NVIDIA built the driver.
        card: every GPU's product.
        buses: PCI bus of each GPU.
        p2p_status: as in p2p_status.
    """

    driver: str
    cuda: int
    open_module: bool
    built: str
    card: Card
    buses: tuple[int, ...]
    p2p_status: int = 2


_R580 = ("580.95.05", 13000, True, "Tue Sep 23 09:55:41 UTC 2025")
LAYOUTS = {
    "4x5090": Layout(*_R580, RTX_5090, (0x01, 0x41, 0x81, 0xC1)),
    "16x5090": Layout(*_R580, RTX_5090, tuple(range(0x01, 0xF2, 0x10))),
    "8xh100": Layout(
        "570.133.20",
        12080,
        True,
        "Sun Mar 30 17:04:49 UTC 2025",
        H100,
        (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF),
        p2p_status=0,
    ),
    "2x4090": Layout("550.90.07", 12040, False, "Fri May 31 09:35:42 UTC 2024", RTX_4090, (0x01, 0x41)),
    "1xold": Layout("580.95.05", 13000, False, "Tue Sep 23 10:11:16 UTC 2025", GTX_1060, (0x01,)),
    "none": Layout(*_R580, RTX_5090, ()),
}


def scenario(profile: str) -> Scenario:
    """Return a healthy, idle box.

    Raises:
        ValueError: there is no such profile.
    """
    if profile not in LAYOUTS:
        raise ValueError(f"no profile is called {profile}: there are {', '.join(LAYOUTS)}")
    layout = LAYOUTS[profile]
    made = Scenario()
    made.set(
        driver_version=layout.driver,
        nvml_version=f"{layout.cuda // 1000}.{layout.driver}",
        cuda_version=layout.cuda,
        p2p_status=layout.p2p_status,
        init_error="none",
        query_error="none",
        reread_ms=1000,
        jitter=1,
        seed=1,
    )
    made.gpus = [_gpu(profile, layout, index) for index in range(len(layout.buses))]
    return made


def _gpu(profile: str, layout: Layout, index: int) -> SimGpu:
    bus = layout.buses[index]
    node = int(index >= len(layout.buses) / 2)
    made = SimGpu()
    made.set(
        uuid=f"GPU-{uuid.uuid5(NAMESPACE, f'{profile}/{index}')}",
        bus_id=f"00000000:{bus:02X}:00.0",
        minor=index,
        board_id=bus << 8,
        numa_node=node,
        pcie_root=index,
        cpus="12-23,36-47" if node else "0-11,24-35",
        **STILL,
        **layout.card.fixed,
        **layout.card.sensors(load=False),
    )
    if layout.card.fixed.get("gsp_mode"):
        made.set(gsp_version=layout.driver)
    if layout.card is H100:
        made.set(serial=f"16541230{index:05d}", nvlink_bus_id="00000000:07:00.0")
    return made
