"""Errors of the operating system as one line: what failed, at which path, and what to do."""
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADVICE = {errno.ENOSPC: "free some space, or set out= to another disk; finished work is kept",
          errno.EDQUOT: "your quota is used up: free some space, or set out= to another disk; finished work is kept",
          errno.EFBIG: "files may not grow so large here (ulimit -f); raise the limit or set out= to another disk",
          errno.EROFS: "the folder is read-only: set out= to one that can be written",
          errno.EACCES: "it may not be written or read: change its permissions, or set out= to another folder",
          errno.EPERM: "it may not be changed: change its permissions, or set out= to another folder",
          errno.ENOTDIR: "a part of the path is a file: set out= to a folder",
          errno.EEXIST: "it is a file: set out= to a folder",
          errno.EISDIR: "it is a folder where a file is needed: remove it, or set out= to another folder"}


def explain(error: OSError | ValueError) -> str:
    """One line: what failed and, for an OSError, at which path and what to do."""
    advice = ADVICE.get(getattr(error, "errno", None) or 0)
    return f"{type(error).__name__}: {error}" + (f"; {advice}" if advice else "")


@contextmanager
def errors_name(folder: Path) -> Iterator[None]:
    """Add the folder to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(folder)
        raise
