"""autoloadctl without Python's `site`, which costs a third of its time: for shells that wait.

Started as `PYTHON -I -S .../autoloadd_client/cli/bare.py cached TOOL ARGS...`, so it has to say
itself where the packages are: beside this one, or, in a checkout, in the folder of their own.
"""

import os
import sys

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, root)
if not os.path.isdir(f"{root}/autoloadd_protocol"):
    sys.path.insert(0, f"{os.path.dirname(root)}/protocol")

from autoloadd_client.cli import main  # noqa: E402

try:
    main()
except ImportError:
    # msgpack may lie elsewhere; only refusals need it, and then nothing was run yet.
    import site

    site.main()
    main()
