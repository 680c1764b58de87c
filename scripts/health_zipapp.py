"""Builds `vaultcube-health`: the health checks as one executable file for the Python of a host.

Usage: health_zipapp.py TARGET. Exit codes: 0; 2 no target was named. The same sources give the same bytes: entries are
sorted, have one date and one mode, and are stored as they are. Only what the program imports is in it, found by
following its imports. Needs nothing but Python, so that Ansible runs it as well.
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "orchestrator"
ENTRY = "vaultcube.cli.standalone"
# Debian's and Ubuntu's own; what else stands first in a PATH is none of the host's.
SHEBANG = b"#!/usr/bin/python3 -I\n"
MAIN = f"import sys\n\nfrom {ENTRY} import main\n\nsys.exit(main())\n"
# The oldest date that a zip archive can hold.
DATE = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644 << 16


def module_file(name: str) -> Path | None:
    """Return where a module or package of ours is, or None when it is none."""
    base = SOURCES.joinpath(*name.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def imports(name: str, file: Path) -> set[str]:
    """Return the modules that a module imports when it runs, those of `if TYPE_CHECKING:` left out."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"), name)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return found


def needed() -> list[str]:
    """Return every module of ours that the program imports, with the packages they are in."""
    waiting, found = [ENTRY], set[str]()
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            one = ".".join(parts[:end])
            file = module_file(one)
            if file is not None and one not in found:
                found.add(one)
                waiting += [other for other in imports(one, file) if other.partition(".")[0] == "vaultcube"]
    return sorted(found)


def build() -> bytes:
    """Return the program."""
    contents = {"__main__.py": MAIN.encode()}
    for name in needed():
        file = module_file(name)
        if file is not None:
            contents[file.relative_to(SOURCES).as_posix()] = file.read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr, entry.create_system = MODE, 3
            archive.writestr(entry, data)
    return SHEBANG + out.getvalue()


def main(words: list[str]) -> int:
    """Write the program where it is asked for; a file with these bytes stays untouched."""
    if len(words) != 1:
        sys.stderr.write("error: where should it go?\n  next: health_zipapp.py build/vaultcube-health\n")
        return 2
    target, data = Path(words[0]), build()
    if not target.is_file() or target.read_bytes() != data:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
