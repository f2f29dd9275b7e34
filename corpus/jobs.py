"""Restartable tasks over processes and ranks: each task leaves a stamp, written last, that says what it was made from.

A task that finds its stamp from an earlier run, made from the same inputs and with its outputs unchanged, is skipped.
Ranks (of torchrun, or of any launcher that sets RANK and WORLD_SIZE) take every n-th task and wait for each other's
stamps, on a file system that all of them share. A rank that fails says why in a file, and one that dies stops its
heartbeat: either ends the others.
"""
import hashlib
import json
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from configs import locks

ROOT = Path(__file__).parent.parent
CODE = [ROOT / "prepare.py", *sorted(ROOT.glob("corpus/*.py"))]  # a change in these changes the result
BEAT, DEAD, START = 1.0, 20.0, 600  # seconds between two heartbeats, without one until a rank is dead, and to start
GRACE = 3.0  # seconds until a held lock is refused


# ---------------------------------------------------------------------- one run, its ranks and processes

@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder; ValueError when another run holds it. Ends with the process, whatever ends
    that; the workers of a run that was just killed may hold it GRACE seconds longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as f:
        deadline = time.monotonic() + GRACE
        while not locks.try_lock(f):
            f.seek(0)
            holder = f.read().strip()
            if is_alive(holder) or time.monotonic() > deadline:
                raise ValueError(f"{folder.parent} is in use by another prepare.py ({holder}); "
                                 "wait for it, or set out= to another folder")
            time.sleep(0.1)
        f.seek(0)
        f.truncate()
        f.write(f"process {os.getpid()} on {os.uname().nodename}")
        f.flush()
        try:
            yield
        finally:
            f.seek(0)
            f.truncate()
            locks.unlock(f)


def is_alive(holder: str) -> bool:
    """Whether the process that wrote "process N on HOST" runs on this machine."""
    found = re.fullmatch(r"process (\d+) on (.+)", holder)
    return found is not None and found[2] == os.uname().nodename and Path("/proc", found[1]).exists()


class Ranks:
    """The ranks of a run, seen from one of them: they start together, and the failure of one ends all.

    rank 0 sets the stamps of earlier runs aside before the others continue. Every other rank keeps writing a random
    word to its own file until rank 0 has repeated that word, so that no rank takes the files of an earlier run for
    those of this.
    """

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.seen: dict[int, tuple] = {}  # rank: (its last heartbeat, when it was first seen here)
        self.heart, self.started = None, False  # the process of the heartbeat; whether all ranks are there
        self.old_failures: dict[int, int] = {}  # rank: when its file was written that an earlier run left

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        go, word, begin = self.folder / "go", os.urandom(8).hex(), time.monotonic()
        self.old_failures = {other: self.failed_at(other) for other in range(self.world_size)}
        if self.rank == 0:
            for pattern in ("go", "hello-*", "failed-*", "alive-*"):
                for path in self.folder.glob(pattern):
                    path.unlink(missing_ok=True)
            for path in self.folder.rglob("*.json"):
                os.replace(path, path.with_suffix(".old"))  # until `up_to_date` finds that it still holds
            words = []
            while len(words) < self.world_size - 1 or not all(words):
                self.wait_a_little(begin)
                words = [path.read_text() for path in self.folder.glob("hello-*")]
            go.write_text(" ".join(words))
        while self.rank and not (go.exists() and word in go.read_text().split()):
            (self.folder / f"hello-{self.rank}").write_text(word)
            self.wait_a_little(begin)
        self.started, self.seen = True, {}
        if self.world_size > 1:
            alive = self.folder / f"alive-{self.rank}"
            self.heart = multiprocessing.Process(target=beat, args=(alive, os.getpid()), daemon=True)
            self.heart.start()

    def wait_a_little(self, begin):
        """For the others to start; ValueError when they do not."""
        self.check()
        if time.monotonic() - begin > START:
            raise ValueError(f"not all of the {self.world_size} ranks have started after {START} s; start all of them, "
                             "on a file system that they share")
        time.sleep(0.1)

    def failed_at(self, other):
        path = self.folder / f"failed-{other}"
        return path.stat().st_mtime_ns if path.exists() else 0

    def check(self):
        """ValueError when another rank has failed, or has not been heard of for too long."""
        for other in range(self.world_size):
            if other == self.rank or self.world_size == 1:
                continue
            failed, alive = self.folder / f"failed-{other}", self.folder / f"alive-{other}"
            if self.failed_at(other) not in (0, self.old_failures.get(other)):
                raise OtherRankFailed(f"rank {other} failed: {failed.read_text()}")
            count = alive.read_text() if alive.exists() else ""
            if self.seen.get(other, (None,))[0] != count:
                self.seen[other] = count, time.monotonic()
            elif self.started and count != "done" and time.monotonic() - self.seen[other][1] > DEAD:
                raise OtherRankFailed(f"rank {other} is gone: nothing was heard of it for {DEAD:.0f} s; start all "
                                      "ranks again, the finished work is kept")

    def finish(self, error: BaseException | None):
        """Tell the others that this rank has finished, or why it failed."""
        if self.heart:
            self.heart.kill()  # it may have inherited a handler of SIGTERM, and has nothing to save
            self.heart.join()
        if error is not None and not isinstance(error, OtherRankFailed):
            # rank 0 may be about to remove old files
            for _ in range(1 if self.started or self.world_size == 1 else 10):
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / f"failed-{self.rank}").write_text(f"{type(error).__name__}: {error}")
                if not self.started and self.world_size > 1:
                    time.sleep(0.5)
        elif self.world_size > 1:
            (self.folder / f"alive-{self.rank}").write_text("done")

    def wait_for(self, stamps: list[Path]):
        """Wait until the other ranks have written their stamps."""
        while not all(path.exists() for path in stamps):
            self.check()
            time.sleep(0.2)


def beat(alive: Path, parent: int):
    """Count in a file for as long as the parent lives; a process, as training a tokenizer holds up the threads."""
    n = 0
    while os.getppid() == parent:
        n += 1
        alive.write_text(str(n))
        time.sleep(BEAT)


class OtherRankFailed(ValueError):
    """Another rank of this run failed."""


def exit_with_parent(parent: int):
    """Initialize a process of the pool: end it when its parent is gone, so that it cannot write into a later run."""
    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def run_tasks(pool: ProcessPoolExecutor, ranks: Ranks, name: str, f: Callable, tasks: Iterable[tuple],
              stamps: list[Path]):
    """Run f(*task, stamp) once for every task, this rank its share of them, and wait until all ranks have finished."""
    begin, finished = time.time(), 0
    own = list(zip(tasks, stamps))[ranks.rank::ranks.world_size]
    futures = {pool.submit(f, *task, path) for task, path in own}
    try:
        while futures:
            done, futures = wait(futures, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            ranks.check()
            finished += len(done)
            elapsed = time.time() - begin
            if done and elapsed > 10:
                print(f"{name}: {finished} of {len(own)}, {elapsed / finished * len(futures):.0f} s left", flush=True)
        ranks.wait_for(stamps)
    except BaseException as e:  # what is still running has left no stamp and is done again by the next run
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((pool._processes or {}).values()):
            process.terminate()
        if isinstance(e, BrokenProcessPool):
            left = [f"{path.parent.name}/{path.stem}" for _, path in own if not path.exists()]
            raise ValueError(f"{name}: a worker process was killed at {' or '.join(left[:16])} (source/part), perhaps "
                             "because memory ran out (set workers= to a smaller number) or because a damaged file "
                             "crashed a library; start again: the finished work is kept") from None
        raise


# ---------------------------------------------------------------------- stamps

def write_stamp(path: Path, inputs: str, outputs: list[Path], **result):
    """Write a stamp atomically: the fingerprint of the inputs, the hashes of the outputs, the task's result, and a hash
    of all this.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(json.dumps(result | {"facts": inputs, "outputs": hashes(outputs)}))
    path.with_suffix(".tmp").write_text(json.dumps(content | {"sha256": json_sha256(content)}))
    os.replace(path.with_suffix(".tmp"), path)
    path.with_suffix(".old").unlink(missing_ok=True)


def up_to_date(path: Path, inputs: str, outputs: list[Path]) -> bool:
    """Whether an earlier run left exactly this result; if so, its stamp counts again."""
    old = path.with_suffix(".old")
    try:
        stamp = json.loads(old.read_text())
        same = stamp.pop("sha256") == json_sha256(stamp)
        same = same and stamp["facts"] == inputs and stamp["outputs"] == hashes(outputs)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # the last two: JSON, but no object
        same = False
    if same:
        os.replace(old, path)
    return same


def hashes(paths: list[Path]) -> dict[str, str]:
    return {f"{p.parent.name}/{p.name}": file_sha256(p) for p in paths}


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fingerprint(*inputs) -> str:
    """The hash of what determines a result: settings, inputs and the source files of this program."""
    return json_sha256([[file_sha256(p) for p in CODE], inputs])


def json_sha256(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
