"""Start the measurement of one first get: `bench.fresh` runs this for each."""

from __future__ import annotations

import sys

from bench.fresh import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
