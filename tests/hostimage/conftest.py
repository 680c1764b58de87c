"""The real thing, under emulation where there is no KVM: it takes half an hour, so it runs as `make test-host-image`."""

from __future__ import annotations

import os

# `make test` collects all of tests/; what it leaves out here is said in docs/host-image.md, not skipped in silence.
collect_ignore_glob = [] if os.environ.get("HOST_IMAGE_TESTS") else ["test_*.py"]
