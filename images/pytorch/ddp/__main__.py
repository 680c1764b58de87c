"""`python3 -m ddp`: see ddp.launcher."""

import sys

from ddp.launcher import main

sys.exit(main(sys.argv[1:]))
