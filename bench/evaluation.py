"""Scoring and translation beside lm-eval's HFLM: the same random model, prompts and process; the answers must agree."""
import json
import math
import random
import re
import tempfile
import time
from pathlib import Path

import tokenizer
from bench.timing import row
from bench.tokenizing import train_bpe
from bench.training import SMALL
from model import ModelConfig, Qwen2

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def evaluation():
    """Three shapes of multiple choice, and translation, at 8k and Qwen2's 152k words; lm-eval's batches are 1 and 16.

    Process CPU time, one thread, the better of two turns. A random model never ends a line, so translation stops at a
    letter: one that most texts reach, at any length.
    """
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        print("evaluation: not compared; pip install lm-eval accelerate")
        return
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(3000)]

    def sentence(least, most):
        return " ".join(rng.choices(words, k=rng.randint(least, most)))

    def options():
        return "".join(f"\n{k}: {sentence(1, 5)}" for k in "ABCD") + "\nAnswer:"

    sets, prompts = choice_sets(rng, sentence, options), translation_prompts(sentence)
    texts = [f"{sentence(5, 20)}?{options()} {rng.choice('ABCD')}" for _ in range(1000)]
    for label, vocab_size in (("8k", SMALL["vocab_size"]), ("152k", 151936)):
        with tempfile.TemporaryDirectory() as folder:
            train_bpe(texts, SMALL["vocab_size"] - 1, folder)  # and EOT
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.EOT,
                      "pad_token": tokenizer.EOT}
            Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
            random_model(vocab_size).save_pretrained(folder)
            model, t = Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)
            peers = {size: HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=size) for size in (1, 16)}
        for name, pairs in sets.items():
            yield from compare_choices(f"{name}, {label}", pairs, model, t, peers)
        yield from compare_translation(f"translation, {label}", prompts, model, t, peers)


def random_model(vocab_size):
    """Its greedy texts hold the tokenizer's words, and do not repeat themselves as with initial weights of 0.02."""
    model = Qwen2(ModelConfig(**SMALL | {"vocab_size": vocab_size, "initializer_range": 0.1})).init_weights(0)
    model.lm_head.weight.data[SMALL["vocab_size"]:] *= 0.1
    return model


def choice_sets(rng, sentence, options):
    """{name: (context, continuation) pairs}. Belebele has 1.84 questions per passage, as the original (900 on 488)."""
    passages = [f"P: {sentence(70, 130)}\nQ: " for _ in range(13)]
    shots = "".join(f"{sentence(8, 30)}?{options()} A\n\n" for _ in range(5))
    sets = {"Belebele": [], "XCOPA": [], "MMLU's shape, 5 shots": []}
    for i in range(24):
        context = passages[i * 13 // 24] + sentence(8, 16) + options()
        sets["Belebele"] += [(context, f" {k}") for k in "ABCD"]
    for _ in range(40):
        premise = sentence(5, 10)
        sets["XCOPA"] += [(premise, f" {sentence(4, 8)}") for _ in range(2)]
    for _ in range(12):
        context = shots + sentence(8, 30) + "?" + options()
        sets["MMLU's shape, 5 shots"] += [(context, f" {k}") for k in "ABCD"]
    return sets


def translation_prompts(sentence):
    """More of them than one batch of lm-eval's holds, as in a benchmark."""
    return [f"English sentence: {sentence(8, 25)}\nGerman sentence:" for _ in range(64)]


def compare_choices(name, pairs, model, t, peers):
    """Log-likelihoods of continuations, and whether each is the most likely one."""
    from lm_eval.api.instance import Instance

    from evaluation.scoring import encode_pair, loglikelihoods
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]

    def ours():
        return loglikelihoods(model, [encode_pair(t, *pair) for pair in pairs], 1024)

    def difference(a, b):
        return max(abs(x - y) if greedy == other else math.inf for (x, greedy), (y, other) in zip(a, b))

    theirs = {size: lambda lm=lm: lm.loglikelihood(requests, disable_tqdm=True) for size, lm in peers.items()}
    yield from compare(name, ours, theirs, difference)


def compare_translation(name, prompts, model, t, peers):
    """Greedy texts of at most 48 tokens up to a stop letter."""
    from lm_eval.api.instance import Instance

    from evaluation.scoring import encode
    from generate import generate, truncate
    texts = [t.decode(new) for new in generate(model, [encode(t, prompt) for prompt in prompts], 48, {t.eot_id})]
    # the beginning of a word that closest to three quarters of the texts reach in their first half
    stop = min((f" {k}" for k in LETTERS),
               key=lambda s: abs(0.75 * len(texts) - sum(s in text[:len(text) // 2] for text in texts)))
    how = {"until": [stop], "max_gen_toks": 48, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, how), i) for i, prompt in enumerate(prompts)]

    def ours():
        ids = [encode(t, prompt) for prompt in prompts]
        outputs = generate(model, ids, 48, {t.eot_id}, tokenizer=t, stop_strings=[stop])
        return [truncate(t.decode(new), [stop]) for new in outputs]

    def difference(a, b):
        return sum(x != y for x, y in zip(a, b))

    theirs = {size: lambda lm=lm: lm.generate_until(requests, disable_tqdm=True) for size, lm in peers.items()}
    yield from compare(name, ours, theirs, difference)


def compare(name, ours, peers, difference, rounds=2):
    """Rows of one workload: our function and {batch size: theirs}, which return the same up to rounding."""
    best = dict.fromkeys([None, *peers], math.inf)
    for _ in range(rounds):
        answers = {}
        for size, function in {None: ours, **peers}.items():
            start = time.process_time()
            answers[size] = function()
            best[size] = min(best[size], time.process_time() - start)
        for size in peers:
            error = difference(answers[None], answers[size])
            assert error < 1e-3, f"{name}: our answers differ from lm-eval's by {error}"
    short = re.split("[,']", name)[0].lower() + "_" + name.split(", ")[-1]
    for size in peers:
        yield row(f"eval_{short}_batch_{size}", f"{name}, lm-eval's batch {size}", best[None], best[size], of="lm-eval")
