"""Shared by all tests: one thread, no network, and tiny token shards in prepare.py's format, made without it."""
import hashlib
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["OMP_NUM_THREADS"] = "1"  # also of the processes that tests start: bit equality needs equal thread counts
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_configure(config):
    config.option.log_level = "WARNING"  # torch's checkpoints write two debug lines for each tensor


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def write_source():
    """A function that writes one folder of token shards, as prepare.py's Shards does, and returns it."""
    def write(folder, documents, name=None, category="en", language="en", split="train", per_shard=1000, eot=0, vocab_size=64,
              tokenizer="0123456789abcdef", dtype="uint16"):
        """documents: lists of ids without the end-of-text id, each id two bytes of text; per_shard: documents in a shard."""
        folder = Path(folder)
        folder.mkdir(parents=True)
        written = []
        for i in range(0, len(documents), per_shard):
            some = documents[i:i + per_shard]
            ids = [x for d in some for x in [*d, eot]]
            raw = np.array(ids, dtype).tobytes()
            file = folder / f"shard-{len(written):05}.bin"
            file.write_bytes(raw)
            written.append({"file": file.name, "tokens": len(ids), "bytes": 2 * (len(ids) - len(some)),
                            "sha256": hashlib.sha256(raw).hexdigest()})
        index = {"name": name or folder.name, "category": category, "language": language, "split": split, "dtype": dtype,
                 "eot": eot, "vocab_size": vocab_size, "tokenizer": tokenizer, "documents": len(documents), "shards": written}
        (folder / "index.json").write_text(json.dumps(index))
        return folder
    return write


def chains(count, seed, step):
    """Documents a tiny model can learn: each id is the one before plus step, modulo 63, with one id in ten at random."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        ids = [int(rng.integers(63))]
        for _ in range(int(rng.integers(1, 60))):
            ids.append(int(rng.integers(63)) if rng.random() < 0.1 else (ids[-1] + step) % 63)
        out.append([x + 1 for x in ids])
    return out


@pytest.fixture(scope="session")
def token_folder(write_source):
    """A function that fills a folder: sources en, zh and kk, a held-out en-valid, and a tokenizer folder to be copied along."""
    def write(folder):
        folder = Path(folder)
        write_source(folder / "en", chains(200, 1, 1), category="en", language="en", per_shard=60)
        write_source(folder / "zh", chains(80, 2, 5), category="zh", language="zh")
        write_source(folder / "kk", chains(20, 3, 9), category="low", language="kk")
        write_source(folder / "en-valid", chains(10, 4, 1), category="en", language="en", split="valid")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
        return folder
    return write


@pytest.fixture(scope="session")
def token_data(tmp_path_factory, token_folder):
    """One such folder for all tests that only read it."""
    return token_folder(tmp_path_factory.mktemp("tokens") / "data")
