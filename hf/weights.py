"""safetensors in: the weights of Hugging Face folders, of training checkpoints and of adapters merged with their base.

No folder is trusted. Every header is checked before a tensor is read, and no file is ever executed or unpickled.
Tensors are read by rows: a process that owns a tenth of a matrix reads a tenth of its bytes, so no process ever holds
72B parameters.

A checkpoint of train.py (OUT/checkpoints/step-N) is read in the same way; there a tensor may be split over several
files.
"""
import json
from pathlib import Path

import torch

from hf import adapters
from hf.config import read_config_fields
from hf.folder import DOWNLOAD_AGAIN, download_hint, read_json
from hf.safetensors_files import StoredTensor, read_header


def open_weights(folder):
    """{name: StoredTensor} of a Hugging Face folder (one file, or those of its index) or of a training checkpoint.

    Of a LoRA adapter or its checkpoint they are those of its base, and reading one adds the adapter.
    """
    folder = Path(folder)
    if adapters.is_adapter(folder):
        lora = open_checkpoint(folder) if (folder / "tensors").is_dir() else adapters.open_adapter(folder)
        return adapters.merge(folder, open_weights(adapters.base_folder(folder)), lora)
    if (folder / "tensors").is_dir():
        return open_checkpoint(folder)
    index = folder / "model.safetensors.index.json"
    weight_map = read_index(index) if index.exists() else None
    files = sorted(folder.glob("*.safetensors"))
    if weight_map is not None:
        files = [folder / file for file in sorted(set(weight_map.values()))]
    if not folder.is_dir():
        remedy = download_hint(folder) or "; set it to a model folder on this machine"
        raise ValueError(f"{folder}: no such folder{remedy}")
    if not files and (steps := sorted(folder.glob("checkpoints/step-*[0-9]"))):
        raise ValueError(f"{folder}: training has not finished; continue it with resume=True, or take {steps[-1]}")
    if not files:
        raise ValueError(f"{folder}: no *.safetensors file (pickled weights, *.bin or *.pt, are never read: convert "
                         f"them first)")
    out = {}
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: missing, though {index.name} names it; {DOWNLOAD_AGAIN}")
        tensors, _ = read_header(file)
        for name in tensors:
            if weight_map is not None and weight_map.get(name, file.name) != file.name:
                raise ValueError(f"{file}: contains {name}, which {index.name} places in {weight_map[name]}; "
                                 f"{DOWNLOAD_AGAIN}")
            if name in out:
                raise ValueError(f"{file}: contains {name}, and so does {out[name].file}; remove the file that does "
                                 "not belong here")
        out |= tensors
    missing = sorted(set(weight_map or ()) - set(out))
    if missing:
        raise ValueError(f"{folder / weight_map[missing[0]]}: lacks {missing[0]}, which {index.name} places there; "
                         f"{DOWNLOAD_AGAIN}")
    return out


def read_index(index):
    """{tensor name: file name} of model.safetensors.index.json; no file outside the folder is accepted."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise ValueError(f"{index}: weight_map must map tensor names to files; {DOWNLOAD_AGAIN}")
    for name, file in weight_map.items():
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(f"{index}: places {name} in {file!r}; it must be a .safetensors file of this folder")
    return weight_map


def open_checkpoint(folder):
    """The parameters of a training checkpoint in torch's distributed format: one file per process, split by rows."""
    manifest = folder / "manifest.json"
    for name, entry in read_json(manifest, {}).items():  # without its last rows a matrix looks complete
        file = folder / name
        if type(entry) is not dict or not file.is_file() or file.stat().st_size != entry.get("bytes"):
            raise ValueError(f"{folder / name}: missing, or its size differs from {manifest.name}; use another "
                             f"checkpoint")
    parts = {}
    for file in sorted((folder / "tensors").glob("*.safetensors")):
        tensors, metadata = read_header(file)
        first_rows = read_first_rows(file, tensors, metadata)
        for name, stored in tensors.items():
            if not name.startswith("exp_avg"):  # AdamW's moments
                parts.setdefault(name, []).append((first_rows[name], stored))
    if not parts:
        raise ValueError(f"{folder}: no *.safetensors file in tensors/; use another checkpoint")
    return {name: join_pieces(name, pieces) for name, pieces in parts.items()}


def read_first_rows(file, tensors, metadata):
    """{tensor name: row of the whole matrix at which this file's part begins}."""
    rows = {}
    try:
        # {tensor: {"saved_offsets": [first row, 0, ...]}}
        sharding = json.loads(metadata.get("DCP_SHARDING_INFO", "{}"))
        for name, stored in tensors.items():
            offsets = sharding[name]["saved_offsets"] if name in sharding else [0] * len(stored.shape)
            if len(offsets) != len(stored.shape) or any(offsets[1:]) or (offsets and type(offsets[0]) is not int):
                raise ValueError(f"{name} has offsets {offsets}")
            rows[name] = offsets[0] if offsets else 0
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as e:
        raise ValueError(f"{file}: DCP_SHARDING_INFO cannot be read ({e}); use another checkpoint") from None
    return rows


def join_pieces(name, pieces):
    """One StoredTensor of (first row, StoredTensor) pieces, which must follow one another without gap or overlap."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    dtype, columns, row = pieces[0][1].dtype, pieces[0][1].shape[1:], 0
    for first, stored in pieces:
        if first != row or (stored.dtype, stored.shape[1:]) != (dtype, columns):
            raise ValueError(f"{stored.file}: {name} continues at row {row}, this file holds {stored.dtype} "
                             f"{stored.shape} from row {first}; use another checkpoint")
        row += stored.shape[0]
    return StoredTensor(dtype, (row, *columns), [(first, s.shape[0], s.file, s.pieces[0][3]) for first, s in pieces])


def is_head_tied(stored):
    """Whether the output head of a tied model is the embedding: it is not stored, or equals it, compared block by
    block.

    transformers 5 does not tie two stored matrices that differ, whatever config.json says.
    """
    head, embedding = stored.get("lm_head.weight"), stored.get("model.embed_tokens.weight")
    if head is None or embedding is None:
        return True
    if head.shape != embedding.shape:
        return False
    for row in range(0, head.shape[0], 4096):
        last = min(row + 4096, head.shape[0])
        if not torch.equal(head.read(row, last), embedding.read(row, last)):
            return False
    return True


def read_model_fields(folder):
    """ModelConfig's fields of a folder: config.json's, but not tied when the stored head differs from the embedding."""
    fields = read_config_fields(adapters.config_folder(folder))
    if fields["tie_word_embeddings"] and has_weights(folder):
        fields["tie_word_embeddings"] = is_head_tied(open_weights(folder))
    return fields


def has_weights(folder):
    return (Path(folder) / "tensors").is_dir() or any(Path(folder).glob("*.safetensors"))
