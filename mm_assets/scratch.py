"""Folders for a computation's files: they go when it ends, and those of a killed process when the next one begins.

A folder holds a file that its process keeps locked; the kernel unlocks it however the process ends. So a folder whose
lock is free has no owner, whatever process ids or clocks say.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "mm-scratch-"
#: A folder has this name until it is locked, so that every folder of the other name has an owner or had one.
NEW_PREFIX = "mm-new-scratch-"
OWNER = ".owner"


@contextmanager
def scratch_folder(name: str) -> Generator[Path]:
    """A new folder below the system's temporary one; first removes those whose process is gone.

    Args:
        name: Of the work, for people who look at the disk.
    """
    parent = Path(tempfile.gettempdir())
    reclaim(parent)
    unlocked = Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=parent))
    with (unlocked / OWNER).open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        folder = parent / f"{PREFIX}{name}-{unlocked.name.removeprefix(NEW_PREFIX)}"
        unlocked.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def reclaim(parent: Path) -> list[Path]:
    """Removes the folders of this user below ``parent`` whose process is gone, and returns them."""
    gone: list[Path] = []
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            owner = os.open(folder / OWNER, os.O_RDWR)
        except FileNotFoundError:
            # Its process, or another one that reclaims, is removing it.
            continue
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder)
            gone.append(folder)
            logger.warning("%s: removed, its process was killed", folder)
        finally:
            os.close(owner)
    return gone
