"""Writes README.md of every Ansible role from what the role says of itself: argument specs, defaults, tasks, site.yml.

    role_readmes.py            write them
    role_readmes.py --check    exit 1 and name those that are not current

Nothing in a README is written by hand: prose stands in the `description` of meta/argument_specs.yml.
Exit: 0; 1 not current (--check); 2 a role does not describe itself, and which one.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120
# The parameter that says where a module writes.
WRITERS = {
    "assemble": "dest",
    "blockinfile": "path",
    "copy": "dest",
    "file": "path",
    "get_url": "dest",
    "ini_file": "path",
    "lineinfile": "path",
    "template": "dest",
    "unarchive": "dest",
}
NOTICE = "<!-- Written by `make role-docs` from meta/argument_specs.yml, defaults and tasks. Do not edit. -->"


class UndescribedError(Exception):
    """A role does not describe itself."""


def read(path: Path) -> Any:
    """Return what a YAML file holds, None where there is no file."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def paragraphs(text: str | list[str] | None) -> list[str]:
    """Return a description's paragraphs, each on one line."""
    texts = [text] if isinstance(text, str) else text or []
    # C(...) and V(...) are Ansible's marks for code.
    return [re.sub(r"\b[CVIB]\(([^()]*(?:\([^()]*\)[^()]*)*)\)", r"`\1`", " ".join(str(one).split())) for one in texts]


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def shown(value: Any, versions: dict[str, Any] | None = None) -> str:
    """Return a default as it stands in YAML, short enough for a table; a pinned version by its value."""
    if isinstance(value, str):
        line = " ".join(value.split())
        pinned = re.fullmatch(r"\{\{ *vaultcube_versions\.(\w+) *\}\}", line)
        if pinned and versions and pinned[1] in versions:
            return shown(versions[pinned[1]])
    else:
        line = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
        line = line.removesuffix("\n...").removesuffix("...").strip()
    if len(line) > WIDTH:
        return "see defaults/main.yml"
    return f"`{cell(line)}`" if line else '`""`'


def options_table(options: dict[str, Any], defaults: dict[str, Any], versions: dict[str, Any]) -> list[str]:
    """Return the table of a role's variables, the required ones first."""
    rows = ["| variable | type | default | what |", "|---|---|---|---|"]
    for name, option in sorted(options.items(), key=lambda item: (not item[1].get("required", False), item[0])):
        kind = str(option.get("type", "str"))
        if option.get("elements"):
            kind += f" of {option['elements']}"
        if option.get("required"):
            default = "**required**"
        elif name in defaults:
            default = shown(defaults[name], versions)
        elif "default" in option:
            default = shown(option["default"])
        else:
            default = "-"
        text = cell(" ".join(paragraphs(option.get("description"))))
        if choices := option.get("choices"):
            text += f" One of {', '.join(f'`{cell(str(choice))}`' for choice in choices)}."
        rows.append(f"| `{name}` | {kind} | {default} | {text} |")
        for inner, detail in (option.get("options") or {}).items():
            what = cell(" ".join(paragraphs(detail.get("description"))))
            must = (
                "**required**" if detail.get("required") else shown(detail["default"]) if "default" in detail else "-"
            )
            rows.append(f"| `{name}[].{inner}` | {detail.get('type', 'str')} | {must} | {what} |")
    return rows


def tasks_of(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a file, those in blocks too."""
    for task in content or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part))


def written(role: Path) -> dict[str, str]:
    """Return what the role's tasks and handlers write, {path: the task's name}."""
    found: dict[str, str] = {}
    for path in sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]):
        for task in tasks_of(read(path)):
            for module, parameter in WRITERS.items():
                arguments = task.get(f"ansible.builtin.{module}") or task.get(f"community.general.{module}")
                # A task that removes writes nothing, and a folder says nothing that its files do not.
                if (
                    isinstance(arguments, dict)
                    and parameter in arguments
                    and arguments.get("state") not in {"absent", "directory"}
                ):
                    for place in places(str(arguments[parameter]), task.get("loop")):
                        found.setdefault(place, str(task.get("name", "")))
    return found


def places(text: str, loop: Any) -> list[str]:
    """Return the paths that a task writes, one for every item of a loop that is written out."""
    if re.fullmatch(r".*\{\{ *item *\}\}.*", text) and isinstance(loop, list):
        return [re.sub(r"\{\{ *item *\}\}", str(item), text) for item in loop]
    named = re.search(r"\{\{ *item\.(\w+) *\}\}", text)
    if named and isinstance(loop, list) and all(isinstance(item, dict) and named[1] in item for item in loop):
        return [text.replace(named[0], str(item[named[1]])) for item in loop]
    return [re.sub(r"\{\{ *([\w.]+).*?\}\}", r"<\1>", text)]


def plays_of(role: str, playbooks: Path) -> list[tuple[str, list[str]]]:
    """Return the playbooks that name the role, each with the tags that reach it there."""
    found = []
    for path in sorted(playbooks.glob("*.yml")):
        tags: list[str] = []
        for play in read(path) or []:
            for entry in play.get("roles") or []:
                name = entry if isinstance(entry, str) else entry.get("role") or entry.get("name")
                if name == role:
                    given = [] if isinstance(entry, str) else entry.get("tags") or []
                    everywhere = play.get("tags") or []
                    tags += [tag for tag in [*everywhere, *given] if tag not in tags] or [""]
        if tags:
            found.append((path.name, [tag for tag in tags if tag]))
    return found


def readme(role: Path, ansible: Path) -> str:
    """Return the README of a role of the folder `ansible`.

    Raises:
        UndescribedError: it has no argument specs, no short description or no description, or an option has none.
    """
    specs = (read(role / "meta" / "argument_specs.yml") or {}).get("argument_specs") or {}
    main = specs.get("main") or {}
    if not main.get("short_description") or not main.get("description"):
        raise UndescribedError(
            f"{role.name}: meta/argument_specs.yml has no main with short_description and description"
        )
    defaults = read(role / "defaults" / "main.yml") or {}
    lines = [f"# {role.name}", "", NOTICE, "", main["short_description"].rstrip(".") + ".", ""]
    for paragraph in paragraphs(main["description"]):
        lines += [*textwrap.wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    for playbook, tags in plays_of(role.name, ansible / "playbooks"):
        called = f", tags {', '.join(f'`{tag}`' for tag in tags)}" if tags else ""
        lines += [*textwrap.wrap(f"Called by `playbooks/{playbook}`{called}.", WIDTH, break_long_words=False), ""]
    # What main says of a variable stands before what a further entry point says of it.
    options: dict[str, Any] = {}
    for entry in [main, *specs.values()]:
        options = {**(entry.get("options") or {}), **options}
    bare = sorted(name for name, option in options.items() if not option.get("description"))
    if bare:
        raise UndescribedError(f"{role.name}: no description of {', '.join(bare)}")
    unspecified = sorted(set(defaults) - set(options))
    if unspecified:
        raise UndescribedError(f"{role.name}: defaults that no argument spec names: {', '.join(unspecified)}")
    versions = (read(ansible / "versions.yml") or {}).get("vaultcube_versions") or {}
    lines += ["## Variables", ""]
    lines += [*options_table(options, defaults, versions), ""] if options else ["None.", ""]
    files = written(role)
    if files:
        lines += ["## What it writes", "", "| where | what for |", "|---|---|"]
        lines += [f"| `{cell(path)}` | {cell(name)} |" for path, name in sorted(files.items())] + [""]
    return "\n".join(lines).rstrip("\n") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write or check the READMEs; return the exit code."""
    parser = argparse.ArgumentParser(description="Write README.md of every Ansible role.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when one is not current")
    parser.add_argument("--ansible", type=Path, default=ROOT / "ansible", help="the folder with roles/ and playbooks/")
    args = parser.parse_args(argv)
    stale, undescribed = [], []
    for role in sorted(path for path in (args.ansible / "roles").iterdir() if (path / "tasks").is_dir()):
        try:
            text = readme(role, args.ansible)
        except UndescribedError as error:
            undescribed.append(str(error))
            continue
        target = role / "README.md"
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            stale.append(role.name)
            if not args.check:
                target.write_text(text, encoding="utf-8")
    for line in undescribed:
        sys.stderr.write(f"error: {line}\n")
    if stale:
        sys.stderr.write(f"{'not current' if args.check else 'written'}: {' '.join(stale)}\n")
    if undescribed:
        sys.stderr.write("  next: describe it in meta/argument_specs.yml, then: make role-docs\n")
        return 2
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
