"""The programs of this repository as steps of a recipe: each in a process of its own, and none twice."""
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_program(out: str, done: str, name: str, /, **settings):
    """Run a program (train, prepare, eval, tinyworld) with these settings, unless the file `done` is there already.

    What it prints goes to OUT/logs, how long it took to OUT/logs/seconds.jsonl. ValueError with its last line if it
    fails.
    """
    if Path(done).exists():
        return
    log = Path(out, "logs", "-".join([*Path(done).relative_to(out).parts[:-1], f"{name}.txt"]))
    log.parent.mkdir(parents=True, exist_ok=True)
    script = ["-m", name] if name == "tinyworld" else [str(ROOT / f"{name}.py")]
    begin = time.time()
    with open(log, "w", encoding="utf-8") as f:
        words = [f"{key}={value}" for key, value in settings.items()]
        code = subprocess.run([sys.executable, *script, *words], stdout=f, stderr=subprocess.STDOUT).returncode
    if code:
        last = (log.read_text(encoding="utf-8").strip() or "it printed nothing").splitlines()[-1]
        raise ValueError(f"{name} failed: {last}; everything it printed is in {log}")
    with open(log.parent / "seconds.jsonl", "a") as f:
        f.write(json.dumps({"done": done, "seconds": round(time.time() - begin, 1)}) + "\n")


def total_seconds(out: str) -> float:
    """What all programs of a recipe took, also those of earlier starts."""
    path = Path(out, "logs", "seconds.jsonl")
    return sum(json.loads(line)["seconds"] for line in path.read_text().splitlines()) if path.exists() else 0.0
