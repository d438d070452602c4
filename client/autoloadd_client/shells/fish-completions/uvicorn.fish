# Read in the place of the completion that fish has for uvicorn, which is then asked of the cache.
__autoloadd_load uvicorn
