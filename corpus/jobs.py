"""Work that can be killed and shared: many tasks, each with a mark that is written last and says what it was made from.

A task that finds its mark of an earlier run, made from the same facts and with its outputs unharmed, has nothing to do. Ranks (of
torchrun, or of any launcher that sets RANK and WORLD_SIZE) take every n-th task and start_together at the marks, on a file system that all
of them see.
"""
import hashlib
import json
import os
import time
from concurrent.futures import as_completed
from contextlib import contextmanager


def start_together(folder, rank, size):
    """Begin a run: rank 0 lays the marks of earlier runs aside, then all ranks go. Each says hello with a word of its own until
    rank 0 has answered it, so that nobody takes what an earlier run left for this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    go, word = folder / "go", os.urandom(8).hex()
    if rank == 0:
        for path in [go, *folder.glob("hello-*")]:
            path.unlink(missing_ok=True)
        for mark in folder.rglob("*.json"):
            os.replace(mark, mark.with_suffix(".old"))  # until `up_to_date` finds that it still holds
        while len(hellos := [path.read_text() for path in folder.glob("hello-*")]) < size - 1 or not all(hellos):
            time.sleep(0.1)
        go.write_text(" ".join(hellos))
    while rank and not (go.exists() and word in go.read_text().split()):
        (folder / f"hello-{rank}").write_text(word)
        time.sleep(0.1)


def run_tasks(pool, rank, size, name, f, tasks, marks):
    """Do f(*task, mark) once for every task, this rank its share of them, and wait for the others."""
    begin, mine = time.time(), list(zip(tasks, marks))[rank::size]
    running = [pool.submit(f, *task, mark) for task, mark in mine]
    for n, future in enumerate(as_completed(running), 1):
        future.result()
        spent = time.time() - begin
        if spent > 10:
            print(f"{name}: {n} of {len(running)}, {spent / n * (len(running) - n):.0f} s left", flush=True)
    wait(marks)


@contextmanager
def naming(folder):
    """An OSError within that names no file, as that of a full disk, names this folder."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(folder)
        raise


def wait(marks):
    """Until the other ranks have left their marks."""
    while not all(mark.exists() for mark in marks):
        time.sleep(0.2)


def finish(mark, facts, outputs, **result):
    """Write a mark: all of it or nothing."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    content = result | {"facts": facts, "outputs": {f"{p.parent.name}/{p.name}": digest(p) for p in outputs}}
    mark.with_suffix(".tmp").write_text(json.dumps(content))
    os.replace(mark.with_suffix(".tmp"), mark)
    mark.with_suffix(".old").unlink(missing_ok=True)


def up_to_date(mark, facts, outputs):
    """Whether an earlier run left this very result; then its mark counts again."""
    old = mark.with_suffix(".old")
    try:
        found = json.loads(old.read_text())
        same = found["facts"] == facts and found["outputs"] == {f"{p.parent.name}/{p.name}": digest(p) for p in outputs}
    except (OSError, ValueError, KeyError):
        same = False
    if same:
        os.replace(old, mark)
    return same


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fingerprint(code, *facts):
    """Of settings, inputs and the files of code that make the result."""
    return hashlib.sha256(json.dumps([[digest(p) for p in code], facts], sort_keys=True, default=str).encode()).hexdigest()
