"""The training loop: pretraining, SFT and DPO of a Qwen2 model on a mixture of token shards.

    python train.py configs/tiny/stage1.py lr=1e-3
    torchrun --nproc-per-node 8 train.py configs/marco/stage1.py
    python train.py configs/tiny/stage1.py resume=True             # after a kill at any moment: the same bits
    python train.py configs/marco/stage1.py estimate=True gpus=64  # its memory, traffic and days, without a GPU

The loss is summed over the global batch and divided once, by its supervised tokens: micro-batches and processes change
the speed, not the gradient. Checkpoints hold safetensors and JSON only, and are complete or absent.
"""
import math
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import data
import tokenizer
from configs import load
from data import IGNORE
from hf.config import write_config
from hf.folder import list_tokenizer_files
from model import ModelConfig, Qwen2, local_rows
from training import checkpoint, dpo
from training.distributed import World, clip_grad_norm, shard_model, stop_flag
from training.estimate import Estimate, print_estimate
from training.logger import Logger


@dataclass(frozen=True)
class Train:
    out: str                         # run folder: log.jsonl, checkpoints/, and at the end the model itself
    data: str | list                 # folder of token shards (prepare.py), or several; the first has the tokenizer
    mixture: dict                    # {category or "category/language": share}; shares are normalized to sum to 1
    tokens: int                      # training tokens with padding; steps = tokens // (batch_size * seq_len)
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
    dpo_beta: float = 0.1            # dpo: strength of the KL penalty
    label_smoothing: float = 0.0     # dpo: assumed share of mislabeled pairs
    length_normalized: bool = False  # dpo: divide each answer's log-ratio by its tokens
    reference_dir: str | None = None  # dpo: cache of the reference log-probabilities; None: OUT/reference
    first_new_id: int | None = None  # train only embeddings from this id on (recipes/extend_vocabulary.py); None: all
    activation_checkpointing: bool | str = False  # True: recompute layers; "selective": only their cheap operations
    compile: bool = False            # torch.compile each block
    shard_size: int | None = None    # HSDP: processes that share one copy of the model; None: all of them
    threads: int | None = None       # CPU threads per process; None: torch's default
    log_every: int = 10              # steps
    eval_every: int = 100            # steps between validations; there is always one at the end
    eval_tokens: int = 4096          # of each held-out source
    save_every: int = 500            # steps between checkpoints; SIGTERM and SIGUSR1 save too
    keep_checkpoints: int = 2        # newest ones kept
    verify_shards: bool = True       # compare the shards' SHA-256 before the first step
    max_epochs: float = 4.0          # warn when a source is repeated more often
    resume: bool = False             # continue from the newest valid checkpoint in OUT

    def __post_init__(self):
        may_be_zero = ("seed", "min_lr_ratio", "warmup_ratio", "weight_decay", "label_smoothing")
        problems = [f"{name} must be positive, got {value}" for name, value in asdict(self).items()
                    if type(value) in (int, float) and value <= 0 and name not in may_be_zero]
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
            problems.append("activation_checkpointing must be False, True or selective, got "
                            f"{self.activation_checkpointing!r}")
        if self.compile and self.activation_checkpointing == "selective":
            problems.append("compile=True recomputes cheap operations by itself; set activation_checkpointing to False "
                            "or True, not selective")
        if not any(v > 0 for v in self.mixture.values()) or any(v < 0 for v in self.mixture.values()):
            problems.append(f"mixture needs shares >= 0 and one above 0, got {self.mixture}")
        if not problems and self.steps < 1:
            problems.append(f"tokens={self.tokens} is less than one global batch, batch_size * seq_len = "
                            f"{self.batch_size * self.seq_len}")
        if problems:
            raise ValueError("Train: " + "; ".join(problems))

    @property
    def steps(self):
        return self.tokens // (self.batch_size * self.seq_len)


class LanguageModeling:
    """The objective of pretraining and SFT (there, targets outside answers are IGNORE). DPO's is in training/dpo.py."""

    def loss(self, model, batch):
        """Minus the sum of the targets' log-probabilities."""
        return -model(batch.tokens, batch.targets, batch.starts).sum()

    def weight(self, batch):
        """What the loss is divided by: supervised tokens."""
        return int((batch.targets != IGNORE).sum())

    def summary(self):
        """Statistics to log beside the loss: none."""
        return {}


def learning_rate(step, c):
    """Learning rate of a step (from 0): linear warm-up, then decay to min_lr_ratio * lr at the last step."""
    warmup_steps = math.ceil(c.warmup_ratio * c.steps)
    if step < warmup_steps:
        return c.lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, c.steps - 1 - warmup_steps)
    if c.lr_schedule == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        decay = 1 - progress if c.lr_schedule == "linear" else 1.0
    return c.lr * (c.min_lr_ratio + (1 - c.min_lr_ratio) * decay)


def main(argv=None):
    c, model_config, machines = load(Train, ModelConfig, Estimate, argv=argv)
    if machines.estimate:
        print_estimate(c, model_config, machines)
        return
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # torch's checkpoints warn with one process
    world = World(c)

    # data: a schedule of training batches, and held-out sources of the same kind
    sources = data.open_sources(c.data)
    schedule = data.Schedule(sources, c.mixture, c.batch_size, c.seq_len, c.seed)
    held_out = [s for s in data.open_sources(c.data, "valid") if (s.kind == "preference") == schedule.has_pairs]
    config = ModelConfig.from_pretrained(c.init) if c.init else model_config
    check_settings(c, model_config, config, schedule)
    if c.verify_shards:
        for source in sources[world.rank::world.world_size]:
            source.verify()

    # the run folder: new, or resumed from its newest checkpoint
    out = Path(c.out)
    world.lock_folder(out)
    resume_from = find_checkpoint(c, world)
    logger = Logger(c, config, world)

    # model, objective, optimizer
    model = build_model(config, c, world)
    if c.init and (c.loss == "dpo" or not resume_from):  # a resumed DPO run, too, needs the reference
        model.load_weights(c.init)
    elif not resume_from:
        model.init_weights(c.seed)
    objective, held_out_objective, noise = LanguageModeling(), LanguageModeling(), None
    if c.loss == "dpo":
        objective, held_out_objective, noise = dpo.make_objectives(c, world, model, schedule, held_out)
    optimizer = make_optimizer(model, c)
    identity = checkpoint.run_identity(c, schedule, config)
    step = checkpoint.restore(resume_from, model, optimizer, identity) if resume_from else 0

    logger.start(schedule, resume_from)
    if world.is_main:
        with_chats = any(s.kind != "text" and w for s, w in zip(sources, schedule.weights))
        folder = tokenizer_folder(c, schedule)
        token_ids = tokenizer.generation_token_ids(folder)
        write_config(out, asdict(config), torch.float32, c.init, folder, token_ids, override_eos=with_chats)
    if c.loss == "dpo":
        logger.write({"step": step, "noise": noise})

    # training loop
    stop_requested = stop_flag()
    while True:
        # once in a while: validate
        if step % c.eval_every == 0 or step == c.steps:
            validate(c, world, model, held_out, held_out_objective, logger, step)
        if step == c.steps:
            break

        # forward and backward: the sum over the global batch, divided by its weight on all processes
        batches = list(world.batches(schedule, step, c.micro_batch_size))
        weight, stop = world.all_reduce([sum(map(objective.weight, batches)), stop_requested()])
        total_loss = 0.0
        for i, batch in enumerate(batches):
            if world.world_size > 1:  # replicas exchange gradients once, after the last micro-batch
                model.set_requires_all_reduce(i == len(batches) - 1)
            loss = objective.loss(model, batch.to(world.device))
            (loss * (world.world_size / weight)).backward()  # FSDP averages over processes
            total_loss += loss.detach()

        # clip, set the learning rate, step
        if c.first_new_id:
            zero_old_rows(model, c.first_new_id)
        norm = clip_grad_norm(model, c.grad_clip)
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"step {step}: the gradient norm is {norm}; the weights are unchanged. Lower lr or look at this step's "
                f"rows; resume=True goes back to the newest checkpoint in {c.out}/checkpoints")
        lr = learning_rate(step, c)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
        step += 1

        # once in a while: log
        logger.count(batches)
        if step % c.log_every == 0 or step == c.steps:
            mean_loss = world.all_reduce([float(total_loss)])[0] / weight
            logger.step(step, mean_loss, norm, lr, objective.summary())

        # once in a while, and when a signal asks to stop: save a checkpoint
        if step % c.save_every == 0 or stop:
            checkpoint.save(c, world, model, optimizer, step, identity)
            logger.restart()
        if stop and step < c.steps:
            world.print0(f"stopped by a signal after step {step}, saved; continue with resume=True")
            world.close()
            raise SystemExit(0)

    model.save_pretrained(out, like=out)
    world.print0(f"saved {out}")
    world.close()


@torch.no_grad()
def validate(c, world, model, held_out, objective, logger, step):
    """Log bits per byte of each held-out source (of chats, their answers), or how preference pairs fare. Collective."""
    losses, sizes = [], []
    for _, size, batches in data.validation_batches(held_out, c.seq_len, c.eval_tokens, c.micro_batch_size):
        loss = 0.0
        for i, counts in world.distribute(len(batches)):
            batch = batches[i].to(world.device)
            if counts:
                loss += float(objective.loss(model, batch))
            else:
                model(batch.tokens, batch.targets, batch.starts)
        losses.append(loss)
        sizes.append(size)
    losses = world.all_reduce(losses) if losses else []
    bits_per_byte = {s.name.removesuffix("-valid"): round(loss / math.log(2) / size, 4)
                     for s, loss, size in zip(held_out, losses, sizes) if size}
    logger.validation(step, bits_per_byte, objective.summary())


# ---------------------------------------------------------------------- model and optimizer

def build_model(config, c, world):
    """The model on its device, without values: activation checkpointing, then compile, then sharding of each block."""
    with torch.device("meta"):
        model = Qwen2(config, world.dtype, c.activation_checkpointing)
    if c.compile:
        for block in model.model.layers:
            block.compile()
    if world.world_size > 1:
        shard_model(model, world)
    return model.materialize(world.device)


def make_optimizer(model, c):
    """AdamW, with weight decay on matrices only."""
    if c.first_new_id:  # without decay, a row whose gradient is always 0 keeps its bits
        model.requires_grad_(False)
        embeddings = {model.model.embed_tokens.weight, model.lm_head.weight}  # one when tied
        groups = [{"params": [p.requires_grad_() for p in embeddings], "weight_decay": 0.0}]
    else:
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": c.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=True)


def zero_old_rows(model, first_new_id):
    """Zero the gradients of the embeddings of older ids."""
    for p in {model.model.embed_tokens.weight, model.lm_head.weight}:
        rows, first = local_rows(p.grad)
        rows[:max(0, first_new_id - first)] = 0


# ---------------------------------------------------------------------- checks before the first step

def check_settings(c, model_config, config, schedule):
    """ValueError when settings, model and shards do not belong together."""
    if c.init and model_config != ModelConfig():
        raise ValueError(f"init={c.init} has its own config.json; remove the model's settings (hidden_size, ...)")
    index = schedule.sources[0].index
    if index["vocab_size"] > config.vocab_size:
        raise ValueError(f"{c.data}: its tokenizer has {index['vocab_size']} ids, the model {config.vocab_size} rows; "
                         f"set vocab_size={index['vocab_size']} or prepare with the model's own tokenizer")
    folder = tokenizer_folder(c, schedule)
    if not folder.is_dir():
        raise ValueError(f"{folder.parent}: no tokenizer folder beside the shards; copy everything that prepare.py "
                         "wrote")
    if c.init and list_tokenizer_files(c.init):
        theirs = tokenizer.load(c.init).fingerprint
        if theirs != index["tokenizer"]:
            raise ValueError(f"{c.data} was prepared with tokenizer {index['tokenizer']}, {c.init} was trained with "
                             f"{theirs}; run prepare.py with tokenizer={c.init}")
    if c.first_new_id and not (c.init and c.first_new_id < config.vocab_size):
        raise ValueError(f"first_new_id={c.first_new_id} needs init= a model with more rows than that, this one has "
                         f"{config.vocab_size}")
    if schedule.has_pairs and c.loss != "dpo":
        raise ValueError(f"loss={c.loss}, and the mixture {c.mixture} reads preference pairs; set loss=dpo")
    if c.loss == "dpo" and not schedule.has_pairs:
        raise ValueError(f"loss=dpo, and the mixture {c.mixture} reads no preference pairs; name the category of some, "
                         "or set loss=lm")


def tokenizer_folder(c, schedule):
    """The tokenizer that goes with the model: of the folder with the chats, for its template; else of the first folder.

    ValueError when the mixture reads chats that were rendered by two templates.
    """
    folders = {}  # of each chat template
    for source, weight in zip(schedule.sources, schedule.weights):
        if source.kind != "text" and weight:
            folders.setdefault(source.index.get("chat_template"), source.folder.parent)
    if len(folders) > 1:
        raise ValueError(f"the chats of {' and '.join(map(str, folders.values()))} were rendered by different chat "
                         "templates, and the model has one; prepare both with one tokenizer= and template=")
    first = Path(c.data[0] if isinstance(c.data, list) else c.data)
    return next(iter(folders.values()), first) / "tokenizer"


def find_checkpoint(c, world):
    """The checkpoint to resume from, or None for a new run. ValueError for a folder in use without resume=True."""
    out = Path(c.out)
    if not c.resume:
        made = ("log.jsonl", "run.json", "checkpoints", "model.safetensors")
        if world.broadcast(any((out / name).exists() for name in made)):
            raise ValueError(f"{out} already holds a run; set resume=True to continue it, or out= to another folder")
        return None
    newest = checkpoint.newest_checkpoint(out / "checkpoints", world)
    if not newest:
        world.print0(f"resume: no valid checkpoint in {out}/checkpoints, so this starts at step 0")
    return newest


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
