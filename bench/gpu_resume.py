"""Whether a training run in bfloat16, stopped and continued in another process, ends with the same bits."""
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

ROOT = Path(__file__).parent.parent
V, T, STEPS = 512, 256, 6
SHAPE = dict(vocab_size=V, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
RUN = dict(mixture={"en": 1}, tokens=STEPS * 8 * T, seq_len=T, batch_size=8, micro_batch_size=4, dtype="bfloat16",
           save_every=STEPS // 2, keep_checkpoints=2, eval_every=STEPS, log_every=1)


def check_resume(b) -> dict:
    """Half of the steps, then the other half in a new process from the checkpoint: the bytes of the whole run."""
    shape = SHAPE | (dict(hidden_size=32, intermediate_size=64) if b.device == "cpu" else {})
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data"), Path(folder, "run")
        write_tokens(data / "en")
        words = [f"{k}={v}" for k, v in (RUN | shape | {"data": data, "out": out}).items()]
        train(words)
        whole = (out / "model.safetensors").read_bytes()
        (out / "model.safetensors").unlink()
        shutil.rmtree(out / f"checkpoints/step-{STEPS:08}")
        said = train([*words, "resume=True"])
        assert f"step-{STEPS // 2:08}" in said, f"it did not resume: {said[-1000:]}"
        assert (out / "model.safetensors").read_bytes() == whole, "the resumed run ends with other weights"
    return {"steps": STEPS}


def train(words):
    """What train.py prints; AssertionError with its end where it fails."""
    run = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout[-2000:]
    return run.stdout


def write_tokens(folder: Path, documents: int = 400):
    """One shard of random documents in prepare.py's format, and a tokenizer folder beside it."""
    folder.mkdir(parents=True)
    rng, ids = random.Random(0), array("H")
    for _ in range(documents):
        ids.extend([rng.randrange(1, V) for _ in range(rng.randrange(5, 200))] + [0])
    raw = ids.tobytes()
    (folder / "shard-00000.bin").write_bytes(raw)
    shard = {"file": "shard-00000.bin", "tokens": len(ids), "bytes": 2 * (len(ids) - documents),
             "sha256": hashlib.sha256(raw).hexdigest()}
    index = {"name": folder.name, "category": "en", "language": "en", "split": "train", "dtype": "uint16", "eot": 0,
             "vocab_size": V, "tokenizer": "0123456789abcdef", "documents": documents, "shards": [shard]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder.parent / "tokenizer").mkdir()
    (folder.parent / "tokenizer/tokenizer_config.json").write_text("{}")
