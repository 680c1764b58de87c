"""What `bench` does between the command line and the start: choose GPUs, build, reserve, choose again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from tests.unit.replay import Recording
from tests.unit.support import box, gpu

from vaultcube import workloads
from vaultcube.errors import (
    BadParameterError,
    EngineUnreachableError,
    GpuBusyError,
    PinningError,
    ReservationError,
    VaultCubeError,
)
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.leases import Holder
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import Held, parse_gpus
from vaultcube.stack import bench
from vaultcube.stack.bench import Session
from vaultcube.stack.docker import Docker, EngineInfo
from vaultcube.stack.plan import Plan, Request
from vaultcube.stack.reservation import Reservation, reserve
from vaultcube.stack.signals import Stop

BOX = box(4)
FOO = Holder("container", "foo", "", None, "container foo")
HOOK = PinningFacts(None, hook=True)
CDI = PinningFacts(frozenset(one.uuid for one in BOX.gpus), hook=False)
IMAGE = "vaultcube/pytorch:cu128"


def taken(*indices: int) -> Held:
    return {one.uuid: (FOO,) if one.index in indices else () for one in BOX.gpus}


class Place:
    """A machine that may change from look to look, whose builds are only noted, with a lock of its own.

    Attributes:
        looks: who holds which GPU at every look; the last stays.
        offers: what the engine offers for pinning.
        story: what happened, with a `+` where the lock was held.
        notes: what the user was shown.
    """

    def __init__(self, folder: Path) -> None:
        self.inventory_now = BOX
        self.looks = [taken()]
        self.offers = HOOK
        self.story: list[str] = []
        self.notes: list[str] = []
        self.reserve = partial(reserve, limit_s=0.1, folders=[folder])

    def happens(self, what: str) -> None:
        self.story.append(what + "+" * self.locked)

    @property
    def locked(self) -> bool:
        with Stop() as stop:
            try:
                self.reserve(stop, print).release()
            except ReservationError:
                return True
        return False

    # As `Machine`.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.happens("closed")

    def inventory(self) -> Inventory:
        return self.inventory_now

    def held(self, _docker: Docker, inventory: Inventory) -> Held:
        assert inventory == self.inventory_now
        found = self.looks[min(self.story.count("look") + self.story.count("look+"), len(self.looks) - 1)]
        self.happens("look")
        return found

    def engine(self, _docker: Docker) -> PinningFacts:
        return self.offers

    # As `build`, and as a watcher.

    def build(self, _docker: Docker, _stop: Stop, image: str, flavour: str, *_: Any) -> str:
        self.happens(f"build {flavour}")
        return f"vaultcube/{image}:{flavour}"

    def note(self, text: str) -> None:
        self.notes.append(text)

    def building(self, *_: Any) -> None:
        raise AssertionError

    def event(self, *_: Any) -> None:
        raise AssertionError

    def prepare(self, session: Session) -> tuple[Plan, EngineInfo, Reservation | None]:
        with Stop() as stop:
            return session._prepare(Docker(stop), stop, self)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    found = Place(folder)
    monkeypatch.setattr(bench, "Machine", lambda: found)
    monkeypatch.setattr(bench, "build", found.build)
    monkeypatch.setattr(bench, "reserve", found.reserve)
    yield found
    assert not found.locked, "the lock was left held"


def session(root: Path, gpus: str | None = None, **asked: Any) -> Session:
    request = Request(gpus=parse_gpus(gpus), **asked)
    return Session(workloads.load("ddp"), request, profile="vault-cube-5090", results_root=root / "runs")


def answers(recording: Recording, *images: str) -> None:
    recording.says("version", '"26.1.5"\n')
    recording.says("compose version", "2.26.1\n")
    recording.says("image ls", "".join(f"{image}\n" for image in images))


def ready(place: Place, one: Session) -> Plan:
    """Prepare, and return the plan; its GPUs must be reserved."""
    plan, _engine, held = place.prepare(one)
    assert held is not None
    assert place.locked
    held.release()
    return plan


# --- with the image there ----------------------------------------------------------------------------------------


def test_gpus_are_chosen_once_under_the_lock(place: Place, recording: Recording, tmp_path: Path) -> None:
    answers(recording, IMAGE)
    place.looks = [taken(0)]
    plan = ready(place, session(tmp_path, "2"))
    assert [one.index for one in plan.gpus] == [1, 2]
    assert place.story == ["look+", "closed+"]
    assert (plan.pinning, plan.pins) == ("nvidia", tuple(one.uuid for one in BOX.gpus[1:3]))
    assert place.notes[-1] == "GPUs 1, 2, by UUID through the NVIDIA hook: the engine does no CDI"
    assert not (tmp_path / "runs").exists()


def test_they_are_pinned_by_what_the_engine_offers(place: Place, recording: Recording, tmp_path: Path) -> None:
    answers(recording, IMAGE)
    place.offers = CDI
    plan = ready(place, session(tmp_path, "device=3"))
    assert (plan.pinning, plan.pins) == ("cdi", (f"nvidia.com/gpu={BOX.gpus[3].uuid}",))
    assert place.notes == [plan.flavour_reason, "GPU 3, by UUID through CDI"]


@pytest.mark.parametrize(
    ("gpus", "offers", "error"),
    [(None, HOOK, GpuBusyError), ("device=1", HOOK, GpuBusyError), ("1", PinningFacts(None, hook=False), PinningError)],
)
def test_what_is_refused_lets_the_lock_go_and_leaves_nothing(
    place: Place,
    recording: Recording,
    tmp_path: Path,
    gpus: str | None,
    offers: PinningFacts,
    error: type[VaultCubeError],
) -> None:
    answers(recording, IMAGE)
    place.looks, place.offers = [taken(1)], offers
    with pytest.raises(error):
        place.prepare(session(tmp_path, gpus))
    assert not (tmp_path / "runs").exists()


def test_sharing_is_asked_for_and_kept_in_the_plan(place: Place, recording: Recording, tmp_path: Path) -> None:
    answers(recording, IMAGE)
    place.looks = [taken(1)]
    plan = ready(place, session(tmp_path, "device=1,2", share=True))
    assert [one.index for one in plan.gpus] == [1, 2]
    assert plan.shared == ("GPU 1 was shared with container foo",)
    assert ready(place, session(tmp_path, "1", share=True)).shared == ()


def test_a_lock_that_stays_held_is_refused(place: Place, recording: Recording, tmp_path: Path) -> None:
    answers(recording, IMAGE)
    with Stop() as stop, place.reserve(stop, print), pytest.raises(ReservationError):
        place.prepare(session(tmp_path))


# --- with an image to build ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [HOOK, PinningFacts(None, hook=False)])
def test_a_busy_machine_and_one_without_a_way_say_so_before_the_build(
    place: Place, recording: Recording, tmp_path: Path, offers: PinningFacts
) -> None:
    answers(recording)
    place.looks, place.offers = [taken(0, 1, 2, 3) if offers.hook else taken()], offers
    with pytest.raises(GpuBusyError if offers.hook else PinningError):
        place.prepare(session(tmp_path, "1"))
    assert place.story == ["look", "closed"]
    assert not (tmp_path / "runs").exists()


def test_a_build_does_not_hold_the_lock_and_gpus_are_chosen_again_after_it(
    place: Place, recording: Recording, tmp_path: Path
) -> None:
    answers(recording)
    place.looks = [taken(0), taken(1, 2)]
    plan = ready(place, session(tmp_path, "1"))
    assert place.story == ["look", "build cu128", "look+", "closed+"]
    # GPU 1 was free before the build, and went to somebody meanwhile.
    assert [one.index for one in plan.gpus] == [0]


def test_gpus_that_went_away_during_the_build_are_refused(place: Place, recording: Recording, tmp_path: Path) -> None:
    answers(recording)
    place.looks = [taken(), taken(3)]
    with pytest.raises(GpuBusyError, match="GPU 3 is held by container foo"):
        place.prepare(session(tmp_path))
    assert place.story == ["look", "build cu128", "look+", "closed"]


def test_on_mixed_cards_another_image_is_built_when_other_cards_are_free(
    place: Place, recording: Recording, tmp_path: Path
) -> None:
    answers(recording)
    old = gpu(1, capability="8.9", name="NVIDIA GeForce RTX 4090")
    place.inventory_now = BOX.model_copy(update={"gpus": (BOX.gpus[0], old)})
    place.looks = [taken(1), taken(0)]
    plan = ready(place, session(tmp_path, "1"))
    assert place.story == ["look", "build cu128", "look+", "look", "build cu124", "look+", "closed+"]
    assert (plan.image, plan.gpus) == ("vaultcube/pytorch:cu124", (old,))


# --- without GPUs, and before anything is asked ------------------------------------------------------------------------


@pytest.mark.parametrize("gpus", ["none", None])
def test_a_run_on_the_cpu_takes_no_lock_and_asks_nobody(
    place: Place, recording: Recording, tmp_path: Path, gpus: str | None
) -> None:
    answers(recording, "vaultcube/pytorch:cu124")
    place.inventory_now = box(4 if gpus else 0)
    plan, engine, held = place.prepare(session(tmp_path, gpus))
    assert (plan.device, plan.pinning, held, engine.engine) == ("cpu", None, None, "26.1.5")
    assert place.story == ["closed"]
    assert place.notes == [plan.flavour_reason]


def test_a_wrong_command_line_is_told_before_the_engine_is_missed(
    place: Place, recording: Recording, tmp_path: Path
) -> None:
    recording.says("", stderr="Cannot connect to the Docker daemon at unix:///x.", status=1)
    place.looks = [taken(0)]
    with pytest.raises(BadParameterError):
        place.prepare(session(tmp_path, given={"windows": 1}))
    with pytest.raises(EngineUnreachableError):
        place.prepare(session(tmp_path))
    assert "look" not in place.story


def test_a_dry_run_shows_what_would_be_chosen_and_takes_no_lock(
    place: Place, recording: Recording, tmp_path: Path
) -> None:
    place.looks, place.offers = [taken(0, 2)], CDI
    plan = session(tmp_path, "2").plan()
    assert ([one.index for one in plan.gpus], plan.pinning) == ([1, 3], "cdi")
    assert place.story == ["look", "closed"]
    with pytest.raises(GpuBusyError):
        session(tmp_path).plan()
    place.story.clear()
    assert session(tmp_path, "none").plan().device == "cpu"
    assert place.story == ["closed"]
    assert recording.calls == []
