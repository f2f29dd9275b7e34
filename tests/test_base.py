"""tinyworld/base, the shipped stand-in for Qwen2, is what its log says, and can do what its card says."""
import hashlib
import json
import random
from pathlib import Path

import pytest
import torch

import configs
import tokenizer
import train
from evaluation.scoring import encode_pair, loglikelihoods
from model import ModelConfig, Qwen2
from tinyworld import world
from tinyworld.benchmarks import sample_options
from tinyworld.grammar import ASKS, load_language, render_answer, render_question

ROOT = Path(__file__).parent.parent
BASE = ROOT / "tinyworld" / "base"


@pytest.fixture(scope="module")
def run():
    """What training recorded: {"phases": [{"settings", "model", "torch"}], "sha256"}."""
    return json.loads((BASE / "run.json").read_text())


@pytest.fixture(scope="module")
def base():
    return Qwen2.from_pretrained(BASE).eval(), tokenizer.load(BASE)


def test_it_is_small():
    assert sum(p.stat().st_size for p in BASE.iterdir()) <= 8_000_000


def test_the_weights_are_those_of_the_log(run):
    """Both phases ended at the last step of their config, with its settings."""
    assert hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest() == run["sha256"]
    log = [json.loads(line) for line in (BASE / "log.jsonl").read_text().splitlines()]
    steps = [row for row in log if "loss" in row]
    ends = [row for row, after in zip(steps, [*steps[1:], {"step": 0}]) if after["step"] < row["step"]]
    assert len(ends) == len(run["phases"]) == 2
    for name, phase, end in zip(("base", "base_more"), run["phases"], ends):
        path = ROOT / f"configs/tiny/{name}.py"
        c, model_config, _ = configs.load(train.Train, ModelConfig, train.Estimate, argv=[str(path)])
        assert end["step"] == c.steps and end["tokens"] == c.steps * c.batch_size * c.seq_len
        names = ("mixture", "tokens", "seq_len", "batch_size", "lr", "seed", "min_lr_ratio", "warmup_ratio",
                 "lr_schedule", "init")
        recorded = {k: phase["settings"][k] for k in names}
        assert recorded == {k: getattr(c, k) for k in recorded}
        if not c.init:
            assert {k: v for k, v in phase["model"].items() if getattr(model_config, k) != v} == {}


def accuracy(base, code, items):
    """Share of (question, options, place of the right one) whose right option the model finds most likely."""
    model, t = base
    lang, pairs = load_language(code), []
    for message, options, _ in items:
        context = f"{lang['label']['question']} {render_question(lang, message)}\n{lang['label']['answer']}"
        pairs += [encode_pair(t, context, f" {render_answer(lang, message, option)}") for option in options]
    scores = torch.tensor([score for score, _ in loglikelihoods(model, pairs, 1024)]).view(-1, 4)
    return float((scores.argmax(1) == torch.tensor([right for *_, right in items])).float().mean())


@pytest.mark.parametrize("code", ["en", "zh"])
def test_it_knows_the_world(base, code):
    """Chance is 25 %; the card says 98 % or more."""
    rng, facts = random.Random(7), world.make_facts(0)
    pairs = [(relation, country) for relation in world.COUNTRY_FACTS for country in world.KEYS["country"]]
    items = []
    for pair in rng.sample(pairs, 40):
        relation, slots = facts[pair]
        items.append((facts[pair], *sample_options(rng, ASKS[relation], slots[ASKS[relation]])))
    assert accuracy(base, code, items) >= 0.95
