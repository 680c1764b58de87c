from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA

from vaultcube.errors import (
    BaseImageError,
    BuildxMissingError,
    DiskTooSmallError,
    EngineUnreachableError,
    ImageBuildError,
    InterruptedRunError,
    UsageError,
)
from vaultcube.stack.buildlog import BuildLog
from vaultcube.stack.docker import Docker
from vaultcube.stack.images import (
    BUILD_SPACE_BYTES,
    CA_VARIABLES,
    DEFAULT_BASE,
    LOCAL_BASE,
    PROXY_VARIABLES,
    SMALL_SPACE_BYTES,
    WHEELHOUSE_VARIABLE,
    BuildOptions,
    bake_target,
    build,
    build_environment,
    build_space,
    check_space,
    choose_base,
    default_flavour,
    flavours_of,
    image_flavour,
    image_names,
    list_images,
    parents,
)
from vaultcube.stack.signals import Stop

NAME = "vaultcube/pytorch:cu124"
GONE = "Error response from daemon: No such image: x\n"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out of our environment what a build listens to."""
    for name in (*CA_VARIABLES, *PROXY_VARIABLES, WHEELHOUSE_VARIABLE, "BASE_IMAGE", "VAULTCUBE_BASE_IMAGE"):
        monkeypatch.delenv(name, raising=False)


def here(recording: Recording, name: str, *, identity: str = "sha256:1", tags: list[str] | None = None) -> None:
    found = {"Id": identity, "Size": 1, "Created": "2026", "Config": {"Labels": {}}, "RepoTags": tags or []}
    recording.says_json(f"image inspect {name}", [found])


def absent(recording: Recording, name: str) -> None:
    recording.says(f"image inspect {name}", "[]", stderr=GONE, status=1)


def test_images_and_flavours_are_those_that_have_a_dockerfile_and_a_lock() -> None:
    assert "pytorch" in image_names()
    assert flavours_of("pytorch") == ["cu124", "cu128"]
    assert flavours_of("recorder") == ["any"]
    assert flavours_of("tensorflow") == ["cu124", "cu128"]
    assert flavours_of("vllm") == ["cu124", "cu128", "cpu"]
    # Nothing is locked for it.
    assert flavours_of("proxy") == ["any"]
    assert [default_flavour(image) for image in image_names()] == ["any", "cu124", "any", "cu124", "cu124"]
    with pytest.raises(UsageError) as seen:
        flavours_of("nonsuch")
    assert "pytorch" in seen.value.next_step


def test_the_cpu_has_an_image_of_its_own_or_the_first_flavours() -> None:
    assert [image_flavour("pytorch", flavour) for flavour in ("cu124", "cu128", "cpu")] == ["cu124", "cu128", "cu124"]
    assert [image_flavour("vllm", flavour) for flavour in ("cu124", "cu128", "cpu")] == ["cu124", "cu128", "cpu"]
    with pytest.raises(UsageError):
        image_flavour("nonsuch", "cpu")


def test_what_a_build_needs_is_in_the_images_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bake_target("pytorch", "cu124") == "pytorch-cu124"
    assert parents("vllm", "cu128") == ["vaultcube/pytorch:cu128-framework"]
    assert parents("vllm", "cpu") == parents("pytorch", "cu124") == []
    assert (
        build_space("vllm", "cpu") < build_space("pytorch", "cu124") == BUILD_SPACE_BYTES < build_space("vllm", "cu128")
    )
    assert build_space("recorder", "any") == build_space("proxy", "any") == SMALL_SPACE_BYTES
    for folder in ("toy", "pytorch/requirements"):
        (tmp_path / "images" / folder).mkdir(parents=True)
    for file in ("Dockerfile", "requirements/cu124.txt"):
        (tmp_path / "images/pytorch" / file).touch()
    (tmp_path / "images/docker-bake.hcl").write_text('target "image" {\n}\ntarget "toy-cu124" {\n}\n')
    dockerfile = "# Room for a build: cu124 3 GB, any 2 GB\nFROM vaultcube/pytorch:${FLAVOUR} AS below\nFROM scratch\n"
    (tmp_path / "images/toy/Dockerfile").write_text(dockerfile)
    monkeypatch.setattr("vaultcube.stack.images.asset", lambda name: tmp_path / name)
    # Its own target, or the one for all that have none.
    assert [bake_target("toy", flavour) for flavour in ("cu124", "cu128")] == ["toy-cu124", "image"]
    assert parents("toy", "cu124") == ["vaultcube/pytorch:cu124"]
    assert parents("toy", "cu128") == []
    assert [build_space("toy", name) for name in ("cu124", "any", "cu128")] == [3 * 10**9, 2 * 10**9, BUILD_SPACE_BYTES]


def test_images_are_listed_with_what_is_here(recording: Recording) -> None:
    here(recording, NAME)
    absent(recording, "vaultcube/pytorch:cu128")
    for name in (
        "recorder:any",
        "proxy:any",
        "tensorflow:cu124",
        "tensorflow:cu128",
        "vllm:cu124",
        "vllm:cu128",
        "vllm:cpu",
    ):
        absent(recording, f"vaultcube/{name}")
    rows = {row.name: row.as_dict() for row in list_images(Docker())}
    assert rows[NAME]["local"] == {"id": "sha256:1", "size_bytes": 1, "created": "2026", "labels": {}, "tags": ()}
    assert rows["vaultcube/pytorch:cu128"]["local"] is None
    assert rows["vaultcube/recorder:any"]["local"] is None


# --- the base --------------------------------------------------------------------------------------------------


def test_the_base_that_is_asked_for_wins(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULTCUBE_BASE_IMAGE", "second")
    monkeypatch.setenv("BASE_IMAGE", "third")
    assert choose_base(Docker(), "first") == "first"
    assert choose_base(Docker(), None) == "second"
    monkeypatch.delenv("VAULTCUBE_BASE_IMAGE")
    assert choose_base(Docker(), None) == "third"
    assert recording.calls == []


@pytest.mark.parametrize(
    ("default", "local", "chosen"),
    [(True, True, DEFAULT_BASE), (True, False, DEFAULT_BASE), (False, True, LOCAL_BASE), (False, False, DEFAULT_BASE)],
)
def test_a_base_made_here_stands_in_for_one_that_is_not(
    recording: Recording,
    default: bool,  # noqa: FBT001 - a table
    local: bool,  # noqa: FBT001 - a table
    chosen: str,
) -> None:
    for name, is_here in ((DEFAULT_BASE, default), (LOCAL_BASE, local)):
        (here if is_here else absent)(recording, name)
    assert choose_base(Docker(), None) == chosen


# --- what the bake file reads ----------------------------------------------------------------------------------


def test_a_build_is_told_its_base_and_who_builds() -> None:
    found = build_environment(BuildOptions(), "the-base", {})
    assert found["BASE_IMAGE"] == "the-base"
    assert found["VAULTCUBE_VERSION"]
    assert "CA_BUNDLE" not in found
    assert "WHEELHOUSE" not in found


def test_proxies_pass_and_empty_ones_do_not() -> None:
    ours = {"HTTPS_PROXY": "http://proxy.example.invalid:3128", "https_proxy": "", "HOME": "/root"}
    found = build_environment(BuildOptions(), "b", ours)
    assert found["HTTPS_PROXY"] == "http://proxy.example.invalid:3128"
    assert "https_proxy" not in found
    assert "HOME" not in found


def test_a_private_ca_comes_from_the_command_line_first(tmp_path: Path) -> None:
    named, ours = tmp_path / "named.pem", tmp_path / "ours.pem"
    named.write_text("")
    ours.write_text("")
    found = build_environment(BuildOptions(ca_bundle=named), "b", {"PIP_CERT": str(ours)})
    assert found["CA_BUNDLE"] == str(named)
    for variable in CA_VARIABLES:
        assert build_environment(BuildOptions(), "b", {variable: str(ours)})["CA_BUNDLE"] == str(ours)
    # A variable may be left over from elsewhere; what is typed may not be wrong.
    assert "CA_BUNDLE" not in build_environment(BuildOptions(), "b", {"PIP_CERT": str(tmp_path / "nonsuch")})
    with pytest.raises(UsageError, match="no CA bundle"):
        build_environment(BuildOptions(ca_bundle=tmp_path), "b", {})


def test_wheels_come_from_a_folder(tmp_path: Path) -> None:
    assert build_environment(BuildOptions(wheelhouse=tmp_path), "b", {})["WHEELHOUSE"] == str(tmp_path)
    with pytest.raises(UsageError, match="no folder of wheels"):
        build_environment(BuildOptions(wheelhouse=tmp_path / "nonsuch"), "b", {})


def test_wheels_come_from_the_folder_that_pip_is_told_of(tmp_path: Path) -> None:
    ours = {WHEELHOUSE_VARIABLE: f"https://wheels.example.invalid/ {tmp_path / 'nonsuch'} {tmp_path}"}
    assert build_environment(BuildOptions(), "b", ours)["WHEELHOUSE"] == str(tmp_path)
    named = tmp_path / "named"
    named.mkdir()
    assert build_environment(BuildOptions(wheelhouse=named), "b", ours)["WHEELHOUSE"] == str(named)
    assert "WHEELHOUSE" not in build_environment(BuildOptions(), "b", {WHEELHOUSE_VARIABLE: str(tmp_path / "nonsuch")})


def test_a_full_disk_is_refused_and_an_unseen_one_is_not(recording: Recording, tmp_path: Path) -> None:
    recording.says_json("info", {"DockerRootDir": str(tmp_path)})
    check_space(Docker(), 1)
    with pytest.raises(DiskTooSmallError, match="GB are free"):
        check_space(Docker(), 2**62)


def test_a_remote_engines_disk_cannot_be_seen(recording: Recording) -> None:
    recording.says_json("info", {"DockerRootDir": "/nonsuch/docker"})
    check_space(Docker(), 2**62)


# --- building, replayed ----------------------------------------------------------------------------------------


def ready(recording: Recording) -> None:
    recording.says("buildx version", "github.com/docker/buildx 0.13.1\n")
    here(recording, DEFAULT_BASE)


def bake(case: str) -> str:
    return (DATA / "buildlogs" / f"{case}.txt").read_text()


def attempt(
    flavour: str = "cu124", options: BuildOptions | None = None, image: str = "pytorch"
) -> tuple[str, list[str]]:
    written: list[str] = []

    def watch(log: BuildLog, lines: list[str]) -> None:
        assert log.done <= log.total
        written.extend(lines)

    with Stop() as stop:
        return build(Docker(stop), stop, image, flavour, options or BuildOptions(), watch), written


def test_a_build_follows_bake_to_its_end(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says("buildx bake", stderr=bake("good"))
    name, written = attempt()
    assert name == NAME
    assert sorted(written) == ["four", "one", "two"]
    (asked,) = [call for call in recording.calls if call.startswith("buildx bake")]
    assert asked.endswith("images/docker-bake.hcl --progress rawjson pytorch-cu124")


def test_the_cpu_uses_the_first_flavours_image(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says("buildx bake")
    assert attempt("cpu")[0] == NAME


def test_the_cpu_uses_its_own_image_where_there_is_one(recording: Recording) -> None:
    ready(recording)
    here(recording, "vaultcube/vllm:cpu")
    recording.says("buildx bake")
    assert attempt("cpu", image="vllm")[0] == "vaultcube/vllm:cpu"
    assert recording.calls[-2].endswith(" vllm-cpu")


def test_a_first_build_looks_at_the_disk(recording: Recording) -> None:
    ready(recording)
    absent(recording, NAME)
    recording.says_json("info", {"DockerRootDir": "/proc"})
    with pytest.raises(DiskTooSmallError):
        attempt()


def test_a_small_image_needs_little_room(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(recording)
    recording.says_json("info", {"DockerRootDir": str(tmp_path)})
    recording.says("buildx bake")
    for name in (NAME, "vaultcube/recorder:any"):
        absent(recording, name)
    free = SMALL_SPACE_BYTES
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
    assert attempt("any", image="recorder")[0] == "vaultcube/recorder:any"
    with pytest.raises(DiskTooSmallError):
        attempt()


def test_a_step_that_fails_is_named_with_its_last_words(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says("buildx bake", stderr=bake("failing"), status=1)
    with pytest.raises(ImageBuildError) as seen:
        attempt()
    first, *rest = seen.value.message.splitlines()
    assert first.startswith(f"building {NAME} failed at: [3/4] RUN echo before")
    assert rest == ["    before", "    E: Unable to locate package nonsuch"]


def test_a_base_that_cannot_be_pulled_is_named(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says("buildx bake", stderr=bake("no-base"), status=1)
    with pytest.raises(BaseImageError, match="the base image vaultcube/nonsuch:1 is not on this machine"):
        attempt(options=BuildOptions(base_image="vaultcube/nonsuch:1"))


def test_somebody_elses_image_that_cannot_be_pulled_is_named_and_not_the_base(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    nvidias = "nvcr.io/nvidia/tensorflow:25.02-tf2-py3"
    said = (
        f"ERROR: failed to solve: {nvidias}: failed to resolve source metadata for {nvidias}: failed to do request: "
        'Head "https://nvcr.io/v2/nvidia/tensorflow/manifests/25.02-tf2-py3": dial tcp: lookup nvcr.io: no such host\n'
    )
    recording.says("buildx bake", stderr=said, status=1)
    with pytest.raises(BaseImageError, match=f"{nvidias}, which {NAME} is built FROM") as seen:
        attempt()
    assert f"docker pull {nvidias}" in seen.value.next_step


def test_an_engine_that_is_gone_is_no_build_error(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says(
        "buildx bake",
        stderr="ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
        status=1,
    )
    with pytest.raises(EngineUnreachableError):
        attempt()


def test_a_bake_file_that_is_wrong_is_shown(recording: Recording) -> None:
    ready(recording)
    here(recording, NAME)
    recording.says("buildx bake", stderr="ERROR: failed to find target pytorch-cu124\n", status=1)
    with pytest.raises(ImageBuildError, match="failed at: docker buildx bake") as seen:
        attempt()
    assert "failed to find target" in seen.value.message


def test_an_unknown_image_or_flavour_asks_docker_nothing(recording: Recording) -> None:
    with pytest.raises(UsageError, match="no flavour 'cu999'") as seen:
        attempt("cu999")
    assert seen.value.next_step == "Flavours: cu124, cu128."
    assert recording.calls == []


def test_without_buildx_nothing_is_built(recording: Recording) -> None:
    recording.says("buildx version", stderr="docker: 'buildx' is not a docker command.\n", status=1)
    with pytest.raises(BuildxMissingError):
        attempt()


def test_a_watcher_that_fails_leaves_no_build_behind(recording: Recording, tmp_path: Path) -> None:
    ready(recording)
    here(recording, NAME)
    ended = tmp_path / "ended"
    recording.says("buildx bake", does=f"trap 'touch {ended}; exit' TERM; echo line; sleep 600 & wait")

    def watch(_log: BuildLog, _lines: list[str]) -> None:
        raise InterruptedRunError("enough")

    with Stop() as stop, pytest.raises(InterruptedRunError):
        build(Docker(stop), stop, "pytorch", "cu124", BuildOptions(), watch)
    assert ended.exists()
