"""safetensors out, a tensor at a time, and whole folders from others or from training checkpoints."""
import json
import math
import os
from pathlib import Path

import torch

from hf.adapters import config_folder
from hf.config import read_config_fields, write_config
from hf.folder import TOKENIZER_FILES, list_tokenizer_files
from hf.safetensors_files import DTYPES
from hf.weights import open_weights, read_model_fields

INDEX = "model.safetensors.index.json"
PART = "part-[0-9][0-9][0-9][0-9][0-9].tmp"
METADATA = {"format": "pt", "writer": "nanoMarco"}  # of every file: transformers asks for the format
BEGIN = b'{"__metadata__":' + json.dumps(METADATA, separators=(",", ":")).encode()  # of a header of ours


# ---------------------------------------------------------------------- what may be replaced

def check_output(folder, like=None, tokenizer=None):
    """ValueError when writing a model there would replace what this project did not write.

    like, tokenizer: folders whose other files go along, as in `write_config`. A folder that holds weights of ours is a
    model of ours, and is replaced as a whole; one that is its own `like` keeps its other files.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    foreign = find_foreign_weights(folder)
    if not list_weights(folder) and not (like and Path(like).resolve() == folder.resolve()):
        names = {"config.json"} | ({"generation_config.json", *TOKENIZER_FILES} if like or tokenizer else set())
        foreign += sorted(path.name for path in folder.glob("*") if path.name in names)
    refuse(folder, foreign)


def refuse(folder, names):
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ValueError(f"{folder} holds files that are not of a model written by nanoMarco ({listed}): they are "
                         "not overwritten; write to a new folder, or move them away")


def list_weights(folder):
    """The files of weights in a folder, and those that an export left unfinished."""
    return sorted([*Path(folder).glob("*.safetensors"), *Path(folder).glob(PART)])


def find_foreign_weights(folder):
    """Names of the weights in a folder, and of their index, that `write_weights` did not write."""
    weights = list_weights(folder)
    index = [INDEX] if not weights and (Path(folder) / INDEX).exists() else []
    return [path.name for path in weights if not is_own(path)] + index


def is_own(path):
    with open(path, "rb") as f:
        head = f.read(8 + len(BEGIN))
    return head[8:] == BEGIN or not head  # empty: killed before the first byte


# ---------------------------------------------------------------------- writing

def write_weights(folder, shapes, tensors, max_bytes=5 << 30):
    """Write tensors to model.safetensors, or to several files of at most max_bytes and an index.

    shapes: {name: (dtype, shape)} of all tensors, in their order. tensors: (name, tensor) pairs in the same order; each
    is requested after the one before it is on disk, so memory holds one tensor. Files of an earlier save are removed;
    ValueError when the folder holds weights of others.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refuse(folder, find_foreign_weights(folder))
    files = assign_files(shapes, max_bytes)
    tensors = iter(tensors)
    for number, names in enumerate(files, 1):
        offsets, header = safetensors_header({name: shapes[name] for name in names})
        with open(folder / f"part-{number:05}.tmp", "wb") as f:
            f.write(header)
            for name in names:
                dtype, shape = shapes[name]
                found, tensor = next(tensors)
                assert (found, tensor.dtype, tuple(tensor.shape)) == (name, dtype, tuple(shape)), found
                f.seek(len(header) + offsets[name][0])
                tensor = tensor.contiguous()
                f.write(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
                del tensor  # before the next one is requested
            f.truncate(len(header) + max(end for _, end in offsets.values()))
    n = len(files)
    left_over = [path for path in folder.glob(PART) if int(path.stem[5:]) > n]  # of a larger one, killed
    for old in [folder / INDEX, *folder.glob("model*.safetensors"), *left_over]:
        old.unlink(missing_ok=True)
    names = ["model.safetensors"] if n == 1 else [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    for i, name in enumerate(names):
        os.replace(folder / f"part-{i + 1:05}.tmp", folder / name)
    if n > 1:
        total = sum(tensor_bytes(*shapes[name]) for name in shapes)
        weight_map = {key: name for name, keys in zip(names, files) for key in keys}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1))


def write_file(file, tensors):
    """Write {name: tensor}, all in memory, to one file, which is complete or as it was."""
    offsets, header = safetensors_header({name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()})
    with open(f"{file}.tmp", "wb") as f:
        f.write(header)
        for name in sorted(tensors, key=lambda name: offsets[name]):
            f.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy())
        f.flush()
        os.fsync(f.fileno())
    os.replace(f"{file}.tmp", file)


def tensor_bytes(dtype, shape):
    return math.prod(shape) * dtype.itemsize


def assign_files(shapes, max_bytes):
    """Lists of tensor names, one for each file: in order, and each file as full as max_bytes allows."""
    files, size = [[]], 0
    for name, (dtype, shape) in shapes.items():
        if size + tensor_bytes(dtype, shape) > max_bytes and files[-1]:
            files.append([])
            size = 0
        files[-1].append(name)
        size += tensor_bytes(dtype, shape)
    return files


def safetensors_header(shapes):
    """({name: (begin, end)}, the header's bytes) as the safetensors library orders them: wide dtypes first, by name."""
    order = ["F32", "BF16", "F16"]
    kinds = {name: next(kind for kind in order if DTYPES[kind] == dtype) for name, (dtype, _) in shapes.items()}
    offsets, header, position = {}, {"__metadata__": METADATA}, 0
    for name in sorted(shapes, key=lambda name: (order.index(kinds[name]), name)):
        dtype, shape = shapes[name]
        offsets[name] = (position, position + tensor_bytes(dtype, shape))
        header[name] = {"dtype": kinds[name], "shape": list(shape), "data_offsets": list(offsets[name])}
        position = offsets[name][1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return offsets, len(text).to_bytes(8, "little") + text


def export(source, out, dtype=None, max_bytes=5 << 30):
    """Write a complete Hugging Face folder from another, a training checkpoint, or an adapter, merged with its base.

    dtype None: byte for byte, or of a merged matrix the base's dtype.
    """
    if Path(source).resolve() == Path(out).resolve():
        raise ValueError(f"{out}: the export would overwrite its source; give another folder")
    check_output(out, source)
    stored = open_weights(source)
    tokenizer = source if list_tokenizer_files(source) else None  # an adapter's folder may have none
    write_config(out, read_model_fields(source), dtype, like=config_folder(source), tokenizer=tokenizer)
    shapes = {name: (dtype or s.dtype, s.shape) for name, s in stored.items()}
    write_weights(out, shapes, ((name, s.read().to(dtype or s.dtype)) for name, s in stored.items()), max_bytes)
    if (Path(out) / "tokenizer.model").exists() and read_config_fields(out)["model_type"] != "llama":
        print("note: transformers' AutoTokenizer expects Qwen's own tokenizer in every Qwen model; this one is "
              f"sentencepiece, load it with PreTrainedTokenizerFast.from_pretrained({str(out)!r})")
