"""The programs of this repository as steps of a recipe: each in a process of its own, and none twice."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def words_of(settings: dict) -> list[str]:
    """Settings as key=value arguments."""
    return [f"{name}={value if isinstance(value, str | Path) else repr(value)}" for name, value in settings.items()]


def run_step(out: str, step: str, program: str, settings: dict) -> None:
    """Run `python PROGRAM key=value ...` unless an earlier start did, with the same settings.

    program: a file, or "-m module". What it prints is in OUT/steps/STEP.log. ValueError: OUT has this step with other
    settings, or it failed.
    """
    command, stamp = [*program.split(), *words_of(settings)], Path(out) / f"steps/{step}.json"
    if stamp.exists():
        if json.loads(stamp.read_text(encoding="utf-8"))["command"] != command:
            raise ValueError(f"{out} has the step '{step}' with other settings ({stamp}); remove the folder, or set "
                             "out= to another one")
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    log, begin = stamp.with_suffix(".log"), time.time()
    print(f"{step} ...", end="", flush=True)
    with open(log, "w", encoding="utf-8") as f:
        code = subprocess.run([sys.executable, *command], stdout=f, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    if code:
        print(" failed")
        tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(True)[-20:])
        raise ValueError(f"{step} failed; all it printed is in {log}, its command:\npython {' '.join(command)}\n{tail}")
    seconds = round(time.time() - begin, 1)
    print(f" {seconds:.0f} s", flush=True)
    stamp.with_suffix(".part").write_text(json.dumps({"command": command, "seconds": seconds}), encoding="utf-8")
    os.replace(stamp.with_suffix(".part"), stamp)


def seconds_of(out: str, begin: float) -> float:
    """Wall-clock time since begin, and that of the steps which earlier starts have done."""
    earlier = [path for path in Path(out, "steps").glob("*.json") if path.stat().st_mtime < begin]
    return round(time.time() - begin + sum(json.loads(path.read_text())["seconds"] for path in earlier), 1)
