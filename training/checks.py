"""Checks before the first step: settings out of bounds, parts that do not fit together."""
import math
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path

import tokenizer
from hf.adapters import LINEARS, base_folder, is_adapter
from hf.config import write_config
from hf.folder import download_hint, list_tokenizer_files
from model import ModelConfig
from training.estimate import count_parameters
from training.stages import check_shares, check_stages

# settings not listed here must be above 0
MAY_BE_ZERO = ("seed", "min_lr_ratio", "warmup_ratio", "weight_decay", "label_smoothing", "beta1", "beta2")
AT_MOST = {"lr": 1, "dpo_beta": 100, "weight_decay": 100, "threads": 1024, "seed": 2 ** 63 - 1}
FRACTIONS = {"warmup_ratio": "a fraction of the steps, not a number of steps",
             "min_lr_ratio": "a fraction of lr, not a learning rate"}
BELOW = {"beta1": 1, "beta2": 1, "label_smoothing": 0.5}
CHOICES = {"loss": ("lm", "dpo"), "lr_schedule": ("cosine", "linear", "constant"),
           "dtype": ("auto", "float32", "bfloat16"), "activation_checkpointing": (False, True, "selective"),
           "on_nonfinite": ("stop", "skip"), "frozen_dtype": (None, "float32", "bfloat16"), "ramp": ("step", "linear"),
           "moments": ("float32", "bfloat16", "int8")}
LARGE_MODEL = 50e6   # parameters; above this, a learning rate above LARGE_LR must be confirmed
LARGE_LR = 1e-3


# ---------------------------------------------------------------------- settings by themselves

def check_settings(c):
    """ValueError listing everything wrong with the values of Train."""
    problems = []
    for name, value in asdict(c).items():
        if type(value) in (int, float):
            problems += check_number(name, value)
    for name, choices in CHOICES.items():
        value = getattr(c, name)
        if value not in choices:
            listed = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
            problems.append(f"{name} must be {listed}, got {value!r}")
    if c.loss == "dpo" and not c.init:
        problems.append("loss=dpo needs init=, the model to align, which is also the reference")
    problems += check_lora(c)
    if c.compile and c.activation_checkpointing == "selective":
        problems.append("compile=True recomputes cheap operations by itself; set activation_checkpointing to False or "
                        "True, not selective")
    if c.stages is not None:
        problems += check_stages(c)
    else:
        problems += [f"{name} must be set, or stages" for name in ("mixture", "tokens") if getattr(c, name) is None]
        problems += [] if c.mixture is None else check_shares(c.mixture)
        problems += [] if c.ramp == "step" else [f"ramp={c.ramp} needs stages="]
    folders = c.data if isinstance(c.data, list) else [c.data]
    if not folders or not all(isinstance(folder, str) for folder in folders):
        problems.append(f"data must be a folder or a list of folders, got {c.data!r}")
    if not problems and c.steps < 1:
        problems.append(f"{'stages' if c.stages else 'tokens'}={c.stages or c.tokens} is less than one global batch, "
                        f"batch_size * seq_len = "
                        f"{c.batch_size * c.seq_len}")
    if problems:
        raise ValueError("Train: " + "; ".join(problems))


def check_number(name, value):
    """[what is wrong with a number], or []."""
    if not math.isfinite(value):
        return [f"{name} must be finite, got {value}"]
    if name in FRACTIONS and not 0 <= value <= 1:
        return [f"{name} must be in [0, 1], got {value}: it is {FRACTIONS[name]}"]
    if name == "min_lr_ratio" and 0 < value < 1e-3:
        return [f"min_lr_ratio must be 0 or at least 0.001, got {value}: it is {FRACTIONS[name]}"]
    if name in BELOW:
        return [] if 0 <= value < BELOW[name] else [f"{name} must be in [0, {BELOW[name]}), got {value}"]
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        return [f"{name} must be {'at least 0' if name in MAY_BE_ZERO else 'positive'}, got {value}"]
    if value > AT_MOST.get(name, math.inf):
        return [f"{name} must be at most {AT_MOST[name]}, got {value}"]
    return []


def check_lora(c):
    """[what is wrong with the settings of LoRA], or []."""
    own = [name for name in ("lora_rank", "lora_alpha", "lora_targets") if getattr(c, name) is not None]
    problems = []
    if c.lora_rank is None and c.adapter is None:
        own += ["frozen_dtype"] * (c.frozen_dtype is not None)
        return [f"{own[0]} is a setting of LoRA; set lora_rank=, too"] if own else []
    if c.adapter and own:
        problems.append(f"adapter={c.adapter} brings its own rank, alpha and targets; remove {', '.join(own)}")
    if not c.init:
        problems.append("LoRA needs init=, the model whose weights stay frozen")
    if c.first_new_id:
        problems.append("first_new_id trains embeddings and LoRA freezes them; train one after the other")
    if c.lora_targets is not None:
        unknown = [t for t in c.lora_targets if t not in LINEARS]
        if unknown or not c.lora_targets:
            problems.append(f"lora_targets must be a list of {', '.join(LINEARS)}, got {c.lora_targets}")
    return problems


# ---------------------------------------------------------------------- settings, model and data together

def resolve_model(c, model_config):
    """The ModelConfig of this run: init's, or the settings' as config.json will store it."""
    if c.init:
        if not Path(c.init).is_dir():
            hint = download_hint(c.init) or "; set it to a Hugging Face folder (config.json, *.safetensors)"
            raise ValueError(f"init={c.init} is not a folder on this machine{hint}")
        if model_config != ModelConfig():
            raise ValueError(f"init={c.init} has its own config.json; remove the model's settings (hidden_size, ...)")
        if (c.lora_rank or c.adapter) and is_adapter(c.init):
            raise ValueError(f"init={c.init} is an adapter; to continue it, set init={base_folder(c.init)} and "
                             f"adapter={c.init}, or merge it first: python model.py export {c.init} OUT")
        if c.adapter and not is_adapter(c.adapter):
            raise ValueError(f"adapter={c.adapter}: no adapter_config.json there; set it to a PEFT folder")
        return ModelConfig.from_pretrained(c.init)
    return stored_config(model_config)


def stored_config(config):
    """The config that a new model's saved config.json gives back. ValueError for fields that it cannot store."""
    with tempfile.TemporaryDirectory() as folder:
        write_config(folder, asdict(config))
        try:
            stored = ModelConfig.from_pretrained(folder)
        except ValueError as e:
            raise ValueError(f"a model of these settings could not be saved: {e}") from None
    if config.head_dim is None:  # stored explicitly where its absence would mean another value
        stored_alike = replace(stored, head_dim=None) if stored.head_size == config.head_size else stored
    else:
        stored_alike = stored
    different = [f.name for f in fields(config) if getattr(stored_alike, f.name) != getattr(config, f.name)]
    if different:
        values = ", ".join(f"{name}={getattr(config, name)!r}" for name in different)
        raise ValueError(f"a {config.model_type} model with {values} could not be saved: its config.json means "
                         f"{', '.join(f'{name}={getattr(stored, name)!r}' for name in different)}")
    return stored


def check_run(c, config, schedule):
    """ValueError when settings, model and shards do not belong together."""
    index = schedule.sources[0].index
    rows, folder = index["vocab_size"], tokenizer_folder(c, schedule)
    if rows > config.vocab_size and any(f.name != "tokenizer_config.json" for f in list_tokenizer_files(folder)):
        rows = tokenizer.load(folder).min_rows  # an unused control token needs no row
    if rows > config.vocab_size:
        raise ValueError(f"{c.data}: its tokenizer has {rows} ids, the model {config.vocab_size} rows; "
                         f"set vocab_size={rows} or prepare with the model's own tokenizer")
    if c.seq_len > config.max_position_embeddings:
        raise ValueError(f"seq_len={c.seq_len} is above the model's max_position_embeddings, "
                         f"{config.max_position_embeddings}; set a smaller seq_len")
    if not folder.is_dir():
        raise ValueError(f"{folder.parent}: no tokenizer folder beside the shards; copy everything that "
                         "prepare.py wrote")
    if c.init and list_tokenizer_files(c.init):
        theirs = tokenizer.load(c.init).fingerprint
        if theirs != index["tokenizer"]:
            raise ValueError(f"{c.data} was prepared with tokenizer {index['tokenizer']}, {c.init} was trained with "
                             f"{theirs}; run prepare.py with tokenizer={c.init}")
    if c.first_new_id and not (c.init and c.first_new_id < config.vocab_size):
        raise ValueError(f"first_new_id={c.first_new_id} needs init= a model with more rows than that, this one has "
                         f"{config.vocab_size}")
    if schedule.has_pairs and c.loss != "dpo":
        raise ValueError(f"loss={c.loss}, and the mixture {c.mixture or c.stages} reads preference pairs; set loss=dpo")
    if c.loss == "dpo" and not schedule.has_pairs:
        raise ValueError(f"loss=dpo, and the mixture {c.mixture or c.stages} reads no preference pairs; name the "
                         "category of some, or set loss=lm")


def tokenizer_folder(c, schedule):
    """The tokenizer to save with the model: from the folder with chats, for its template; else from the first folder.

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


# ---------------------------------------------------------------------- learning rate

def usual_learning_rate(parameters: float, continued: bool, loss: str = "lm", lora: bool = False) -> float:
    """A usual peak learning rate. From scratch: 6e-4 at 125 M parameters, 1e-4 at 13 B (Brown et al. 2020, Table 2.1).

    Continued training of a published model (above LARGE_MODEL) takes 1e-5 to 1e-4, DPO a twentieth of that; LoRA ten
    times the rate of full training.
    """
    usual = 6e-4 * (125e6 / parameters) ** 0.386  # the power law through both
    if continued and parameters > LARGE_MODEL:
        usual = min(usual, 1e-4)
        if loss == "dpo":
            usual /= 20
    return 10 * usual if lora else usual


def check_learning_rate(c, config, lora=None):
    """A warning for a learning rate above twice the usual one, or None. ValueError above LARGE_LR for a large model."""
    n = count_parameters(config)["all"]
    usual = usual_learning_rate(n, c.init is not None and not c.first_new_id, c.loss, lora is not None)
    if c.lr > LARGE_LR and n > LARGE_MODEL and not c.allow_large_lr:
        raise ValueError(f"lr={c.lr:g} is too large for {n / 1e6:.0f} M parameters; set lr={usual:.0e}, which is "
                         "usual, or allow_large_lr=True")
    if c.lr > 2 * usual:
        return f"warning: lr={c.lr:g} is large for {n / 1e6:.1f} M parameters; lr={usual:.0e} is usual"
    return None
