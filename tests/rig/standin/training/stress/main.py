"""`python3 -m stress` of the rig's image: the real launcher, which counts GPUs by NVML instead of CUDA."""

from __future__ import annotations

import sys

import cards
from stress.launcher import main

from training import machine

if __name__ == "__main__":
    machine.gpu_count = cards.gpu_count
    machine.card = cards.card
    sys.exit(main(sys.argv[1:]))
