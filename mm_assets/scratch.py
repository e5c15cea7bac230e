"""Folders for a computation's files: they go when it ends, and those of a killed process when the next one begins.

Beside a folder is a file that its process keeps locked; the kernel unlocks it however the process ends. So a folder
whose lock is free has no owner, whatever process ids or clocks say. The file is made before the folder and removed
after it: whatever moment a process is killed at, nothing of it stays that is not found again.
"""

import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "mm-scratch-"
OWNER = ".owner"


@contextmanager
def scratch_folder(name: str) -> Generator[Path]:
    """A new folder below the system's temporary one; first removes those whose process is gone.

    Args:
        name: Of the work, for people who look at the disk.
    """
    parent = Path(tempfile.gettempdir())
    reclaim(parent)
    owner, descriptor = _new_owner(parent, name)
    try:
        folder = owner.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder)
            owner.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def reclaim(parent: Path) -> list[Path]:
    """Removes the folders of this user below ``parent`` whose process is gone, and returns them."""
    gone: list[Path] = []
    for owner in sorted(parent.glob(f"{PREFIX}*{OWNER}")):
        try:
            descriptor = os.open(owner, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            # It is another user's, not a file, or its process has just removed it.
            continue
        try:
            if _take(owner, descriptor):
                folder = owner.with_suffix("")
                _remove(folder)
                owner.unlink(missing_ok=True)
                gone.append(folder)
                logger.warning("%s: removed, its process was killed", folder)
        finally:
            os.close(descriptor)
    return gone


def _new_owner(parent: Path, name: str) -> tuple[Path, int]:
    """A locked file with a name of its own, and its descriptor."""
    while True:
        owner = parent / f"{PREFIX}{name}-{secrets.token_hex(6)}{OWNER}"
        descriptor = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if _take(owner, descriptor):
            return owner, descriptor
        # Another process took it for one of a killed process before it was locked.
        os.close(descriptor)


def _take(owner: Path, descriptor: int) -> bool:
    """Locks the file, if it is a file of this user that nobody has locked and that is still there."""
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.getuid():
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(opened, owner.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove(folder: Path) -> None:
    """Removes a folder, or what is there instead; another program may be tidying up the same place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, onerror=_unless_gone)
    else:
        folder.unlink(missing_ok=True)


def _unless_gone(_: object, path: str, problem: tuple[type[BaseException], BaseException, object]) -> None:
    del path
    if not isinstance(problem[1], FileNotFoundError):
        raise problem[1]
