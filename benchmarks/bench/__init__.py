"""autoloadd against its peers, in one run, as ratios. `scripts/bench` installs what it needs."""
