"""Restartable tasks over processes and ranks: each task leaves a stamp, written last, that says what it was made from.

A task that finds its stamp from an earlier run, made from the same inputs and with its outputs unchanged, is skipped.
Ranks (of torchrun, or of any launcher that sets RANK and WORLD_SIZE) take every n-th task and wait for each other's
stamps, on a file system that all of them share.
"""
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = [ROOT / "prepare.py", *sorted(ROOT.glob("corpus/*.py"))]  # a change in these changes the result


def start_together(folder: Path, rank: int, world_size: int):
    """Begin a run: rank 0 sets the stamps of earlier runs aside, then all ranks continue.

    Every other rank keeps writing a random word to its own file until rank 0 has repeated that word, so that no rank
    takes the files of an earlier run for those of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    go, word = folder / "go", os.urandom(8).hex()
    if rank == 0:
        for path in [go, *folder.glob("hello-*")]:
            path.unlink(missing_ok=True)
        for path in folder.rglob("*.json"):
            os.replace(path, path.with_suffix(".old"))  # until `up_to_date` finds that it still holds
        words: list[str] = []
        while len(words) < world_size - 1 or not all(words):
            time.sleep(0.1)
            words = [path.read_text() for path in folder.glob("hello-*")]
        go.write_text(" ".join(words))
    while rank and not (go.exists() and word in go.read_text().split()):
        (folder / f"hello-{rank}").write_text(word)
        time.sleep(0.1)


def run_tasks(pool: Executor, rank: int, world_size: int, name: str, f: Callable, tasks: Iterable[tuple],
              stamps: list[Path]):
    """Run f(*task, stamp) once for every task, this rank its share of them, and wait until all ranks have finished."""
    begin = time.time()
    own = list(zip(tasks, stamps))[rank::world_size]
    futures = [pool.submit(f, *task, path) for task, path in own]
    for n, future in enumerate(as_completed(futures), 1):
        future.result()
        elapsed = time.time() - begin
        if elapsed > 10:
            print(f"{name}: {n} of {len(futures)}, {elapsed / n * (len(futures) - n):.0f} s left", flush=True)
    wait_for(stamps)


@contextmanager
def errors_name(folder: Path) -> Iterator[None]:
    """Add the folder to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(folder)
        raise


def wait_for(stamps: list[Path]):
    """Wait until the other ranks have written their stamps."""
    while not all(path.exists() for path in stamps):
        time.sleep(0.2)


def write_stamp(path: Path, inputs: str, outputs: list[Path], **result):
    """Write a stamp atomically: the fingerprint of the inputs, the hashes of the outputs, and the task's result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = result | {"facts": inputs, "outputs": hashes(outputs)}
    path.with_suffix(".tmp").write_text(json.dumps(content))
    os.replace(path.with_suffix(".tmp"), path)
    path.with_suffix(".old").unlink(missing_ok=True)


def up_to_date(path: Path, inputs: str, outputs: list[Path]) -> bool:
    """Whether an earlier run left exactly this result; if so, its stamp counts again."""
    old = path.with_suffix(".old")
    try:
        stamp = json.loads(old.read_text())
        same = stamp["facts"] == inputs and stamp["outputs"] == hashes(outputs)
    except (OSError, ValueError, KeyError):
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
    content = json.dumps([[file_sha256(p) for p in CODE], inputs], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
