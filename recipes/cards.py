"""Which model fits on which GPU: memory by model and by what is trained, as a Markdown table.

    python recipes/cards.py                          # rows of 2,048 tokens, one at a time
    python recipes/cards.py seq_len=4096 cards='[24, 32]' models='["Qwen2-7B"]'

Every figure is the estimate of `train.py ... estimate=True gpus=1` (training/estimate.py); nothing is measured.
"""
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import train
from configs import errors, load
from model import ModelConfig
from training.estimate import SHAPES, USABLE, count_parameters, memory_per_gpu
from training.lora import lora_settings

TRAINED = {"everything, moments in float32": [], "everything, moments=bfloat16": ["moments=bfloat16"],
           "everything, moments=int8": ["moments=int8"],
           "lora_rank=16 frozen_dtype=bfloat16": ["lora_rank=16", "frozen_dtype=bfloat16"]}


@dataclass(frozen=True)
class Cards:
    models: list = field(default_factory=lambda: ["Qwen2-0.5B", "Qwen2-1.5B", "Qwen2-7B"])  # of estimate.SHAPES
    cards: list = field(default_factory=lambda: [16, 24, 48, 80])                            # memory of each card, GiB
    seq_len: int = 2048
    micro_batch_size: int = 1

    def __post_init__(self):
        problems = []
        if unknown := [name for name in self.models if name not in list(SHAPES)]:
            problems.append(f"models are some of {', '.join(SHAPES)}, got {unknown[0]!r}")
        if not self.cards or not all(type(size) in (int, float) and size > 0 for size in self.cards):
            problems.append(f"cards must be sizes in GiB, got {self.cards}")
        if min(self.seq_len, self.micro_batch_size) < 1:
            problems.append("seq_len and micro_batch_size must be at least 1")
        if problems:
            raise ValueError("Cards: " + "; ".join(problems))


def gib(c, name, settings, recompute):
    """GiB of one GPU that training a model with these settings takes."""
    rows = f"micro_batch_size={c.micro_batch_size}", f"batch_size={c.micro_batch_size}"
    run, = load(train.Train, argv=[f"init=models/{name}", "out=", "data=", "mixture={'en': 1}",
                                   f"tokens={c.seq_len * c.micro_batch_size}", f"seq_len={c.seq_len}", *rows,
                                   f"activation_checkpointing={recompute}", *settings])
    config = ModelConfig(**SHAPES[name])
    return sum(memory_per_gpu(run, config, count_parameters(config, lora_settings(run)), 1).values()) / 2 ** 30


def table(c):
    """Markdown: `yes`, `recomputed` where only activation_checkpointing=True fits, or nothing."""
    lines = ["| model | trained | GiB, GiB recomputed | " + " | ".join(f"{size} GB" for size in c.cards) + " |",
             "|---|---|---:|" + "---|" * len(c.cards)]
    for name in c.models:
        for trained, settings in TRAINED.items():
            plain, recomputed = (gib(c, name, settings, recompute) for recompute in (False, True))
            cells = ["yes" if plain <= USABLE * size else "recomputed" if recomputed <= USABLE * size else ""
                     for size in c.cards]
            lines.append(f"| {name} | {trained} | {plain:.1f}, {recomputed:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None):
    c, = load(Cards, argv=argv)
    print(table(c))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
