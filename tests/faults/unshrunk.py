"""A plugin for pytest: hypothesis ends at the first failure. Only which test failed is wanted."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
settings.load_profile("unshrunk")
