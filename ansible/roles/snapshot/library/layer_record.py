"""Ansible module: records what a layer finds before its first run, and what each of its runs changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.layer_record import (
    add_up,
    difference,
    keep,
    kernel_settings,
    look,
    matches,
    read_json,
    write_json,
)

if TYPE_CHECKING:
    from ansible.module_utils.layer_record import Run, State

DOCUMENTATION = r"""
---
module: layer_record
short_description: Record what a layer finds and what it changes
description:
  - With C(state=begun) it keeps, once, the packages, units, accounts and files that a layer finds.
    What is in a record is never written over; patterns that a newer version of the roles adds are added.
  - With C(state=ended) it adds what changed since the beginning of the run to the changes of the layer.
  - With C(state=settled) it ends the runs of all other layers that died, so that nothing which this layer does from
    here on counts as theirs. C(begun) does that too.
options:
  directory: {description: "Where records are kept.", type: path, required: true}
  layer: {description: "Name of the layer.", type: str, required: true}
  state: {description: "Beginning or end of a run.", type: str, choices: [begun, ended, settled], required: true}
  patterns: {description: "Globs of what the layer writes; a directory stands for all below it.", type: list, elements: str}
author: Vault Cube
"""


def begin(home: Path, patterns: list[str], state: State, *, check: bool) -> list[str]:
    """Record what is not recorded yet; return what was added, in words."""
    record: dict[str, Any] | None = read_json(home / "record.json")
    fresh = [pattern for pattern in patterns if pattern not in (record or {}).get("patterns", [])]
    if check:
        return [f"would record {pattern}" for pattern in fresh]
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if record is None:
        # An archive without its record is of a run that died in here: before the layer had written anything.
        (home / "files.tar").unlink(missing_ok=True)
        record = {"format": 1, "patterns": [], "files": {}, "state": state, "sysctl": kernel_settings()}
    if fresh:
        known = record["files"]
        known.update(keep(home / "files.tar", [path for path in matches(fresh) if path not in known]))
        record["patterns"] = sorted({*record["patterns"], *fresh})
        write_json(home / "record.json", record)
    # A run that died left its beginning here: what it changed counts as ours, so its beginning stays.
    if not (home / "running.json").exists():
        write_json(home / "running.json", state)
    return [f"recorded {pattern}" for pattern in fresh]


def end(home: Path, run: Run) -> list[str]:
    """Add up what the run changed; return what is new, in words."""
    started: Any = read_json(home / "running.json")
    record: Any = read_json(home / "record.json")
    if started is None or record is None:
        return []
    state = look(run, record["patterns"])
    earlier: Any = read_json(home / "changes.json") or {}
    total = add_up(earlier, difference(started, state))
    if total != earlier:
        write_json(home / "changes.json", total)
    (home / "running.json").unlink()
    return [f"{kind}: {len(names)}" for kind, names in total.items()] if total != earlier else []


def settle(home: Path, run: Run) -> list[str]:
    """End the runs of the other layers that died; return what is new, in words."""
    others = (path.parent for path in sorted(home.parent.glob("layer[0-9]/running.json")) if path.parent != home)
    return [f"{other.name}: {word}" for other in others for word in end(other, run)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "layer": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["begun", "ended", "settled"], "required": True},
            "patterns": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    # systemctl gives up after 25 s, and an emulated machine that builds an image may take longer to list its units.
    module.run_command_environ_update = {"LC_ALL": "C", "LANG": "C", "SYSTEMD_BUS_TIMEOUT": "300"}
    home = Path(module.params["directory"], module.params["layer"])

    def run(argv: list[str]) -> str:
        text: str = module.run_command(argv, check_rc=True)[1]
        return text

    patterns: list[str] = module.params["patterns"]
    try:
        state, told = module.params["state"], []
        if not module.check_mode:
            told += end(home, run) if state == "ended" else settle(home, run)
        if state == "begun":
            told += begin(home, patterns, look(run, patterns), check=module.check_mode)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"the record in {home} cannot be kept: {error}")
    module.exit_json(changed=bool(told), told=told)


if __name__ == "__main__":
    main()
