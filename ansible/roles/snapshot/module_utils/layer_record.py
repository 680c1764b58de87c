"""What a layer found and what it changed: kept before the layer writes, read by the rollback.

A layer's directory holds
    record.json   {"patterns": [...], "files": {path: finger}, "state": STATE, "sysctl": {key: value}}: before its first run
    files.tar     the files of that moment that match the patterns, with owners, modes and times
    running.json  STATE at the start of a run that has not ended
    changes.json  {kind: {name: [before, after]}}: what its runs changed, added up; null where it was not there
STATE is {"packages": {name: version}, "residue": {name: version}, "marks": {name: "auto"|"manual"},
"holds": {name: "hold"}, "units": {name: "enabled"|"disabled"|"masked"}, "accounts": {"user NAME": "open"|"locked", "group NAME": "group"},
"files": {path: finger}}.

Standard library only: it runs on the target. Commands are run by the caller's `run`, so that tests need no machine.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Run = Callable[[list[str]], str]
State = dict[str, dict[str, str]]
Changes = dict[str, dict[str, list[str | None]]]

KINDS = ("packages", "residue", "marks", "holds", "units", "accounts", "files")
SWITCHED = ("enabled", "disabled", "masked")


def read_json(path: Path) -> dict[str, object] | None:
    """Return what a file holds, or None where there is no such file.

    Raises:
        ValueError: it is not JSON; a record that is half written would be a wrong one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found: dict[str, object] = json.loads(text)
    return found


def write_json(path: Path, content: object) -> None:
    """Write a file that only root reads, whole or not at all."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def look(run: Run, patterns: Iterable[str], etc: Path = Path("/etc")) -> State:
    """Return the machine's packages, marks, units, accounts and the files that match, as they are now."""
    packages, residue = parse_packages(
        run(["dpkg-query", "-W", "-f", "${binary:Package}\t${Version}\t${db:Status-Abbrev}\n"])
    )
    auto = set(run(["apt-mark", "showauto"]).split())
    return {
        "packages": packages,
        "residue": residue,
        "marks": {name: "auto" if name in auto else "manual" for name in packages},
        "holds": dict.fromkeys(run(["apt-mark", "showhold"]).split(), "hold"),
        "units": parse_units(run(["systemctl", "list-unit-files", "--no-legend", "--no-pager"])),
        "accounts": accounts(etc),
        "files": fingers(matches(patterns)),
    }


def parse_packages(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return (installed, removed but with its configuration left) from `name TAB version TAB status` lines."""
    installed, residue = {}, {}
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        version, _, status = rest.partition("\t")
        state = status[1:2]
        if state == "c":
            residue[name] = version
        elif state not in {"n", ""}:
            installed[name] = version
    return installed, residue


def parse_units(text: str) -> dict[str, str]:
    """Return the units that somebody may have switched, from `systemctl list-unit-files --no-legend`."""
    words = (line.split() for line in text.splitlines())
    return {word[0]: word[1] for word in words if len(word) > 1 and word[1] in SWITCHED}


def accounts(etc: Path) -> dict[str, str]:
    """Return users as `user NAME`, each "open" or "locked" (its password was locked), and groups as `group NAME`."""
    locked = {name for name, field in _fields(etc / "shadow").items() if field.startswith("!")}
    users = {f"user {name}": "locked" if name in locked else "open" for name in _fields(etc / "passwd")}
    return {**users, **{f"group {name}": "group" for name in _fields(etc / "group")}}


def _fields(path: Path) -> dict[str, str]:
    """Return the second field of each line by its first."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return {}
    return {line.split(":")[0]: line.split(":")[1] for line in lines if ":" in line}


def difference(before: State, after: State) -> Changes:
    """Return what changed between two states."""
    changes: Changes = {}
    for kind in KINDS:
        old, new = before.get(kind, {}), after.get(kind, {})
        found = {
            name: [old.get(name), new.get(name)] for name in sorted({*old, *new}) if old.get(name) != new.get(name)
        }
        if found:
            changes[kind] = found
    return changes


def add_up(earlier: Changes, later: Changes) -> Changes:
    """Return two runs' changes as those of one: what was before the first, what is after the second."""
    total = {kind: dict(names) for kind, names in earlier.items()}
    for kind, names in later.items():
        kept = total.setdefault(kind, {})
        for name, (before, after) in names.items():
            first = kept[name][0] if name in kept else before
            kept[name] = [first, after]
    settled = {
        kind: {name: pair for name, pair in names.items() if pair[0] != pair[1]} for kind, names in total.items()
    }
    return {kind: names for kind, names in settled.items() if names}


def kernel_settings(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """Return the kernel's settings that can be read, as `net.ipv4.ip_forward`: what a removed drop-in is set back to."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            # Some refuse to be read, or answer nothing, by design.
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if path.stat().st_mode & stat.S_IRUSR and path.stat().st_mode & stat.S_IWUSR:
                    found[str(path.relative_to(root)).replace(".", "\0").replace("/", ".").replace("\0", "/")] = (
                        path.read_text(encoding="ascii").strip()
                    )
    return found


def settings_named(text: str) -> list[str]:
    """Return the keys that a sysctl file sets; both `net.ipv4.x` and ufw's `net/ipv4/x` are heard."""
    keys = []
    for line in text.splitlines():
        key = line.strip().lstrip("-").partition("=")[0].strip()
        if "=" in line and key and key[0] not in "#;":
            # Whichever separator comes first is the separator; the other one is part of a name, as in eth0.100.
            slash, dot = key.find("/"), key.find(".")
            if slash != -1 and (dot == -1 or slash < dot):
                key = key.translate(str.maketrans("/.", "./"))
            keys.append(key)
    return keys


# --- files


def matches(patterns: Iterable[str]) -> Iterator[str]:
    """Yield the paths that match, those below a directory too, parents first. Links are not followed."""
    seen: set[str] = set()
    for pattern in patterns:
        top_level, _, rest = pattern.partition("/")
        for top in sorted(str(path) for path in Path(top_level or "/").glob(rest)):
            for path in _below(top):
                if path not in seen:
                    seen.add(path)
                    yield path


def _below(top: str) -> Iterator[str]:
    yield top
    if Path(top).is_symlink() or not Path(top).is_dir():
        return
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted({*folders, *names}):
            yield str(Path(folder, name))


def finger(path: str) -> str | None:
    """Return what makes a file that file: "kind mode uid:gid content", or None where there is none.

    The kind is file, link or directory; the content a SHA-256, a link's target, or nothing. Sockets, pipes and devices
    are nobody's configuration: None as well.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    marks = f"{stat.S_IMODE(status.st_mode):o} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"link {marks} {Path(path).readlink()}"
    if stat.S_ISDIR(status.st_mode):
        return f"directory {marks}"
    if stat.S_ISREG(status.st_mode):
        return f"file {marks} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return None


def fingers(paths: Iterable[str]) -> dict[str, str]:
    """Return the fingers of those paths that have one."""
    return {path: mark for path in paths if (mark := finger(path))}


def keep(tar: Path, paths: Iterable[str]) -> dict[str, str]:
    """Add files to an archive that only root reads, and return their fingers."""
    found = fingers(paths)
    os.close(os.open(tar, os.O_WRONLY | os.O_CREAT, 0o600))
    # tarfile cannot append to an empty file.
    with tarfile.open(tar, "a" if tar.stat().st_size else "w") as archive:
        for path in found:
            archive.add(path, arcname=path.lstrip("/"), recursive=False)
    return found


def plan_files(
    changed: dict[str, list[str | None]],
    recorded: dict[str, str],
    patterns: Iterable[str],
    spare: Iterable[str] = (),
) -> tuple[list[str], list[str]]:
    """Return (to write again, to remove) so that what the layer changed is as recorded.

    A file that somebody else put beside those of the layer stays; one in a directory that the layer made goes with it.

    Args:
        changed: what the layer's runs changed, {path: [before, after]}.
        recorded: the fingers of the record.
        patterns: the globs that the record is for.
        spare: paths that are left alone, with all below them.
    """
    made = {path for path, (before, _) in changed.items() if before is None and path not in recorded}
    write = [path for path in changed if path in recorded and finger(path) != recorded[path]]
    here = (path for path in matches(patterns) if path not in recorded)
    remove = [path for path in here if path in made or any(str(parent) in made for parent in Path(path).parents)]
    # Children before their directory.
    return _without(sorted(write), spare), _without(sorted(remove, reverse=True), spare)


def _without(paths: list[str], spare: Iterable[str]) -> list[str]:
    spared = tuple(spare)
    return [path for path in paths if not any(path == one or path.startswith(one.rstrip("/") + "/") for one in spared)]


def restore(tar: Path, write: Iterable[str], remove: Iterable[str]) -> list[str]:
    """Remove and write the files; return those that could not be removed: directories with something else in them."""
    stuck = []
    for path in remove:
        if (finger(path) or "").startswith("directory"):
            try:
                Path(path).rmdir()
            except OSError:
                stuck.append(path)
        else:
            Path(path).unlink(missing_ok=True)
    with tarfile.open(tar) as archive:
        for path in write:
            _put(archive, path)
    return stuck


def _put(archive: tarfile.TarFile, path: str) -> None:
    member, target = archive.getmember(path.lstrip("/")), Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(exist_ok=True)
        target.chmod(member.mode)
        os.chown(target, member.uid, member.gid)
        return
    # Beside it and then over it: nobody ever reads half a sshd_config.
    new = target.with_name(f".{target.name}.rollback")
    new.unlink(missing_ok=True)
    if member.issym():
        new.symlink_to(member.linkname)
    else:
        # A hard link's content is that of the file it was linked to.
        content = archive.extractfile(member) or io.BytesIO()
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content.read())
    os.chown(new, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        new.chmod(member.mode)
        os.utime(new, (member.mtime, member.mtime))
    try:
        new.replace(target)
    except OSError as error:
        # A mount of its own, as /etc/hosts is in a container, takes new content but not a new file.
        if error.errno != errno.EBUSY or member.issym():
            raise
        target.write_bytes(new.read_bytes())
        target.chmod(member.mode)
        os.chown(target, member.uid, member.gid)
        new.unlink()
