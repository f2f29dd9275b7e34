"""LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.

Such a folder, or a training checkpoint with an adapter_config.json, stands for its base with the adapter merged: the
rows of a base's matrix become W + s B A as they are read, s = lora_alpha / r (Hu et al. 2021, arXiv 2106.09685). A
setting of PEFT that would change the result and is not implemented is refused by name.
"""
import json
import math
import re
from pathlib import Path
from typing import NoReturn

from hf.folder import DOWNLOAD_AGAIN, read_json
from hf.safetensors_files import StoredTensor, read_header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's names are the model's own behind it
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # what LoRA can be added to
# fields that change nothing once the tensors are there; any other one must be absent, empty or false
HARMLESS = {"alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode",
            "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
            "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
            "runtime_config", "target_modules", "task_type", "use_rslora"}


def is_adapter(folder: str | Path) -> bool:
    return (Path(folder) / CONFIG).is_file()


def config_folder(folder: str | Path) -> Path:
    """The folder whose config.json is that of the model: an adapter's own if it has one, else its base's."""
    folder = Path(folder)
    return base_folder(folder) if is_adapter(folder) and not (folder / "config.json").exists() else folder


def base_folder(folder: str | Path) -> Path:
    """The base of an adapter: base_model_name_or_path, or models/NAME for a name on the Hugging Face Hub."""
    path = Path(folder) / CONFIG
    name = read_json(path).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: base_model_name_or_path is {name!r}; set it to the folder of the base model")
    for base in (Path(name), Path("models") / Path(name).name):
        if is_adapter(base):
            raise ValueError(f"{path}: its base {base} is an adapter, too; export that one first (python model.py "
                             f"export {base} OUT) and set base_model_name_or_path to OUT")
        if base.is_dir():
            return base
    raise ValueError(f"{path}: the base {name} is not a folder on this machine; set base_model_name_or_path to where "
                     f"it is, or download it to models/{Path(name).name}")


def read_adapter_config(folder: str | Path) -> dict:
    """{"rank", "alpha", "scale", "targets", "dropout"} of adapter_config.json; ValueError for what is not implemented.

    targets: names of linear layers, or a regular expression as one string.
    """
    path = Path(folder) / CONFIG
    config = read_json(path)

    def refuse(name, needed) -> NoReturn:
        raise ValueError(f"{path}: {name} is {config.get(name)!r}; {needed}")

    if config.get("peft_type") != "LORA":
        refuse("peft_type", "only 'LORA' is implemented")
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if type(rank) is not int or rank < 1:
        refuse("r", "expected a whole number above 0")
    if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        refuse("lora_alpha", "expected a positive number")
    if not isinstance(targets, str) and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        refuse("target_modules", "expected a list of layers")
    if config.get("bias") not in (None, "none"):
        refuse("bias", "only 'none' is implemented")
    if config.get("init_lora_weights") not in (None, True, False, "gaussian"):
        refuse("init_lora_weights", "it changes the base's weights; save it with PEFT's path_initial_model_for_weight_"
                                    "conversion first")
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            refuse(name, "one rank and alpha for all layers are implemented")
    for name, value in config.items():
        if value and name not in HARMLESS:
            refuse(name, "it is not implemented")
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return {"rank": rank, "alpha": alpha, "scale": scale, "targets": targets,
            "dropout": config.get("lora_dropout") or 0.0}


def write_adapter_config(folder: str | Path, base: str, rank: int, alpha: float, targets: list, rslora: bool = False):
    """Write adapter_config.json with the fields that PEFT needs; those left out have its defaults."""
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank,
              "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "target_modules": targets,
              "use_rslora": rslora, "lora_dropout": 0.0, "bias": "none", "init_lora_weights": True,
              "inference_mode": True}
    (Path(folder) / CONFIG).write_text(json.dumps(config, indent=1))


# ---------------------------------------------------------------------- tensors

class MergedTensor(StoredTensor):
    """A base's matrix with the product of an adapter's added, in float32, to the rows that are read."""

    def __init__(self, base, a, b, scale):
        super().__init__(base.dtype, base.shape, [*base.pieces, *a.pieces, *b.pieces])
        self.base, self.a, self.b, self.scale = base, a, b, scale

    def read(self, first=0, last=None):
        return self.base.read(first, last).float() + self.scale * (self.b.read(first, last).float()
                                                                   @ self.a.read().float())


def open_adapter(folder: str | Path) -> dict:
    """{the model's own name: StoredTensor} of adapter_model.safetensors."""
    file = Path(folder) / WEIGHTS
    if not file.exists():
        hint = "; pickled ones (adapter_model.bin) are never read" if file.with_suffix(".bin").exists() else ""
        raise ValueError(f"{folder}: no {WEIGHTS}{hint}; a run of train.py writes it at its end")
    tensors, _ = read_header(file)
    foreign = sorted(name for name in tensors if not re.fullmatch(re.escape(PREFIX) + r".+\.lora_[AB]\.weight", name))
    if foreign:
        raise ValueError(f"{file}: {foreign[0]} is no matrix of a LoRA on linear layers ({len(foreign)} such tensors)")
    return {name.removeprefix(PREFIX): stored for name, stored in tensors.items()}


def merge(folder: str | Path, base: dict, lora: dict) -> dict:
    """{name: StoredTensor} of the base, those that the adapter changes merged as they are read.

    lora: {"...q_proj.lora_A.weight": StoredTensor, ...}. ValueError when it does not fit the base.
    """
    config, out = read_adapter_config(folder), dict(base)
    for module in sorted({re.sub(r"\.lora_[AB]\.weight$", "", name) for name in lora}):
        a, b = (lora.get(f"{module}.lora_{letter}.weight") for letter in "AB")
        if a is None or b is None:
            raise ValueError(f"{folder}: {module} has only one of lora_A and lora_B; {DOWNLOAD_AGAIN}")
        weight = base.get(f"{module}.weight")
        if weight is None:
            raise ValueError(f"{folder}: adapts {module}, which its base {base_folder(folder)} does not have")
        rows, columns = weight.shape
        if a.shape != (config["rank"], columns) or b.shape != (rows, config["rank"]):
            raise ValueError(f"{folder}: {module} has lora_A {a.shape} and lora_B {b.shape}; rank {config['rank']} and "
                             f"the base {base_folder(folder)} need {(config['rank'], columns)} and "
                             f"{(rows, config['rank'])}")
        out[f"{module}.weight"] = MergedTensor(weight, a, b, config["scale"])
    return out
