#!/usr/bin/env python3
"""A stand-in for the `vllm` command of the rig's image: `vllm serve MODEL` and `vllm bench serve`."""

from __future__ import annotations

import sys

# Behind everything that is there: nothing of ours may hide a module of the image's programs.
sys.path.append("/opt/stand-in")


def main(argv: list[str]) -> int:
    """Run what the first words say."""
    if argv[:1] == ["serve"]:
        import server

        return int(server.main(argv[1:]))
    if argv[:2] == ["bench", "serve"]:
        import client

        return int(client.main(argv[2:]))
    if argv == ["--version"]:
        sys.stdout.write("0.10.2+standin\n")
        return 0
    sys.stderr.write(f"vllm: the stand-in has no {' '.join(argv[:2])!r}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
