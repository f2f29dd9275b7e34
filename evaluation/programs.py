"""Steps of a recipe, each done only once: programs of this repository, each in a process of its own, and work of the
recipe itself."""
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def words_of(settings: dict) -> list[str]:
    """Settings as key=value arguments."""
    return [f"{name}={value if isinstance(value, str | Path) else repr(value)}" for name, value in settings.items()]


def run_step(out: str, step: str, program: str, settings: dict) -> None:
    """Run `python PROGRAM key=value ...` unless an earlier start did, with the same settings.

    program: a file, or "-m module". It runs in the repository, with LANGUAGES (configs/demo_languages.py) as one of its
    settings. What it prints is in OUT/steps/STEP.log. ValueError: OUT has this step with other settings, or it failed.
    """
    if not Path(out).is_absolute() and not Path.cwd().samefile(ROOT):
        raise ValueError(f"out={out} is relative, and steps run in {ROOT}; start there, or use absolute paths")
    command, log = [*program.split(), *words_of(settings)], Path(out) / f"steps/{step}.log"
    languages = [f"LANGUAGES={os.environ['LANGUAGES']}"] if os.environ.get("LANGUAGES") else []

    def run():
        print(f"{step} ...", end="", flush=True)
        begin = time.time()
        with open(log, "w", encoding="utf-8") as f:
            code = subprocess.run([sys.executable, *command], stdout=f, stderr=subprocess.STDOUT, cwd=ROOT).returncode
        if code:
            print(" failed")
            tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(True)[-20:])
            raise ValueError(f"{step} failed; everything it printed is in {log}. Its command:\n"
                             f"python {' '.join(command)}\n{tail}")
        print(f" {time.time() - begin:.0f} s", flush=True)

    run_once(out, step, languages + command, run)


def run_once(out: str, step: str, settings: list | dict, work: Callable[[], object] = lambda: None) -> None:
    """Call work() unless an earlier start did, with the same settings; ValueError if it was with others.

    settings: of JSON's types. OUT/steps/STEP.json keeps them, and the time it took. Without work, it only refuses other
    settings.
    """
    stamp, begin = Path(out) / f"steps/{step}.json", time.time()
    if stamp.exists():
        if read_stamp(stamp)["settings"] != json.loads(json.dumps(settings)):
            raise ValueError(f"{out} has the step '{step}' with other settings ({stamp}); remove that folder, "
                             "or set out= to another one")
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    work()
    with open(stamp.with_suffix(".part"), "w", encoding="utf-8") as f:
        json.dump({"settings": settings, "seconds": round(time.time() - begin, 1)}, f)
        f.flush()
        os.fsync(f.fileno())  # else a power cut may leave an empty file under the stamp's name
    os.replace(stamp.with_suffix(".part"), stamp)


def read_stamp(stamp: Path) -> dict:
    """{"settings", "seconds"} of a step that was done; ValueError names a torn one: its settings are not known."""
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
        return {"settings": record["settings"], "seconds": float(record["seconds"])}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{stamp} is torn: the settings of the step '{stamp.stem}' are lost; remove {stamp.name} if "
                         "they were those of this start (the step runs again), else the folder") from None


def seconds_of(out: str, begin: float) -> float:
    """Wall-clock time since begin, plus that of the steps that earlier starts did."""
    earlier = [path for path in Path(out, "steps").glob("*.json") if path.stat().st_mtime < begin]
    return round(time.time() - begin + sum(read_stamp(path)["seconds"] for path in earlier), 1)
