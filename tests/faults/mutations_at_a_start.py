"""Bugs between ready and checked: of a daemon that serves from an image's file."""

from __future__ import annotations

from .mutation import Mutation

IMAGE_FILE = "tests/daemon/storage/test_image_file.py"
LOADING = "tests/daemon/test_loading.py"
HELD = "tests/faults/test_while_loading.py"
QUICK = "tests/client/test_quick.py"

_DAEMON = "daemon/autoloadd_daemon"

START_MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "an image's file answers with another name's entry",
        f"{_DAEMON}/storage/image_file.py",
        "found is not None and found[0] == name",
        "found is not None",
        (IMAGE_FILE,),
    ),
    Mutation(
        "an image that changed while it was read is taken",
        f"{_DAEMON}/storage/image_file.py",
        "            if image.header != self.header:\n",
        "            if False:\n",
        (IMAGE_FILE,),
    ),
    Mutation(
        "writes do not wait for images",
        f"{_DAEMON}/writer.py",
        "        if self._catalog.is_loading:\n            return\n        if self.not_before_ns",
        "        if self.not_before_ns",
        (LOADING, HELD),
    ),
    Mutation(
        "journals are replaced before images are checked",
        f"{_DAEMON}/writer.py",
        "        if self._catalog.is_loading:\n            return\n        for _, files",
        "        for _, files",
        (LOADING,),
    ),
    Mutation(
        "a bulk is staged before images are checked",
        f"{_DAEMON}/methods/bulks.py",
        "    context.wait_for_images()\n",
        "",
        (LOADING,),
    ),
    Mutation(
        "a shard is recovered once more in a directory that is lost",
        f"{_DAEMON}/catalog.py",
        "        if self.lost is None:\n            self.recover()\n            return\n",
        "        self.recover()\n        return\n",
        (LOADING,),
    ),
    Mutation(
        "damage that is found after the start is not put right",
        f"{_DAEMON}/app.py",
        "            self._catalog.recover_again()\n",
        "",
        (HELD,),
    ),
    Mutation(
        "a quick get talks to any user's server",
        "client/autoloadd_client/cli/quick.py",
        "    if peer_uid(sock) not in (None, os.geteuid()):\n",
        "    if False:\n",
        (QUICK,),
    ),
)
