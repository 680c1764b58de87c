"""`vaultcube up`: from a request to a service that answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from vaultcube.errors import KeyNeededError
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import NOBODY, Held
from vaultcube.results.lock import locked
from vaultcube.results.schema import Result
from vaultcube.results.service import ServiceRecord
from vaultcube.stack.bench import NamedSession, Watcher
from vaultcube.stack.docker import Docker
from vaultcube.stack.environment import container_user
from vaultcube.stack.plan import Address, Plan
from vaultcube.stack.ports import check_host, choose_port
from vaultcube.stack.secrets import API_KEY
from vaultcube.stack.service import ServiceRun
from vaultcube.stack.signals import Stop


class UpSession(NamedSession):
    """One `up`; see Session for the arguments.

    Attributes:
        host: the address to answer on.
        port: the port, or None for the first that is free.
    """

    host = "127.0.0.1"
    port: int | None = None

    def answer_on(self, host: str, port: int | None) -> None:
        """Say where the instance is to answer.

        Raises:
            UsageError: that is no address.
            KeyNeededError: others could reach it, and it would ask nobody for a key.
        """
        if not check_host(host) and API_KEY not in self.secrets:
            raise KeyNeededError(f"{host} can be reached from outside this machine, and there is no API key")
        self.host, self.port = host, port

    def _plan(
        self,
        inventory: Inventory,
        held: Held = NOBODY,
        engine: PinningFacts | None = None,
        taken: Collection[str] = (),
    ) -> Plan:
        # Looked for again under the lock, when the plan is the last one.
        address = Address(host=self.host, port=choose_port(self.host, self.port))
        self.request = self.request.model_copy(update={"address": address})
        return super()._plan(inventory, held, engine, taken)

    def up(self, watcher: Watcher) -> ServiceRecord | Result:
        """Start it, and return when it answers.

        Returns:
            What runs now, or the result of a start that failed.

        Raises:
            VaultCubeError: refused before anything was started, or the result cannot be written.
        """
        with Stop() as stop, contextlib.ExitStack() as held:
            docker = Docker(stop)
            plan, engine, reservation = self._prepare(docker, stop, watcher)
            if reservation is not None:
                held.enter_context(reservation)
            user = container_user()
            directory = self.store.create(plan.run_id, owner=user if user[0] != os.getuid() else None)
            with locked(directory.path):
                watcher.note(f"instance {plan.instance}: run {plan.run_id} in {directory.path}")
                run = ServiceRun(plan, directory, docker, stop, watcher.event, reservation, self.secrets)
                return run.start(engine)
