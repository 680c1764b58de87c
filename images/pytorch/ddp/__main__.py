"""`python3 -m ddp`: see training.launcher."""

import sys

from ddp.program import PROGRAM
from training.launcher import main

sys.exit(main(sys.argv[1:], PROGRAM))
