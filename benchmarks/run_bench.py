"""Start the benchmark: `scripts/bench` runs this with an environment that has the peers."""

from __future__ import annotations

import sys

from bench.main import main

if __name__ == "__main__":
    sys.exit(main())
