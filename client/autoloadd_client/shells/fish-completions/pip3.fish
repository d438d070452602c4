# Read in the place of the completion that fish has for pip3, which is then asked of the cache.
__autoloadd_load pip3
