"""Is the host as it was provisioned? The health checks of the five layers. Standard library only.

The same code runs twice: as `vaultcube health`, and as the program /usr/local/bin/vaultcube-health, which needs the
system's Python and nothing else. So nothing here may import a third-party package, nor a room that does (`stack`,
`workloads`, `results`); `make lint` holds it so.
"""
