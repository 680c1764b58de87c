"""A service that runs, for people."""

from __future__ import annotations

from vaultcube.results.service import ServiceRecord


def running(record: ServiceRecord) -> str:
    """Return where a service answers, how to ask it, and how to stop it."""
    where = ", ".join(f"GPU {gpu.index}" for gpu in record.gpus) or "the CPU"
    servers = f"{record.servers} servers on {where}" if record.servers > 1 else f"on {where}"
    token = f", first token after {record.first_token_s:.1f} s" if record.first_token_s is not None else ""
    lines = [
        f"{record.name}: {record.model}, {servers}",
        f"  answers at  {record.url}/v1   (ready after {record.load_s:.1f} s{token})",
        f"  ask it      {record.example}",
        f"  measure it  vaultcube bench {record.workload} --instance {record.name}",
        f"  stop it     {record.stop}",
    ]
    if record.key_needed:
        lines.insert(3, "              VLLM_API_KEY is the key that you gave it")
    if not record.reachable:
        lines.insert(
            2, "  UNREACHED: that address does not answer on this machine, though the server does: a firewall?"
        )
    if record.random_weights:
        lines.insert(1, "  RANDOM WEIGHTS: this model proves the path, and what it answers means nothing")
    if record.simulated:
        lines.insert(1, "  SIMULATED: the GPUs are not real ones")
    return "\n".join(lines) + "\n"
