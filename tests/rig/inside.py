"""A process inside a simulated box that is asked, line by line, what nvidia-ml-py reads there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.rig.box import Box

# `p` is nvidia-ml-py and `h[0]` the handle of a GPU, kept from its first use as a real program keeps it.
SERVER = """
import ctypes, json, sys
import pynvml as p
class Handles(dict):
    def __missing__(self, index):
        self[index] = p.nvmlDeviceGetHandleByIndex(index)
        return self[index]
def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, ctypes.Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, ctypes._SimpleCData):
        return value.value
    if isinstance(value, ctypes.Array):
        return list(value)
    if hasattr(value, "__dict__"):
        return value.__dict__
    return list(value)
h = Handles()
scope = {"p": p, "h": h, "ctypes": ctypes}
for line in sys.stdin:
    code = json.loads(line)
    try:
        try:
            answer = {"value": eval(compile(code, "asked", "eval"), scope)}
        except SyntaxError:
            answer = {"value": exec(compile(code, "asked", "exec"), scope)}
        text = json.dumps(answer, default=plain)
    except p.NVMLError as error:
        text = json.dumps({"nvml": error.value})
    print(text, flush=True)
"""
PATIENCE_S = 20.0


class NvmlCodeError(Exception):
    """NVML answered with an error."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVML error {code}")
        self.code = code


class Inside:
    """The process, and the box it is in.

    Attributes:
        box: the box.
    """

    def __init__(self, box: Box, child: subprocess.Popen[str]) -> None:
        self.box = box
        self._child = child

    def __call__(self, code: str) -> Any:
        """Return what an expression gives, as JSON has it; a statement gives None.

        Raises:
            NvmlCodeError: NVML refused.
        """
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(json.dumps(code) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, f"the process inside ended over {code}"
        answer = json.loads(line)
        if "nvml" in answer:
            raise NvmlCodeError(answer["nvml"])
        return answer["value"]

    def error(self, code: str) -> int:
        """Return NVML's error over an expression, 0 for none."""
        try:
            self(code)
        except NvmlCodeError as error:
            return error.code
        return 0

    def wait(self, code: str, until: Callable[[Any], bool]) -> Any:
        """Ask again until the answer is right, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        while not until(value := self(code)):
            assert time.monotonic() < deadline, f"{code} still gives {value}"
        return value

    def wait_error(self, code: str, wanted: int) -> None:
        """Ask again until NVML's error is the one that is wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.error(code)) != wanted:
            assert time.monotonic() < deadline, f"{code} still gives the error {found}"


def still_box(path: Path, profile: str = "4x5090") -> Box:
    """Return a box whose sensors do not waver, and whose changes are seen at once."""
    box = Box(path, profile, jitter=False)
    box.set(reread_ms=1)
    return box


@contextmanager
def enter(box: Box, *, init: bool = True, **env: str) -> Iterator[Inside]:
    """Start the process, with NVML initialised unless told otherwise."""
    argv = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **box.env(), **env}
    ) as child:
        try:
            inside = Inside(box, child)
            if init:
                inside("p.nvmlInit()")
            yield inside
        finally:
            assert child.stdin
            child.stdin.close()
            try:
                child.wait(PATIENCE_S)
            finally:
                child.kill()
