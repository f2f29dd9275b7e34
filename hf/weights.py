"""Hugging Face folders in and out: config.json, safetensors, and the tokenizer's files beside them.

Nothing in a folder is trusted. Every header is checked before a tensor is read, a field that this code does not implement is
refused by name, and no file is ever executed or unpickled. Reading goes by rows: a process that owns a tenth of a matrix reads a
tenth of its bytes, so 72 B parameters never stand whole anywhere.

A checkpoint of train.py (OUT/checkpoints/step-N) is read in the same way; there one tensor may lie in pieces in several files.
"""
import json
import math
import os
import shutil
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

import tokenizer as tok

FAMILIES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_HEADER = 100 << 20  # bytes; what the safetensors library allows
MAX_SIZE = 1 << 30  # of anything a config counts: the product of two is still a number of bytes
AGAIN = "copy or download it again"


# ---------------------------------------------------------------------- config.json

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")  # no default fits
HARMLESS = {  # fields that change the computation, and the values under which it is the one implemented
    "hidden_act": ("silu",), "mlp_bias": (False, None), "attention_dropout": (0, None), "quantization_config": (None,),
    "auto_map": (None,), "partial_rotary_factor": (1, None), "is_causal": (True, None), "is_encoder_decoder": (False, None),
    "use_bidirectional_attention": (False, None), "pruned_heads": ({}, None), "add_cross_attention": (False, None)}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def read_json(path):
    """The object in a JSON file; ValueError names the file when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not JSON ({e}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(found).__name__}; {AGAIN}")
    return found


def read_config(folder):
    """The fields of ModelConfig from a config.json, in the older or the transformers 5 spelling. ValueError names a field that
    this code does not implement."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: no config.json; a checkpoint is a Hugging Face folder (config.json, *.safetensors)")
    fields = read_json(path)

    def refuse(name, value, why):
        raise ValueError(f"{path}: {name} is {value!r}; {why}")

    def get(name, default):
        return default if fields.get(name) is None else fields[name]

    family = fields.get("model_type")
    if type(family) is not str or family not in FAMILIES:
        refuse("model_type", family, f"this code implements {', '.join(map(repr, FAMILIES))}")
    if fields.get("architectures") not in (None, [FAMILIES[family]]):
        refuse("architectures", fields["architectures"], f"this code implements {FAMILIES[family]}")
    for name, values in HARMLESS.items():
        if fields.get(name, values[-1]) not in values:
            why = "; code of a folder is never run" if name == "auto_map" else ""
            refuse(name, fields[name], f"only {values[0]!r} is implemented{why}")
    theta, scaling = read_rope(get, refuse)
    out = {name: fields.get(name) for name in SIZES} | {  # the others have defaults, Hugging Face's
        "model_type": family, "num_key_value_heads": get("num_key_value_heads", fields.get("num_attention_heads")),
        "head_dim": get("head_dim", 128 if family == "qwen3" else None), "rope_theta": theta, "rope_scaling": scaling,
        "max_position_embeddings": get("max_position_embeddings", 2048 if family == "llama" else 32768),
        "rms_norm_eps": get("rms_norm_eps", 1e-6), "initializer_range": get("initializer_range", 0.02),
        "tie_word_embeddings": get("tie_word_embeddings", False),
        "attention_bias": family != "qwen2" and get("attention_bias", False)}
    for name, value in out.items():
        if name in ("tie_word_embeddings", "attention_bias"):
            if type(value) is not bool:
                refuse(name, value, "expected true or false")
        elif name in ("rope_theta", "rms_norm_eps", "initializer_range"):
            if type(value) not in (int, float) or not 0 < value < math.inf:
                refuse(name, value, "expected a positive number")
        elif name not in ("model_type", "rope_scaling") and (name, value) != ("head_dim", None):
            if type(value) is not int or not 0 < value <= MAX_SIZE:
                refuse(name, value, f"expected a whole number from 1 to {MAX_SIZE}")
    if out["num_attention_heads"] * (out["head_dim"] or 1) > MAX_SIZE:
        refuse("head_dim", out["head_dim"], f"num_attention_heads times it is above {MAX_SIZE}")
    kinds = get("layer_types", None)
    if kinds is not None and (type(kinds) is not list or any(kind != "full_attention" for kind in kinds)):
        refuse("layer_types", kinds, "only full_attention is implemented")
    if kinds is None and get("use_sliding_window", False):
        if type(get("max_window_layers", 0)) is not int:
            refuse("max_window_layers", get("max_window_layers", 0), "expected a whole number")
        if get("max_window_layers", 0) < out["num_hidden_layers"]:
            refuse("use_sliding_window", True, "sliding windows are not implemented")
    return out


def read_rope(get, refuse):
    """(theta, scaling) of the rotary positions: scaling None, or the four numbers of Llama 3's."""
    rope = {}
    for name in ("rope_scaling", "rope_parameters"):  # the older and the newer place
        if type(get(name, {})) is not dict:
            refuse(name, get(name, {}), "expected an object")
        rope |= get(name, {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        refuse("rope_type", kind, "only 'default' and 'llama3' are implemented")
    if rope.get("partial_rotary_factor", 1) != 1:
        refuse("partial_rotary_factor", rope["partial_rotary_factor"], "only 1 is implemented")
    if any(type(value) is dict for value in rope.values()):
        refuse("rope_parameters", rope, "settings for each kind of layer are not implemented")
    theta, scaling = rope.get("rope_theta", get("rope_theta", 10000.0)), None
    if kind == "llama3":
        scaling = {name: rope.get(name) for name in LLAMA3}
        for name, value in scaling.items():
            if type(value) not in (int, float) or not 0 < value < math.inf:
                refuse(name, value, "rope type 'llama3' needs a positive number")
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if high <= low:
            refuse("high_freq_factor", high, f"it must be above low_freq_factor {low}")
    return theta, scaling


def write_beside(folder, config, dtype=None, like=None, tokenizer=None, chats=False):
    """Everything of a Hugging Face folder but the weights: config.json, generation_config.json, tokenizer files.

    config: ModelConfig's fields. dtype: of the weights; None: as like says. like: a folder whose other fields and generation
    settings are kept. tokenizer: the folder of one (default: like). Ids that end a text are written unless like brings its own;
    chats: in any case, as a model that learned turns must stop where one ends.
    """
    folder, tokenizer = Path(folder), tokenizer or like
    folder.mkdir(parents=True, exist_ok=True)
    if like:
        fields = read_json(Path(like) / "config.json")
        for name, value in read_config(like).items():
            if name != "vocab_size" and config[name] != value:
                raise ValueError(f"{like}: its {name} is {value}, this model's is {config[name]}; "
                                 "like= must be the folder it came from")
    else:
        family = config["model_type"]
        fields = {"architectures": [FAMILIES[family]], "hidden_act": "silu", "attention_dropout": 0.0, "use_cache": True}
        fields |= {"mlp_bias": False} if family == "llama" else {"use_sliding_window": False}
        fields |= {k: v for k, v in config.items() if (k, family) != ("attention_bias", "qwen2")}
        if config["head_dim"] is None:
            del fields["head_dim"]
            if family == "qwen3":  # there its absence means 128
                fields["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
        if config["rope_scaling"]:
            fields["rope_scaling"] = {"rope_type": "llama3"} | config["rope_scaling"]
    fields["vocab_size"] = config["vocab_size"]
    if dtype:
        fields["dtype" if "dtype" in fields else "torch_dtype"] = str(dtype).removeprefix("torch.")
    copies = tok.files(tokenizer) if tokenizer else []
    settings = Path(like or folder) / "generation_config.json"
    generation = read_json(settings) if like and settings.exists() else {}
    if (chats or generation.get("eos_token_id") is None) and any(file.name != "tokenizer_config.json" for file in copies):
        try:
            t = tok.load(tokenizer)
            ends = {"bos_token_id": t.bos_id, "eos_token_id": t.stop_ids[0] if len(t.stop_ids) == 1 else t.stop_ids}
            fields |= {k: v for k, v in ends.items() if fields.get(k) is None or (chats and k == "eos_token_id")}
            generation |= {k: fields[k] for k in ends if k == "eos_token_id" or generation.get(k) is None}
            (folder / "generation_config.json").write_text(json.dumps(generation, indent=1))
            settings = None
        except ValueError as e:
            warnings.warn(f"generation_config.json names no end-of-text id, as the tokenizer cannot be read: {e}", stacklevel=2)
    if generation and settings:
        copies.append(settings)
    for file in copies:
        if file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(fields, indent=1, ensure_ascii=False), encoding="utf-8")


# ---------------------------------------------------------------------- safetensors in

class Stored:
    """A tensor on disk: dtype, shape, and where its rows lie. pieces: (first row, rows, file, offset in bytes)."""

    def __init__(self, dtype, shape, pieces):
        self.dtype, self.shape, self.pieces = dtype, shape, pieces

    @property
    def file(self):
        return self.pieces[0][2]

    def read(self, first=0, last=None):
        """Rows first to last - 1 as a tensor; reads no other byte."""
        shape = self.shape or (1,)
        last = shape[0] if last is None else last
        out = torch.empty((last - first, *shape[1:]), dtype=self.dtype)
        row = math.prod(shape[1:]) * self.dtype.itemsize
        for begin, count, file, offset in self.pieces:
            a, b = max(first, begin), min(last, begin + count)
            if a < b and row:
                with open(file, "rb") as f:
                    f.seek(offset + (a - begin) * row)
                    if f.readinto(out[a - first:b - first].view(torch.uint8).numpy()) != (b - a) * row:
                        raise ValueError(f"{file}: ended while it was read; {AGAIN}")
        return out if self.shape else out[0]


def read_header(path):
    """({tensor name: Stored}, metadata) of a safetensors file; ValueError when its header and its size do not fit exactly."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"{path}: not a whole safetensors file: its header claims {length} bytes of {size}; {AGAIN}")
        text = f.read(length)

    def once(pairs):
        found = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"{name!r} stands twice")
            found[name] = value
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
        metadata = header.pop("__metadata__", {})
        spans = sorted((begin, end, name) for name, entry in header.items() for begin, end in [entry["data_offsets"]])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path}: the header cannot be read ({e}); {AGAIN}") from None
    at, out = 0, {}
    for begin, end, name in spans:
        dtype, shape = DTYPES.get(str(header[name].get("dtype"))), header[name].get("shape")
        if dtype is None:
            raise ValueError(f"{path}: {name} has dtype {header[name].get('dtype')!r}; only {', '.join(DTYPES)} are implemented")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in [begin, end, *shape]):
            raise ValueError(f"{path}: {name} has shape {shape} at bytes {begin} to {end}; {AGAIN}")
        if begin != at or end - begin != math.prod(shape) * dtype.itemsize or end > size - 8 - length:
            raise ValueError(f"{path}: {name} of shape {shape} claims bytes {begin} to {end} of {size - 8 - length}, expected "
                             f"{at} to {at + math.prod(shape) * dtype.itemsize}; {AGAIN}")
        at = end
        out[name] = Stored(dtype, tuple(shape), [(0, shape[0] if shape else 1, path, 8 + length + begin)])
    if at != size - 8 - length:
        raise ValueError(f"{path}: {size - 8 - length - at} bytes behind the last tensor; {AGAIN}")
    return out, metadata


def open_weights(folder):
    """{tensor name: Stored} of a Hugging Face folder (one file, or those its index names) or of a checkpoint of train.py."""
    folder = Path(folder)
    if (folder / "tensors").is_dir():
        return open_training(folder)
    index, wanted = folder / "model.safetensors.index.json", None
    if index.exists():
        wanted = read_json(index).get("weight_map")
        if not isinstance(wanted, dict) or not wanted or not all(isinstance(v, str) for v in wanted.values()):
            raise ValueError(f"{index}: weight_map must map tensor names to files; {AGAIN}")
        for name, file in wanted.items():
            if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
                raise ValueError(f"{index}: {name} is said to lie in {file!r}; a .safetensors file of this folder is needed")
        files = [folder / file for file in sorted(set(wanted.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no *.safetensors file (pickled weights, *.bin or *.pt, are never read: convert them first)")
    out = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: missing, though {index.name} names it; {AGAIN}")
        found, _ = read_header(file)
        for name in found:
            if wanted is not None and wanted.get(name, file.name) != file.name:
                raise ValueError(f"{file}: holds {name}, which {index.name} says lies in {wanted[name]}; {AGAIN}")
            if name in out:
                raise ValueError(f"{file}: holds {name}, and so does {out[name].file}; remove the file that does not belong here")
        out |= found
    if wanted is not None and set(wanted) - set(out):
        name = min(set(wanted) - set(out))
        raise ValueError(f"{folder / wanted[name]}: {name} is not there, though {index.name} says so; {AGAIN}")
    return out


def open_training(folder):
    """The parameters of train.py's checkpoint, torch's distributed one in safetensors: each process's rows in its own file."""
    manifest, parts = folder / "manifest.json", {}
    for name, entry in (read_json(manifest) if manifest.exists() else {}).items():  # without the last rows a matrix looks whole
        if type(entry) is not dict or not (folder / name).is_file() or (folder / name).stat().st_size != entry.get("bytes"):
            raise ValueError(f"{folder / name}: missing, or not of the size in {manifest.name}; go back to another checkpoint")
    for file in sorted((folder / "tensors").glob("*.safetensors")):
        found, metadata = read_header(file)
        try:
            sharding = json.loads(metadata.get("DCP_SHARDING_INFO", "{}"))  # {tensor: {"saved_offsets": [first row, 0, ...]}}
            firsts = {name: sharding[name]["saved_offsets"] if name in sharding else [0] * len(s.shape)
                      for name, s in found.items()}
            wrong = [name for name, at in firsts.items()
                     if len(at) != len(found[name].shape) or any(at[1:]) or type(at[0]) is not int]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as e:
            wrong = [f"DCP_SHARDING_INFO ({e})"]
        if wrong:
            raise ValueError(f"{file}: where the rows of {wrong[0]} belong cannot be read; go back to another checkpoint")
        for name, stored in found.items():
            if not name.startswith("exp_avg"):  # AdamW's moments
                parts.setdefault(name, []).append((firsts[name][0], stored))
    if not parts:
        raise ValueError(f"{folder}: no *.safetensors file in tensors/; go back to another checkpoint")
    out = {}
    for name, pieces in parts.items():
        pieces, at = sorted(pieces, key=lambda p: p[0]), 0
        for first, stored in pieces:
            if first != at or (stored.dtype, stored.shape[1:]) != (pieces[0][1].dtype, pieces[0][1].shape[1:]):
                raise ValueError(f"{stored.file}: {name} goes on at row {at}, this file holds {stored.dtype} {stored.shape} "
                                 f"from row {first}; go back to another checkpoint")
            at += stored.shape[0]
        out[name] = Stored(pieces[0][1].dtype, (at, *pieces[0][1].shape[1:]),
                           [(first, s.shape[0], s.file, s.pieces[0][3]) for first, s in pieces])
    return out


# ---------------------------------------------------------------------- safetensors out

def write_weights(folder, tensors, max_bytes=5 << 30):
    """Write (name, tensor) pairs to model.safetensors, or to several files of at most max_bytes and an index. A tensor is asked
    for when the ones before it are placed, so memory holds one file. What an earlier save left there is removed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts, pending = [], {}

    def flush():
        if pending:
            parts.append({name: t.nbytes for name, t in pending.items()})
            save_file(dict(pending), folder / f"part-{len(parts):05}.tmp", metadata={"format": "pt"})
            pending.clear()

    for name, tensor in tensors:
        if sum(t.nbytes for t in pending.values()) + tensor.nbytes > max_bytes:
            flush()
        pending[name] = tensor
    flush()
    for old in [folder / "model.safetensors.index.json", *folder.glob("model*.safetensors")]:
        old.unlink(missing_ok=True)
    n = len(parts)
    names = ["model.safetensors"] if n == 1 else [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    for i, name in enumerate(names):
        os.replace(folder / f"part-{i + 1:05}.tmp", folder / name)
    if n > 1:
        index = {"metadata": {"total_size": sum(sum(p.values()) for p in parts)},
                 "weight_map": {key: name for name, p in zip(names, parts) for key in p}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def export(source, out, dtype=None, max_bytes=5 << 30):
    """A Hugging Face folder or a checkpoint of train.py -> a complete Hugging Face folder. dtype None: tensors byte for byte."""
    if Path(source).resolve() == Path(out).resolve():
        raise ValueError(f"{out}: the export would overwrite what it reads; give another folder")
    stored = open_weights(source)
    write_beside(out, read_config(source), dtype, like=source)
    write_weights(out, ((name, s.read().to(dtype or s.dtype)) for name, s in stored.items()), max_bytes)
    if (Path(out) / "tokenizer.model").exists() and read_config(out)["model_type"] != "llama":
        print("note: transformers' AutoTokenizer takes the tokenizer of every Qwen model for Qwen's own; this one is "
              f"sentencepiece, load it with PreTrainedTokenizerFast.from_pretrained({str(out)!r})")
