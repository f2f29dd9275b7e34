"""Kill the programs at every point of a save and at random moments, damage their files, and compare what is left.

    python tests/torture.py minutes=40 seed=0
    python tests/torture.py minutes=2 only=R2,R8

Each row of the table that is printed last is a promise (R1 to R26), with its trials and what failed. Random rows go on
until their share of the time is over; enumerated ones take their points in random order, so that a short run is a
sample of a long one. Exit status 1 when a trial failed. Everything is on the CPU, with models of 20,000 parameters.
"""
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch  # noqa: E402
from crashes import TRACEBACK, Steps, kill_group, members, start, wait, wait_for  # noqa: E402
from test_prepare import document, jsonl, tree, write  # noqa: E402

import data as loader  # noqa: E402
import evaluation.run  # noqa: E402, F401  (imported before the forks)
from configs import load, thresholds  # noqa: E402
from hf.weights import open_weights  # noqa: E402
from training import checkpoint, objectives  # noqa: E402

TRAIN, PREPARE, EVAL = (ROOT / f"{name}.py" for name in ("train", "prepare", "eval"))
SHAPE = dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
STEP = 4 * 96  # tokens


@dataclass(frozen=True)
class Torture:
    minutes: float = 40.0        # of all rows together; a trial that has begun is finished
    seed: int = 0
    only: str = ""               # rows, such as R1,R2; "": all

    def __post_init__(self):
        unknown = sorted({*self.only.split(",")} - {"", *ROWS})
        if self.minutes <= 0 or unknown:
            raise ValueError(f"minutes must be positive and only= rows of {', '.join(ROWS)}; got {self.minutes}, "
                             f"{self.only!r}")


class Trials:
    """The trials of a row: a folder for each, the time that is left, and what failed."""

    def __init__(self, folder, seconds, seed):
        self.base, self.end, self.rng = folder, time.monotonic() + seconds, random.Random(seed)
        self.tried = self.points = 0
        self.failed, self.notes = [], []
        self.begin = time.monotonic()

    def is_time_left(self):
        return self.tried == 0 or time.monotonic() < self.end

    @contextmanager
    def trial(self, name):
        """A folder of its own; a failed `expect` or any error within counts as one failure."""
        folder = Path(tempfile.mkdtemp(dir=self.base))
        self.tried += 1
        try:
            yield folder
        except Exception as e:
            self.failed.append(f"{name}: {type(e).__name__ if not isinstance(e, Failure) else 'wrong'}: {e}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sample(self, points):
        """Points in random order, as many as there is time for."""
        points = list(points)
        self.points += len(points)
        self.rng.shuffle(points)
        for point in points:
            if self.is_time_left():
                yield point


class Failure(AssertionError):
    pass


def expect(condition, text, log=None):
    if not condition:
        said = "".join(log.read_text(errors="replace")[-300:].splitlines(True)[-4:]) if log and log.exists() else ""
        raise Failure(f"{text} {said}".strip())


# ---------------------------------------------------------------------- the programs and their inputs

def assignments(settings):
    return [f"{k}={v!r}" for k, v in settings.items() if v is not ...]


class Bench:
    """Raw text, token shards, a finished run of each kind and its results, made once by the programs themselves."""

    def __init__(self, folder):
        self.folder, raw = folder, folder / "raw"
        write(raw / "en.jsonl", jsonl({"text": document("en", i)} for i in range(500)))
        write(raw / "kk.jsonl", jsonl({"text": document("kk", i)} for i in range(80)))
        said = [document("en", 1000 + i).split("\n") for i in range(120)]
        chat = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b, _ in said]
        write(raw / "chat.jsonl", jsonl({"messages": m} for m in chat))
        write(raw / "pairs.jsonl", jsonl({"prompt": a, "chosen": b, "rejected": c} for a, b, c in said))
        for lang in ("en", "kk"):
            write(raw / f"f/{lang}.txt", "".join(document(lang, 3000 + i).replace("\n", " ") + "\n" for i in range(6)))
        self.run(PREPARE, self.prepare_words(folder / "tokens"))
        for kind in ("lm", "sft", "dpo"):
            self.run(TRAIN, self.train_words(kind, folder / kind))
        self.run(EVAL, self.eval_words(folder / "results.jsonl"))

    def run(self, program, words, before=None, **environment):
        """Run a program that must succeed; returns what it printed."""
        log = self.folder / f"log-{time.monotonic_ns()}"
        status = wait(start(program, words, log, before=before, **environment))
        said = log.read_text(errors="replace")
        log.unlink()
        expect(status == 0, f"{program.name} ended with {status}: {said[-400:]}")
        return said

    def prepare_words(self, out, **changes):
        kinds = dict(chat="chat", pairs="preference")
        sources = [dict(name=n, path=f"{n}.jsonl", category=n, language="kk" if n == "kk" else "en")
                   | ({"kind": kinds[n]} if n in kinds else {}) for n in ("en", "kk", "chat", "pairs")]
        return assignments(dict(raw=str(self.folder / "raw"), out=str(out), sources=sources, language_names={},
                                langid=False, vocab_size=400, template="chatml", thresholds={"*": thresholds.SHORT},
                                valid_fraction=0.05, near_dedup=False, workers=1) | changes)

    def train_words(self, kind, out, **changes):
        settings = dict(data=str(self.folder / "tokens"), out=str(out), tokens=24 * STEP, seq_len=96, batch_size=4,
                        micro_batch_size=4, lr=1e-2, dtype="float32", threads=1, eval_every=1000, log_every=1,
                        eval_tokens=200, save_every=2)
        if kind == "lm":
            settings |= SHAPE | dict(mixture={"en": 3, "kk": 1})
        else:
            settings |= dict(init=str(self.folder / "lm"), tokens=12 * STEP, mixture={"chat": 3, "en": 1})
        if kind == "dpo":
            settings |= dict(loss="dpo", mixture={"pairs": 1}, lr=1e-3)
        return assignments(settings | changes)

    def eval_words(self, out, **changes):
        tasks = [dict(name="f", kind="bpb", path="f/{lang}.txt"),
                 dict(name="t", kind="translate", path="f/{lang}.txt", pairs=["en-kk"], prompt="{x}", max_new_tokens=4)]
        return assignments(dict(model=str(self.folder / "lm"), data=str(self.folder / "raw"), out=str(out), tasks=tasks,
                                languages=["en", "kk"], threads=1, labels={},
                                language_names={"en": "English", "kk": "Kazakh"}) | changes)

    def same_run(self, kind, out, of=None):
        """Weights, moments and log equal those of the uninterrupted run."""
        ours, theirs = facts_of_run(out), facts_of_run(of or self.folder / kind)
        for what, a, b in zip(("newest checkpoint", "moments", "losses", "weights"), ours, theirs):
            expect(a == b, f"other {what} than the uninterrupted run")

    def same_tokens(self, out):
        """All that prepare.py leaves, but its stamps, equals the undisturbed run's."""
        ours, theirs = ({name: digest for name, digest in tree(place).items() if not name.startswith("work/")}
                        for place in (out, self.folder / "tokens"))
        different = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        expect(not different, f"other bytes: {different}")


def facts_of_run(out):
    newest = max((out / "checkpoints").glob("step-????????"))
    rows, tensors = {}, {}
    for file in (newest / "tensors").iterdir():
        raw = file.read_bytes()
        size = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:size])
        header.pop("__metadata__")  # in any order
        for name, entry in header.items():
            first, last = (size + offset for offset in entry["data_offsets"])
            tensors[file.name, name] = hashlib.sha256(raw[first:last]).hexdigest()
    for line in (out / "log.jsonl").read_text().splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if "loss" in row:
                rows[row["step"]] = row["loss"]
    return newest.name, tensors, rows, hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def valid_checkpoints(out):
    folder = out / "checkpoints"
    found = checkpoint.list_checkpoints(folder) if folder.is_dir() else []
    return [p.name for p in found if p.suffix != ".tmp" and checkpoint.find_corruption(p) is None]


def has_checkpoint(out, above=0):
    return lambda: any(int(p.name[5:]) > above for p in (out / "checkpoints").glob("step-????????"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start_ranks(program, words, folder, n, before=None):
    """Process ids of n ranks, each in a group of its own."""
    shared = dict(WORLD_SIZE=str(n), MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), LOCAL_WORLD_SIZE=str(n))
    return [start(program, words, folder / f"rank-{r}.log", before=before and partial(before, r), RANK=str(r),
                  LOCAL_RANK=str(r), **shared) for r in range(n)]


# ---------------------------------------------------------------------- rows: training

def kill_and_resume(bench, t, kind, name):
    """SIGKILL after some progress, at a random moment, again and again until a run comes through."""
    with t.trial(name) as folder:
        out, kills = folder / "run", 0
        words = bench.train_words(kind, out, save_every=1)
        while True:
            pid = start(TRAIN, [*words, "resume=True"], folder / "log")
            done = max([int(p[5:]) for p in valid_checkpoints(out)], default=0)
            if kills < 4:
                wait_for(has_checkpoint(out, done), 60)
                time.sleep(t.rng.uniform(0, 0.15))
                kill_group(pid)
            status = wait(pid)
            if status == 0:
                break
            expect(status == -9, f"exit status {status}", folder / "log")
            kills += 1
            if done:
                expect(valid_checkpoints(out), "no valid checkpoint is left")
            t.notes.append("torn" if list((out / "checkpoints").glob("*.tmp")) else "whole")
        wanted = bench.folder / f"{kind}-every-step"
        if not wanted.exists():
            bench.run(TRAIN, bench.train_words(kind, wanted, save_every=1))
        bench.same_run(kind, out, wanted)


def r1(bench, t):
    """SIGKILL of a run at random moments, four times each"""
    while t.is_time_left():
        kill_and_resume(bench, t, "lm", "lm")
    t.notes = [f"{len(t.notes)} kills, {t.notes.count('torn')} within a save"]


def count_steps(program, words, folder, within):
    """The number of changes that a program makes below a folder."""
    steps = Steps(within)
    status = wait(start(program, words, folder / "log", steps))
    expect(status == 0, f"{program.name} ended with {status}", folder / "log")
    return steps.count


def r2(bench, t):
    """Every crash point of two saves, the second of which prunes"""
    with t.trial("count") as folder:
        words = bench.train_words("lm", folder / "run", tokens=4 * STEP, keep_checkpoints=1)
        points = count_steps(TRAIN, words, folder, folder / "run/checkpoints")
    for n in t.sample(range(1, points + 1)):
        with t.trial(f"point {n} of {points}") as folder:
            out = folder / "run"
            words = bench.train_words("lm", out, tokens=4 * STEP, keep_checkpoints=1)
            wanted = bench.folder / "lm-four-steps"
            if not wanted.exists():
                bench.run(TRAIN, [w.replace(str(out), str(wanted)) for w in words])
            status = wait(start(TRAIN, words, folder / "log", Steps(out / "checkpoints", n)))
            expect(status == -9, f"did not die: {status}", folder / "log")
            if n > points / 2:
                expect(valid_checkpoints(out), "no valid checkpoint is left")
            bench.run(TRAIN, [*words, "resume=True"])
            bench.same_run("lm", out, wanted)
            expect(not list((out / "checkpoints").glob("*.tmp")), "an unfinished checkpoint is left")


def torchrun(words, log):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TRAIN)]
    return subprocess.Popen([*launch, *words], stdout=open(log, "w"), stderr=subprocess.STDOUT, start_new_session=True)


def r3(bench, t):
    """One of two ranks killed, and torchrun alone killed: nobody is left, the run resumes"""
    for kind in ("rank", "torchrun"):
        with t.trial(kind) as folder:
            out = folder / "run"
            words = bench.train_words("lm", out, save_every=1, shard_size=2, tokens=40 * STEP)
            if kind == "rank":
                pids = start_ranks(TRAIN, words, folder, 2)
                expect(wait_for(has_checkpoint(out), 90), "no checkpoint", folder / "rank-0.log")
                kill_group(pids[1])
                status = [wait(pid, 30) for pid in pids]
                expect(status[0] not in (0, None), f"the other rank ended with {status[0]}", folder / "rank-0.log")
                again = start_ranks(TRAIN, [*words, "resume=True"], folder, 2)
                expect([wait(pid) for pid in again] == [0, 0], "the resumed run failed", folder / "rank-0.log")
                bench.run(TRAIN, [w.replace(str(out), str(folder / "whole")).replace("shard_size=2", "shard_size=1")
                                  for w in words])
                losses_alike(out, folder / "whole")
            else:
                process = torchrun(words, folder / "log")
                expect(wait_for(has_checkpoint(out), 120), "no checkpoint", folder / "log")
                process.kill()
                process.wait()
                expect(wait_for(lambda g=process.pid: not members(g), 10), "workers outlive torchrun")


def losses_alike(a, b, tolerance=1e-4):
    ours, theirs = facts_of_run(a)[2], facts_of_run(b)[2]
    expect(ours.keys() == theirs.keys(), "other steps were logged")
    worst = max(abs(ours[s] - theirs[s]) for s in ours)
    expect(worst <= tolerance, f"losses differ by {worst}")


def r4(bench, t):
    """SIGTERM, SIGHUP, SIGUSR1 at a random moment: saved and ended in five seconds; also to one of two ranks"""
    while t.is_time_left():
        number = t.rng.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
        ranks = t.rng.choice([1, 1, 2])
        with t.trial(f"{number.name} to one of {ranks}") as folder:
            out = folder / "run"
            words = bench.train_words("lm", out, eval_every=3, eval_tokens=4000, tokens=60 * STEP)
            default = partial(signal.signal, number, signal.SIG_DFL)  # nohup ignores SIGHUP
            pids = start_ranks(TRAIN, words, folder, ranks, lambda rank, default=default: default())
            expect(wait_for(has_checkpoint(out), 90), "no checkpoint", folder / "rank-0.log")
            time.sleep(t.rng.uniform(0, 0.2))
            begin = time.monotonic()
            os.kill(pids[-1], number)
            status = [wait(pid, 30) for pid in pids]
            took = time.monotonic() - begin
            expect(status == [0] * ranks and took < 5, f"ended with {status} after {took:.1f} s", folder / "rank-0.log")
            resumed = start_ranks(TRAIN, [*words, "resume=True"], folder, ranks)
            expect([wait(pid) for pid in resumed] == [0] * ranks, "the resumed run failed", folder / "rank-0.log")
            wanted = bench.folder / f"lm-sixty-{ranks}"
            if not wanted.exists():
                whole = start_ranks(TRAIN, [w.replace(str(out), str(wanted)) for w in words], folder, ranks)
                expect([wait(pid) for pid in whole] == [0] * ranks, "the whole run failed", folder / "rank-0.log")
            expect(facts_of_run(out)[2] == facts_of_run(wanted)[2], "other losses than the uninterrupted run")
            expect(facts_of_run(out)[3] == facts_of_run(wanted)[3], "other weights than the uninterrupted run")


def log_rows(path, stop_at, rank):
    """In a rank: write down which rows of which step it reads, and ask for a stop at a step."""
    batch = loader.Schedule.batch

    def logged(self, step, rows):
        with open(f"{path}-{rank}-{os.getpid()}", "a") as f:
            f.writelines(f"{step} {row}\n" for row in rows)
        # before training, DPO's reference reads batches, too, and a signal ends it at once: nothing is lost
        if step == stop_at and rank == 0 and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step, rows)
    loader.Schedule.batch = logged


def r5(bench, t):
    """Resume with 2, 1, 4 and 2 ranks: each row once, losses equal"""
    with t.trial("2 -> 1 -> 4 -> 2") as folder:
        out, wanted = folder / "run", folder / "whole"
        words = bench.train_words("lm", out, micro_batch_size=1, tokens=16 * STEP, save_every=1000)
        for ranks, stop_at in ((2, 3), (1, 7), (4, 11), (2, None)):
            pids = start_ranks(TRAIN, [*words, "resume=True"], folder, ranks, partial(log_rows, folder / "r", stop_at))
            status = [wait(pid) for pid in pids]
            expect(status == [0] * ranks, f"{ranks} ranks ended with {status}", folder / "rank-0.log")
        seen = sorted(tuple(map(int, line.split())) for p in folder.glob("r-*") for line in p.read_text().splitlines())
        expect(seen == [(s, r) for s in range(16) for r in range(4)], "rows are missing or repeated")
        bench.run(TRAIN, [w.replace(str(out), str(wanted)) for w in words])
        losses_alike(out, wanted)


def r6(bench, t):
    """Two runs of the same world size: the same bits"""
    for ranks in (1, 2):
        with t.trial(f"{ranks} ranks") as folder:
            for name in ("a", "b"):
                pids = start_ranks(TRAIN, bench.train_words("lm", folder / name, shard_size=ranks), folder, ranks)
                expect([wait(pid) for pid in pids] == [0] * ranks, "failed", folder / "rank-0.log")
            expect(facts_of_run(folder / "a") == facts_of_run(folder / "b"), "other bits")


def r7(bench, t):
    """Stopped after any step, of text, packed chats and pairs, within epochs and at their ends: the same run"""
    for kind, at in t.sample((kind, step) for kind in ("lm", "sft", "dpo") for step in range(11)):
        with t.trial(f"{kind}, step {at}") as folder:
            out = folder / "run"
            words = bench.train_words(kind, out, micro_batch_size=2, tokens=12 * STEP, save_every=1000, max_epochs=1e9)
            wanted = bench.folder / f"{kind}-twelve"
            if not wanted.exists():
                bench.run(TRAIN, [w.replace(str(out), str(wanted)) for w in words])
            bench.run(TRAIN, words, before=partial(log_rows, folder / "r", at, 0))
            expect(f"step-{at + 1:08}" in valid_checkpoints(out), f"no checkpoint of step {at + 1}")
            bench.run(TRAIN, [*words, "resume=True"])
            bench.same_run(kind, out, wanted)


# ---------------------------------------------------------------------- rows: damaged files

def damage(t, kind, path):
    """Flip a byte, cut the file or delete it."""
    raw = bytearray(path.read_bytes())
    if kind == "flip":
        raw[t.rng.randrange(len(raw))] ^= t.rng.randrange(1, 256)
    elif kind == "cut":
        del raw[t.rng.choice([0, 1, len(raw) // 2, len(raw) - 1]):]
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(raw)


def damaged_checkpoints(bench, t, kind, again=10 ** 9):
    """Of every file of the newest checkpoint: detected, and the one before it is taken."""
    world = type("World", (), {"is_main": True, "print0": staticmethod(lambda text: said.append(text)),
                               "broadcast": staticmethod(lambda value: value)})
    older, newest = sorted((bench.folder / "lm/checkpoints").glob("step-*"))[-2:]
    files = [p.relative_to(newest) for p in newest.rglob("*") if p.is_file()]
    for name in t.sample(files * min(again, max(1, 400 // len(files)))):
        with t.trial(f"{kind} {name}") as folder:
            for path in (older, newest):
                shutil.copytree(path, folder / path.name)
            before = (folder / newest.name / name).read_bytes()
            damage(t, kind, folder / newest.name / name)
            said = []
            found = checkpoint.newest_checkpoint(folder, world)
            after = folder / newest.name / name
            same = name.name == "manifest.json" and kind != "delete" and same_manifest(after, before)
            expect(same or found == str(folder / older.name), f"{found} was taken")
            expect(same or newest.name in said[0], f"not said: {said}")


def same_manifest(path, before):
    """Whether a damaged manifest still says the same: white space is no content."""
    with suppress(ValueError):
        return json.loads(path.read_text()) == json.loads(before)
    return False


def r8(bench, t):
    """A flipped byte in any file of a checkpoint"""
    damaged_checkpoints(bench, t, "flip")


def r9(bench, t):
    """Any file of a checkpoint cut"""
    damaged_checkpoints(bench, t, "cut")


def r10(bench, t):
    """Any file of a checkpoint deleted; left-over, empty and foreign folders"""
    damaged_checkpoints(bench, t, "delete", 1)
    with t.trial("left-over folders") as folder:
        out = folder / "run"
        words = bench.train_words("lm", out, tokens=8 * STEP)
        bench.run(TRAIN, words)
        (out / "model.safetensors").unlink()
        newest = max((out / "checkpoints").iterdir())
        shutil.rmtree(newest)
        (out / "checkpoints/step-00000009").mkdir()
        (out / "checkpoints/step-00000099.tmp").mkdir()
        (out / "checkpoints/mine").mkdir()
        said = bench.run(TRAIN, [*words, "resume=True"])
        expect(said.count("skipping checkpoint") == 2 and (out / "checkpoints/mine").exists(), said)


def too_small(size):
    """In a child: no file may grow above so many bytes (EFBIG)."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def r11(bench, t):
    """Files that may not grow: one line, the path, what was there stays and is valid"""
    cases = [("train", size) for size in (100, 2000, 20_000, 60_000)] + [("prepare", s) for s in (100, 5000, 30_000)] \
        + [("eval", 10), ("eval", 200), ("dpo", 300)]
    for program, size in t.sample(cases):
        with t.trial(f"{program}, {size} bytes") as folder:
            out = folder / "run"
            runs = {"train": (TRAIN, bench.train_words("lm", out)), "dpo": (TRAIN, bench.train_words("dpo", out)),
                    "prepare": (PREPARE, bench.prepare_words(out)), "eval": (EVAL, bench.eval_words(out / "r.jsonl"))}
            path, words = runs[program]
            words = [*words, "resume=True"] if program in ("train", "dpo") else words
            before = []
            if program == "train":
                bench.run(TRAIN, bench.train_words("lm", out, tokens=4 * STEP))
                before = valid_checkpoints(out)
            os.mkfifo(folder / "pipe")  # a log would be too small a file, too
            pipe = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            status = wait(start(path, words, folder / "pipe", before=partial(too_small, size)))
            said = os.read(pipe, 1 << 16).decode(errors="replace")
            os.close(pipe)
            expect(status == 1 and "Traceback" not in said, f"exit status {status}: {said[-300:]}")
            last = said.splitlines()[-1]
            expect(str(folder) in last and "ulimit" in last, f"no path or no advice: {last}")
            expect(set(before) <= set(valid_checkpoints(out)) if before else True, "an older checkpoint is gone")
            bench.run(path, words)


def r12(bench, t):
    """Room for the checkpoints is checked before the first step"""
    def fake():
        usage = type("Usage", (), {"total": 10 ** 12, "free": 10 ** 5})
        shutil.disk_usage = lambda path: usage
    with t.trial("100 kB free") as folder:
        words = bench.train_words("lm", folder / "run")
        status = wait(start(TRAIN, words, folder / "log", before=fake))
        expect(status == 1 and "GB are free" in (folder / "log").read_text(), "not refused", folder / "log")
        expect(not (folder / "run/log.jsonl").exists(), "a step was made")


def r13(bench, t):
    """Raw files of every format, flipped and cut: read, or named with the place; never a traceback"""
    from raw_files import FORMATS, read_all  # beside this file
    names, aborted = sorted(FORMATS), 0
    while t.is_time_left():
        name, kind = t.rng.choice(names), t.rng.choice(["flip", "cut"])
        with t.trial(f"{kind} {name}") as folder:
            path = FORMATS[name](folder)
            damage(t, kind, path)
            if path.suffix != ".parquet":
                read_all(path)
                continue
            pid = os.fork()  # pyarrow aborts the process at some damages; prepare.py names the part that it was at
            if not pid:
                try:
                    os.dup2(os.open(folder / "log", os.O_CREAT | os.O_WRONLY), 2)
                    read_all(path)
                except BaseException as e:
                    os.write(2, f"{type(e).__name__}: {e}".encode())
                    os._exit(1)
                os._exit(0)
            status = wait(pid)
            aborted += status == -signal.SIGABRT
            expect(status in (0, -signal.SIGABRT), f"ended with {status}", folder / "log")
    t.notes.append(f"pyarrow aborted {aborted} times")


def r17(bench, t):
    """Token ids outside the vocabulary, flipped and cut shards, indexes and masks: refused before the first step"""
    tokens = bench.folder / "tokens"
    files = [p for name in ("en", "chat") for p in sorted((tokens / name).glob("*"))]
    for path, kind in t.sample((p, kind) for p in files for kind in ("flip", "flip", "cut", "delete", "large id")):
        if kind == "large id" and path.suffix != ".bin":
            continue
        with t.trial(f"{kind} {path.parent.name}/{path.name}") as folder:
            shutil.copytree(tokens, folder / "tokens")
            victim = folder / "tokens" / path.relative_to(tokens)
            if kind == "large id":
                raw = bytearray(victim.read_bytes())
                raw[10:12] = b"\xff\xff"
                victim.write_bytes(raw)
                index = json.loads((victim.parent / "index.json").read_text())
                index["shards"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
                (victim.parent / "index.json").write_text(json.dumps(index))
            else:
                damage(t, kind, victim)
            words = bench.train_words("sft", folder / "run", data=str(folder / "tokens"))
            status = wait(start(TRAIN, words, folder / "log"))
            said = (folder / "log").read_text(errors="replace")
            expect(status != TRACEBACK and "Traceback" not in said, "traceback", folder / "log")
            harmless = path.name == "index.json" and kind == "flip"  # of a name or white space
            expect(harmless or status == 1, f"exit status {status}", folder / "log")
            if status == 1:
                expect(str(victim.parent) in said or victim.parent.name in said, "not named", folder / "log")
                expect(not (folder / "run/checkpoints").exists(), "a step was made")


def r18(bench, t):
    """A checkpoint of another model, init or data is refused, and stays"""
    changes = [dict(hidden_size=48), dict(vocab_size=600), dict(num_hidden_layers=1), dict(model_type="llama"),
               dict(mixture={"en": 1}), dict(seed=5), dict(batch_size=8), dict(tie_word_embeddings=False)]
    for change in t.sample(changes):
        with t.trial(str(change)) as folder:
            shutil.copytree(bench.folder / "lm", folder / "run")
            before = valid_checkpoints(folder / "run")
            words = bench.train_words("lm", folder / "run", **change)
            status = wait(start(TRAIN, [*words, "resume=True"], folder / "log"))
            expect(status == 1 and before == valid_checkpoints(folder / "run"), f"status {status}", folder / "log")


def r19(bench, t):
    """Headers of weights and configs with flipped bytes: refused by name or read within the file, never run"""
    source = bench.folder / "lm/model.safetensors"
    raw = source.read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    while t.is_time_left():
        with t.trial("header") as folder:
            changed = bytearray(raw)
            for _ in range(t.rng.choice([1, 1, 1, 5, 50])):
                changed[t.rng.randrange(size)] = t.rng.randrange(256)
            (folder / "model.safetensors").write_bytes(changed)
            try:
                for tensor in open_weights(folder).values():
                    expect(all(offset + rows * math.prod(tensor.shape[1:]) * tensor.dtype.itemsize <= len(raw)
                               for _, rows, _, offset in tensor.pieces), "bytes outside of the file")
            except ValueError as e:
                expect("model.safetensors" in str(e), f"not named: {e}")


# ---------------------------------------------------------------------- rows: other programs and all together

def r14(bench, t):
    """prepare.py killed at random moments and crash points, one process or all: the bytes of one run"""
    with t.trial("count") as folder:
        points = count_steps(PREPARE, bench.prepare_words(folder / "run"), folder, folder / "run")
    for n in t.sample(range(1, points + 1)):
        whole = t.rng.random() < 0.7
        with t.trial(f"point {n} of {points}, {'all' if whole else 'one process'}") as folder:
            out = folder / "run"
            pid = start(PREPARE, bench.prepare_words(out), folder / "log", Steps(out, n, whole))
            status = wait(pid)
            expect(status in ((-9,) if whole else (-9, 1)), f"exit status {status}", folder / "log")
            expect(wait_for(lambda pid=pid: not members(pid), 10), "processes outlive it")
            bench.run(PREPARE, bench.prepare_words(out, workers=t.rng.choice([1, 2])))
            bench.same_tokens(out)


def r15(bench, t):
    """Any number of workers and ranks, outputs flipped, cut and deleted before it runs again: the same bytes"""
    for workers in (2, 7):
        with t.trial(f"{workers} workers") as folder:
            bench.run(PREPARE, bench.prepare_words(folder / "run", workers=workers))
            bench.same_tokens(folder / "run")
    files = [p.relative_to(bench.folder / "tokens") for p in (bench.folder / "tokens").rglob("*")
             if p.is_file() and p.name != "lock"]
    for name, kind in t.sample((name, kind) for name in files for kind in ("flip", "cut", "delete")):
        with t.trial(f"{kind} {name}") as folder:
            shutil.copytree(bench.folder / "tokens", folder / "run")
            if (folder / "run" / name).stat().st_size:
                damage(t, kind, folder / "run" / name)
            bench.run(PREPARE, bench.prepare_words(folder / "run"))
            bench.same_tokens(folder / "run")


def poison(rank, at=5):
    """In rank 1, or the only one: a loss that is not finite at one step."""
    loss, calls = objectives.LanguageModeling.loss, []

    def poisoned(self, model, batch):
        out = loss(self, model, batch)
        if torch.is_grad_enabled():
            calls.append(1)
        return out * math.nan if len(calls) == at and rank == int(os.environ["WORLD_SIZE"]) - 1 else out
    objectives.LanguageModeling.loss = poisoned


def r16(bench, t):
    """A loss that is not finite on one rank: all stop, or all leave out the step"""
    for ranks, shard_size, action in ((1, 1, "stop"), (2, 2, "stop"), (2, 1, "stop"), (1, 1, "skip"), (2, 2, "skip")):
        with t.trial(f"{ranks} ranks, shard_size={shard_size}, {action}") as folder:
            words = bench.train_words("lm", folder / "run", eval_every=10 ** 6, on_nonfinite=action,
                                      shard_size=shard_size)
            pids = start_ranks(TRAIN, words, folder, ranks, poison)
            status = [wait(pid, 60) for pid in pids]
            said = (folder / "rank-0.log").read_text()
            expect(status == [1 if action == "stop" else 0] * ranks, f"ended with {status}", folder / "rank-0.log")
            named = "step 4" in said and f"rank {ranks - 1}" in said
            expect(named, "step or rank are not named", folder / "rank-0.log")


def r20(bench, t):
    """One batch of four rows, four of one, two ranks and four, replicas and shards: the same losses"""
    with t.trial("one process") as folder:
        runs = [(1, 4, 1), (1, 1, 1), (2, 2, 1), (2, 1, 2), (4, 1, 2)]
        for n, (ranks, micro, shard) in enumerate(runs):
            words = bench.train_words("lm", folder / f"run-{n}", micro_batch_size=micro, shard_size=shard,
                                      tokens=6 * STEP)
            pids = start_ranks(TRAIN, words, folder, ranks)
            expect([wait(pid) for pid in pids] == [0] * ranks, f"{runs[n]} failed", folder / "rank-0.log")
            losses_alike(folder / f"run-{n}", folder / "run-0", 2e-5)


def r22(bench, t):
    """Two at once in one folder: the second is refused by name, the first is not disturbed"""
    out = "run"
    while t.is_time_left():
        for name in ("train", "prepare", "eval"):
            with t.trial(name) as folder:
                runs = {"train": (TRAIN, bench.train_words("lm", folder / out)),
                        "prepare": (PREPARE, bench.prepare_words(folder / out)),
                        "eval": (EVAL, bench.eval_words(folder / out / "r.jsonl"))}
                program, words = runs[name]
                pids = [start(program, words, folder / "0.log")]
                time.sleep(t.rng.uniform(0, 0.05))
                pids.append(start(program, words, folder / "1.log"))
                status = [wait(pid) for pid in pids]
                said = "".join((folder / f"{i}.log").read_text() for i in (0, 1))
                expect(sorted(status) == [0, 1], f"ended with {status}: {said[-300:]}")
                expect("in use by" in said or "already holds a run" in said, f"not named: {said[-300:]}")
                if name == "train":
                    bench.same_run("lm", folder / out)


def r23(bench, t):
    """Ten thousand batches, and a thousand steps: memory and open files stay as they are"""
    with t.trial("1,000 steps") as folder:
        words = bench.train_words("lm", folder / "run", tokens=1000 * STEP, log_every=50, save_every=100)
        bench.run(TRAIN, words)
        rows = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
        memory = {row["step"]: row["memory_gb"] for row in rows if "memory_gb" in row}
        expect(memory[1000] <= 1.05 * memory[250], f"{memory[250]} GB after 250 steps, {memory[1000]} after 1,000")
    with t.trial("10,000 batches"):
        sources = loader.open_sources(str(bench.folder / "tokens"))
        schedule = loader.Schedule(sources, {"en": 3, "kk": 1}, 4, 96, 0)
        sizes = []
        for step in range(10_000):
            schedule.batch(step, range(4))
            if step in (1000, 9999):
                rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
                sizes.append((rss, len(os.listdir("/proc/self/fd"))))
        expect(sizes[1][0] < 1.05 * sizes[0][0] and sizes[0][1] == sizes[1][1], f"grew from {sizes[0]} to {sizes[1]}")


def r24(bench, t):
    """SFT and DPO killed at random; every crash point and flips of the DPO reference"""
    for kind in ("sft", "dpo"):
        kill_and_resume(bench, t, kind, kind)
    t.notes = [f"{len(t.notes)} kills"]
    with t.trial("count") as folder:
        words = bench.train_words("dpo", folder / "run", save_every=1000)
        points = count_steps(TRAIN, words, folder, folder / "run/reference")
    wanted = bench.folder / "dpo-once"
    for n in t.sample(range(1, points + 1)):
        with t.trial(f"reference, point {n} of {points}") as folder:
            out = folder / "run"
            words = bench.train_words("dpo", out, save_every=1000)
            if not wanted.exists():
                bench.run(TRAIN, [w.replace(str(out), str(wanted)) for w in words])
            expect(wait(start(TRAIN, words, folder / "log", Steps(out / "reference", n))) == -9, "did not die")
            bench.run(TRAIN, [*words, "resume=True"])
            bench.same_run("dpo", out, wanted)
    file = next((bench.folder / "dpo/reference").glob("*.safetensors"))
    for kind in t.sample(["flip"] * 30 + ["cut"] * 4):
        with t.trial(f"reference, {kind}") as folder:
            shutil.copytree(bench.folder / "dpo/reference", folder / "reference")
            damage(t, kind, folder / "reference" / file.name)
            words = bench.train_words("dpo", folder / "run", reference_dir=str(folder / "reference"))
            status = wait(start(TRAIN, words, folder / "log"))
            said = (folder / "log").read_text()
            expect(status == 1 and file.name in said and "Traceback" not in said, f"status {status}", folder / "log")


def rows_of(path):
    out = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        out.append(json.dumps({k: v for k, v in row.items() if k not in ("seconds", "date", "time", "checkpoint")},
                              sort_keys=True))
    return sorted(out)


def r25(bench, t):
    """eval.py killed at every crash point and started again: the same results and samples, each once"""
    wanted = rows_of(bench.folder / "results.jsonl")
    with t.trial("count") as folder:
        points = count_steps(EVAL, bench.eval_words(folder / "o/r.jsonl"), folder, folder / "o")
    for n in t.sample(range(1, points + 1)):
        with t.trial(f"point {n} of {points}") as folder:
            words = bench.eval_words(folder / "o/r.jsonl")
            status = wait(start(EVAL, words, folder / "log", Steps(folder / "o", n)))
            expect(status == -9, f"did not die: {status}", folder / "log")
            bench.run(EVAL, words)
            expect(rows_of_whole(folder / "o/r.jsonl") == wanted, "other results")
    for _ in t.sample(range(20)):
        with t.trial("cut results") as folder:
            words = bench.eval_words(folder / "o/r.jsonl")
            bench.run(EVAL, words)
            path = folder / "o/r.jsonl"
            path.write_bytes(path.read_bytes()[:t.rng.randrange(path.stat().st_size)])
            bench.run(EVAL, words)
            expect(rows_of_whole(path) == wanted, "other results")


def rows_of_whole(path):
    """The rows of a results file; what a kill has cut is no row."""
    whole = Path(f"{path}.whole")
    lines = []
    for line in Path(path).read_text().splitlines():
        with suppress(ValueError):
            json.loads(line)
            lines.append(line)
    whole.write_text("".join(f"{line}\n" for line in lines))
    return rows_of(whole)


# row: (its share of the time, its function)
ROWS = {"R1": (3, r1), "R2": (4, r2), "R3": (2, r3), "R4": (3, r4), "R5": (1, r5), "R6": (1, r6), "R7": (3, r7),
        "R8": (1, r8), "R9": (1, r9), "R10": (1, r10), "R11": (1, r11), "R12": (1, r12), "R13": (1, r13),
        "R14": (4, r14), "R15": (3, r15), "R16": (1, r16), "R17": (2, r17), "R18": (1, r18), "R19": (1, r19),
        "R20": (1, r20), "R22": (2, r22), "R23": (1, r23), "R24": (3, r24), "R25": (2, r25)}


def main(argv=None):
    c, = load(Torture, argv=argv)
    chosen = [name for name in ROWS if name in c.only.split(",") or not c.only]
    begin, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="torture-"))
    done = {}
    try:
        bench = Bench(folder)
        for i, name in enumerate(chosen):
            left = sum(ROWS[other][0] for other in chosen[i:])
            seconds = max(0, c.minutes * 60 - (time.monotonic() - begin)) * ROWS[name][0] / left
            t = Trials(folder, seconds, f"{c.seed} {name}")
            try:
                ROWS[name][1](bench, t)
            except Exception as e:
                t.failed.append(f"the row itself: {type(e).__name__}: {e}")
            done[name] = t, time.monotonic() - t.begin
            print(f"{name}: {t.tried} trials, {len(t.failed)} failed, {done[name][1]:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(done)
    print(f"seed={c.seed}, {time.monotonic() - begin:.0f} s")
    if any(t.failed for t, _ in done.values()):
        raise SystemExit(1)


def print_table(done):
    print(f"\n{'row':4} {'trials':>7} {'failed':>6} {'s':>5}  what")
    for name, (t, seconds) in done.items():
        of = f" ({t.points} points)" if t.points else ""
        note = f"; {', '.join(t.notes)}" if t.notes else ""
        print(f"{name:4} {t.tried:7} {len(t.failed):6} {seconds:5.0f}  {ROWS[name][1].__doc__}{of}{note}")
    print("R21  within R1 and R2: a valid checkpoint is there at every instant after the first save")
    print("R26  asynchronous saving is not built")
    for name, (t, _) in done.items():
        for text in t.failed[:5]:
            print(f"{name} FAILED: {text}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
