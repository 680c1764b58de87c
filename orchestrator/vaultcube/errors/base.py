"""What all errors have in common, and the list of them."""

from __future__ import annotations

from typing import ClassVar


class VaultCubeError(Exception):
    """Base of all errors that are shown without a traceback.

    Args:
        message: One line of what happened.
        next_step: One line of what to do about it; the class's own when left out.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    summary: ClassVar[str] = "something failed"
    next_step: str = "Run the same command with --debug and read the traceback."
    # Set when a result that was printed says it: --json prints no second document then.
    in_result: bool = False

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if next_step is not None:
            self.next_step = next_step


def all_errors() -> list[type[VaultCubeError]]:
    """Return every error class, parents before children, in the order they are written."""
    found: list[type[VaultCubeError]] = []

    def walk(cls: type[VaultCubeError]) -> None:
        found.append(cls)
        for child in cls.__subclasses__():
            walk(child)

    walk(VaultCubeError)
    return found
