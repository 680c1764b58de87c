"""scripts/role_readmes.py: what a role's README says, and that those in the tree are current."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import role_readmes

ROOT = Path(__file__).resolve().parents[3]


def role(folder: Path, specs: str, defaults: str = "", tasks: str = "[]", versions: str = "{}") -> Path:
    """Make ansible/roles/door with a playbook that calls it."""
    home = folder / "ansible" / "roles" / "door"
    for name in ("meta", "defaults", "tasks"):
        (home / name).mkdir(parents=True)
    (home / "meta/argument_specs.yml").write_text(specs)
    (home / "defaults/main.yml").write_text(defaults)
    (home / "tasks/main.yml").write_text(tasks)
    (folder / "ansible/playbooks").mkdir()
    play = "- hosts: all\n  roles:\n    - {role: door, tags: [layer1, door]}\n"
    (folder / "ansible/playbooks/site.yml").write_text(play)
    (folder / "ansible/versions.yml").write_text(f"vaultcube_versions: {versions}\n")
    return home


SPECS = """
argument_specs:
  main:
    short_description: Locks the door
    description:
      - The documents leave it open. This
        closes it C(at once) (V(now())).
      - A second paragraph.
    options:
      door_key: {type: str, required: true, description: Who may come in.}
      door_lock: {type: str, choices: [one, two], default: one, description: a | b.}
      door_year: {type: str, description: Which make.}
  check:
    options:
      door_key: {type: str, description: As in main.}
"""
DEFAULTS = 'door_lock: one\ndoor_year: "{{ vaultcube_versions.door }}"\n'


def test_every_readme_in_the_tree_is_current() -> None:
    assert role_readmes.main(["--check"]) == 0, "run: make role-docs"


def test_a_readme_tells_description_tags_variables_and_files(tmp_path: Path) -> None:
    tasks = """
- name: Write the settings
  ansible.builtin.template: {src: a.j2, dest: /etc/door/settings}
- name: Make two
  ansible.builtin.copy: {content: "", dest: "/etc/door/{{ item }}"}
  loop: [left, right]
- block:
    - name: In a block
      ansible.builtin.copy: {content: "", dest: "{{ door_home }}/x"}
- name: Not written
  ansible.builtin.file: {path: /etc/old, state: absent}
- name: A folder
  ansible.builtin.file: {path: /etc/door, state: directory}
"""
    home = role(tmp_path, SPECS, DEFAULTS, tasks, '{door: "1998"}')
    text = role_readmes.readme(home, tmp_path / "ansible")
    assert (
        "Locks the door.\n\nThe documents leave it open. This closes it `at once` (`now()`).\n\nA second paragraph.\n"
        in text
    )
    assert "`playbooks/site.yml`, tags `layer1`, `door`." in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `door_key` | str | **required** | Who may come in. |",
        "| `door_lock` | str | `one` | a \\| b. One of `one`, `two`. |",
        "| `door_year` | str | `1998` | Which make. |",
        "| `/etc/door/left` | Make two |",
        "| `/etc/door/right` | Make two |",
        "| `/etc/door/settings` | Write the settings |",
        "| `<door_home>/x` | In a block |",
    ]


@pytest.mark.parametrize(
    ("specs", "defaults", "told"),
    [
        ("{}", "", "no main with short_description"),
        (SPECS.replace("description: Which make.", "default: x"), DEFAULTS, "no description of door_year"),
        (SPECS, DEFAULTS + "door_secret: 1\n", "defaults that no argument spec names: door_secret"),
    ],
    ids=["no specs", "an option without a description", "a default without an option"],
)
def test_a_role_that_does_not_describe_itself_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], specs: str, defaults: str, told: str
) -> None:
    home = role(tmp_path, specs, defaults)
    assert role_readmes.main(["--ansible", str(tmp_path / "ansible")]) == 2
    assert told in capsys.readouterr().err
    assert not (home / "README.md").exists()


def test_check_writes_nothing_and_says_which_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = role(tmp_path, SPECS, DEFAULTS)
    arguments = ["--ansible", str(tmp_path / "ansible")]
    assert role_readmes.main([*arguments, "--check"]) == 1
    assert capsys.readouterr().err == "not current: door\n"
    assert not (home / "README.md").exists()
    assert role_readmes.main(arguments) == 0
    assert role_readmes.main([*arguments, "--check"]) == 0
