"""torchrun as a library: one process a rank, all ended when one fails. Started by training.launcher."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.processes import PARENT, die_with_parent
from ddp.program import DdpParams
from training.params import Job
from training.program import JOB

LOOPBACK = "127.0.0.1"


def run(job: Job[DdpParams]) -> dict[str, Any]:
    """Run the ranks of `job` to their end. Return `{"failures": {rank: exit code}}`, or `{"error": text}`."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The address is named: without a network, looking up the host's own name is what takes longest.
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job.params.ranks,
        run_id="ddp",
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",
        local_addr=LOOPBACK,
        max_restarts=0,
        monitor_interval=0.1,
    )
    os.environ[PARENT] = str(os.getpid())
    # torchrun's complaints repeat in other words what the launcher says.
    logging.disable(logging.ERROR)
    try:
        elastic_launch(config, sys.executable)("-m", "ddp.worker")
    except ChildFailedError as error:
        return {"failures": {str(rank): failure.exitcode for rank, failure in error.failures.items()}}
    except SignalException:
        return {"error": "it was told to stop"}
    except RuntimeError as error:
        return {"error": str(error)}
    return {"failures": {}}


def main() -> int:
    """Run the job in the environment and leave the report where the job says. Return 0 when every rank did well."""
    die_with_parent()
    job = Job.from_json(os.environ[JOB], DdpParams)
    # Scratch files of torchrun go where the launcher clears up.
    tempfile.tempdir = str(Path(job.report_path).parent)
    report = run(job)
    Path(job.report_path).write_text(json.dumps(report), encoding="ascii")
    return 0 if report == {"failures": {}} else 1


if __name__ == "__main__":
    sys.exit(main())
