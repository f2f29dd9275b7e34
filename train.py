"""The training loop: pretraining, SFT and DPO of a Qwen2 model on a mixture of token shards.

    python train.py configs/tiny/stage1.py lr=1e-3
    torchrun --nproc-per-node 8 train.py configs/marco/stage1.py
    python train.py configs/tiny/stage1.py resume=True             # after a kill at any moment: the same bits
    python train.py configs/marco/stage1.py estimate=True gpus=64  # its memory, traffic and days, without a GPU

The loss is summed over the global batch and divided once, by its supervised tokens: micro-batches and processes change
the speed, not the gradient. Checkpoints hold safetensors and JSON only, and are complete or absent.
"""
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import data
import tokenizer
from configs import load
from configs.errors import errors_name
from hf.config import write_config
from model import ModelConfig, Qwen2, local_rows
from training import checkpoint
from training.adamw import make_optimizer
from training.checks import check_learning_rate, check_run, check_settings, resolve_model, tokenizer_folder
from training.distributed import World, clip_grad_norm, exit_with, reshard, shard_model, stop_flag, sum_gradients
from training.estimate import Estimate, count_parameters, print_estimate
from training.logger import Logger
from training.lora import add_lora, init_adapter, lora_settings, save_adapter, write_adapter_config
from training.memory import check_memory
from training.objectives import make_objectives
from training.run_folder import check_disk, check_folder
from training.stages import make_schedule

MAX_SKIPPED = 3  # steps in a row, with on_nonfinite=skip


@dataclass(frozen=True)
class Train:
    out: str                         # run folder: log.jsonl, checkpoints/, and at the end the model itself
    data: str | list                 # folder of token shards (prepare.py), or several; the first has the tokenizer
    mixture: dict | None = None      # {category or "category/language": share}; shares are normalized to sum to 1
    tokens: int | None = None        # training tokens with padding; steps = tokens // (batch_size * seq_len)
    stages: list | None = None       # instead of both, a curriculum: [dict(tokens, mixture, data), ...]; data: the
    #                                  folders that a stage reads, where not all (training/stages.py)
    ramp: str = "step"               # of stages: the mixture changes at a border (step), or in a straight line (linear)
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
    on_nonfinite: str = "stop"       # or skip: leave out a step whose gradient is not finite, at most 3 in a row
    allow_large_lr: bool = False     # above 1e-3 with more than 50 M parameters
    seed: int = 0                    # of random weights and of the data order
    moments: str = "float32"         # AdamW's two, in memory and checkpoints: float32, bfloat16 or int8
    dtype: str = "auto"              # compute dtype; auto: bfloat16 where the hardware is fast at it
    residual_fp32: bool = False      # keep the residual stream in float32 (PolyLM's cure for loss spikes in bfloat16)
    dpo_beta: float = 0.1            # dpo: strength of the KL penalty
    label_smoothing: float = 0.0     # dpo: assumed share of mislabeled pairs
    length_normalized: bool = False  # dpo: divide each answer's log-ratio by its tokens
    reference_dir: str | None = None  # dpo: cache of the reference log-probabilities; None: OUT/reference
    lora_rank: int | None = None     # train a LoRA of this rank (PEFT's r), init's weights stay frozen; None: train all
    lora_alpha: float | None = None  # its product is scaled by lora_alpha / lora_rank; None: 2 * lora_rank
    lora_targets: list | None = None  # linear layers it is added to, as ["q_proj", "v_proj"]; None: all seven
    adapter: str | None = None       # PEFT folder of a LoRA on init to train on; lora_rank and so on are its own
    frozen_dtype: str | None = None  # of the frozen weights in memory: float32 (None) or bfloat16
    first_new_id: int | None = None  # train only embeddings from this id on (recipes/extend_vocabulary.py); None: all
    activation_checkpointing: bool | str = False  # True: recompute layers; "selective": only their cheap operations
    compile: bool = False            # torch.compile each block
    shard_size: int | None = None    # FSDP: processes that share one copy of the model; None: all GPUs, 1 on a CPU
    threads: int | None = None       # CPU threads per process; None: torch's default
    log_every: int = 10              # steps
    eval_every: int = 100            # steps between validations; there is always one at the end
    eval_tokens: int = 4096          # of each held-out source
    save_every: int = 500            # steps between checkpoints; also at the end, at SIGTERM, SIGHUP and SIGUSR1
    keep_checkpoints: int = 2        # newest ones kept
    verify_shards: bool = True       # compare the shards' SHA-256 before the first step
    max_epochs: float = 4.0          # warn when a source is repeated more often
    resume: bool = False             # continue from the newest valid checkpoint in OUT

    def __post_init__(self):
        check_settings(self)

    @property
    def steps(self):
        tokens = sum(stage["tokens"] for stage in self.stages) if self.stages else self.tokens
        return tokens // (self.batch_size * self.seq_len)


def learning_rate(step, c):
    """Learning rate of a step (from 0): linear warm-up, then decay to min_lr_ratio * lr (constant: none)."""
    warmup_steps = math.ceil(c.warmup_ratio * c.steps)
    if step < warmup_steps:
        return c.lr * (step + 1) / warmup_steps
    progress = min(1, (step - warmup_steps) / max(1, c.steps - 1 - warmup_steps))
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
    with errors_name(Path(c.out)):
        train(c, model_config)


def train(c, model_config):
    """One run, from its settings to the saved model."""
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # torch's checkpoints warn with one process
    world = World(c)

    # data: a schedule of training batches, and held-out sources of the same kind
    sources = data.open_sources(c.data)
    schedule = make_schedule(c, sources)
    held_out = [s for s in data.open_sources(c.data, "valid") if (s.kind == "preference") == schedule.has_pairs]
    config, lora = resolve_model(c, model_config), lora_settings(c)
    check_run(c, config, schedule)
    warning = check_learning_rate(c, config, lora)
    if warning:
        world.print0(warning)
    if c.verify_shards:
        for source in sources[world.rank::world.world_size]:
            source.verify()

    # the run folder: new, or resumed from its newest checkpoint
    out = Path(c.out)
    check_folder(c, world)
    world.lock_folder(out)
    resume_from = checkpoint.newest_checkpoint(out / "checkpoints", world) if c.resume else None
    if c.resume and not resume_from:
        world.print0(f"resume: no valid checkpoint in {out}/checkpoints, so this starts at step 0")
    check_disk(c, config, world, resume_from, lora)

    # model, objective, optimizer
    world.print0(check_memory(c, config, count_parameters(config, lora), world))
    model = build_model(config, c, world, lora)
    if c.init and (c.loss == "dpo" or lora or not resume_from):  # a resumed DPO run, too, needs the reference
        model.load_weights(c.init)
    elif not resume_from:
        model.init_weights(c.seed)
    if lora:
        init_adapter(model, c.seed, c.adapter)
    objective, held_out_objective, facts = make_objectives(c, world, model, schedule, held_out)
    optimizer = make_optimizer(model, c)
    identity = checkpoint.run_identity(c, world, schedule, config, lora)
    step = resume(c, world, resume_from, model, optimizer, identity) if resume_from else 0

    logger = Logger(c, config, world, lora)
    logger.start(schedule, resume_from)
    if c.stages:
        world.print0(schedule.describe())
    if world.is_main:
        with_chats = any(s.kind != "text" and w for s, w in zip(sources, schedule.weights))
        folder = tokenizer_folder(c, schedule)
        token_ids = tokenizer.generation_token_ids(folder)
        write_config(out, asdict(config), torch.float32, c.init, folder, token_ids, with_chats)
        if lora:
            write_adapter_config(out, c.init, lora)
    if facts:
        logger.write({"step": step} | facts)

    # training loop
    stop_requested = stop_flag(world)
    micro_batches, skipped = world.micro_batches(c), 0
    while True:
        # once in a while: validate
        if step % c.eval_every == 0 or step == c.steps:
            validate(c, world, model, held_out, held_out_objective, logger, step, stop_requested)
            if world.is_sharded:
                reshard(model)
        if step >= c.steps:
            break

        # forward and backward: the sum over the global batch, divided by its weight on all processes
        batches = [schedule.batch(step, rows) for rows in micro_batches]
        weight, stop = world.all_reduce([sum(map(objective.weight, batches)), stop_requested()])
        losses = []
        for i, batch in enumerate(batches):
            if world.is_sharded:  # replicas exchange gradients once, after the last micro-batch
                model.set_requires_all_reduce(i == len(batches) - 1)
            loss = objective.loss(model, batch.to(world.device))
            (loss * (world.loss_scale / weight)).backward()
            losses.append(loss.detach())
        if world.world_size > 1 and not world.is_sharded:
            sum_gradients(model)

        # clip and step; if any process's gradient is not finite, all skip the step
        if c.first_new_id:
            zero_old_rows(model, c.first_new_id)
        norm, lr = clip_grad_norm(model, c.grad_clip), learning_rate(step, c)
        finite = not world.any(not math.isfinite(norm))
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            skipped = 0
        else:
            skipped += 1
            problem = describe_nonfinite(world, schedule, step, micro_batches, losses, norm)
            if c.on_nonfinite == "stop" or skipped > MAX_SKIPPED:
                raise FloatingPointError(f"{problem}. The weights are unchanged. Lower lr or look at these rows; "
                                         f"resume=True goes back to the newest checkpoint in {c.out}/checkpoints")
            logger.skip(step, problem)
            objective.summary()  # drops statistics that are not finite
        optimizer.zero_grad()
        step += 1

        # once in a while: log
        logger.count(batches)
        if finite and (step % c.log_every == 0 or step == c.steps):
            mean_loss = world.all_reduce([float(sum(losses))])[0] / weight
            logger.step(step, mean_loss, norm, lr, objective.summary())

        # once in a while, at the end, and when a signal asks to stop: save a checkpoint
        if step % c.save_every == 0 or step == c.steps or stop:
            state = {"step": step, "identity": identity, "next_lr": learning_rate(step, c)}
            checkpoint.save(c, world, model, optimizer, state)
            stop = world.any(stop_requested())  # it may have come while saving
            logger.restart()
        if stop and step < c.steps:
            world.print0(f"stopped by a signal after step {step}, saved; continue with resume=True")
            world.close()
            raise SystemExit(0)

    if lora:
        save_adapter(model, out, world.is_main)
    else:
        model.save_pretrained(out, like=out)
    world.print0(f"saved {out}")
    world.close()


@torch.no_grad()
def validate(c, world, model, held_out, objective, logger, step, stop_requested):
    """Log bits per byte of each held-out source (of chats, their answers), or how preference pairs fare. Collective.

    A signal to stop ends it without a log line.
    """
    losses, sizes = [], []
    for _, size, batches in data.validation_batches(held_out, c.seq_len, c.eval_tokens, c.micro_batch_size):
        loss = 0.0
        for i, counts in world.distribute(len(batches)):
            if world.any(stop_requested()):
                objective.summary()  # drops what it has counted
                return
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


def resume(c, world, path, model, optimizer, identity):
    """Restore a checkpoint and return its step; note a learning rate that is not the one its run would have used."""
    state = checkpoint.restore(path, model, optimizer, identity)
    if state["step"] > c.steps:
        raise ValueError(f"{path} is past the last step of this run, {c.steps}; set tokens= to at least "
                         f"{state['step'] * c.batch_size * c.seq_len}")
    lr = learning_rate(state["step"], c)
    if abs(lr / state["next_lr"] - 1) > 0.01 if state["next_lr"] else lr > 0:
        world.print0(f"note: the learning rate jumps from {state['next_lr']:.2e} to {lr:.2e} at step {state['step']}: "
                     "tokens, lr or its schedule are not those of the run that saved the checkpoint")
    return state["step"]


def describe_nonfinite(world, schedule, step, micro_batches, losses, norm):
    """Which rows, on which ranks, gave a loss that is not finite. Collective."""
    places = []
    for rows, loss in zip(micro_batches, losses):
        if not torch.isfinite(loss):
            names = sorted({schedule.sources[schedule.locate(step, r)[0]].name for r in rows})
            places.append(f"rank {world.rank}, rows {rows[0]} to {rows[-1]} of the batch ({', '.join(names)})")
    places = [place for of_rank in world.all_gather(places) for place in of_rank]
    where = f"the loss is not finite on {'; '.join(places)}" if places else "every loss is finite"
    return f"step {step}: the gradient norm is {norm}; {where}"


# ---------------------------------------------------------------------- model

def build_model(config, c, world, lora=None):
    """The model on its device, without values: LoRA, activation checkpointing, compile, then sharding of each block."""
    with torch.device("meta"):
        model = Qwen2(config, world.dtype, c.activation_checkpointing, c.residual_fp32)
    if lora:
        add_lora(model, lora, getattr(torch, c.frozen_dtype or "float32"))
    if c.compile:
        for block in model.model.layers:
            block.compile()
    if world.is_sharded:
        shard_model(model, world, c.residual_fp32)
    return model.materialize(world.device)


def zero_old_rows(model, first_new_id):
    """Zero the gradients of the embeddings of older ids."""
    for p in {model.model.embed_tokens.weight, model.lm_head.weight}:
        rows, first = local_rows(p.grad)
        rows[:max(0, first_new_id - first)] = 0


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError, OSError) as e:
        exit_with(e)
