"""`vaultcube up`: from a request to a service that answers."""

from __future__ import annotations

from collections.abc import Collection

from vaultcube.errors import KeyNeededError
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import NOBODY, Held
from vaultcube.results.schema import Result
from vaultcube.results.service import ServiceRecord
from vaultcube.stack.bench import NamedSession, Watcher
from vaultcube.stack.plan import Address, Plan
from vaultcube.stack.ports import check_host, choose_port
from vaultcube.stack.secrets import API_KEY
from vaultcube.stack.service import ServiceRun


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
        with self._begun(watcher) as begun:
            plan, directory = begun.plan, begun.directory
            watcher.note(f"instance {plan.instance}: run {plan.run_id} in {directory.path}")
            run = ServiceRun(plan, directory, begun.docker, begun.stop, watcher.event, begun.reservation, self.secrets)
            return run.start(begun.engine)
