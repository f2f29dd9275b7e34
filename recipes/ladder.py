"""The ladder: after how much base training does each ability appear? All checkpoints get the same further training.

    make base && python recipes/ladder.py    # or while the base trains: rungs not yet reached are skipped

Checkpoints of `make base` at 1, 2, 4, 8, 16 and 30 M tokens, and the shipped base (38 M), each go through short stages
I and II and a short SFT, and are measured before, after stage II and at the end. OUT/NM/ holds a rung; ladder.md,
ladder.png and ladder.json are written to OUT. A rerun skips finished work and adds the rungs that the base has reached
since.
"""
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import report
from configs import errors, load
from evaluation.programs import run_step
from recipes.claims import evaluate
from reports.curve import tokens_by_step

SHIPPED, SHIPPED_TOKENS = "tinyworld/base", 38_000_000


@dataclass(frozen=True)
class Ladder:
    out: str = "out/ladder"
    base: str = "out/base/model"     # run of train.py with its checkpoints
    sizes: list = field(default_factory=lambda: [1, 2, 4, 8, 16, 30])  # millions of tokens of the base
    tokens: int = 1_000_000          # of stage I and stage II together, 8 to 7 as in the paper
    sft_tokens: int = 600_000
    seed: int = 20

    def __post_init__(self):
        if not self.sizes or not all(type(size) in (int, float) and size > 0 for size in self.sizes):
            raise ValueError(f"Ladder: sizes must be millions of tokens, got {self.sizes}")
        if min(self.tokens, self.sft_tokens) < 15:
            raise ValueError(f"Ladder: tokens and sft_tokens must be at least 15, got {self.tokens}, {self.sft_tokens}")


def main(argv: list[str] | None = None) -> None:
    c, = load(Ladder, argv=argv)
    rungs = {f"{c.out}/{size / 1e6:g}M": (size, model) for size, model in find_rungs(c).items()}
    raw, shards, chats = (f"{c.out}/{name}" for name in ("raw", "tokens", "chats"))
    run_step(c.out, "world", "-m tinyworld configs/tiny/world.py", dict(out=raw, seed=c.seed))
    for name, data in (("data", shards), ("chats", chats)):
        run_step(c.out, name, f"prepare.py configs/tiny/{name}.py", dict(raw=raw, out=data))
    for run, (size, model) in rungs.items():
        print(f"{size / 1e6:g} M tokens: {model}")
        climb(c, run, model, raw, shards, chats)
    runs = {size: run for run, (size, _) in rungs.items()}
    report.main(["ladder", f"out={c.out}", f"runs={runs}"])


def find_rungs(c) -> dict[int, str]:
    """{tokens: model} of the checkpoints nearest to the sizes, at most 2 % away, and of the shipped base.

    With a 5 % tolerance, 29 M tokens would pass for the 30 M rung before the base gets there.
    """
    finished = Path(c.base, "checkpoints").glob("step-*[0-9]")  # one that is being written is called step-N.tmp
    folders = {int(path.name.removeprefix("step-")): path for path in finished}
    if not folders:
        raise ValueError(f"{c.base}/checkpoints has no checkpoint; make base trains the base, and keeps one for every "
                         "million tokens")
    tokens, _ = tokens_by_step(c.base, list(folders))
    rungs = {}
    for size in sorted(c.sizes):
        step = min(tokens, key=lambda step: abs(tokens[step] - size * 1e6))
        if abs(tokens[step] / (size * 1e6) - 1) <= 0.02:
            rungs[int(size * 1e6)] = str(folders[step])
    return rungs | {SHIPPED_TOKENS: SHIPPED}


def climb(c, run, model, raw, shards, chats):
    """One rung: stage I, stage II and SFT from a model, and all measurements in RUN/results.jsonl."""
    evaluate(run, "base", model, raw)
    for n, (stage, share) in enumerate((("stage1", 8), ("stage2", 7))):
        run_step(run, stage, f"train.py configs/tiny/{stage}.py", dict(
            init=f"{run}/stage1" if n else model, data=shards, out=f"{run}/{stage}", tokens=c.tokens * share // 15,
            seed=c.seed + n, resume=True))
    evaluate(run, "stage2", f"{run}/stage2", raw)
    run_step(run, "sft", "train.py configs/tiny/sft.py", dict(
        init=f"{run}/stage2", data=[chats, shards], out=f"{run}/sft", tokens=c.sft_tokens,
        seed=c.seed + 2, resume=True))
    run_step(run, "answers", "eval.py configs/tiny/chat_eval.py", dict(
        model=f"{run}/sft", data=raw, out=f"{run}/answers", threads=1))
    run_step(run, "judge", "-m tinyworld judge", dict(
        a=f"{run}/answers/samples.jsonl", raw=raw, out=f"{run}/results.jsonl"))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
