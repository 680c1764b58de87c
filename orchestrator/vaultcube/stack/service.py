"""The start of a service: up, follow until every server answers, leave it running. If it fails nothing is left but why."""

from __future__ import annotations

import http.client
import json
import shlex
import time
from collections.abc import Sequence

from vaultcube.errors import (
    InterruptedRunError,
    RunTimeoutError,
    ServerDiedError,
    VaultCubeError,
)
from vaultcube.results.events import AnyEvent, ModelEvent, ServerReady, Stage
from vaultcube.results.schema import Result, Status
from vaultcube.results.service import ServiceRecord, read_record
from vaultcube.results.store import SERVICE, RunDirectory
from vaultcube.stack.collect import read_events
from vaultcube.stack.docker import Docker, EngineInfo
from vaultcube.stack.ending import POLL_S, clean_up, ended_first, images_of, keep
from vaultcube.stack.environment import utc_now
from vaultcube.stack.lifecycle import JobRun
from vaultcube.stack.outcome import Outcome, classify
from vaultcube.stack.plan import Address, Plan
from vaultcube.stack.secrets import API_KEY

# A proxy looks twice a second for servers that begin to answer.
ADDRESS_LIMIT_S = 20.0
ASK_S = 5.0
# So that it comes back after a restart of the engine or the machine; only what has worked once is worth that.
RESTART = ("update", "--restart", "unless-stopped")


class ServiceRun(JobRun):
    """Executes the plan of `up`; see JobRun for the arguments."""

    def start(self, engine: EngineInfo) -> ServiceRecord | Result:
        """Bring it up.

        Returns:
            What runs now, or the result of a start that failed, after which nothing is left running.

        Raises:
            ResultsUnwritableError, DiskTooSmallError: the result cannot be written.
        """
        began = time.monotonic()
        try:
            self._write_plan()
            self._up()
            self._resolve()
            self._follow()
            if self._arrived():
                return self._keep_running(began, reachable=self._reached())
            cause: VaultCubeError | None = self._fell()
        except VaultCubeError as error:
            cause = error
        except BaseException:
            self._abandon(engine)
            raise
        return self._end(cause, [], engine)

    def _arrived(self) -> bool:
        """Say whether every server has answered."""
        ready = {event.rank for event in self.log.events if isinstance(event, ServerReady)}
        return ready.issuperset(range(len(self.plan.servers)))

    def _late(self) -> VaultCubeError:
        stages = [event for event in self.log.events if isinstance(event, Stage)]
        last = f"; the last it said: {stages[-1].stage} {stages[-1].detail}".rstrip() if stages else ""
        return RunTimeoutError(
            f"the server was not ready after {self.plan.timeout_s:g} s{last}",
            next_step=f"Read `vaultcube logs {self.plan.run_id}`, or allow more with --timeout.",
        )

    def _fell(self) -> VaultCubeError | None:
        """Return the error of a server that ended as if all were well; others say themselves why they ended."""
        exits = self.docker.exits([one.id for one in self.docker.containers(self.plan.run_id)])
        if any(not exit_.running and exit_.exit_code for exit_ in exits):
            return None
        return ServerDiedError(
            "the server ended before it was ready, without an error",
            next_step=f"Read `vaultcube logs {self.plan.run_id}`.",
        )

    def _reached(self) -> bool:
        """Wait until the published address answers, and say whether it did: a firewall can stand in its way."""
        deadline = time.monotonic() + ADDRESS_LIMIT_S
        while self.plan.address and not answers(self.plan.address):
            if time.monotonic() > deadline:
                return False
            self.stop.wait(POLL_S)
            self.stop.check()
        return True

    def _keep_running(self, began: float, *, reachable: bool) -> ServiceRecord:
        record = make_record(self.plan, self.log.events, up_s=time.monotonic() - began, reachable=reachable)
        self.directory.write(SERVICE, record.to_json())
        self.docker.ask([*RESTART, *(one.id for one in self.docker.containers(self.plan.run_id))])
        return record


def answers(address: Address) -> bool:
    """Say whether an HTTP server with something behind it answers there; one that wants a key is one."""
    connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=ASK_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def make_record(plan: Plan, events: Sequence[AnyEvent], *, up_s: float, reachable: bool) -> ServiceRecord:
    """Return what is to be known of a service whose servers have all answered.

    Args:
        plan: what was started.
        events: what its servers said.
        up_s: how long it took, in seconds.
        reachable: whether its address answered.
    """
    ready = [event for event in events if isinstance(event, ServerReady)]
    model = next((event for event in events if isinstance(event, ModelEvent)), None)
    tokens = [event.first_token_s for event in ready if event.first_token_s is not None]
    url = plan.address.url if plan.address else ""
    key = API_KEY in plan.secrets
    return ServiceRecord(
        name=plan.instance,
        run=plan.run_id,
        workload=plan.workload,
        url=url,
        model=ready[0].model,
        device=plan.device,
        gpus=plan.gpus,
        simulated=plan.simulated,
        servers=len(plan.servers),
        ready=utc_now(),
        load_s=max(event.load_s for event in ready),
        first_token_s=max(tokens) if tokens else None,
        reachable=reachable,
        up_s=up_s,
        key_needed=key,
        random_weights=model is not None and model.random_weights,
        example=example(url, ready[0].model, generates=model is None or model.generates, key=key),
        stop=f"vaultcube down {plan.instance}",
    )


def example(url: str, model: str, *, generates: bool, key: bool) -> str:
    """Return a curl command that asks the model something; it works for base models and chat models alike.

    A key goes to curl through a pipe, from the shell's own echo: an argument would show it to whoever lists processes.
    """
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": 16}
    if not generates:
        body = {"model": model, "input": "The capital of France"}
    feed, header = ('echo "Authorization: Bearer $VLLM_API_KEY" | ', " -H @-") if key else ("", "")
    path = "completions" if generates else "embeddings"
    asked = f"{url}/v1/{path}{header} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    return f"{feed}curl {asked}"


def finish_service(plan: Plan, directory: RunDirectory, docker: Docker) -> Result:
    """Stop a service and keep what it said.

    Raises:
        VaultCubeError: the engine does not answer.
    """
    was_ready = read_record(directory) is not None
    exits = clean_up(plan, directory, docker)
    log = read_events(directory)
    fallen = ended_first(plan, exits)
    if fallen:
        status, error = classify(fallen, log.events, None)
    elif was_ready and exits:
        status, error = Status.COMPLETED, None
    else:
        status, error = classify([], log.events, InterruptedRunError("the service was cleared before it was ready"))
    outcome = Outcome(status=status, error=error, images=images_of(exits))
    return keep(plan, directory, log, outcome, docker.begin_probe().finish(docker))
