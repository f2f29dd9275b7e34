"""The training loop: pretraining, SFT and DPO of a Qwen2 model on a mixture of token shards, on one process or on many nodes.

    python train.py configs/tiny/stage1.py lr=1e-3
    torchrun --nproc-per-node 8 train.py configs/marco/stage1.py
    python train.py configs/tiny/stage1.py resume=True        # after a kill at any moment: the same bits
    python train.py configs/marco/stage1.py estimate=True gpus=64 # memory, traffic and days of that run, without a GPU

Sum the log-probabilities of the global batch, divide once by its supervised tokens, step: micro-batches and processes
change the speed, not the gradient. Checkpoints hold safetensors and JSON only and are complete or absent.
"""
import hashlib
import json
import math
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import data
import tokenizer
from configs import load
from hf.config import write_config
from hf.folder import list_tokenizer_files
from hf.weights import open_weights
from model import IGNORE, ModelConfig, Qwen2, own_rows, read_config
from training import dpo
from training.checkpoint import latest, restore, save, sha256
from training.distributed import World, run_lock, stop_flag
from training.estimate import Estimate, flops, parameters, report


@dataclass(frozen=True)
class Train:
    out: str                         # run folder: log.jsonl, checkpoints/, and at the end the model itself
    data: str | list                 # folder of token shards (prepare.py), or several; the model gets the first one's tokenizer
    mixture: dict                    # {category: share}; shares are normalized to sum to 1
    tokens: int                      # training tokens, padding of chats included; steps = tokens // (batch_size * seq_len)
    loss: str = "lm"                 # lm: next token (pretraining; of chats, the answers only); dpo: preference pairs
    init: str | None = None          # Hugging Face folder to start from; None: random weights
    seq_len: int = 512               # tokens per sequence
    batch_size: int = 16             # sequences in the global batch
    micro_batch_size: int = 8        # sequences per forward pass of one process; the rest is gradient accumulation
    lr: float = 1e-3                 # peak learning rate
    min_lr_ratio: float = 0.1        # final learning rate / peak
    warmup_ratio: float = 0.02       # share of the steps
    lr_schedule: str = "cosine"      # cosine, linear or constant
    beta1: float = 0.9               # AdamW
    beta2: float = 0.95
    weight_decay: float = 0.1        # of matrices only
    grad_clip: float = 1.0           # maximum global gradient norm
    seed: int = 0                    # of random weights and of the data order
    dtype: str = "auto"              # compute dtype; auto: bfloat16 where the hardware is fast at it
    dpo_beta: float = 0.1            # strength of the KL penalty
    label_smoothing: float = 0.0     # dpo: assumed share of mislabelled pairs
    length_normalized: bool = False  # dpo: divide each answer's log-ratio by its tokens
    reference_dir: str | None = None  # dpo: cache of the reference log-probabilities; None: OUT/reference
    first_new_id: int | None = None  # train only embeddings from this id on (recipes/extend_vocabulary.py); None: everything
    activation_checkpointing: bool | str = False  # True: recompute whole layers; "selective": only their cheap operations
    compile: bool = False            # torch.compile each block
    shard_size: int | None = None    # HSDP: processes that share one copy of the model; None: all of them
    threads: int | None = None       # CPU threads per process; None: torch's default
    log_every: int = 10              # steps
    eval_every: int = 100            # steps between validations; there is always one at the end
    eval_tokens: int = 4096          # of each held-out source
    save_every: int = 500            # steps between checkpoints; SIGTERM and SIGUSR1 save too (torchrun kills 30 s after SIGTERM)
    keep_checkpoints: int = 2        # newest ones kept
    verify_shards: bool = True       # compare the shards' SHA-256 before the first step
    max_epochs: float = 4.0          # warn when a source is repeated more often
    resume: bool = False             # continue from the newest valid checkpoint in OUT

    def __post_init__(self):
        problems = [f"{name} must be positive, got {value}" for name, value in asdict(self).items()
                    if type(value) in (int, float) and value <= 0
                    and name not in ("seed", "min_lr_ratio", "warmup_ratio", "weight_decay", "label_smoothing")]
        if self.loss not in ("lm", "dpo"):
            problems.append(f"loss must be lm or dpo, got {self.loss!r}")
        if self.loss == "dpo" and not self.init:
            problems.append("loss=dpo needs init=, the model to align: it is the reference, too")
        if not 0 <= self.label_smoothing < 0.5:
            problems.append(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.lr_schedule not in ("cosine", "linear", "constant"):
            problems.append(f"lr_schedule must be cosine, linear or constant, got {self.lr_schedule!r}")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            problems.append(f"dtype must be auto, float32 or bfloat16, got {self.dtype!r}")
        if self.activation_checkpointing not in (False, True, "selective"):
            problems.append(f"activation_checkpointing must be False, True or selective, got {self.activation_checkpointing!r}")
        if self.compile and self.activation_checkpointing == "selective":
            problems.append("compile=True makes cheap things again by itself: leave activation_checkpointing=selective out, or set it to True")
        if not any(v > 0 for v in self.mixture.values()) or any(v < 0 for v in self.mixture.values()):
            problems.append(f"mixture needs shares >= 0 and one above 0, got {self.mixture}")
        if not problems and self.steps < 1:
            problems.append(f"tokens={self.tokens} is less than one global batch, batch_size * seq_len = {self.batch_size * self.seq_len}")
        if problems:
            raise ValueError("Train: " + "; ".join(problems))

    @property
    def steps(self):
        return self.tokens // (self.batch_size * self.seq_len)


def lm_loss(model, batch):
    """Minus the sum of the targets' log-probabilities: pretraining, and SFT when some targets are IGNORE."""
    tokens, targets, starts, *_ = batch
    return -model(tokens, targets, starts).sum()


def lr_at(step, c):
    """Learning rate of a step (from 0): linear warm-up, then the schedule down to min_lr_ratio * lr at the last step."""
    warm = math.ceil(c.warmup_ratio * c.steps)
    if step < warm:
        return c.lr * (step + 1) / warm
    done = (step - warm) / max(1, c.steps - 1 - warm)
    fall = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[c.lr_schedule]
    return c.lr * (c.min_lr_ratio + (1 - c.min_lr_ratio) * fall)


def main(argv=None):
    c, model_config, machines = load(Train, ModelConfig, Estimate, argv=argv)
    if machines.estimate:
        return report(c, model_config, machines)
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # DCP says so when there is one process
    world = World(c)
    sources = data.open_sources(c.data)
    schedule = data.Schedule(sources, c.mixture, c.batch_size, c.seq_len, c.seed)
    if c.init and model_config != ModelConfig():
        raise ValueError(f"init={c.init} brings its own config.json; leave the model's settings (hidden_size, ...) out")
    config = read_config(c.init) if c.init else model_config
    home = Path(c.data[0] if isinstance(c.data, list) else c.data)  # whose tokenizer goes with the model
    check_vocabulary(c, config, sources, home)
    if schedule.pairs != (c.loss == "dpo"):
        raise ValueError(f"loss={c.loss}, and the mixture {c.mixture} reads {'' if schedule.pairs else 'no '}preference pairs; "
                         f"{'set loss=dpo' if schedule.pairs else 'name the category of some, or set loss=lm'}")
    if c.verify_shards:
        for s in sources[world.rank::world.size]:
            s.verify()
    out = Path(c.out)
    with run_lock(out, world):
        newest = latest(out / "checkpoints", world) if c.resume else None
        used = world.broadcast(any((out / name).exists() for name in ("log.jsonl", "run.json", "checkpoints", "model.safetensors")))
        if used and not c.resume:
            raise ValueError(f"{out} already holds a run; say resume=True to go on with it, or out= another folder")
        if c.resume and not newest:
            world.print0(f"resume: no whole checkpoint in {out}/checkpoints, so this starts at step 0")
        model = build(config, c, world)
        if c.init and (c.loss == "dpo" or not newest):
            model.load_weights(c.init)
        elif not newest:
            model.init_weights(c.seed)
        held_out = [s for s in data.open_sources(c.data, "valid") if (s.kind == "preference") == schedule.pairs]
        learn, check, noise = lm_loss, lm_loss, None
        if c.loss == "dpo":
            learn, check, noise = dpo.objectives(c, world, model, schedule, held_out, weights_sha256(c.init, world))
            if world.size > 1:
                model.reshard()  # the root keeps what it gathered for a forward; optimizer and checkpoints need its shards
        optimizer = make_optimizer(model, c)
        step = 0
        identity = {"schedule": schedule.fingerprint(), "config": asdict(config), "init": fingerprint(c.init), "first_new_id": c.first_new_id}
        if newest:
            step = restore(newest, model, optimizer, identity)
        if world.main:
            begin_log(out, c, config, model, schedule, newest)
            chats = any(s.kind != "text" and w for s, w in zip(sources, schedule.weights))
            token_ids = tokenizer.generation_token_ids(home / "tokenizer")
            write_config(out, asdict(config), torch.float32, c.init, home / "tokenizer", token_ids, override_eos=chats)
            if c.loss == "dpo":
                write_log(out, {"step": step, "noise": noise})
        loop(c, world, schedule, model, optimizer, step, identity, held_out, learn, check)
        model.save_pretrained(out, like=out)
        world.print0(f"saved {out}")
    world.close()


def loop(c, world, schedule, model, optimizer, step, identity, held_out, learn, check):
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
        batches = list(world.batches(schedule, step, c.micro_batch_size))
        weight = sum(len(batch[4]) if schedule.pairs else int((batch[1] != IGNORE).sum()) for batch in batches)
        count, stop = world.all_reduce([weight, float(stopping())])
        total = 0.0
        for i, batch in enumerate(batches):
            if world.size > 1:  # copies of the model exchange their gradients once, behind the last micro-batch
                model.set_requires_all_reduce(i == len(batches) - 1)
            loss = learn(model, [x.to(world.device, non_blocking=True) for x in batch])
            (loss * (world.size / count)).backward()  # FSDP averages over processes; the gradient is d(sum)/d(weights) / count
            total += loss.detach()
        if c.first_new_id:
            drop_old_rows(model, c.first_new_id)
        norm = world.clip_grad_norm(model, c.grad_clip)
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
            more = learn.summary(world) if schedule.pairs else {}
            meter.log(step, world.all_reduce([float(total)])[0] / count, norm, lr_at(step - 1, c), more)
        if step % c.save_every == 0 or stop:
            save(c, world, model, optimizer, step, identity)
            if stop and step < c.steps:
                world.print0(f"stopped by a signal after step {step}, saved; go on with resume=True")
                world.close()
                raise SystemExit(0)
            meter.restart()
    validate(c, world, model, held_out, step, check)


# ---------------------------------------------------------------------- model and optimizer

def build(config, c, world):
    """The model on its device, sharded when there are several processes: activation_checkpointing, compile, then shard each block."""
    with torch.device("meta"):
        model = Qwen2(config, world.dtype, c.activation_checkpointing)
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
    if c.first_new_id:  # without decay a row whose gradient is always 0 keeps its bits
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
    theirs = tokenizer.load(c.init).fingerprint if c.init and list_tokenizer_files(c.init) else None
    if theirs and theirs != index["tokenizer"]:
        raise ValueError(f"{c.data} was prepared with tokenizer {index['tokenizer']}, {c.init} was trained with {theirs}; "
                         f"run prepare.py with tokenizer={c.init}")
    if c.first_new_id and not (c.init and c.first_new_id < config.vocab_size):
        raise ValueError(f"first_new_id={c.first_new_id}: needs init= a model with more than that many rows ({config.vocab_size} here)")


def fingerprint(folder):
    """Tells Hugging Face folders apart by their files' names and sizes and their config.json; None stays None."""
    if folder is None:
        return None
    files = sorted(Path(folder).glob("*.safetensors"))
    facts = [(f.name, f.stat().st_size) for f in files] + [(Path(folder) / "config.json").read_text()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def weights_sha256(folder, world):
    """SHA-256 of all weights of a folder; every process hashes some of the files. Collective."""
    files = sorted({file for stored in open_weights(folder).values() for _, _, file, _ in stored.pieces})
    parts = world.all_gather({f.name: sha256(f) for f in files[world.rank::world.size]})
    return hashlib.sha256(json.dumps(sorted(item for part in parts for item in part.items())).encode()).hexdigest()


# ---------------------------------------------------------------------- validation and log

@torch.no_grad()
def validate(c, world, model, sources, step, check):
    """Bits per byte of each held-out source (of chats, of their answers), the paper's Figure 9 while it happens; of preference
    pairs their margins, accuracy and KL in each language. One log line."""
    sums, sizes = [], []
    for s, size, batches in data.validation(sources, c.seq_len, c.eval_tokens, c.micro_batch_size):
        nll = 0.0
        for first in range(0, len(batches), world.size):  # every process makes the same number of calls
            mine = first + world.rank
            counts = mine < len(batches)
            loss = (check if counts else lm_loss)(model, [x.to(world.device) for x in batches[mine if counts else -1]])
            nll += float(loss) if counts else 0.0
        sums.append(nll)
        sizes.append(size)
    sums = world.all_reduce(sums) if sums else []
    if c.loss == "dpo":
        found, told = {"held_out": check.summary(world)}, lambda r: f"margin {r['margin']:.2f} right {r['accuracy']:.0%}"
    else:
        found = {"bpb": {s.name.removesuffix("-valid"): round(nll / math.log(2) / size, 4)
                         for s, nll, size in zip(sources, sums, sizes) if size}}
        told = "{:.2f}".format
    (name, values), = found.items()
    if world.main and values:
        write_log(c.out, {"step": step, "tokens": step * c.batch_size * c.seq_len} | found)
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
        row = {"step": step, "tokens": step * self.c.batch_size * self.c.seq_len, "loss": round(loss, 5), "lr": lr,
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


def begin_log(out, c, config, model, schedule, newest):
    """Settings, code and environment travel with the run; what the mixture will do to each source is printed."""
    run = {"settings": asdict(c), "model": asdict(config), "torch": torch.__version__, "commit": git("rev-parse", "HEAD"),
           "diff": git("diff", "HEAD", "--", "*.py")}
    name = f"run-{Path(newest).name}.json" if newest else "run.json"
    (out / name).write_text(json.dumps(run, indent=1))
    n = sum(p.numel() for p in model.parameters())
    print(f"{out}: {n / 1e6:.2f} M parameters, {c.steps} steps of {c.batch_size} x {c.seq_len} tokens"
          + (f", from {newest}" if newest else ""), flush=True)
    for name, epochs in schedule.epochs(c.steps).items():
        if epochs > c.max_epochs:
            print(f"warning: source {name} is read {epochs:.1f} times (max_epochs={c.max_epochs}): lower its weight or add text")
    for name, (over, of) in schedule.too_long().items():
        print(f"note: source {name}: {over} of {of} chats are longer than a row of seq_len={c.seq_len} and are left out, not cut")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
