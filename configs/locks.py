"""A lock that one process at a time holds on an open file."""
import errno
import sys
from contextlib import suppress

try:
    import fcntl
except ImportError:  # not on this system: two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]


def try_lock(f) -> bool:
    """Lock an open file until it is closed; False while another process holds it. A note where nothing can be locked,
    as on some network file systems.
    """
    try:
        if fcntl:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        print(f"note: {f.name} cannot be locked ({e.strerror}): start no second run that writes there",
              file=sys.stderr, flush=True)
    return True


def unlock(f):
    """Give up the lock, also in forked processes, which may live a moment longer."""
    with suppress(OSError):
        if fcntl:
            fcntl.flock(f, fcntl.LOCK_UN)
