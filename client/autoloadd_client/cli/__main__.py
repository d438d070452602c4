"""`python -m autoloadd_client.cli`."""

from . import main

main()
