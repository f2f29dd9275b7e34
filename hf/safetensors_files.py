"""One safetensors file in: its header, checked before a tensor is read, and its tensors, read by rows.

No file is trusted, executed or unpickled.
"""
import json
import math

import torch

from hf.folder import DOWNLOAD_AGAIN

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CODES = {"I8": torch.int8, "U8": torch.uint8}  # of AdamW's moments in a training checkpoint
MAX_HEADER = 100 << 20  # bytes; the safetensors library's limit


class StoredTensor:
    """A tensor on disk: dtype, shape, and pieces, a list of (first row, number of rows, file, offset in bytes)."""

    def __init__(self, dtype, shape, pieces):
        self.dtype, self.shape, self.pieces = dtype, shape, pieces

    @property
    def file(self):
        return self.pieces[0][2]

    def read(self, first=0, last=None):
        """Rows first to last - 1 as a tensor; no other byte is read."""
        shape = self.shape or (1,)
        last = shape[0] if last is None else last
        out = torch.empty((last - first, *shape[1:]), dtype=self.dtype)
        row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        for begin, count, file, offset in self.pieces:
            a, b = max(first, begin), min(last, begin + count)
            if a >= b or not row_bytes:
                continue
            with open(file, "rb") as f:
                f.seek(offset + (a - begin) * row_bytes)
                if f.readinto(out[a - first:b - first].view(torch.uint8).numpy()) != (b - a) * row_bytes:
                    raise ValueError(f"{file}: ended while it was read; {DOWNLOAD_AGAIN}")
        return out if self.shape else out[0]


def read_header(path):
    """({tensor name: StoredTensor}, metadata) of a safetensors file; ValueError when header and file size disagree."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"{path}: not a whole safetensors file: its header claims {length} bytes of {size}; "
                             f"{DOWNLOAD_AGAIN}")
        text = f.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
        metadata = header.pop("__metadata__", {})
        spans = []
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            spans.append((begin, end, name))
        spans.sort()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path}: the header cannot be read ({e}); {DOWNLOAD_AGAIN}") from None
    out, position, data_bytes = {}, 0, size - 8 - length
    for begin, end, name in spans:
        dtypes = DTYPES | CODES if name.startswith("exp_avg") else DTYPES
        dtype, shape = dtypes.get(str(header[name].get("dtype"))), header[name].get("shape")
        if dtype is None:
            raise ValueError(f"{path}: {name} has dtype {header[name].get('dtype')!r}; only {', '.join(DTYPES)} are "
                             f"implemented")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in [begin, end, *shape]):
            raise ValueError(f"{path}: {name} has shape {shape} at bytes {begin} to {end}; {DOWNLOAD_AGAIN}")
        tensor_bytes = math.prod(shape) * dtype.itemsize
        if begin != position or end - begin != tensor_bytes or end > data_bytes:
            raise ValueError(f"{path}: {name} of shape {shape} claims bytes {begin} to {end} of {data_bytes}, expected "
                             f"{position} to {position + tensor_bytes}; {DOWNLOAD_AGAIN}")
        position = end
        out[name] = StoredTensor(dtype, tuple(shape), [(0, shape[0] if shape else 1, path, 8 + length + begin)])
    if position != data_bytes:
        raise ValueError(f"{path}: {data_bytes - position} bytes after the last tensor; {DOWNLOAD_AGAIN}")
    return out, metadata


def unique_keys(pairs):
    """A JSON object whose keys may not repeat."""
    out = {}
    for name, value in pairs:
        if name in out:
            raise ValueError(f"{name!r} occurs twice")
        out[name] = value
    return out
