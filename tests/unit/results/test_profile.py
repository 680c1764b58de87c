from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultcube.errors import ProfileError
from vaultcube.results.profile import Hardware, Profile, load_profile, parse_profile, to_toml
from vaultcube.stack.assets import PROFILES

BUILT_IN = sorted(file.stem for file in PROFILES.glob("*.toml"))


def test_the_default_is_the_customers_box() -> None:
    found = load_profile("vault-cube-5090", PROFILES)
    assert found.hardware is not None
    assert (found.hardware.gpu_count, found.hardware.gpu_name) == (4, "NVIDIA GeForce RTX 5090")
    assert found.targets["ddp"] == {
        "scaling_efficiency": 0.8,
        "throughput_samples_per_s": 100,
        "gpu_utilisation": 0.9,
    }


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_profile_is_named_as_its_file(name: str) -> None:
    assert load_profile(name, PROFILES).name == name


def test_a_copy_can_be_edited_and_named_by_its_path(tmp_path: Path) -> None:
    text = (PROFILES / "vault-cube-5090.toml").read_text()
    mine = tmp_path / "my box.toml"
    mine.write_text(text.replace("gpu_count = 4", "gpu_count = 2").replace('name = "vault-cube-5090"', 'name = "mine"'))
    found = load_profile(str(mine), PROFILES)
    assert found.hardware is not None
    assert (found.name, found.hardware.gpu_count) == ("mine", 2)


def test_a_profile_needs_no_more_than_a_name() -> None:
    found = parse_profile('name = "bare"', "bare.toml")
    assert (found.hardware, found.targets) == (None, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name: Field required"),
        ("name = ", "not valid TOML"),
        ('name = "x"\ncolour = "blue"', "colour"),
        ('name = "x"\n[hardware]\ngpu_name = "y"', "hardware.gpu_count"),
        ('name = "x"\n[targets]\nddp = 3', "targets.ddp"),
        ('name = "x"\n[targets.ddp]\nscaling_efficiency = "most"', "targets.ddp.scaling_efficiency"),
        # A figure that JSON cannot say would make plan.json unreadable.
        ('name = "x"\n[targets.ddp]\nscaling_efficiency = nan', "targets.ddp.scaling_efficiency"),
        ('name = "x"\n[targets.later]\nany = inf', "targets.later.any"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(text: str, said: str) -> None:
    with pytest.raises(ProfileError) as seen:
        parse_profile(text, "box.toml")
    assert seen.value.message.startswith("box.toml")
    assert said in seen.value.message
    assert seen.value.exit_code == 2


def test_a_profile_that_is_not_there_tells_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("nonsuch", str(tmp_path), str(tmp_path / "binary.toml"), "", "vault-cube-5090.toml"):
        with pytest.raises(ProfileError) as seen:
            load_profile(name, PROFILES)
        assert "vault-cube-5090" in seen.value.next_step


@given(st.text(max_size=60))
def test_any_text_is_a_profile_or_an_error(text: str) -> None:
    try:
        parse_profile(text, "x.toml")
    except ProfileError as error:
        told = error.message
        assert told.startswith("x.toml")


names = st.text(st.characters(codec="utf-8"), max_size=20)
profiles = st.builds(
    Profile,
    name=names,
    description=names,
    hardware=st.none()
    | st.builds(
        Hardware,
        gpu_name=names,
        gpu_count=st.integers(1, 64),
        gpu_memory_total_bytes=st.integers(1, 2**50),
        compute_capability=names,
    ),
    targets=st.dictionaries(
        names, st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=3), max_size=3
    ),
)


@given(profiles)
def test_a_profile_that_is_written_is_read_as_the_same(profile: Profile) -> None:
    assert parse_profile(to_toml(profile), "it") == profile
