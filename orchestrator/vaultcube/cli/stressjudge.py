"""`vaultcube stress judge`: what a soak left, now, or when it has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaultcube.cli.bench import DEFAULT_PROFILE
from vaultcube.cli.options import Json
from vaultcube.results.soakwait import PATIENCE_S, SETTLE_S

if TYPE_CHECKING:
    from vaultcube.results.profile import Profile
    from vaultcube.results.schema import Result

EXAMPLE = "Example: vaultcube stress judge results/soak"


def judge_verb(
    folder: Annotated[Path, typer.Argument(help="Where workers and recorder wrote: gpu-0/events.jsonl, run.db.")],
    *,
    profile: Annotated[
        str, typer.Option(help="Acceptance targets: a built-in profile or a TOML file.")
    ] = DEFAULT_PROFILE,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all workers have ended; the exit code is 0 then.")
    ] = False,
    ladder: Annotated[
        str, typer.Option(help="With --wait: judge after these hours too, and stop the soak at a FAIL (1,6,24).")
    ] = "",
    settle: Annotated[
        float, typer.Option(min=0, max=86400, help="With --wait: seconds in which a late worker may still come.")
    ] = SETTLE_S,
    patience: Annotated[
        float, typer.Option(min=1, max=86400, help="With --wait: seconds after which a worker that is gone stays gone.")
    ] = PATIENCE_S,
    strict: Annotated[bool, typer.Option("--strict", help="Let UNAVAILABLE exit with 1.")] = False,
    json: Json = False,
) -> None:
    """Judge what `docker compose -f compose/stress.yml up` left, and keep the verdict beside it."""
    from vaultcube.errors import UsageError
    from vaultcube.results.profile import load_profile
    from vaultcube.results.store import RunDirectory
    from vaultcube.stack.assets import PROFILES
    from vaultcube.stack.bench import conclude
    from vaultcube.stack.soak.weigh import judge_soak

    place = folder.expanduser().absolute()
    targets = load_profile(profile, PROFILES)
    if wait:
        _wait(place, targets, ladder, (settle, patience), as_json=json)
        return
    if ladder:
        raise UsageError("--ladder says when to judge a soak that goes on", next_step="Give --wait too.")
    result = judge_soak(place, targets)
    RunDirectory(place).write_result(result)
    _print(result, place, as_json=json)
    conclude(result, strict=strict)


def _wait(place: Path, profile: Profile, ladder: str, patience: tuple[float, float], *, as_json: bool) -> None:
    """Judge when the soak has ended. That it was judged is all that the exit code says: no policy is to start it again.

    Raises:
        InterruptedRunError: told to stop before; what there was then is judged and printed.
        VaultCubeError: it cannot be judged.
    """
    from vaultcube.stack.quantities import parse_hours
    from vaultcube.stack.signals import Stop
    from vaultcube.stack.soak.judge import Patience, SoakWatch

    rungs = parse_hours(ladder) if ladder else ()

    def say(text: str) -> None:
        # Where one document is asked for, nothing else stands beside it.
        stream = sys.stderr if as_json else sys.stdout
        stream.write(f"{text}\n")
        stream.flush()

    settle_s, patience_s = patience
    with Stop() as stop:
        watch = SoakWatch(place, profile, rungs, say, stop, Patience(settle_s=settle_s, patience_s=patience_s))
        result, cause = watch.wait()
    _print(result, place, as_json=as_json)
    if cause is not None:
        # With --json there is one document.
        cause.in_result = True
        raise cause


def _print(result: Result, place: Path, *, as_json: bool) -> None:
    from vaultcube.report import terminal
    from vaultcube.report.table import colored

    sys.stdout.write(result.to_json() if as_json else terminal.result(result, place, color=colored(sys.stdout)))
