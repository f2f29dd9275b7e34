"""Programs in forked children that end by SIGKILL at the n-th change of a folder: crash points that can be enumerated.

Nothing in the product knows of it: the child wraps os.rename, os.fsync, open and the like before it runs the program,
and counts the calls that concern the folder. A write at which it dies leaves half of its bytes. A fork costs a tenth of
a second, a new interpreter with torch four; for this to be safe, the parent must run nothing of torch itself.
"""
import builtins
import contextlib
import io
import mmap
import os
import runpy
import signal
import struct
import sys
import time
import traceback
from pathlib import Path

TRACEBACK = 70  # exit status


class Steps:
    """Counts the changes of a folder by a child and its own children; at number `fatal` it kills them.

    whole: the whole process group dies, as in a power cut; else only the process that was about to make the change.
    """

    def __init__(self, folder, fatal=None, whole=True):
        self.folder, self.fatal, self.whole = str(folder), fatal, whole
        self.memory = mmap.mmap(-1, 8)  # shared by all forks

    @property
    def count(self):
        return struct.unpack("q", self.memory[:8])[0]

    def step(self, path):
        """Count a change; whether it is the fatal one."""
        if not str(path).startswith(self.folder):
            return False
        self.memory[:8] = struct.pack("q", self.count + 1)
        return self.count == self.fatal

    def die(self):
        if self.whole:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self):
        """Replace the functions that change files, in this process and its later forks."""
        for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "truncate", "fsync"):
            setattr(os, name, self.counted(getattr(os, name)))
        opener = io.open

        def opened(file, mode="r", *args, **kwargs):
            writes = isinstance(file, str | os.PathLike) and set(mode) & set("wax+")
            if writes and self.step(file):
                self.die()
            f = opener(file, mode, *args, **kwargs)
            return Torn(f, file, self) if writes and str(file).startswith(self.folder) else f

        builtins.open = io.open = opened

    def counted(self, f):
        def call(path, *args, dir_fd=None, **kwargs):
            fd = path if isinstance(path, int) else dir_fd
            place = str(path) if fd is None else os.readlink(f"/proc/self/fd/{fd}")
            if self.step(place):
                self.die()
            return f(path, *args, **kwargs) if dir_fd is None else f(path, *args, dir_fd=dir_fd, **kwargs)
        return call


class Torn:
    """An open file whose fatal write leaves half of its bytes."""

    def __init__(self, f, path, steps):
        self.f, self.path, self.steps = f, path, steps

    def write(self, data):
        if self.steps.step(self.path):
            whole = data if isinstance(data, str) else memoryview(data).cast("B")
            self.f.write(whole[:len(whole) // 2])
            self.f.flush()
            self.steps.die()
        return self.f.write(data)

    def __getattr__(self, name):
        return getattr(self.f, name)

    def __enter__(self):
        self.f.__enter__()
        return self

    def __exit__(self, *error):
        return self.f.__exit__(*error)

    def __iter__(self):
        return iter(self.f)


# ---------------------------------------------------------------------- children

def start(program, words, log, steps=None, before=None, **environment):
    """Fork a child that runs `python program words...` in a process group of its own; returns its process id.

    log: file for all that it prints. steps: the crash points. before: called in the child first. Exit status: 0, 1 for
    an error that is one line, TRACEBACK for any other.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = TRACEBACK
    try:
        os.setsid()
        os.environ.update(environment)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stdout, sys.stderr = (open(i, "w", buffering=1, closefd=False) for i in (1, 2))
        if before:
            before()
        if steps:
            steps.wrap()
        status = run(program, words)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


def run(program, words):
    sys.argv = [str(program), *words]
    try:
        runpy.run_path(str(program), run_name="__main__")
        return 0
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code)
        return 0 if e.code is None else e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return TRACEBACK


def wait(pid, seconds=120):
    """The exit status, -9 for a killed child; None when it did not end in time, and it is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    kill_group(pid)
    os.waitpid(pid, 0)
    return None


def kill_group(pid, number=signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def members(group):
    """Live processes of a process group."""
    out = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group and fields[0] not in "XZ":
                out.append(int(path.parent.name))
    return out


def wait_for(what, seconds):
    """Whether what() became true in time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
