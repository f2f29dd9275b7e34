"""Shared by all tests: one thread, no network, and tiny token shards in prepare.py's format, made without it."""
import hashlib
import json
import os
import signal
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


@pytest.fixture(scope="module")
def on_the_cpu():
    """Also where there is a GPU: its sums differ in the last bits."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(torch.cuda, "is_available", lambda: False)
        m.setenv("CUDA_VISIBLE_DEVICES", "")  # of the processes that tests start
        yield


HANDLERS = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)}


@pytest.fixture(autouse=True)
def own_handlers():
    """A run in this process takes signals over; give them back, or processes forked later cannot be terminated."""
    for s, handler in HANDLERS.items():
        signal.signal(s, handler)
    yield
    for s, handler in HANDLERS.items():
        signal.signal(s, handler)


@pytest.fixture(autouse=True)
def own_denormals():
    """A run in this process flushes denormals (tune_cpu), which hypothesis refuses to draw floats under."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def write_source():
    """A function that writes one folder of token shards, as prepare.py's Shards does, and returns it."""
    def write(folder, documents, name=None, category="en", language="en", split="train", per_shard=1000, eot=0,
              vocab_size=64,
              tokenizer="0123456789abcdef", dtype="uint16"):
        """documents: lists of ids without the end-of-text id, each id two bytes of text; per_shard: documents in a
        shard.
        """
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
        index = {"name": name or folder.name, "category": category, "language": language, "split": split,
                 "dtype": dtype,
                 "eot": eot, "vocab_size": vocab_size, "tokenizer": tokenizer, "documents": len(documents),
                  "shards": written}
        (folder / "index.json").write_text(json.dumps(index))
        return folder
    return write


@pytest.fixture(scope="session")
def write_chats(write_source):
    """A function that writes a source of chats, or of preference pairs, as prepare.py's Shards does, and returns its
    folder.
    """
    def write(folder, chats, kind="chat", per_shard=1000, eot=0, **index):
        """chats: (prompt ids, answer ids); of pairs the chosen and the rejected one take turns. Of an answer all is
        learned.
        """
        folder = Path(folder)
        write_source(folder, [[1]], eot=eot, **index)
        (folder / "shard-00000.bin").unlink()
        whole, shards = json.loads((folder / "index.json").read_text()), []
        for i in range(0, len(chats), per_shard):
            some, entry = chats[i:i + per_shard], {"bytes": sum(2 * len(answer) for _,
                                                                answer in chats[i:i + per_shard])}
            ids = np.array([x for prompt, answer in some for x in [*prompt, *answer]], whole["dtype"])
            mask = [2 * (n == 0) + (n >= len(prompt)) for prompt,
                    answer in some for n in range(len(prompt) + len(answer))]
            for name, suffix, hashed, raw in (("file", "bin", "sha256", ids.tobytes()),
                                              ("mask", "mask", "mask_sha256", np.array(mask, np.uint8).tobytes())):
                file = folder / f"shard-{len(shards):05}.{suffix}"
                file.write_bytes(raw)
                entry |= {name: file.name, hashed: hashlib.sha256(raw).hexdigest()}
            shards.append(entry | {"tokens": len(ids)})
        (folder / "index.json").write_text(json.dumps(whole | {"kind": kind, "documents": len(chats),
                                                               "shards": shards}))
        return folder
    return write


def questions(count, seed, pairs=False):
    """Chats a tiny model can learn: the answer to n ids counts on from the last one, then comes id 63; of pairs the
    rejected one counts down.
    """
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        prompt = rng.integers(1, 40, int(rng.integers(2, 9))).tolist()
        for step in (1, -1) if pairs else (1,):
            out.append((prompt, [(prompt[-1] + step * n) % 62 + 1 for n in range(1, int(rng.integers(3, 9)))] + [63]))
    return out


@pytest.fixture(scope="session")
def chat_data(tmp_path_factory, write_chats, token_folder):
    """A folder with the text sources of token_folder, chats in en and kk, pairs in en and kk, each with a held-out
    source.
    """
    folder = token_folder(tmp_path_factory.mktemp("chats") / "data")
    for i, (kind, lang, n) in enumerate((("chat", "en", 120), ("chat", "kk", 60), ("preference", "en", 60),
                                         ("preference", "kk", 40))):
        for split, count in (("train", n), ("valid", 12)):
            write_chats(folder / (f"{kind}-{lang}" + ("-valid" if split == "valid" else "")),
                        questions(count, 10 * i + (split == "valid"), kind == "preference"), kind, per_shard=50,
                        category=kind, language=lang, split=split)
    return folder


def chains(count, seed, step):
    """Documents a tiny model can learn: each id is the one before plus step, modulo 63, with one id in ten at random.
    """
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        ids = [int(rng.integers(63))]
        for _ in range(int(rng.integers(1, 60))):
            ids.append(int(rng.integers(63)) if rng.random() < 0.1 else (ids[-1] + step) % 63)
        out.append([x + 1 for x in ids])
    return out


@pytest.fixture(scope="session")
def token_folder(write_source):
    """A function that fills a folder: sources en, zh and kk, a held-out en-valid, and a tokenizer folder to be copied
    along.
    """
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
