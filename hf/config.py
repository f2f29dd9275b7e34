"""config.json in, and every file of a Hugging Face folder but the weights out.

A field that this code does not implement is refused by name: it would change the logits silently.
"""
import json
import math
import shutil
import warnings
from pathlib import Path
from typing import NoReturn

from hf.folder import declared_token_ids, download_hint, list_tokenizer_files, read_json

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
MAX_SIZE = 1 << 30  # of any count in a config, so that the product of two is still a plausible number of bytes
REQUIRED_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
OTHER_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings")
# fields that change the computation, and the values under which it is the one implemented here
SUPPORTED_VALUES: dict[str, tuple] = {
    "hidden_act": ("silu",), "mlp_bias": (False, None), "attention_dropout": (0, None), "quantization_config": (None,),
    "auto_map": (None,), "partial_rotary_factor": (1, None), "is_causal": (True, None),
    "is_encoder_decoder": (False, None), "use_bidirectional_attention": (False, None), "pruned_heads": ({}, None),
    "add_cross_attention": (False, None)}
LLAMA3_ROPE = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


# ---------------------------------------------------------------------- reading

def read_config_fields(folder: str | Path) -> dict:
    """The fields of ModelConfig from a config.json in the older or the transformers 5 spelling.

    ValueError names the file and the field that is missing, malformed or not implemented.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: no config.json; a checkpoint is a Hugging Face folder (config.json, "
                         f"*.safetensors){download_hint(folder)}")
    config = read_json(path)

    def refuse(name, value, reason) -> NoReturn:
        raise ValueError(f"{path}: {name} is {value!r}; {reason}")

    def get(name, default):
        return default if config.get(name) is None else config[name]

    family = config.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        refuse("model_type", family, f"this code implements {', '.join(map(repr, ARCHITECTURES))}")
    if config.get("architectures") not in (None, [ARCHITECTURES[family]]):
        refuse("architectures", config["architectures"], f"this code implements {ARCHITECTURES[family]}")
    for name, values in SUPPORTED_VALUES.items():
        if config.get(name, values[-1]) not in values:
            hint = "; code that comes with a folder is never run" if name == "auto_map" else ""
            refuse(name, config[name], f"only {values[0]!r} is implemented{hint}")
    theta, scaling = read_rope(get, refuse)
    fields = {name: config.get(name) for name in REQUIRED_SIZES}
    fields |= {  # Hugging Face's defaults
        "model_type": family,
        "num_key_value_heads": get("num_key_value_heads", config.get("num_attention_heads")),
        "head_dim": get("head_dim", 128 if family == "qwen3" else None),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "max_position_embeddings": get("max_position_embeddings", 2048 if family == "llama" else 32768),
        "rms_norm_eps": get("rms_norm_eps", 1e-6),
        "initializer_range": get("initializer_range", 0.02),
        "tie_word_embeddings": get("tie_word_embeddings", False),
        "attention_bias": family != "qwen2" and get("attention_bias", False)}
    check_values(fields, refuse)
    check_attention_window(get, refuse, fields["num_hidden_layers"])
    return fields


def check_values(fields, refuse):
    """Types and ranges of the fields; refuse(name, value, reason) raises."""
    for name in (*REQUIRED_SIZES, *OTHER_SIZES):
        value = fields[name]
        if name == "head_dim" and value is None:
            continue
        if type(value) is not int or not 0 < value <= MAX_SIZE:
            refuse(name, value, f"expected a whole number from 1 to {MAX_SIZE}")
    for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
        if type(fields[name]) not in (int, float) or not 0 < fields[name] < math.inf:
            refuse(name, fields[name], "expected a positive number")
    for name in ("tie_word_embeddings", "attention_bias"):
        if type(fields[name]) is not bool:
            refuse(name, fields[name], "expected true or false")
    if fields["num_attention_heads"] * (fields["head_dim"] or 1) > MAX_SIZE:
        refuse("head_dim", fields["head_dim"], f"num_attention_heads * head_dim is above {MAX_SIZE}")


def check_attention_window(get, refuse, layers):
    """Refuse sliding windows, unless the settings leave every layer with full attention."""
    kinds = get("layer_types", None)
    if kinds is not None:
        if type(kinds) is not list or any(kind != "full_attention" for kind in kinds):
            refuse("layer_types", kinds, "only full_attention is implemented")
        return
    if get("use_sliding_window", False):
        first = get("max_window_layers", 0)  # layers below this one have full attention
        if type(first) is not int:
            refuse("max_window_layers", first, "expected a whole number")
        if first < layers:
            refuse("use_sliding_window", True, "sliding windows are not implemented")


def read_rope(get, refuse):
    """(theta, scaling) of the rotary embedding; scaling is None or Llama 3's four numbers."""
    rope = {}
    for name in ("rope_scaling", "rope_parameters"):  # the older and the newer field
        if type(get(name, {})) is not dict:
            refuse(name, get(name, {}), "expected an object")
        rope |= get(name, {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        refuse("rope_type", kind, "only 'default' and 'llama3' are implemented")
    if rope.get("partial_rotary_factor", 1) != 1:
        refuse("partial_rotary_factor", rope["partial_rotary_factor"], "only 1 is implemented")
    if any(type(value) is dict for value in rope.values()):
        refuse("rope_parameters", rope, "settings per layer type are not implemented")
    theta = rope.get("rope_theta", get("rope_theta", 10000.0))
    if kind == "default":
        return theta, None
    scaling = {name: rope.get(name) for name in LLAMA3_ROPE}
    for name, value in scaling.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            refuse(name, value, "rope type 'llama3' needs a positive number")
    if scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        refuse("high_freq_factor", scaling["high_freq_factor"],
               f"it must be above low_freq_factor, {scaling['low_freq_factor']}")
    return theta, scaling


# ---------------------------------------------------------------------- writing

def write_config(folder, config: dict, dtype=None, like=None, tokenizer=None, token_ids=None, override_eos=False):
    """Write every file of a Hugging Face folder but the weights: config.json, generation_config.json, the tokenizer's
    files.

    config: ModelConfig's fields. dtype: of the weights; None keeps what `like` states. like: a folder whose other
    fields and generation settings are kept. tokenizer: the tokenizer's folder (default: like). token_ids:
    {"bos_token_id": ..., "eos_token_id": ...}, written where `like` has none (default: what the tokenizer's files
    declare). override_eos: write eos_token_id in any case, beside what `like` has, because a model that has learned
    turns must stop where one ends.
    """
    folder, tokenizer = Path(folder), tokenizer or like
    folder.mkdir(parents=True, exist_ok=True)
    fields = updated_fields(like, config) if like else new_fields(config)
    fields["vocab_size"] = config["vocab_size"]
    if dtype:
        fields["dtype" if "dtype" in fields else "torch_dtype"] = str(dtype).removeprefix("torch.")
    copies = list_tokenizer_files(tokenizer) if tokenizer else []
    settings = Path(like or folder) / "generation_config.json"
    generation = read_json(settings, {}) if like else {}
    has_tokenizer = any(file.name != "tokenizer_config.json" for file in copies)
    if has_tokenizer and (override_eos or generation.get("eos_token_id") is None):
        token_ids = declared_or_warn(tokenizer) if token_ids is None else token_ids
    else:
        token_ids = None
    if token_ids:
        for name, value in token_ids.items():
            if override_eos and name == "eos_token_id":
                value = join_ids(value, generation.get(name))
            if fields.get(name) is None or (override_eos and name == "eos_token_id"):
                fields[name] = value
            if generation.get(name) is None or name == "eos_token_id":
                generation[name] = fields[name]
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=1))
    elif generation:
        copies.append(settings)
    for file in copies:
        if file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(fields, indent=1, ensure_ascii=False), encoding="utf-8")


def updated_fields(like, config):
    """config.json of `like`, once its fields are found equal to `config`; the vocabulary may have grown, and a head
    that was stored beside the embedding it should be tied to is its own."""
    fields = read_json(Path(like) / "config.json")
    wanted = effective(config)
    for name, value in effective(read_config_fields(like)).items():
        if name == "tie_word_embeddings" and value and not wanted[name]:
            fields[name] = False
        elif name != "vocab_size" and wanted[name] != value:
            raise ValueError(f"{like}: its {name} is {value}, this model's is {config[name]}; "
                             "like= must be the folder the model came from")
    return fields


def effective(config):
    """ModelConfig's fields with those filled in that are absent or without effect."""
    config = dict(config)
    if config["head_dim"] is None:
        config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    return config


def new_fields(config):
    """config.json of a model that was trained from scratch."""
    family = config["model_type"]
    fields = {"architectures": [ARCHITECTURES[family]], "hidden_act": "silu", "attention_dropout": 0.0,
              "use_cache": True}
    fields |= {"mlp_bias": False} if family == "llama" else {"use_sliding_window": False}
    fields |= config
    if family == "qwen2":
        del fields["attention_bias"]
    if config["head_dim"] is None:
        del fields["head_dim"]
        if family == "qwen3":  # where an absent field means 128
            fields["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    if config["rope_scaling"]:
        fields["rope_scaling"] = {"rope_type": "llama3"} | config["rope_scaling"]
    return fields


def join_ids(*many):
    """One id, or the list of all that are given as ids, lists of ids or None."""
    ids = []
    for each in many:
        ids += each if isinstance(each, list) else [] if each is None else [each]
    ids = list(dict.fromkeys(ids))
    return ids[0] if len(ids) == 1 else ids


def declared_or_warn(tokenizer):
    """The ids that the tokenizer's files declare, or none with a warning: weights can be exported without them."""
    problem = "it declares no eos_token"
    try:
        token_ids = declared_token_ids(tokenizer)
        if "eos_token_id" in token_ids:
            return token_ids
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        problem = f"its files cannot be read: {e}"
    warnings.warn(f"generation_config.json names no end-of-text id: {tokenizer}: {problem}", stacklevel=3)
    return {}
