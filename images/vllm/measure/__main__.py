"""`python3 -m measure`: see measure.launcher."""

import sys

from measure.launcher import main

sys.exit(main(sys.argv[1:]))
