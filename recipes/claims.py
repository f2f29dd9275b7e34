"""Marco-LLM's claims on the tinyworld, over several seeds: the two stages from the shipped base, and ablations.

    python recipes/claims.py                          # everything below: hours; a rerun resumes
    python recipes/claims.py parts='["stages"]' seeds='[7, 8]' out=out/other

A seed determines the documents, the tests and the data order. The parts:

    stages     the demo's stage I and II, measured before, between and after: report.py claims
    ablations  shorter runs, each with one change from its control (ABLATIONS): report.py ablation

OUT/seedN/results.jsonl has all scores of a seed, outcome.json its row of `report.py systems`; claims.json, claims.md
and ablation-*.json are written to OUT.
"""
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import report
from configs import demo_languages, errors, load
from configs.marco import paper
from evaluation import outcomes
from evaluation.programs import run_once, run_step, seconds_of
from hf.weights import open_weights
from recipes import demo

PARTS = ("stages", "ablations")
REPLAY = ("en", "zh", *demo_languages.REPLAYED_PAIRS)  # what the base was trained on
# variant: (its control, how it differs from it); every run trains on the same number of tokens
ABLATIONS = {
    "one_stage": ("two_stages", "one stage with the mean of both mixtures, from stage I's learning rate down"),
    "half_replay": ("two_stages", "half the share of English, of Chinese and of their pairs"),
    "no_replay": ("two_stages", "none of these"),
    "low_lr": ("two_stages", "a third of the learning rates"),
    "high_lr": ("two_stages", "three times the learning rates"),
    "merged": ("two_stages", "the weights of two_stages and of the base, averaged"),
    "filtered": ("unfiltered", "sentence pairs filtered, four in ten of which are corrupted; five times their share"),
}


@dataclass(frozen=True)
class Claims:
    out: str = "out/claims"
    seeds: list = field(default_factory=lambda: [0, 1, 2])
    parts: list = field(default_factory=lambda: list(PARTS))
    variants: list = field(default_factory=lambda: list(ABLATIONS))
    tokens: int = 500_000             # of each run of an ablation, 8/15 of them in stage I
    lr: float = 1.5e-3                # of an ablation's stage I; stage II has 0.6 times this
    base: str = "tinyworld/base"

    def __post_init__(self):
        for name, known in (("parts", PARTS), ("variants", ABLATIONS)):
            if unknown := [str(word) for word in getattr(self, name) if word not in list(known)]:
                raise ValueError(f"Claims: unknown {', '.join(unknown)} in {name}; known are {', '.join(known)}")
        whole = all(type(seed) is int and seed >= 0 for seed in self.seeds)
        if len(self.seeds) < 2 or not whole or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"Claims: seeds must be two or more different whole numbers, got {self.seeds}")
        if self.tokens < 15 or self.lr <= 0:
            raise ValueError(f"Claims: tokens must be at least 15 and lr above 0, got {self.tokens} and {self.lr}")


def main(argv: list[str] | None = None) -> None:
    c, = load(Claims, argv=argv)
    open_weights(c.base)  # fail now, not after the data is made
    run_once(c.out, "base", {"path": c.base, "weights": outcomes.hash_base(c.base)})
    for seed in c.seeds:
        run, begin = f"{c.out}/seed{seed}", time.time()
        run_step(run, "world", "-m tinyworld configs/tiny/world.py", dict(out=f"{run}/raw", seed=seed))
        run_step(run, "tokens", "prepare.py configs/tiny/data.py", dict(raw=f"{run}/raw", out=f"{run}/tokens"))
        evaluate(run, "base", c.base, f"{run}/raw")
        if "stages" in c.parts:
            for n, stage in enumerate(("stage1", "stage2"), 1):
                run_step(run, stage, f"train.py configs/tiny/{stage}.py", dict(
                    data=f"{run}/tokens", init=f"{run}/stage1" if n == 2 else c.base, out=f"{run}/{stage}",
                    seed=10 * seed + n, resume=True))
                evaluate(run, stage, f"{run}/{stage}", f"{run}/raw")
            demo.save_outcome(Path(run), seed, seconds_of(run, begin), c.base)
        if "ablations" in c.parts:
            for name in dict.fromkeys(name for v in c.variants for name in (ABLATIONS[v][0], v)):
                train_variant(c, run, name, seed)
                evaluate(run, name, f"{run}/{name}", f"{run}/raw")
    runs = f"runs={[f'{c.out}/seed{seed}' for seed in c.seeds]}"
    if "stages" in c.parts:
        report.main(["claims", runs])
    for variant in c.variants if "ablations" in c.parts else ():
        control, change = ABLATIONS[variant]
        print(f"\n{variant}: {change}")
        report.main(["ablation", f"baseline={control}", f"variant={variant}", runs,
                     f"save={c.out}/ablation-{variant}.json"])


def train_variant(c, run, name, seed):
    """OUT/seedN/NAME: one run of an ablation, in two stages except one_stage and merged."""
    if name == "merged":
        run_step(run, name, "recipes/merge_weights.py", dict(
            models=[f"{run}/two_stages", c.base], weights=[0.5, 0.5], out=f"{run}/{name}"))
        return
    data = f"{run}/tokens"
    if name in ("filtered", "unfiltered"):
        run_step(run, "noisy-world", "-m tinyworld configs/tiny/world.py", dict(
            out=f"{run}/raw-noisy", seed=seed, noise=0.4, native=["en"], crosslingual=0, preferences=0, questions=0))
        data = f"{run}/tokens-{name}"
        run_step(run, f"tokens-{name}", "prepare.py configs/tiny/data.py", dict(
            raw=f"{run}/raw-noisy", out=data, filter_bitext=name == "filtered"))
    mixtures, lr = stage_mixtures(name), c.lr * {"low_lr": 1 / 3, "high_lr": 3}.get(name, 1)
    for n, mixture in enumerate(mixtures):
        out = f"{run}/{name}" if mixture is mixtures[-1] else f"{run}/{name}-stage1"
        run_step(run, f"{name}-{n + 1}", "train.py configs/tiny/stage1.py", dict(
            data=data, init=f"{run}/{name}-stage1" if n else c.base, out=out, mixture=mixture, lr=lr * (1, 0.6)[n],
            tokens=c.tokens * (8, 7)[n] // 15 if len(mixtures) == 2 else c.tokens, seed=10 * seed + 4 + n, resume=True))


def stage_mixtures(name):
    """The mixtures of a variant's stages, as shares in %."""
    stages = [mixture | demo_languages.REPLAYED_PAIRS for mixture in (paper.STAGE1, paper.STAGE2)]
    if name == "one_stage":  # as many tokens of each category as in both stages
        stages = [{k: (8 * stages[0][k] + 7 * stages[1][k]) / 15 for k in stages[0]}]
    scale = {"half_replay": dict.fromkeys(REPLAY, 0.5), "no_replay": dict.fromkeys(REPLAY, 0),
             "filtered": {"parallel": 5}, "unfiltered": {"parallel": 5}}.get(name, {})
    scaled = ({k: round(share * scale.get(k, 1), 3) for k, share in mixture.items()} for mixture in stages)
    return [demo_languages.present({k: share for k, share in mixture.items() if share}) for mixture in scaled]


def evaluate(run, name, model, raw):
    """The demo's benchmarks of a model, into RUN/results.jsonl under that name."""
    run_step(run, f"eval-{name}", "eval.py configs/tiny/eval.py", dict(
        model=model, checkpoint=name, data=f"{raw}/benchmarks", out=f"{run}/results.jsonl", threads=1))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
