"""The training loop on tiny shards: the loss falls, micro-batches and processes change nothing, a kill at any moment
costs nothing, and every misuse is one clear line."""
import errno
import fcntl
import json
import os
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import tokenizer
import train
from evaluation import results
from hf.export import export
from model import ModelConfig, Qwen2
from training import objectives
from training.distributed import World

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
RUN = dict(mixture={"en": 3, "zh": 1, "low": 0.5}, seq_len=32, batch_size=4, micro_batch_size=4, lr=1e-2,
           warmup_ratio=0.1, dtype="float32", threads=1, eval_every=1000, log_every=1000, eval_tokens=100)
pytestmark = pytest.mark.usefixtures("on_the_cpu", "own_handlers")
STEP = 4 * 32  # tokens


def words(data, out, /, steps=8, **changes):
    """The command line of a run."""
    settings = SHAPE | RUN | {"data": data, "out": out, "tokens": steps * STEP} | changes
    return [f"{k}={v}" for k, v in settings.items() if v is not ...]


@pytest.fixture
def go(token_data):
    """A function: train in this process and return the weights' bytes."""
    def run(out, steps=8, **changes):
        train.main(words(token_data, out, steps, **changes))
        return (Path(out) / "model.safetensors").read_bytes()
    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory, token_data):
    """A finished run of 8 steps with checkpoints at 4, 6 and 8; tests that damage it take a copy."""
    out = tmp_path_factory.mktemp("reference") / "run"
    train.main(words(token_data, out, save_every=2, keep_checkpoints=3))
    return out


@pytest.fixture
def copy(reference, tmp_path):
    return Path(shutil.copytree(reference, tmp_path / "copy"))


def steps_of(out):
    return sorted(p.name for p in (Path(out) / "checkpoints").iterdir())


def log_of(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def difference(a, b):
    """The largest absolute difference between two folders' weights."""
    a, b = load_file(Path(a) / "model.safetensors"), load_file(Path(b) / "model.safetensors")
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


# ---------------------------------------------------------------------- learning

def test_the_loss_falls_and_the_run_is_on_record(go, tmp_path, capsys):
    go(tmp_path / "run", steps=60, log_every=10, eval_every=30)
    rows = log_of(tmp_path / "run")
    losses = [r["loss"] for r in rows if "loss" in r]
    assert len(losses) == 6 and losses[0] < 4.3 and losses[-1] < losses[0] - 1
    bpb = [r for r in rows if "bpb" in r]
    assert [r["step"] for r in bpb] == [0, 30, 60] and list(bpb[0]["bpb"]) == ["en"]
    assert bpb[-1]["bpb"]["en"] < bpb[0]["bpb"]["en"] - 0.5
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["lr"] == 1e-2 and run["model"]["hidden_size"] == 32 and "commit" in run
    assert (tmp_path / "run" / "tokenizer_config.json").exists()
    assert "step 60/60" in capsys.readouterr().out


def test_fresh_bits_per_byte_are_the_uniform_ones(go, token_data, tmp_path):
    """A fresh model gives every id 1/64: 6 bits a token; in the shards a word has two bytes and the end none."""
    go(tmp_path / "run", steps=1, eval_every=1, eval_tokens=10 ** 6, lr=1e-9)
    index = json.loads((token_data / "en-valid" / "index.json").read_text())
    tokens, size = (sum(s[k] for s in index["shards"]) for k in ("tokens", "bytes"))
    assert log_of(tmp_path / "run")[0]["bpb"]["en"] == pytest.approx(6 * tokens / size, rel=0.01)


def test_the_result_loads(reference):
    model = Qwen2.from_pretrained(reference)
    assert model.config == ModelConfig(**SHAPE)
    other = Qwen2(model.config).init_weights(0)
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))


def test_the_same_run_gives_the_same_bits_and_another_seed_others(go, reference, tmp_path):
    assert go(tmp_path / "a", save_every=1000) == (reference / "model.safetensors").read_bytes()
    assert go(tmp_path / "b", seed=1) != (reference / "model.safetensors").read_bytes()


def settings(**changes):
    some = {"tokens": 100 * STEP, "batch_size": 4, "seq_len": 32, "lr": 2e-3}
    return train.Train(out="", data="", mixture={"en": 1}, **some | changes)


@pytest.mark.parametrize("schedule, middle", [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_learning_rate(schedule, middle):
    c = settings(lr_schedule=schedule, warmup_ratio=0.1, min_lr_ratio=0.1)  # 100 steps, 10 of them warm-up
    rates = [train.learning_rate(s, c) / c.lr for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5) and rates[9] == pytest.approx(1)
    assert rates[10] == pytest.approx(1) and rates[99] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert (rates[54] + rates[55]) / 2 == pytest.approx(middle) and max(rates) <= 1 + 1e-12
    assert all(a >= b - 1e-12 for a, b in zip(rates[10:], rates[11:]))


def test_learning_rate_of_short_runs():
    assert train.learning_rate(0, settings(tokens=STEP)) == pytest.approx(2e-3)  # one step is all warm-up
    c = settings(warmup_ratio=0.0)
    assert train.learning_rate(0, c) == pytest.approx(2e-3) and train.learning_rate(99, c) == pytest.approx(2e-4)


def test_only_matrices_decay():
    model = Qwen2(ModelConfig(**SHAPE))
    decayed, others = train.make_optimizer(model, settings()).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim == 2 for p in decayed["params"]) and all(p.ndim == 1 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


# ---------------------------------------------------------------------- micro-batches and processes

# AdamW divides a gradient by its own size: where that is near zero, rounding moves a weight by up to lr. A small lr
# leaves the weights comparable to 1e-6. AdamW and clipping hide a gradient of the wrong scale; without clipping it
# shows in the first moment and in the log.
SPLIT = dict(lr=1e-4, grad_clip=1e9, save_every=4, keep_checkpoints=9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, token_data):
    """A run of 8 steps by one process with whole batches."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train.main(words(token_data, out, **SPLIT))
    return out


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_equal_the_whole_batch(go, whole, tmp_path, micro_batch_size):
    """1 x 4 = 4 x 1, and an uneven 3 + 1."""
    go(tmp_path / "split", micro_batch_size=micro_batch_size, **SPLIT)
    assert difference(tmp_path / "split", whole) <= 1e-6


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_the_gradient_is_that_of_the_mean_over_the_global_batch(go, token_data, tmp_path, micro_batch_size):
    """AdamW's first moment after one step is a tenth of it."""
    go(tmp_path / "run", steps=1, micro_batch_size=micro_batch_size, **SPLIT | {"save_every": 1})
    sources = train.data.open_sources(token_data)
    tokens, targets, starts = train.data.Schedule(sources, RUN["mixture"], 4, 32, 0).batch(0, range(4))[:3]
    model = Qwen2(ModelConfig(**SHAPE)).init_weights(0)
    (-model(tokens, targets, starts).mean()).backward()
    moments = {}
    for file in (tmp_path / "run" / "checkpoints" / "step-00000001" / "tensors").glob("*.safetensors"):
        moments |= load_file(file)
    for name, p in model.named_parameters():
        assert (10 * moments[f"exp_avg.{name}"] - p.grad).abs().max() <= 1e-6, name


@pytest.mark.parametrize("activation_checkpointing", [True, "selective"])
def test_recomputation_gives_the_same_bits(go, reference, tmp_path, activation_checkpointing):
    ours = go(tmp_path / "run", activation_checkpointing=activation_checkpointing)
    assert ours == (reference / "model.safetensors").read_bytes()


def test_micro_batches_are_the_rows_of_a_process_once():
    c = SimpleNamespace(batch_size=8, micro_batch_size=3)
    found = [World.micro_batches(SimpleNamespace(rank=rank, world_size=2), c) for rank in (0, 1)]
    assert found == [[range(3), range(3, 4)], [range(4, 7), range(7, 8)]]


def command(root, data, out, /, steps=8, processes=None, **changes):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    return [sys.executable, *launch, str(root / "train.py"), *words(data, out, steps, **changes)]


def torchrun(root, data, out, steps=8, processes=2, **changes):
    arguments = command(root, data, out, steps, processes, **changes)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes, changes", [
    (2, {}), (2, {"shard_size": 1, "micro_batch_size": 1, "tie_word_embeddings": False}),  # replicas
    (2, {"shard_size": 2}), (2, {"shard_size": 2, "tie_word_embeddings": False, "micro_batch_size": 1}),
    (4, {"shard_size": 2, "micro_batch_size": 1, "batch_size": 8,  # two replicas of two shards
         "activation_checkpointing": "selective"})])
def test_processes_equal_one(root, token_data, go, tmp_path, processes, changes):
    torchrun(root, token_data, tmp_path / "two", processes=processes, **SPLIT, **changes)
    go(tmp_path / "one", **SPLIT, **changes)
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-6
    ours, theirs = ([r for r in log_of(tmp_path / o) if "loss" in r][-1] for o in ("two", "one"))
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)
    assert ours["norm"] == pytest.approx(theirs["norm"], abs=2e-4)
    bpb = [[r["bpb"]["en"] for r in log_of(tmp_path / o) if "bpb" in r] for o in ("two", "one")]
    assert bpb[0] == pytest.approx(bpb[1], abs=2e-4)


# ---------------------------------------------------------------------- stop and resume

LONG = dict(steps=400, save_every=20)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, token_data):
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train.main(words(token_data, out, **LONG))
    return (out / "model.safetensors").read_bytes()


def wait_for(what, seconds, process=None):
    """Poll until what() is true; a process that ends meanwhile is an error."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        if process is not None and process.poll() is not None:
            raise AssertionError("the run ended too early:\n" + process.communicate()[0][-2000:])
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s in vain")


def has_checkpoint(out):
    return lambda: any(p.suffix != ".tmp" for p in (out / "checkpoints").glob("step-*"))


def start(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_a_random_moment_and_resumed(root, token_data, uninterrupted, go, tmp_path, number):
    out, delay = tmp_path / "run", random.uniform(0, 0.5)
    process = start(command(root, token_data, out, **LONG))
    try:
        wait_for(has_checkpoint(out), 60, process)
        time.sleep(delay)
        assert process.poll() is None, "the run was too short to be stopped"
        process.send_signal(number)
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()
    if number == signal.SIGTERM:
        assert process.returncode == 0 and "resume=True" in said, said
    assert not (out / "model.safetensors").exists()
    left = steps_of(out)
    ours = go(out, resume=True, **LONG)
    assert ours == uninterrupted, f"stopped {delay:.3f} s after the first checkpoint, left {left}"
    assert not list((out / "checkpoints").glob("*.tmp"))


def test_stopped_twice_at_given_steps(reference, go, tmp_path, monkeypatch):
    """SIGTERM during steps 2 and 5, between two checkpoints: saves there, exit code 0."""
    batch = train.data.Schedule.batch
    for at in (2, 5):
        def signalled(self, step, rows):
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch(self, step, rows)
        monkeypatch.setattr(train.data.Schedule, "batch", signalled)
        with pytest.raises(SystemExit) as e:
            go(tmp_path / "run", resume=at == 5)
        assert e.value.code == 0 and steps_of(tmp_path / "run")[-1] == f"step-{at + 1:08}"
        del e  # it holds the frames that hold the lock
    monkeypatch.setattr(train.data.Schedule, "batch", batch)
    assert go(tmp_path / "run", resume=True) == (reference / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_stopped_during_validation(reference, go, tmp_path, monkeypatch, number):
    """It is cut short: one step more, then a checkpoint."""
    signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP, and so would the run
    seen, loss = [], objectives.LanguageModeling.loss

    def signalled(self, model, batch):
        if not torch.is_grad_enabled():
            seen.append(1)
            if len(seen) == 2:
                os.kill(os.getpid(), number)
        return loss(self, model, batch)

    monkeypatch.setattr(objectives.LanguageModeling, "loss", signalled)
    settings = dict(eval_every=3, eval_tokens=10 ** 6, micro_batch_size=1)
    with pytest.raises(SystemExit) as e:
        go(tmp_path / "run", **settings)
    assert e.value.code == 0 and len(seen) == 2 and steps_of(tmp_path / "run") == ["step-00000001"]
    del e
    assert not [r for r in log_of(tmp_path / "run") if "bpb" in r] if (tmp_path / "run/log.jsonl").exists() else True
    monkeypatch.setattr(objectives.LanguageModeling, "loss", loss)
    whole = go(tmp_path / "whole", **settings)
    assert go(tmp_path / "run", resume=True, **settings) == whole


def test_stopped_while_saving(reference, go, tmp_path, monkeypatch):
    """That checkpoint is the last: no other step, no second one."""
    save = train.checkpoint.save

    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*args)

    monkeypatch.setattr(train.checkpoint, "save", signalled)
    with pytest.raises(SystemExit) as e:
        go(tmp_path / "run", save_every=3)
    assert e.value.code == 0 and steps_of(tmp_path / "run") == ["step-00000003"]
    del e
    monkeypatch.setattr(train.checkpoint, "save", save)
    assert go(tmp_path / "run", resume=True) == (reference / "model.safetensors").read_bytes()


def test_nohup_goes_on(reference, go, tmp_path, monkeypatch):
    """Where SIGHUP is ignored from the start, it stays so."""
    monkeypatch.setattr(train.data.Schedule, "batch", hang_up(train.data.Schedule.batch))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert go(tmp_path / "run") == (reference / "model.safetensors").read_bytes()
    finally:
        signal.signal(signal.SIGHUP, before)


def hang_up(batch):
    def hung_up(self, step, rows):
        os.kill(os.getpid(), signal.SIGHUP)
        return batch(self, step, rows)
    return hung_up


def test_a_closed_pipe_does_not_end_training(root, token_data, tmp_path, reference):
    """As `train.py | head -1`: nobody reads any longer."""
    arguments = command(root, token_data, tmp_path / "run", log_every=1, eval_every=1)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0 and "Error" not in error, error
    assert len([r for r in log_of(tmp_path / "run") if "loss" in r]) == 8
    assert (tmp_path / "run/model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()


@pytest.mark.parametrize("left", [-20, 1, 0])  # of its last line, or of the file
def test_a_line_of_the_log_that_was_cut_spoils_no_other(go, copy, left):
    """Killed while it wrote: the resumed run begins a line of its own."""
    log, whole = copy / "log.jsonl", log_of(copy)
    text = log.read_text()
    log.write_text(text[:left])
    shutil.rmtree(copy / "checkpoints/step-00000008")
    go(copy, resume=True, save_every=2, keep_checkpoints=3)
    lines = log.read_text().splitlines()
    cut = len(text[:left].splitlines())
    ours = [json.loads(line) for line in lines[cut:]]
    assert lines[:cut] == text[:left].splitlines()
    assert [row["loss"] for row in ours if "loss" in row] == [row["loss"] for row in whole if "loss" in row]


def test_resume_without_a_checkpoint_starts_over(go, reference, tmp_path):
    assert go(tmp_path / "run", resume=True) == (reference / "model.safetensors").read_bytes()


def test_checkpoints_hold_safetensors_and_json_only(reference):
    files = [p for p in (reference / "checkpoints").rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} == {".safetensors", ".json"}
    assert steps_of(reference) == ["step-00000004", "step-00000006", "step-00000008"]


def test_old_checkpoints_are_pruned(go, tmp_path):
    go(tmp_path / "run", save_every=1, keep_checkpoints=2)
    assert steps_of(tmp_path / "run") == ["step-00000007", "step-00000008"]


def victim(checkpoint):
    return max((p for p in checkpoint.rglob("*.safetensors")), key=lambda p: p.stat().st_size)


def flip(checkpoint):
    raw = bytearray(victim(checkpoint).read_bytes())
    raw[-1] ^= 1
    victim(checkpoint).write_bytes(raw)


def truncate(checkpoint):
    victim(checkpoint).write_bytes(victim(checkpoint).read_bytes()[:-1])


def other_state(checkpoint):
    path = checkpoint / "state.json"
    path.write_text(path.read_text().replace("8", "7"))


DAMAGES = {"flipped": (flip, "SHA-256"), "truncated": (truncate, "bytes"),
           "missing": (lambda c: victim(c).unlink(), "missing"),
           "no manifest": (lambda c: (c / "manifest.json").unlink(), "manifest"),
           "half a manifest": (lambda c: (c / "manifest.json").write_text('{"sta'), "manifest"),
           "a manifest that is a list": (lambda c: (c / "manifest.json").write_text("[1, 2]"), "manifest"),
           "a manifest of numbers": (lambda c: (c / "manifest.json").write_text('{"state.json": 3}'), "manifest"),
           "a manifest of null": (lambda c: (c / "manifest.json").write_text("null"), "manifest"),
           "an empty manifest": (lambda c: (c / "manifest.json").write_text("{}"), "not in the manifest"),
           "a deep manifest": (lambda c: (c / "manifest.json").write_text("[" * 10 ** 5), "manifest"),
           "a stray tensor": (lambda c: shutil.copy(victim(c), c / "tensors" / "shard-x.safetensors"), "shard-x"),
           "a stray file": (lambda c: (c / "more.json").write_text("{}"), "more.json is not in the manifest"),
           "flipped state": (other_state, "SHA-256")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped(go, reference, copy, damage, capsys):
    harm, word = DAMAGES[damage]
    harm(copy / "checkpoints" / "step-00000008")
    assert go(copy, resume=True, save_every=2, keep_checkpoints=3) == (reference / "model.safetensors").read_bytes()
    said = capsys.readouterr().out
    skipped = [line for line in said.splitlines() if "skipping" in line]
    assert len(skipped) == 1 and "step-00000008" in skipped[0] and word in skipped[0]
    assert "from " in said and "step-00000006" in said


def test_all_damaged_starts_over(go, reference, copy, capsys):
    for checkpoint in (copy / "checkpoints").iterdir():
        flip(checkpoint)
    assert go(copy, resume=True, save_every=2, keep_checkpoints=3) == (reference / "model.safetensors").read_bytes()
    assert capsys.readouterr().out.count("skipping") == 3


def test_an_unfinished_checkpoint_is_ignored(go, reference, copy, capsys):
    shutil.copytree(copy / "checkpoints" / "step-00000008", copy / "checkpoints" / "step-00000009.tmp")
    shutil.rmtree(copy / "checkpoints" / "step-00000008")
    assert go(copy, resume=True, save_every=2, keep_checkpoints=3) == (reference / "model.safetensors").read_bytes()
    said = capsys.readouterr().out
    assert "step-00000009.tmp: was never finished" in said and steps_of(copy)[-1] == "step-00000008"


def test_pruning_never_takes_the_checkpoint_just_written(copy):
    """After a fall back, damaged ones with higher numbers are in the folder; they must not push out the good one."""
    for checkpoint in (copy / "checkpoints").iterdir():
        flip(checkpoint)
    model = Qwen2(ModelConfig(**SHAPE)).init_weights(0)
    c = train.Train(**vars(settings(keep_checkpoints=2)) | {"out": str(copy)})
    world = SimpleNamespace(is_main=True, rank=0, world_size=1, barrier=lambda: None, all_gather=lambda x: [x])
    train.checkpoint.save(c, world, model, train.make_optimizer(model, c), {"step": 2})
    assert "step-00000002" in steps_of(copy)


def test_the_order_of_saving(go, reference, tmp_path, monkeypatch):
    """Files are synced, then the manifest, then the rename is; only then is an older checkpoint deleted."""
    events, path_of = [], {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "close")}

    def opened(path, *args, **kwargs):
        fd = real["open"](path, *args, **kwargs)
        path_of[fd] = str(path)
        return fd

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", path_of.get(fd))), real["fsync"](fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append(("publish", str(b))), real["rename"](a, b)))
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda p, *a, **k: (events.append(("delete", str(p))), remove(p, *a, **k)))
    go(tmp_path / "run", steps=3, save_every=1, keep_checkpoints=1)
    for step in (2, 3):
        tmp, final = (str(tmp_path / "run/checkpoints" / f"step-{step:08}{end}") for end in (".tmp", ""))
        older = str(tmp_path / "run/checkpoints" / f"step-{step - 1:08}")
        publish, delete = events.index(("publish", final)), events.index(("delete", older))
        synced = [path for kind, path in events[:publish] if kind == "sync" and path and path.startswith(tmp)]
        files = {str(p).replace(final, tmp) for p in Path(final).rglob("*") if p.is_file()} if step == 3 else set()
        assert files <= set(synced) and synced[-3:] == [f"{tmp}/manifest.json", f"{tmp}/tensors", tmp]
        assert events[publish + 1] == ("sync", str(tmp_path / "run/checkpoints")) and publish + 1 < delete


def test_folders_that_train_did_not_make_are_not_pruned(go, tmp_path):
    """A copy of a checkpoint under another name, in the same folder."""
    go(tmp_path / "run", steps=2, save_every=1)
    mine = tmp_path / "run/checkpoints"
    for name in ("step-00000001-backup", "step-1", "best", "mine.tmp"):
        shutil.copytree(mine / "step-00000001", mine / name)
    go(tmp_path / "run", steps=5, save_every=1, keep_checkpoints=1, resume=True)
    assert steps_of(tmp_path / "run") == ["best", "mine.tmp", "step-00000001-backup", "step-00000005", "step-1"]


@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2])
def test_killed_torchrun_leaves_nobody_behind_and_resumes(root, token_data, tmp_path, shard_size):
    pair = dict(steps=100, save_every=10, shard_size=shard_size)
    out, delay = tmp_path / "run", random.uniform(0, 0.5)
    process, workers = start(command(root, token_data, out, processes=2, **pair)), []
    try:
        wait_for(has_checkpoint(out), 120, process)
        time.sleep(delay)
        workers = [pid for pid in pids_with(out) if pid != process.pid]
        assert len(workers) >= 2
        process.kill()
        process.wait()
        wait_for(lambda: not alive(workers), 3)
    finally:
        process.kill()
        process.wait()
        for pid in alive(workers):
            os.kill(pid, signal.SIGKILL)
    assert not (out / "model.safetensors").exists(), "the run was too short to be killed"
    torchrun(root, token_data, out, resume=True, **pair)
    torchrun(root, token_data, tmp_path / "whole", **pair)
    ours, theirs = ((o / "model.safetensors").read_bytes() for o in (out, tmp_path / "whole"))
    assert ours == theirs, f"killed {delay:.3f} s after the first checkpoint"


def errors_by_hand(root, commands):
    """What two processes, started without torchrun, print as errors; both must end with status 1."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    env = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(root)}
    ranks = [subprocess.Popen([sys.executable, *map(str, words)], cwd=root, env=env | {"RANK": str(rank)},
                              stderr=subprocess.PIPE, text=True) for rank, words in enumerate(commands)]
    try:
        said = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [1, 1]
    return said


@pytest.mark.slow
@pytest.mark.parametrize("refuses", [0, 1])
@pytest.mark.parametrize("change, reason", [
    ({"data": "nowhere"}, "nowhere"),                     # refused once the processes have met
    ({"grad_clip": -1}, "grad_clip must be"),             # before they meet
])
def test_a_rank_that_refuses_alone_ends_the_others(root, token_data, tmp_path, refuses, change, reason):
    """Started by hand, not by torchrun: each ends within seconds, with the reason and without a traceback."""
    changes = [change if rank == refuses else {} for rank in range(2)]
    said = errors_by_hand(root, [["train.py", *words(token_data, tmp_path / "run", **change)] for change in changes])
    assert reason in said[refuses] and said[refuses].count("\n") == 1
    assert re.fullmatch(rf"rank {refuses} ended this run: ValueError: .*{reason}.*\n", said[1 - refuses])


UNCAUGHT = """
import os
from datetime import timedelta
import torch.distributed as dist
from training import peers
peers.init_process_group("gloo", timedelta(minutes=2))
if os.environ["RANK"] == "1":
    raise KeyError("broken")
dist.barrier()
"""


@pytest.mark.slow
def test_a_rank_with_a_traceback_ends_the_others(root):
    said = errors_by_hand(root, [["-c", UNCAUGHT]] * 2)
    assert said[0] == "rank 1 ended this run: KeyError: 'broken'\n"
    assert "Traceback" in said[1] and said[1].endswith("KeyError: 'broken'\n")


ORPHAN = """
import os, sys, time
from training.distributed import die_with_parent
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    open(sys.argv[1] + "/orphaned", "w").close()
    die_with_parent()
    open(sys.argv[1] + "/alive", "w").close()
"""


def test_a_worker_whose_parent_is_already_dead_ends(root, tmp_path):
    """torchrun was killed while its workers were importing torch: they would wait for it for an hour."""
    env = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", ORPHAN, str(tmp_path)], env=env, check=True, timeout=120)
    wait_for(lambda: (tmp_path / "orphaned").exists(), 30)
    wait_for(lambda: not pids_with(tmp_path), 30)
    assert not (tmp_path / "alive").exists()


def pids_with(text):
    """Live processes with this text in their command line."""
    out = []
    for p in Path("/proc").iterdir():
        try:
            if p.name.isdigit() and int(p.name) != os.getpid() and str(text) in (p / "cmdline").read_text():
                out.append(int(p.name))
        except OSError:
            pass  # ended meanwhile
    return out


def alive(pids):
    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "X"
    return [pid for pid in pids if state(pid) not in "XZ"]


@pytest.mark.slow
def test_other_numbers_of_processes_go_on(root, token_data, go, whole, tmp_path):
    """Saved by two and loaded by one, saved by one and loaded by two, shards and replicas; tied and untied."""
    untied = SPLIT | {"tie_word_embeddings": False}
    torchrun(root, token_data, tmp_path / "down", shard_size=2, **SPLIT)
    torchrun(root, token_data, tmp_path / "replicas-down", **SPLIT)
    torchrun(root, token_data, tmp_path / "untied-down", shard_size=2, **untied)
    go(tmp_path / "untied", **untied)
    shutil.copytree(whole, tmp_path / "up")
    shutil.copytree(tmp_path / "down", tmp_path / "replicas-from-shards")
    for out in ("down", "replicas-down", "untied-down", "up", "replicas-from-shards"):
        shutil.rmtree(tmp_path / out / "checkpoints" / "step-00000008")
        (tmp_path / out / "model.safetensors").unlink()
    go(tmp_path / "down", resume=True, **SPLIT)
    go(tmp_path / "untied-down", resume=True, **untied)
    go(tmp_path / "replicas-down", resume=True, **SPLIT)
    torchrun(root, token_data, tmp_path / "replicas-from-shards", resume=True, **SPLIT)
    assert "step-00000004" in torchrun(root, token_data, tmp_path / "up", resume=True, shard_size=2, **SPLIT)
    assert difference(tmp_path / "replicas-down", whole) <= 1e-5
    assert difference(tmp_path / "replicas-from-shards", whole) <= 1e-5
    assert difference(tmp_path / "down", whole) <= 1e-5 and difference(tmp_path / "up", whole) <= 1e-5
    assert difference(tmp_path / "untied-down", tmp_path / "untied") <= 1e-5


# ---------------------------------------------------------------------- what is refused

def stopped(monkeypatch, arguments):
    """Run train.py as the shell does and return the one line it stops with."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as e:
        runpy.run_path(train.__file__, run_name="__main__")
    assert isinstance(e.value.code, str), "exit code 0"  # a string goes to stderr, and the code is 1
    assert "\n" not in e.value.code
    return e.value.code


@pytest.mark.parametrize("changes, needles", [
    (dict(vocab_size=50), ("64", "50", "vocab_size=64")),
    (dict(hiden_size=8), ("hiden_size", "did you mean 'hidden_size'")),
    (dict(lr="fast"), ("lr must be float", "fast")),
    (dict(batch_size=-1), ("batch_size must be positive", "-1")),
    (dict(lr_schedule="step"), ("schedule", "cosine, linear or constant", "step")),
    (dict(dtype="float16"), ("dtype", "float16")),
    (dict(tokens=STEP - 1), ("less than one global batch", str(STEP))),
    (dict(mixture={"en": 0}), ("mixture",)),
    (dict(mixture={"en": -1, "zh": 2}), ("mixture",)),
    (dict(mixture={"fr": 1}), ("mixture", "fr", "en")),
    (dict(data=...), ("data must be set",)),
    (dict(data="nowhere"), ("nowhere", "prepare.py")),
    (dict(hidden_size=30), ("hidden_size 30", "num_attention_heads 4")),
    (dict(activation_checkpointing="some"), ("activation_checkpointing", "selective", "some")),
    (dict(activation_checkpointing="selective", compile=True), ("compile=True", "activation_checkpointing")),
])
def test_misuse_is_one_line(monkeypatch, token_data, tmp_path, changes, needles):
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", **changes))
    assert line.startswith("ValueError: ") and all(n in line for n in needles), line


def test_rows_that_do_not_divide(monkeypatch, token_data, tmp_path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", batch_size=3))
    assert "batch_size=3" in line and "2 processes" in line
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "shard_size=3" in stopped(monkeypatch, words(token_data, tmp_path / "run", shard_size=3))


def test_the_shell_sees_one_line_and_a_code(root, token_data, tmp_path):
    arguments = command(root, token_data, tmp_path / "run", vocab_size=50)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("ValueError: ")


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    Qwen2(ModelConfig(**SHAPE)).init_weights(5).save_pretrained(folder)
    return folder


NO_SHAPE = dict.fromkeys(SHAPE, ...)


def test_init_starts_from_those_weights(go, base, tmp_path):
    go(tmp_path / "run", steps=1, init=base, lr=1e-9, **NO_SHAPE)
    assert 0 < difference(tmp_path / "run", base) < 1e-7


def test_init_brings_its_own_shape(monkeypatch, token_data, base, tmp_path):
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", init=base))
    assert "init=" in line and "config.json" in line and "hidden_size" in line


def test_init_with_another_tokenizer(monkeypatch, token_data, base, tmp_path):
    tokenizer.train(["alpha beta gamma delta"] * 9, 285, base)
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", init=base, **NO_SHAPE))
    assert tokenizer.load(base).fingerprint in line and "0123456789abcdef" in line and "prepare.py" in line


def test_damaged_shards(monkeypatch, token_folder, tmp_path):
    data = token_folder(tmp_path / "data")
    file = data / "en" / "shard-00001.bin"
    raw = bytearray(file.read_bytes())
    raw[0] ^= 1
    file.write_bytes(raw)
    line = stopped(monkeypatch, words(data, tmp_path / "run"))
    assert str(file) in line and "SHA-256" in line


@pytest.mark.parametrize("left", ["everything", "the model alone", "checkpoints before the first log line"])
def test_a_used_folder_is_not_overwritten(monkeypatch, token_data, copy, left):
    if left == "the model alone":
        (copy / "log.jsonl").unlink()
        shutil.rmtree(copy / "checkpoints")
    elif left != "everything":
        (copy / "log.jsonl").unlink()
        (copy / "model.safetensors").unlink()
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "lock"}
    line = stopped(monkeypatch, words(token_data, copy))
    assert str(copy) in line and "resume=True" in line
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "lock"} == before


@pytest.mark.parametrize("changes", [
    dict(seed=1), dict(seq_len=16), dict(batch_size=8), dict(mixture={"en": 1, "zh": 1}), dict(intermediate_size=32),
    dict(rope_theta=5.0)])
def test_resuming_another_run_is_refused(monkeypatch, token_data, copy, changes):
    line = stopped(monkeypatch, words(token_data, copy, resume=True, **changes))
    assert "made with another" in line and "out=" in line


def test_resuming_with_other_shards_is_refused(monkeypatch, token_folder, write_source, copy, tmp_path):
    data = token_folder(tmp_path / "data")
    shutil.rmtree(data / "zh")
    write_source(data / "zh", [[1, 2, 3]] * 50, category="zh", language="zh")
    assert "made with another schedule" in stopped(monkeypatch, words(data, copy, resume=True))


def test_resuming_a_finished_run_with_more_tokens(go, tmp_path, capsys):
    """It continues from the checkpoint at the end, which always exists; the jump of the learning rate is noted."""
    go(tmp_path / "run", steps=5)  # save_every is 500
    assert steps_of(tmp_path / "run") == ["step-00000005"]
    assert json.loads((tmp_path / "run/checkpoints/step-00000005/state.json").read_text())["next_lr"] == 1e-3
    capsys.readouterr()
    go(tmp_path / "run", steps=10, resume=True)
    printed = capsys.readouterr().out
    lr = train.learning_rate(5, settings(tokens=10 * STEP, lr=1e-2, warmup_ratio=0.1))
    assert f"note: the learning rate jumps from 1.00e-03 to {lr:.2e} at step 5" in printed
    assert [r["step"] for r in log_of(tmp_path / "run") if "loss" in r] == [5, 10]
    assert steps_of(tmp_path / "run") == ["step-00000005", "step-00000010"]
    go(tmp_path / "run", steps=10, resume=True)
    assert "note: the learning rate" not in capsys.readouterr().out


def test_an_unchanged_run_resumes_without_a_note(go, copy, capsys):
    for step in (6, 8):
        shutil.rmtree(copy / "checkpoints" / f"step-{step:08}")
    go(copy, resume=True)
    assert "note: the learning rate" not in capsys.readouterr().out


def test_resuming_with_fewer_tokens_than_done_is_refused(monkeypatch, token_data, copy):
    line = stopped(monkeypatch, words(token_data, copy, steps=5, resume=True))
    assert "past the last step of this run, 5" in line and f"tokens= to at least {8 * STEP}" in line


def test_resuming_with_another_learning_rate_is_allowed(go, copy, reference):
    """It is the way out of a divergence, as the error about non-finite gradients says."""
    shutil.rmtree(copy / "checkpoints" / "step-00000008")
    assert go(copy, resume=True, lr=1e-3) != (reference / "model.safetensors").read_bytes()


def test_where_nothing_can_be_locked(tmp_path, monkeypatch, capsys):
    """Some network file systems: said, not taken for another run."""
    def flock(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")
    monkeypatch.setattr(fcntl, "flock", flock)
    world = object.__new__(World)
    world.is_main, world.world_size, world.lock = True, 1, None
    world.lock_folder(tmp_path / "run")
    assert "run/lock cannot be locked (Operation not supported)" in capsys.readouterr().err
    results.lock_results(tmp_path / "r.jsonl").close()
    assert "r.jsonl.lock cannot be locked (Operation not supported)" in capsys.readouterr().err


@pytest.mark.parametrize("holder", ["process 12345 on node7", ""])  # "": not written yet
def test_a_second_job_on_the_same_folder_is_refused(monkeypatch, token_data, tmp_path, holder):
    out = tmp_path / "run"
    out.mkdir()
    (out / "lock").write_text(holder)
    with open(out / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = stopped(monkeypatch, words(token_data, out))
    assert str(out) in line and "in use" in line and holder in line and "out=" in line
    assert (out / "lock").read_text() == holder and not (out / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite_stops_the_run(monkeypatch, token_data, base, tmp_path):
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, base / "model.safetensors")
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", init=base, **NO_SHAPE))
    assert line.startswith("FloatingPointError: step 0: the gradient norm is nan") and "resume=True" in line
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def poison(monkeypatch):
    """A function: make the loss of these steps nan."""
    def of(*steps):
        batch, loss, at = train.data.Schedule.batch, objectives.LanguageModeling.loss, []

        def remember(self, step, rows):
            at.append(step)
            return batch(self, step, rows)

        def poisoned(self, model, batch):
            return loss(self, model, batch) * (float("nan") if torch.is_grad_enabled() and at[-1] in steps else 1)

        monkeypatch.setattr(train.data.Schedule, "batch", remember)
        monkeypatch.setattr(objectives.LanguageModeling, "loss", poisoned)
    return of


def test_a_step_that_is_not_finite_stops_with_its_rows(go, tmp_path, poison):
    poison(3)
    with pytest.raises(FloatingPointError, match=r"step 3: the gradient norm is nan; the loss is not finite on rank 0, "
                                                 r"rows 0 to 3 of the batch \(en.*resume=True"):
        go(tmp_path / "run")
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.parametrize("steps", [(2,), (0,), (7,), (1, 2, 3), (1, 2, 3, 5, 6, 7)])
def test_steps_that_are_not_finite_can_be_skipped(go, tmp_path, poison, steps):
    """They are logged, the weights do not change in them, and a resumed run gives the same bits."""
    poison(*steps)
    whole = go(tmp_path / "run", on_nonfinite="skip", save_every=4, keep_checkpoints=9, log_every=1)
    rows = log_of(tmp_path / "run")
    assert [r["step"] for r in rows if "skipped" in r] == list(steps)
    problems = [r["skipped"] for r in rows if "skipped" in r]
    assert all("gradient norm is nan" in p and "rank 0, rows 0 to 3" in p for p in problems)
    assert [r["step"] - 1 for r in rows if "loss" in r] == [step for step in range(8) if step not in steps]
    assert all(x.isfinite().all() for x in load_file(tmp_path / "run/model.safetensors").values())
    state = json.loads((tmp_path / "run/checkpoints/step-00000008/state.json").read_text())
    assert state["updates"] == 8 - len(steps)
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000008")
    assert go(tmp_path / "run", on_nonfinite="skip", save_every=4, keep_checkpoints=9, resume=True) == whole


def test_a_skipped_step_changes_nothing(go, tmp_path, poison):
    poison(0)
    go(tmp_path / "run", on_nonfinite="skip", steps=1)
    fresh = Qwen2(ModelConfig(**SHAPE)).init_weights(0)
    saved = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(p, saved[name]) for name, p in fresh.named_parameters())


def test_at_most_three_steps_are_skipped_in_a_row(go, tmp_path, poison):
    poison(2, 3, 4, 5)
    with pytest.raises(FloatingPointError, match="step 5: the gradient norm is nan"):
        go(tmp_path / "run", on_nonfinite="skip")
    assert [r["step"] for r in log_of(tmp_path / "run") if "skipped" in r] == [2, 3, 4]


POISON = """
import os, sys, torch, train
from training import objectives
loss, calls = objectives.LanguageModeling.loss, []
def poisoned(self, model, batch):
    calls.append(torch.is_grad_enabled())
    bad = torch.is_grad_enabled() and sum(calls) == 3 and os.environ["RANK"] == sys.argv[1]  # step 2
    return loss(self, model, batch) * (float("nan") if bad else 1)
objectives.LanguageModeling.loss = poisoned
try:
    train.main(sys.argv[2:])
except FloatingPointError as e:
    os.write(1, f"ended: {e}\\n".encode())
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes, changes", [
    (2, {}), (2, {"shard_size": 2}),  # replicas; shards
    (4, {"shard_size": 2, "batch_size": 8})])  # two replicas of two shards
@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_nan_on_one_process_is_of_all(root, token_data, tmp_path, processes, changes, on_nonfinite):
    """All processes stop, or skip, in the same step, and name the one that has it."""
    (tmp_path / "poison.py").write_text(POISON)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), tmp_path / "poison.py"]
    rank = processes - 1
    steps = 5 * changes.get("batch_size", 4) // 4  # of words' batches of 4
    settings = words(token_data, tmp_path / "run", steps=steps, on_nonfinite=on_nonfinite, log_every=1, **changes)
    done = subprocess.run([sys.executable, *map(str, launch), str(rank), *settings], capture_output=True, text=True,
                          timeout=600, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-2000:]
    per_process = changes.get("batch_size", 4) // processes
    place = f"step 2: the gradient norm is nan; the loss is not finite on rank {rank}, rows {rank * per_process} to"
    if on_nonfinite == "stop":
        assert done.stdout.count(f"ended: {place}") == processes
    else:
        rows = log_of(tmp_path / "run")
        assert [r["step"] for r in rows if "skipped" in r] == [2] and place in str(rows) and "ended" not in done.stdout
        assert (tmp_path / "run/model.safetensors").exists()


@pytest.mark.slow
def test_shards_save_float32_though_they_compute_in_bfloat16(root, token_data, tmp_path):
    """The last validation gathers weights in bfloat16; the model that is saved after it is the last checkpoint's."""
    run = tmp_path / "run"
    torchrun(root, token_data, run, shard_size=2, dtype="bfloat16", save_every=8, eval_every=4)
    stored = Qwen2.from_pretrained(run / "checkpoints/step-00000008").base_parameters()
    saved = load_file(run / "model.safetensors")
    assert len(saved) > 20
    for name, tensor in saved.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, stored[name]), name


TRACE = """
import os, re, sys
import torch
from torch.profiler import ProfilerActivity, profile
import train
from training import objectives
original, seen = objectives.LanguageModeling.loss, []
def traced(self, model, batch, *more):  # forward and backward of the second step
    if torch.is_grad_enabled():
        seen.append(profile(activities=[ProfilerActivity.CPU]))
        if len(seen) == 2:
            seen[1].__enter__()
    return original(self, model, batch, *more)
objectives.LanguageModeling.loss = traced
step = torch.optim.AdamW.step
def stepped(*a, **k):
    if len(seen) == 2:
        seen[1].__exit__(None, None, None)
        names = [(e.time_range.start, e.name) for e in seen[1].events() if e.name.startswith("FSDP::")]
        if os.environ["RANK"] == "0":
            print("TRACE", *(name.replace(" ", "") for _, name in sorted(names)))
        seen.append(None)
    return step(*a, **k)
torch.optim.AdamW.step = stepped
train.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_weights_are_gathered_ahead_in_the_backward(root, token_data, tmp_path):
    """FSDP2 asks for the layer below before a layer's backward is over, and keeps the last layer from the forward."""
    (tmp_path / "trace.py").write_text(TRACE)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "trace.py"]
    settings = words(token_data, tmp_path / "run", steps=3, shard_size=2, num_hidden_layers=4)
    done = subprocess.run([sys.executable, *map(str, launch), *settings], capture_output=True, text=True, timeout=600,
                          env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-2000:]
    trace = next(line for line in done.stdout.splitlines() if line.startswith("TRACE")).split()[1:]
    gathers = [int(layer) for name in trace for layer in re.findall(r"all_gather\(model.layers.(\d)\)", name)]
    assert gathers == [0, 1, 2, 3, 2, 1, 0]
    for layer in (2, 1, 0):
        asked = len(trace) - 1 - trace[::-1].index(f"FSDP::all_gather(model.layers.{layer})")
        assert asked < trace.index(f"FSDP::post_backward_reshard(model.layers.{layer + 1})")


# ---------------------------------------------------------------------- training new embeddings alone

NEW = 48  # of 64 words the last 16 are new
WORDS = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def grown(tmp_path, request):
    """A model folder to start from."""
    folder = tmp_path / "grown"
    Qwen2(ModelConfig(**SHAPE, tie_word_embeddings=request.param)).init_weights(5).save_pretrained(folder)
    return folder


def changed(before, after):
    """{tensor: the rows with a changed bit}, only tensors that have any."""
    before, after = (load_file(x / "model.safetensors") for x in (before, after))
    assert before.keys() == after.keys() and before["model.norm.weight"].dtype == torch.float32
    different = {name: x.view(torch.int32) != after[name].view(torch.int32) for name, x in before.items()}
    return {name: x.view(len(x), -1).any(1).nonzero().flatten().tolist() for name, x in different.items() if x.any()}


def only_new_rows_differ(before, after, first=NEW):
    words = load_file(before / "model.safetensors").keys() & set(WORDS)
    assert words and changed(before, after) == dict.fromkeys(words, list(range(first, 64)))


@pytest.mark.parametrize("changes", [
    {}, {"micro_batch_size": 1, "weight_decay": 10.0}, {"activation_checkpointing": True, "grad_clip": 0.01},
    {"dtype": "bfloat16"}])
def test_new_rows_alone_learn(go, grown, tmp_path, changes):
    go(tmp_path / "run", steps=5, init=grown, first_new_id=NEW, **NO_SHAPE, **changes)
    only_new_rows_differ(grown, tmp_path / "run")


def test_a_single_new_row(go, grown, tmp_path):
    go(tmp_path / "run", steps=5, init=grown, first_new_id=63, **NO_SHAPE)
    only_new_rows_differ(grown, tmp_path / "run", 63)


@pytest.mark.parametrize("bits", [-2 ** 31, 1, 0x7fffff, -0x7fc00000],
                         ids=["minus zero", "smallest", "largest of the smallest", "a negative one"])
def test_numbers_that_arithmetic_would_change(go, grown, tmp_path, bits):
    """Rows that were never trained hold such numbers. Where denormals are flushed to 0, x - 0 is no longer x."""
    weights = load_file(grown / "model.safetensors")
    for name in weights.keys() & set(WORDS):
        weights[name].view(torch.int32)[3, :4] = bits  # an integer: as a number it might count as 0 here already
    save_file(weights, grown / "model.safetensors")
    go(tmp_path / "run", steps=2, init=grown, first_new_id=NEW, **NO_SHAPE)
    only_new_rows_differ(grown, tmp_path / "run")


def moments_of(checkpoint):
    out = {}
    for file in (checkpoint / "tensors").glob("*.safetensors"):
        out |= {name: x for name, x in load_file(file).items() if name.startswith("exp_avg")}
    return out


def test_the_gradient_of_new_rows_is_that_of_the_whole_model(go, token_data, grown, tmp_path):
    """AdamW's first moment after one step is a tenth of it, 0 for the old rows; frozen parameters have none."""
    settings = NO_SHAPE | SPLIT | {"save_every": 1}
    go(tmp_path / "run", steps=1, init=grown, first_new_id=NEW, micro_batch_size=3, **settings)
    sources = train.data.open_sources(token_data)
    tokens, targets, starts = train.data.Schedule(sources, RUN["mixture"], 4, 32, 0).batch(0, range(4))[:3]
    model = Qwen2.from_pretrained(grown)
    (-model(tokens, targets, starts).mean()).backward()
    moments, words = moments_of(tmp_path / "run" / "checkpoints" / "step-00000001"), dict(model.named_parameters())
    words = {name: p.grad for name, p in words.items() if name in WORDS}
    assert moments.keys() == {f"{kind}.{name}" for kind in ("exp_avg", "exp_avg_sq") for name in words}
    for name, grad in words.items():
        got = 10 * moments[f"exp_avg.{name}"]
        assert (got - grad)[NEW:].abs().max() <= 1e-6 and not got[:NEW].any() and grad[:NEW].any() and grad[NEW:].any()


def test_the_norm_that_is_clipped_is_of_the_new_rows(go, grown, tmp_path):
    go(tmp_path / "run", steps=1, init=grown, first_new_id=NEW, save_every=1, grad_clip=0.001, log_every=1, **NO_SHAPE)
    moments = moments_of(tmp_path / "run" / "checkpoints" / "step-00000001")
    square = sum(float((10 * x.double()).square().sum()) for name, x in moments.items() if name.startswith("exp_avg."))
    assert square ** 0.5 == pytest.approx(0.001, rel=1e-3)
    assert [r["norm"] for r in log_of(tmp_path / "run") if "norm" in r][0] > 0.001


def test_new_rows_resumed(go, grown, tmp_path):
    """Stopped after step 2 of 5 and resumed: the same bits. A checkpoint is a whole model, as others are."""
    settings = dict(steps=5, init=grown, first_new_id=NEW, save_every=2, keep_checkpoints=9, **NO_SHAPE)
    whole = go(tmp_path / "run", **settings)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    (tmp_path / "run" / "model.safetensors").unlink()
    only_new_rows_differ(grown, exported(tmp_path / "run" / "checkpoints" / "step-00000002", tmp_path / "two"))
    assert go(tmp_path / "run", resume=True, **settings) == whole


def exported(checkpoint, out):
    export(checkpoint, out)
    return out


def test_then_everything_is_trained(go, grown, tmp_path):
    """The second stage starts from the first one's model, without first_new_id."""
    go(tmp_path / "first", steps=3, init=grown, first_new_id=NEW, **NO_SHAPE)
    (tmp_path / "first" / "tokenizer_config.json").unlink()  # the shards of these tests have no tokenizer beside it
    go(tmp_path / "second", steps=3, init=tmp_path / "first", **NO_SHAPE)
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in ("first", "second"))
    assert all(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("value, needles", [
    (64, ("first_new_id=64", "64")), (65, ("first_new_id=65", "64")), (10 ** 9, ("first_new_id=", "64")),
    (0, ("first_new_id must be positive", "0")), (-1, ("first_new_id must be positive", "-1")),
    ("all", ("first_new_id must be int", "all"))])
def test_new_rows_that_are_not_there(monkeypatch, token_data, base, tmp_path, value, needles):
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", init=base, first_new_id=value, **NO_SHAPE))
    assert line.startswith("ValueError: ") and all(n in line for n in needles), line
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_new_rows_of_no_model(monkeypatch, token_data, tmp_path):
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", first_new_id=NEW))
    assert "first_new_id=48" in line and "init=" in line


@pytest.mark.parametrize("first, then", [(NEW, None), (NEW, 40), (None, NEW)])
def test_resuming_with_other_rows_is_refused(go, monkeypatch, token_data, base, tmp_path, first, then):
    """It is another run: other parameters are trained, and the checkpoint has no moments of theirs."""
    settings = dict(init=base, steps=4, save_every=2, **NO_SHAPE)
    go(tmp_path / "run", first_new_id=first, **settings)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    line = stopped(monkeypatch, words(token_data, tmp_path / "run", first_new_id=then, resume=True, **settings))
    assert "made with another" in line and "first_new_id" in line


@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2])
def test_new_rows_in_two_processes(root, token_data, go, grown, tmp_path, shard_size):
    """A process may own old rows, new rows or both; resuming gives the same bits."""
    settings = dict(init=grown, first_new_id=NEW, shard_size=shard_size, **NO_SHAPE, **SPLIT | {"save_every": 2})
    torchrun(root, token_data, tmp_path / "two", steps=5, **settings)
    go(tmp_path / "one", steps=5, **settings)
    only_new_rows_differ(grown, tmp_path / "two")
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-5
    shutil.copytree(tmp_path / "two", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-00000004")
    (tmp_path / "again" / "model.safetensors").unlink()
    torchrun(root, token_data, tmp_path / "again", steps=5, resume=True, **settings)
    two, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "again"))
    assert again == two


@pytest.mark.slow
def test_new_rows_of_one_process_alone(root, token_data, go, grown, tmp_path):
    """Row 32 is the first of the second process: the first process trains nothing, and its rows keep their bits."""
    settings = NO_SHAPE | SPLIT | {"shard_size": 2}
    torchrun(root, token_data, tmp_path / "two", steps=5, init=grown, first_new_id=NEW - 16, **settings)
    go(tmp_path / "one", steps=5, init=grown, first_new_id=NEW - 16, **NO_SHAPE, **SPLIT)
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-5
    only_new_rows_differ(grown, tmp_path / "two", NEW - 16)


# ---------------------------------------------------------------------- under Slurm

SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 "$@" & pids+=($!); done
trap 'kill -USR1 "${pids[@]}"' USR1
echo $$ > "$FAKE/srun.pid"
status=0
for pid in "${pids[@]}"; do
    wait $pid || status=$?
    while kill -0 $pid 2>/dev/null; do status=0; wait $pid || status=$?; done
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = requeue ]; then echo "$2" >> "$FAKE/requeued"; else echo 127.0.0.1; fi
"""


@pytest.fixture
def slurm(tmp_path, root, monkeypatch):
    """A function that starts recipes/train.slurm beside an srun of two tasks and a scontrol that notes requeues."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name, value in (("FAKE", tmp_path), ("PATH", f"{tmp_path}:{os.environ['PATH']}"), ("PYTHON", sys.executable),
                        ("SLURM_JOB_ID", os.getpid()), ("SLURM_JOB_NODELIST", "node[1-2]")):
        monkeypatch.setenv(name, str(value))

    def submit(*words):
        return subprocess.Popen(["bash", str(root / "recipes/train.slurm"), *words], cwd=root, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    return submit


@pytest.mark.slow
def test_a_warned_job_is_queued_again_and_finishes(slurm, token_data, tmp_path):
    """Slurm's signal stops both ranks after a checkpoint, and the job asks to run again; the next run finishes."""
    out = tmp_path / "run"
    words_ = [w for w in words(token_data, out, **LONG) if not w.startswith("out=")]
    first = slurm(str(out), *words_)
    wait_for(has_checkpoint(out), 120, first)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    said = first.communicate(timeout=120)[0]
    assert first.returncode == 0 and "stopped by a signal" in said, said[-2000:]
    assert (tmp_path / "requeued").read_text() == f"{os.getpid()}\n" and not (out / "model.safetensors").exists()

    second = slurm(str(out), *words_)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0 and f"finished: {out}" in said and ", from " in said, said[-2000:]
    assert (tmp_path / "requeued").read_text().count("\n") == 1 and steps_of(out)[-1] == f"step-{LONG['steps']:08}"


@pytest.mark.slow
def test_a_failed_job_is_not_queued_again(slurm, token_data, tmp_path):
    process = slurm(str(tmp_path / "run"), *words(token_data, ..., lr="much", out=...))
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "lr" in said and not (tmp_path / "requeued").exists(), said[-2000:]
