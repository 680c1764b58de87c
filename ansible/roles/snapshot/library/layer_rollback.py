"""Ansible module: takes a layer's changes back, in the steps that rollback.yml calls one after the other."""

from __future__ import annotations

import os
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.layer_plan import blocked_by, plan_packages, plan_switches
from ansible.module_utils.layer_record import (
    add_up,
    difference,
    keep,
    kernel_settings,
    look,
    plan_files,
    read_json,
    restore,
    settings_named,
    write_json,
)

DOCUMENTATION = r"""
---
module: layer_rollback
short_description: Take back what a layer changed
description:
  - C(planned) says what would be done and changes nothing. It fails when there is no record, when a higher layer is
    still there, and when removing the layer's packages would remove others that somebody installed since.
  - C(files) writes the recorded files and removes those that the layer made, after keeping the present ones.
  - C(undone) puts the files back as they were before C(files).
  - C(settings) sets the kernel's settings that the layer's drop-ins named to what they were.
  - C(finished) does C(files) for those that were left out, and puts the record aside.
options:
  directory: {description: "Where records are kept.", type: path, required: true}
  layer: {description: "Name of the layer.", type: str, required: true}
  state: {description: "Step.", type: str, choices: [planned, files, undone, settings, finished], required: true}
  last: {description: "Globs of files that only C(finished) touches.", type: list, elements: str}
  spare: {description: "Packages that stay, with the reason.", type: dict}
  keys: {description: "Settings to set back, as C(planned) returned them.", type: dict}
  force: {description: "Remove packages of others too.", type: bool}
author: Vault Cube
"""


class Rollback:
    """One layer's rollback."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.base = Path(module.params["directory"])
        self.layer: str = module.params["layer"]
        self.home = self.base / self.layer
        self.last: list[str] = module.params["last"]
        record = read_json(self.home / "record.json")
        if record is None:
            module.fail_json(
                msg=f"there is no record of {self.layer} in {self.home}: it was not provisioned by site.yml, or it is "
                "rolled back already. Nothing was changed. Next: see which layers have one: "
                f"ls {self.base}"
            )
        self.record: dict[str, Any] = record or {}
        self.now = look(self.run, self.record["patterns"])
        # One that died on its way is counted too.
        total: Any = read_json(self.home / "changes.json") or {}
        started: Any = read_json(self.home / "running.json")
        self.changes: Any = add_up(total, difference(started, self.now)) if started else total

    def run(self, argv: list[str]) -> str:
        """Run a command and return its stdout; its failure is the module's."""
        text: str = self.module.run_command(argv, check_rc=True)[1]
        return text

    def planned(self) -> dict[str, Any]:
        """Return what would be done; refuse what must not be."""
        above = blocked_by(self.layer, [path.parent.name for path in self.base.glob("layer[0-9]/record.json")])
        if above:
            self.module.fail_json(
                msg=f"{' and '.join(above)} stand on {self.layer} and are still there. Nothing was changed. "
                f"Next: roll them back too: --tags {','.join([*above, self.layer])}"
            )
        now, changes = self.now, self.changes
        spare = {**self.running_kernel(now["packages"]), **self.module.params["spare"]}
        touched = [name for name, (before, _) in changes.get("packages", {}).items() if before is not None]
        packages = plan_packages(changes, now, spare, self.offered(touched), self.basic())
        others = self.others(packages["purge"])
        if others and not self.module.params["force"]:
            self.module.fail_json(
                msg=f"removing {self.layer} would also remove what was installed since: {' '.join(others)}. Nothing was "
                "changed. Next: remove those yourself, or -e snapshot_force=true to remove them too"
            )
        units = plan_switches(changes, now, "units")
        holds = plan_switches(changes, now, "holds")
        marks = plan_switches(changes, now, "marks", packages["purge"])
        switched = plan_switches(changes, now, "accounts")
        write, remove = self.plan_files()
        return {
            **packages,
            "also_removed": others,
            "write": write,
            "remove": remove,
            "withdraw": [name for name in units.get("", []) if self.stoppable(name, spare)],
            "enable": units.get("enabled", []),
            "disable": units.get("disabled", []),
            "mask": units.get("masked", []),
            "hold": holds.get("hold", []),
            "unhold": holds.get("", []),
            "auto": marks.get("auto", []),
            "manual": marks.get("manual", []),
            "keys": self.settings(write, remove),
            "unlock": [name.removeprefix("user ") for name in switched.get("open", [])],
            "accounts": [name for name, (before, _) in changes.get("accounts", {}).items() if before is None],
        }

    def stoppable(self, unit: str, spare: dict[str, str]) -> bool:
        """Return whether the layer's unit is stopped now: a template is none, and the way in stays."""
        return "@." not in unit and not (unit.partition(".")[0] in {"ssh", "sshd"} and "openssh-server" in spare)

    def plan_files(self, spare: list[str] | None = None) -> tuple[list[str], list[str]]:
        """Return (to write again, to remove)."""
        return plan_files(self.changes.get("files", {}), self.record["files"], self.record["patterns"], spare or [])

    def running_kernel(self, packages: dict[str, str]) -> dict[str, str]:
        """Return the packages that the running kernel lives in: a machine without them does not boot."""
        release = os.uname().release
        return dict.fromkeys(
            (name for name in packages if name.partition(":")[0].endswith(f"-{release}")), "the running kernel"
        )

    def offered(self, names: list[str]) -> dict[str, set[str]]:
        """Return the versions that apt can get now."""
        if not names:
            return {}
        found: dict[str, set[str]] = {name: set() for name in names}
        for line in self.run(["apt-cache", "madison", *names]).splitlines():
            name, version, *_ = (part.strip() for part in line.split("|"))
            for asked in names:
                if asked.partition(":")[0] == name:
                    found[asked].add(version)
        return found

    def basic(self) -> list[str]:
        """Return the packages that a system stands on."""
        text = self.run(["dpkg-query", "-W", "-f", "${Package}\t${Essential}\t${Protected}\t${Priority}\n"])
        lines = (line.split("\t") for line in text.splitlines())
        return [
            name
            for name, essential, protected, priority in lines
            if "yes" in {essential, protected} or priority == "required"
        ]

    def others(self, purge: list[str]) -> list[str]:
        """Return what apt would remove besides."""
        if not purge:
            return []
        text = self.run(["apt-get", "-s", "-q", "--allow-change-held-packages", "purge", *purge])
        removed = re.findall(r"^(?:Remv|Purg) (\S+)", text, re.MULTILINE)
        asked = {name.partition(":")[0] for name in purge}
        return sorted({name for name in removed if name.partition(":")[0] not in asked})

    def settings(self, write: list[str], remove: list[str]) -> dict[str, str]:
        """Return the kernel's settings to set back: those that our drop-ins name and that are not as they were."""
        texts = [Path(path) for path in [*write, *remove] if "sysctl" in path and Path(path).is_file()]
        named = {key for path in texts for key in settings_named(path.read_text(encoding="utf-8", errors="replace"))}
        now, then = kernel_settings(), self.record["sysctl"]
        return {key: then[key] for key in sorted(named) if key in then and key in now and now[key] != then[key]}

    def files(self) -> dict[str, Any]:
        """Put the files back, those of `last` excepted."""
        write, remove = self.plan_files(self.last)
        self.keep_present([*write, *remove])
        stuck = restore(self.home / "files.tar", write, remove)
        return {"changed": bool(write or remove), "write": write, "remove": remove, "stuck": stuck}

    def keep_present(self, paths: list[str]) -> None:
        """Keep the files as they are now: for `undone`, and for whoever misses one of them later."""
        earlier: Any = read_json(self.home / "present.json") or {"files": {}, "touched": []}
        fresh = [path for path in paths if path not in earlier["touched"]]
        earlier["files"].update(keep(self.home / "present.tar", fresh))
        write_json(self.home / "present.json", {"files": earlier["files"], "touched": [*earlier["touched"], *fresh]})

    def undone(self) -> dict[str, Any]:
        """Put the files back as they were before `files`."""
        present: Any = read_json(self.home / "present.json")
        if present is None:
            return {"changed": False}
        write = sorted(present["files"])
        remove = sorted(set(present["touched"]) - set(write), reverse=True)
        restore(self.home / "present.tar", write, remove)
        (self.home / "present.json").unlink()
        (self.home / "present.tar").unlink()
        return {"changed": bool(write or remove), "write": write, "remove": remove}

    def set_back(self) -> dict[str, Any]:
        """Set the kernel's settings; return those that it refused."""
        keys: dict[str, str] = self.module.params["keys"]
        refused = {}
        for key, value in keys.items():
            path = Path("/proc/sys", key.translate(str.maketrans("./", "/.")))
            try:
                path.write_text(value, encoding="ascii")
            except OSError as error:
                # A lock such as kernel.yama's highest level only opens with a restart.
                refused[key] = str(error)
        return {"changed": bool(keys), "refused": refused}

    def finished(self) -> dict[str, Any]:
        """Put every file back, and the record aside."""
        write, remove = self.plan_files()
        # Directories that only held what has been removed meanwhile.
        self.keep_present([*write, *remove])
        stuck = restore(self.home / "files.tar", write, remove)
        aside = self.base / "done" / f"{self.layer}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        self.home.rename(aside)
        return {"changed": True, "write": write, "remove": remove, "stuck": stuck, "record": str(aside)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "layer": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["planned", "files", "undone", "settings", "finished"],
                "required": True,
            },
            "last": {"type": "list", "elements": "str", "default": []},
            "spare": {"type": "dict", "default": {}},
            "keys": {"type": "dict", "default": {}, "no_log": False},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # systemctl gives up after 25 s, and an emulated machine that builds an image may take longer to list its units.
    module.run_command_environ_update = {"LC_ALL": "C", "LANG": "C", "SYSTEMD_BUS_TIMEOUT": "300"}
    try:
        rollback = Rollback(module)
        if module.params["state"] == "planned":
            module.exit_json(changed=False, **rollback.planned())
        if module.check_mode:
            module.exit_json(changed=True)
        steps = {
            "files": rollback.files,
            "undone": rollback.undone,
            "settings": rollback.set_back,
            "finished": rollback.finished,
        }
        module.exit_json(**steps[module.params["state"]]())
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        module.fail_json(msg=f"{module.params['layer']} cannot be rolled back: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
