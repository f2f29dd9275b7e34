"""The run folder before the first step: no foreign files, and enough disk space for the run."""
import json
import math
import shutil
from pathlib import Path

from hf.export import find_foreign_weights
from training.checkpoint import list_checkpoints
from training.estimate import count_moments, count_parameters


def check_folder(c, world):
    """ValueError unless out is new, or holds a run and resume is set. A lock or run.json of ours marks it as a run."""
    problem = None
    if world.is_main:
        out = Path(c.out)
        if out.exists() and not out.is_dir():
            problem = f"out={out} is a file; set it to a folder"
        elif out.is_dir():
            problem = find_foreign_files(out, c.resume)
    problem = world.broadcast(problem)
    if problem:
        raise ValueError(problem)


def find_foreign_files(out, resume):
    names = {path.name for path in out.iterdir()}
    before_the_first_step = {"lock", "reference"} if is_ours(out) else set()
    weights = find_foreign_weights(out) if is_ours(out) else []
    if weights:  # refused now: the run's own would replace them
        return f"{out} holds weights that train.py did not write ({', '.join(weights[:3])}); move them away"
    if names <= before_the_first_step or (resume and is_ours(out)):
        return None
    if is_ours(out):
        return f"{out} already holds a run; set resume=True to continue it, or out= to another folder"
    listed = ", ".join(sorted(names)[:3])
    return f"{out} holds files that train.py did not make ({listed}); set out= to a new folder"


def is_ours(out):
    """Whether train.py made this folder."""
    try:
        lock = out / "lock"
        if lock.is_file() and lock.stat().st_size < 1000 and (lock.read_text() + "process").startswith("process"):
            return True
        return "settings" in json.loads((out / "run.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def check_disk(c, config, world, resume_from, lora=None):
    """ValueError when the run's checkpoints and its model do not fit on the disk of out. Collective.

    Only what is still to be written counts: the checkpoints kept and one more, as a new one is complete before an old
    one is deleted.
    """
    problem = None
    if world.is_main:
        out, parameters = Path(c.out), count_parameters(config, lora)
        numbers = parameters["adapter"] or parameters["all"]
        size = 4 * numbers + count_moments(c, config)  # a checkpoint's weights, in float32, and moments
        folder = out / "checkpoints"
        there = len(list_checkpoints(folder)) if folder.is_dir() else 0
        done = int(Path(resume_from).name.removeprefix("step-")) if resume_from else 0
        saves = math.ceil((c.steps - done) / c.save_every)
        copies = min(saves, max(1, c.keep_checkpoints + 1 - there))
        needed, disk = copies * size + 4 * numbers, shutil.disk_usage(out)
        if disk.total and disk.free < needed:  # some network file systems say 0 of 0
            problem = (f"{out}: {disk.free / 1e9:.3g} GB are free, and this run needs {needed / 1e9:.3g} GB for "
                       f"{copies} checkpoints of {size / 1e9:.3g} GB and the model; free some space, set out= to "
                       "another disk, or lower keep_checkpoints")
    problem = world.broadcast(problem)
    if problem:
        raise ValueError(problem)
