"""The plan of measuring an instance that runs already. Pure."""

from __future__ import annotations

from datetime import datetime

from vaultcube.gpu.inventory import Inventory
from vaultcube.results.profile import Profile
from vaultcube.stack.plan import Plan, Request, compose_files
from vaultcube.workloads import Recorder, Service


def plan_measurement(
    workload: Service,
    request: Request,
    target: Plan,
    *,
    profile: Profile,
    inventory: Inventory,
    run_id: str,
    created: datetime,
) -> Plan:
    """Decide about the measurement of an instance that runs: its GPUs are measured, and none is taken.

    Args:
        workload: what the instance runs.
        request: what the user asked for.
        target: the instance's plan.
        profile: the acceptance targets.
        inventory: the GPUs that are there.
        run_id: also the compose project's name.
        created: now, in UTC.

    Raises:
        BadParameterError, ProfileError: as named.
    """
    # What the server does was decided when it was started.
    served = {key: target.params[key] for key in workload.serve_type.model_fields if key in target.params}
    params = workload.resolve(request.preset, {**request.given, **served}, target.device)
    workload.targets(profile)
    recorder: Recorder = (request.recorder or workload.recorder) if target.gpus else "off"
    files = compose_files(workload, target.device, client=True, proxy=False, recorder=recorder)
    return target.model_copy(
        update={
            "run_id": run_id,
            "created": created,
            "service": workload.client,
            "params": params.model_dump(),
            "profile": profile,
            "driver": inventory.driver,
            "command": tuple(workload.command(params, world_size=target.world_size, device=target.device)),
            "compose_files": files,
            "memory_bytes": request.memory_bytes,
            "recorder": recorder,
            "telemetry_hz": request.telemetry_hz,
            "timeout_s": request.timeout_s
            or workload.timeout_s(params, world_size=target.world_size, device=target.device),
            "purpose": "bench",
            "servers": (),
            "target": target.run_id,
        }
    )
