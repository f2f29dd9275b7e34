"""The training loop: pretraining, SFT and DPO of a Qwen2 model on a mixture of token shards, on one process or on many nodes.

    python train.py configs/tiny/stage1.py lr=1e-3
    torchrun --nproc-per-node 8 train.py configs/marco/stage1.py
    python train.py configs/tiny/stage1.py resume=True        # after a kill at any moment: the same bits
    python train.py configs/marco/stage1.py plan=True gpus=64 # memory, traffic and days of that run, without a GPU

Sum the log-probabilities of the global batch, divide once by its supervised tokens, step: micro-batches and processes
change the speed, not the gradient. Checkpoints hold safetensors and JSON only and are complete or absent.
"""
import ctypes
import fcntl
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import checkpoint
import data as shards
import dpo
import tokenizer
from configs import load
from model import IGNORE, ModelConfig, Qwen2, own_rows, read_config
from plan import CARDS, Plan, flops, parameters, report


@dataclass(frozen=True)
class Train:
    out: str                       # folder of this run: log.jsonl, checkpoints/, and at the end the model itself
    data: str | list               # folder of token shards (prepare.py), or several; the model gets the first one's tokenizer
    mixture: dict                  # {category: share}; shares are normalised to sum to 1
    tokens: int                    # to train on; steps = tokens // (rows * length); of chats, the padding of rows included
    loss: str = "lm"               # lm: of every target (pretraining; of chats their answers); dpo: of preference pairs
    init: str | None = None        # Hugging Face folder to start from; None: fresh weights
    length: int = 512              # tokens in a row
    rows: int = 16                 # rows in the global batch
    micro_rows: int = 8            # rows one process takes at once; more rows are accumulated
    lr: float = 1e-3               # the highest
    min_lr: float = 0.1            # the last, as a fraction of lr
    warmup: float = 0.02           # fraction of the steps
    schedule: str = "cosine"       # from lr to min_lr * lr: cosine, linear or constant
    beta1: float = 0.9             # AdamW
    beta2: float = 0.95
    weight_decay: float = 0.1      # of matrices; vectors are not decayed
    clip: float = 1.0              # of the global gradient norm
    seed: int = 0                  # of fresh weights and of the data order
    dtype: str = "auto"            # of the computation; auto: bfloat16 where the machine has it fast
    beta: float = 0.1              # dpo: how dearly the model pays for leaving the reference
    label_smoothing: float = 0.0   # dpo: share of the pairs that are taken to be the wrong way round
    length_normalized: bool = False  # dpo: log-ratios for each token of an answer
    reference: str | None = None   # dpo: folder of the reference's log-probabilities, made where absent; None: out/reference
    new_rows: int | None = None    # train only the words from this id on (recipes/extend_vocabulary.py); None: everything
    recompute: bool | str = False  # "selective": cheap parts, a quarter less memory; True: layers, a third more work
    compile: bool = False          # torch.compile each block
    shard: int | None = None       # HSDP: processes that share one copy of the model, at most; None: all of them
    threads: int | None = None     # CPU threads of a process; None: torch's choice
    log_every: int = 10            # steps
    eval_every: int = 100          # steps between validations (and one at the end)
    eval_tokens: int = 4096        # of each language
    save_every: int = 500          # steps between checkpoints (and one on SIGTERM or SIGUSR1; torchrun kills 30 s after SIGTERM)
    keep: int = 2                  # checkpoints kept
    verify: bool = True            # compare the shards' SHA-256 before the first step
    max_epochs: float = 4.0        # warn when a source is repeated more often
    resume: bool = False           # go on from the newest whole checkpoint of `out`

    def __post_init__(self):
        problems = [f"{name} must be positive, got {value}" for name, value in asdict(self).items()
                    if type(value) in (int, float) and value <= 0
                    and name not in ("seed", "min_lr", "warmup", "weight_decay", "label_smoothing")]
        if self.loss not in ("lm", "dpo"):
            problems.append(f"loss must be lm or dpo, got {self.loss!r}")
        if self.loss == "dpo" and not self.init:
            problems.append("loss=dpo needs init=, the model to align: it is the reference, too")
        if not 0 <= self.label_smoothing < 0.5:
            problems.append(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.schedule not in ("cosine", "linear", "constant"):
            problems.append(f"schedule must be cosine, linear or constant, got {self.schedule!r}")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            problems.append(f"dtype must be auto, float32 or bfloat16, got {self.dtype!r}")
        if self.recompute not in (False, True, "selective"):
            problems.append(f"recompute must be False, True or selective, got {self.recompute!r}")
        if self.compile and self.recompute == "selective":
            problems.append("compile=True makes cheap things again by itself: leave recompute=selective out, or set it to True")
        if not any(v > 0 for v in self.mixture.values()) or any(v < 0 for v in self.mixture.values()):
            problems.append(f"mixture needs shares >= 0 and one above 0, got {self.mixture}")
        if not problems and self.steps < 1:
            problems.append(f"tokens={self.tokens} is less than one global batch, rows * length = {self.rows * self.length}")
        if problems:
            raise ValueError("Train: " + "; ".join(problems))

    @property
    def steps(self):
        return self.tokens // (self.rows * self.length)


def lm_loss(model, batch):
    """Minus the sum of the targets' log-probabilities: pretraining, and SFT when some targets are IGNORE."""
    tokens, targets, starts, *_ = batch
    return -model(tokens, targets, starts).sum()


def lr_at(step, c):
    """Learning rate of a step (from 0): linear warm-up, then the schedule down to min_lr * lr at the last step."""
    warm = math.ceil(c.warmup * c.steps)
    if step < warm:
        return c.lr * (step + 1) / warm
    done = (step - warm) / max(1, c.steps - 1 - warm)
    fall = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[c.schedule]
    return c.lr * (c.min_lr + (1 - c.min_lr) * fall)


def main(argv=None):
    c, model_config, machines = load(Train, ModelConfig, Plan, argv=argv)
    if machines.plan:
        return report(c, model_config, machines)
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # DCP says so when there is one process
    world = World(c)
    sources = shards.open_sources(c.data)
    plan = shards.Plan(sources, c.mixture, c.rows, c.length, c.seed)
    if c.init and model_config != ModelConfig():
        raise ValueError(f"init={c.init} brings its own config.json; leave the model's settings (hidden_size, ...) out")
    config = read_config(c.init) if c.init else model_config
    home = Path(c.data[0] if isinstance(c.data, list) else c.data)  # whose tokenizer goes with the model
    check_vocabulary(c, config, sources, home)
    if plan.pairs != (c.loss == "dpo"):
        raise ValueError(f"loss={c.loss}, and the mixture {c.mixture} reads {'' if plan.pairs else 'no '}preference pairs; "
                         f"{'set loss=dpo' if plan.pairs else 'name the category of some, or set loss=lm'}")
    if c.verify:
        for s in sources[world.rank::world.size]:
            s.verify()
    out = Path(c.out)
    with only_job(out, world):
        newest = latest(out / "checkpoints", world) if c.resume else None
        used = world.tell(any((out / name).exists() for name in ("log.jsonl", "run.json", "checkpoints", "model.safetensors")))
        if used and not c.resume:
            raise ValueError(f"{out} already holds a run; say resume=True to go on with it, or out= another folder")
        if c.resume and not newest:
            world.say(f"resume: no whole checkpoint in {out}/checkpoints, so this starts at step 0")
        model = build(config, c, world)
        if c.init and (c.loss == "dpo" or not newest):
            model.load_weights(c.init)
        elif not newest:
            model.init_weights(c.seed)
        held_out = [s for s in shards.open_sources(c.data, "valid") if (s.kind == "preference") == plan.pairs]
        learn, check, noise = lm_loss, lm_loss, None
        if c.loss == "dpo":
            learn, check, noise = dpo.objectives(c, world, model, plan, held_out, content(c.init, world))
            if world.size > 1:
                model.reshard()  # the root keeps what it gathered for a forward; optimizer and checkpoints need its shards
        optimizer = make_optimizer(model, c)
        step = 0
        identity = {"plan": plan.fingerprint(), "config": asdict(config), "init": fingerprint(c.init), "new_rows": c.new_rows}
        if newest:
            step = restore(newest, model, optimizer, identity)
        if world.main:
            begin_log(out, c, config, model, plan, newest)
            chats = any(s.kind != "text" and w for s, w in zip(sources, plan.weights))
            checkpoint.write_beside(out, asdict(config), torch.float32, c.init, home / "tokenizer", chats)
            if c.loss == "dpo":
                write_log(out, {"step": step, "noise": noise})
        loop(c, world, plan, model, optimizer, step, identity, held_out, learn, check)
        model.save_pretrained(out, like=out)
        world.say(f"saved {out}")
    world.close()


def loop(c, world, plan, model, optimizer, step, identity, held_out, learn, check):
    """Steps `step` to c.steps - 1. Returns when they are done; after SIGTERM saves and leaves with exit code 0.

    learn(model, batch), and check of the held-out ones: the loss summed over supervised tokens, or over preference pairs.
    """
    meter = Meter(c, model.config, world)
    stopping = stop_flag()
    while step < c.steps:
        # once in a while: validate
        if step % c.eval_every == 0:
            validate(c, world, model, held_out, step, check)
            meter.restart()
        # ---------------------------------------------------------------- one step
        batches = list(world.batches(plan, step, c.micro_rows))
        weight = sum(len(batch[4]) if plan.pairs else int((batch[1] != IGNORE).sum()) for batch in batches)
        count, stop = world.sum([weight, float(stopping())])
        total = 0.0
        for i, batch in enumerate(batches):
            if world.size > 1:  # copies of the model exchange their gradients once, behind the last micro-batch
                model.set_requires_all_reduce(i == len(batches) - 1)
            loss = learn(model, [x.to(world.device, non_blocking=True) for x in batch])
            (loss * (world.size / count)).backward()  # FSDP averages over processes; the gradient is d(sum)/d(weights) / count
            total += loss.detach()
        if c.new_rows:
            drop_old_rows(model, c.new_rows)
        norm = world.clip(model, c.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, c)
        if not math.isfinite(norm):
            raise FloatingPointError(f"step {step}: the gradient norm is {norm}; weights unchanged since. Lower lr or look at "
                                     f"this step's rows; resume=True goes back to the newest checkpoint in {c.out}/checkpoints")
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        # ----------------------------------------------------------------
        meter.add(batches)
        if step % c.log_every == 0 or step == c.steps:
            more = learn.summary(world) if plan.pairs else {}
            meter.log(step, world.sum([float(total)])[0] / count, norm, lr_at(step - 1, c), more)
        if step % c.save_every == 0 or stop:
            save(c, world, model, optimizer, step, identity)
            if stop and step < c.steps:
                world.say(f"stopped by a signal after step {step}, saved; go on with resume=True")
                world.close()
                raise SystemExit(0)
            meter.restart()
    validate(c, world, model, held_out, step, check)


# ---------------------------------------------------------------------- model and optimizer

def build(config, c, world):
    """The model on its device, sharded when there are several processes: recompute, compile, then shard each block."""
    with torch.device("meta"):
        model = Qwen2(config, world.dtype, c.recompute)
    if c.compile:
        for block in model.model.layers:
            block.compile()
    if world.size > 1:
        policy = MixedPrecisionPolicy(param_dtype=world.dtype, reduce_dtype=torch.float32)
        for block in model.model.layers:
            fully_shard(block, mesh=world.mesh, mp_policy=policy)
        # the root keeps what it reads outside of any block: norm, embedding and head (5 GB in bf16 at 72 B), gathered once a step
        fully_shard(model, mesh=world.mesh, mp_policy=policy, reshard_after_forward=False)
    return model.materialize(world.device)


def make_optimizer(model, c):
    if c.new_rows:  # without decay a row whose gradient is always 0 keeps its bits
        model.requires_grad_(False)
        words = {model.model.embed_tokens.weight.requires_grad_(), model.lm_head.weight.requires_grad_()}
        groups = [{"params": list(words), "weight_decay": 0.0}]
    else:
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": c.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=True)


def drop_old_rows(model, first):
    """Zero the gradients of the words below id `first`."""
    for p in {model.model.embed_tokens.weight, model.lm_head.weight}:
        local, row = own_rows(p.grad)
        local[:max(0, first - row)] = 0


def check_vocabulary(c, config, sources, home):
    """The shards' tokenizer must be the one the model was trained with, and its ids must exist in the model."""
    index = sources[0].index
    if index["vocab_size"] > config.vocab_size:
        raise ValueError(f"{c.data}: its tokenizer has {index['vocab_size']} ids, the model {config.vocab_size} rows; "
                         f"set vocab_size={index['vocab_size']} or prepare with the model's own tokenizer")
    if not (home / "tokenizer").is_dir():
        raise ValueError(f"{home}: no tokenizer folder beside the shards; copy what prepare.py wrote whole")
    theirs = tokenizer.load(c.init).fingerprint if c.init and tokenizer.files(c.init) else None
    if theirs and theirs != index["tokenizer"]:
        raise ValueError(f"{c.data} was prepared with tokenizer {index['tokenizer']}, {c.init} was trained with {theirs}; "
                         f"run prepare.py with tokenizer={c.init}")
    if c.new_rows and not (c.init and c.new_rows < config.vocab_size):
        raise ValueError(f"new_rows={c.new_rows}: needs init= a model with more than that many rows ({config.vocab_size} here)")


def fingerprint(folder):
    """Tells Hugging Face folders apart by their files' names and sizes and their config.json; None stays None."""
    if folder is None:
        return None
    files = sorted(Path(folder).glob("*.safetensors"))
    facts = [(f.name, f.stat().st_size) for f in files] + [(Path(folder) / "config.json").read_text()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def content(folder, world):
    """SHA-256 of all weights of a folder; every process hashes some of the files. Collective."""
    files = sorted({file for stored in checkpoint.open_weights(folder).values() for _, _, file, _ in stored.pieces})
    parts = world.gather({f.name: digest(f) for f in files[world.rank::world.size]})
    return hashlib.sha256(json.dumps(sorted(item for part in parts for item in part.items())).encode()).hexdigest()


# ---------------------------------------------------------------------- validation and log

@torch.no_grad()
def validate(c, world, model, sources, step, check):
    """Bits per byte of each held-out source (of chats, of their answers), the paper's Figure 9 while it happens; of preference
    pairs their margins, accuracy and KL in each language. One log line."""
    sums, sizes = [], []
    for s, size, batches in shards.validation(sources, c.length, c.eval_tokens, c.micro_rows):
        nll = 0.0
        for first in range(0, len(batches), world.size):  # every process makes the same number of calls
            mine = first + world.rank
            counts = mine < len(batches)
            loss = (check if counts else lm_loss)(model, [x.to(world.device) for x in batches[mine if counts else -1]])
            nll += float(loss) if counts else 0.0
        sums.append(nll)
        sizes.append(size)
    sums = world.sum(sums) if sums else []
    if c.loss == "dpo":
        found, told = {"held_out": check.summary(world)}, lambda r: f"margin {r['margin']:.2f} right {r['accuracy']:.0%}"
    else:
        found = {"bpb": {s.name.removesuffix("-valid"): round(nll / math.log(2) / size, 4)
                         for s, nll, size in zip(sources, sums, sizes) if size}}
        told = "{:.2f}".format
    (name, values), = found.items()
    if world.main and values:
        write_log(c.out, {"step": step, "tokens": step * c.rows * c.length} | found)
        print(f"step {step}: {'bits per byte' if name == 'bpb' else 'held-out pairs'} "
              + ", ".join(f"{k} {told(v)}" for k, v in values.items()), flush=True)


class Meter:
    """Loss, speed, model FLOP utilisation, memory and time left: one printed line and one JSON line."""

    def __init__(self, c, config, world):
        self.c, self.world, self.config, self.parameters = c, world, config, parameters(config)
        self.peak = world.peak_flops()
        self.restart()

    def restart(self):
        self.time, self.tokens, self.flops, self.steps = time.perf_counter(), 0, 0.0, 0

    def add(self, batches):
        for tokens, _, starts, *_ in batches:
            seen = (torch.arange(tokens.shape[1]) - starts + 1).sum()  # keys all queries see
            self.flops += flops(self.config, self.parameters, tokens.numel(), float(seen))
            self.tokens += tokens.numel()
        self.steps += 1

    def log(self, step, loss, norm, lr, pairs):
        """pairs: {language: how its preference pairs fare}, with loss=dpo."""
        seconds = time.perf_counter() - self.time
        speed = self.tokens * self.world.size / seconds
        memory = torch.cuda.max_memory_allocated() if self.world.device.type == "cuda" else resident_bytes()
        row = {"step": step, "tokens": step * self.c.rows * self.c.length, "loss": round(loss, 5), "lr": lr,
               "norm": round(norm, 4), "tokens_per_s": round(speed), "mfu": round(self.flops / seconds / self.peak, 4),
               "memory_gb": round(memory / 1e9, 2), "eta_s": round((self.c.steps - step) * seconds / self.steps)}
        row |= {"languages": pairs} if pairs else {}
        if self.world.main:
            write_log(self.c.out, row)
            print(f"step {step}/{self.c.steps} loss {loss:.4f} lr {lr:.2e} norm {norm:.2f} {speed:,.0f} tok/s "
                  f"mfu {row['mfu']:.0%} {row['memory_gb']} GB eta {row['eta_s'] // 60}:{row['eta_s'] % 60:02}", flush=True)
        self.restart()


def resident_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_log(out, row):
    with open(Path(out) / "log.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n")


def git(*words):
    """What git says of this checkout; nothing where there is no git."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except OSError:
        return None


def begin_log(out, c, config, model, plan, newest):
    """Settings, code and environment travel with the run; what the mixture will do to each source is printed."""
    run = {"settings": asdict(c), "model": asdict(config), "torch": torch.__version__, "commit": git("rev-parse", "HEAD"),
           "diff": git("diff", "HEAD", "--", "*.py")}
    name = f"run-{Path(newest).name}.json" if newest else "run.json"
    (out / name).write_text(json.dumps(run, indent=1))
    n = sum(p.numel() for p in model.parameters())
    print(f"{out}: {n / 1e6:.2f} M parameters, {c.steps} steps of {c.rows} x {c.length} tokens"
          + (f", from {newest}" if newest else ""), flush=True)
    for name, epochs in plan.epochs(c.steps).items():
        if epochs > c.max_epochs:
            print(f"warning: source {name} is read {epochs:.1f} times (max_epochs={c.max_epochs}): lower its weight or add text")
    for name, (over, of) in plan.too_long().items():
        print(f"note: source {name}: {over} of {of} chats are longer than a row of length={c.length} and are left out, not cut")


# ---------------------------------------------------------------------- checkpoints

def state_tensors(model, optimizer):
    """Parameters and, of those that learn, AdamW's two moments by name; DTensors under FSDP. Fresh moments are zeros."""
    out = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            out[name] = p.detach()
            continue
        s = optimizer.state[p]
        if not s:
            s |= {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        out |= {name: p.detach(), f"exp_avg.{name}": s["exp_avg"], f"exp_avg_sq.{name}": s["exp_avg_sq"]}
    return out


def save(c, world, model, optimizer, step, identity):
    """Write checkpoints/step-N aside, make it durable, publish it by one rename, then prune. Collective."""
    folder = Path(c.out) / "checkpoints"
    final, tmp = folder / f"step-{step:08}", folder / f"step-{step:08}.tmp"
    if world.main:
        for old in [*folder.glob("*.tmp"), *([final] if final.exists() else [])]:
            shutil.rmtree(old)
        tmp.mkdir(parents=True)
    world.barrier()
    writer = HuggingFaceStorageWriter(str(tmp / "tensors"), save_distributed=True)
    dcp.save(state_tensors(model, optimizer), storage_writer=writer, no_dist=world.size == 1)
    world.barrier()
    if world.main:
        (tmp / "state.json").write_text(json.dumps({"step": step, "identity": identity}))
        checkpoint.write_beside(tmp, asdict(model.config), torch.float32, like=c.out)
    world.barrier()
    mine = sorted(p for p in tmp.rglob("*") if p.is_file())[world.rank::world.size]  # a terabyte is not hashed by one process
    for p in mine:
        fsync(p)
    parts = world.gather({str(p.relative_to(tmp)): {"bytes": p.stat().st_size, "sha256": digest(p)} for p in mine})
    if world.main:
        manifest = {name: entry for part in parts for name, entry in sorted(part.items())}
        (tmp / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for p in (tmp / "manifest.json", tmp / "tensors", tmp):
            fsync(p)
        os.rename(tmp, final)
        fsync(folder)
        older = sorted(p for p in folder.glob("step-*") if p <= final)  # a later one was passed over as damaged
        for old in older[:-c.keep]:
            shutil.rmtree(old)
    world.barrier()


def latest(folder, world):
    """The newest checkpoint whose manifest holds, or None; says which newer ones it skipped and why. Rank 0 decides."""
    found = None
    if world.main:
        for path in sorted(folder.glob("step-*"), reverse=True):
            problem = "was never finished" if path.suffix == ".tmp" else damage(path)
            if problem is None:
                found = str(path)
                break
            print(f"skipping checkpoint {path}: {problem}", flush=True)
    return world.tell(found)


def damage(path):
    """What is wrong with a checkpoint folder, or None."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name, want in manifest.items():
            file = path / name
            if not file.exists():
                return f"{name} is missing"
            if file.stat().st_size != want["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, the manifest says {want['bytes']}"
            if digest(file) != want["sha256"]:
                return f"{name} has another SHA-256 than the manifest"
    except (OSError, ValueError, TypeError, KeyError) as e:
        return f"manifest.json cannot be read ({e})"
    return None


def restore(path, model, optimizer, identity):
    """Load weights and moments into place, resharding as needed; returns the step. ValueError when the run is another one."""
    state = json.loads((Path(path) / "state.json").read_text())
    for key, ours in identity.items():
        if state["identity"].get(key) != ours:
            raise ValueError(f"{path}: made with another {key}: {state['identity'].get(key)}, this run has {ours}; "
                             "undo the change of settings or data, or start anew in another out=")
    tensors = state_tensors(model, optimizer)
    dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(Path(path) / "tensors")), no_dist=not dist.is_initialized())
    for p in model.parameters():  # the tensors are the model's and the optimizer's own, filled in place
        if p.requires_grad:
            optimizer.state[p]["step"].fill_(state["step"])
    return state["step"]


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


# ---------------------------------------------------------------------- processes

class World:
    """This process among the others: device, rank, mesh and the few collective calls. torchrun's variables are read here only."""

    def __init__(self, c):
        env = os.environ
        self.rank, self.size = int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1))
        self.main = self.rank == 0
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(env.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if c.threads:
            torch.set_num_threads(c.threads)
        if not cuda:
            tune_cpu(flush=not c.new_rows)
        fast = torch.cuda.is_bf16_supported() if cuda else (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        self.dtype = torch.bfloat16 if c.dtype == "bfloat16" or (c.dtype == "auto" and fast) else torch.float32
        shard = min(c.shard or self.size, self.size)
        if c.rows % self.size or self.size % shard:
            raise ValueError(f"rows={c.rows} must be a multiple of {self.size} processes, and those of shard={shard}")
        if "TORCHELASTIC_RUN_ID" in env:
            die_with_parent()
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(hours=1))  # saving 72 B is slow
            copies = self.size // shard
            names, shape = (("replicate", "shard"), (copies, shard)) if copies > 1 else (("shard",), (shard,))
            self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)

    def batches(self, plan, step, micro_rows):
        """Yield this process's rows of a step's global batch, so many at once."""
        mine = range(self.rank * plan.rows // self.size, (self.rank + 1) * plan.rows // self.size)
        for i in range(0, len(mine), micro_rows):
            yield plan.batch(step, mine[i:i + micro_rows])

    def sum(self, numbers):
        """Add a list of numbers over all processes; exact for counts."""
        if self.size == 1:
            return list(numbers)
        t = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(t)
        return t.tolist()

    def tell(self, value):
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value):
        """Every rank's value, in rank order, on every rank."""
        values = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value)
        return values

    def clip(self, model, limit):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def peak_flops(self):
        """Of this process's device: the datasheet's dense bf16 rate of a known GPU, else a matrix product measured now."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        for known, (rate, *_) in CARDS.items():
            if known in name:
                return rate
        a = torch.randn(1024, 1024, dtype=self.dtype, device=self.device)
        best = math.inf
        for _ in range(5):
            t = time.perf_counter()
            float((a @ a)[0, 0])
            best = min(best, time.perf_counter() - t)
        return 2 * 1024 ** 3 / best

    def barrier(self):
        if self.size > 1:
            dist.barrier()

    def say(self, text):
        if self.main:
            print(text, flush=True)

    def close(self):
        if self.size > 1:
            dist.destroy_process_group()


def tune_cpu(flush):
    """flush: numbers below 1e-38 count as 0 (AdamW's moments of rare words decay there, and the CPU is slow on them); not where
    old rows must keep their bits. Freed memory stays in the process (fresh pages cost a small model a fifth of its time).
    Before any thread starts."""
    torch.set_flush_denormal(flush)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def die_with_parent():
    """SIGKILL of torchrun leaves its workers running and writing; ask the kernel to take them along (Linux)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def only_job(out, world):
    """One run folder, one live job: hold a lock on out/lock while the run lasts."""
    out.mkdir(parents=True, exist_ok=True)
    busy = None
    if world.main:
        lock = open(out / "lock", "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        except OSError:
            lock.seek(0)
            busy = lock.read() or "another process"
    busy = world.tell(busy)
    if busy:
        raise ValueError(f"{out} is in use by {busy}; stop that run or set out= another folder")
    yield


def stop_flag():
    """A function that says whether SIGTERM or SIGUSR1 (a cluster's warning) has come."""
    seen = []
    for s in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(s, lambda *_: seen.append(1))
    return lambda: bool(seen)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
