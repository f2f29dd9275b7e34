"""Scoring and translation beside lm-eval's HFLM: the same random model, prompts and process; the answers must agree."""
import json
import math
import random
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
    """Three shapes of multiple choice, and translation. lm-eval runs at batch size 1, its default, and 16.

    Process CPU time, one thread, best of three interleaved. A random model never ends a line, so translation stops at a
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

    with tempfile.TemporaryDirectory() as folder:
        train_bpe([sentence(5, 20) for _ in range(3000)], SMALL["vocab_size"] - 1, folder)  # and EOT
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.EOT, "pad_token": tokenizer.EOT}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        Qwen2(ModelConfig(**SMALL)).init_weights(0).save_pretrained(folder)
        model, t = Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)
        peers = {size: HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=size) for size in (1, 16)}
    for name, pairs in choice_sets(rng, sentence).items():
        yield from compare_choices(name, pairs, model, t, peers)
    prompts = [f"English sentence: {sentence(8, 25)}\nGerman sentence:" for _ in range(16)]
    yield from compare_translation(prompts, model, t, peers)


def choice_sets(rng, sentence):
    """{name: (context, continuation) pairs}. Belebele has 1.84 questions per passage, as the original (900 on 488)."""
    def options():
        return "".join(f"\n{k}: {sentence(1, 5)}" for k in "ABCD") + "\nAnswer:"

    passages = [f"P: {sentence(70, 130)}\nQ: " for _ in range(13)]
    shots = "".join(f"{sentence(8, 30)}?{options()} A\n\n" for _ in range(5))
    sets = {"Belebele, 0 shots": [], "XCOPA, 0 shots": [], "MMLU's shape, 5 shots": []}
    for i in range(24):
        context = [passages[i * 13 // 24] + sentence(8, 16) + options() for _ in "ABCD"]
        sets["Belebele, 0 shots"] += [(text, f" {k}") for text, k in zip(context, "ABCD")]
    for _ in range(40):
        premise = sentence(5, 10)
        sets["XCOPA, 0 shots"] += [(premise, f" {sentence(4, 8)}") for _ in range(2)]
    for _ in range(12):
        context = [shots + sentence(8, 30) + "?" + options() for _ in "ABCD"]
        sets["MMLU's shape, 5 shots"] += [(text, f" {k}") for text, k in zip(context, "ABCD")]
    return sets


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


def compare_translation(prompts, model, t, peers):
    """Greedy texts of at most 48 tokens up to a stop letter."""
    from lm_eval.api.instance import Instance

    from evaluation.scoring import encode
    from generate import generate, truncate
    ids = [encode(t, prompt) for prompt in prompts]
    texts = [t.decode(new) for new in generate(model, ids, 48, {t.eot_id})]
    # the letter that closest to 12 of the 16 texts reach in their first half
    stop = min(LETTERS, key=lambda k: abs(12 - sum(k in text[:len(text) // 2] for text in texts)))
    how = {"until": [stop], "max_gen_toks": 48, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, how), i) for i, prompt in enumerate(prompts)]

    def ours():
        outputs = generate(model, ids, 48, {t.eot_id}, tokenizer=t, stop_strings=[stop])
        return [truncate(t.decode(new), [stop]) for new in outputs]

    def difference(a, b):
        return sum(x != y for x, y in zip(a, b))

    theirs = {size: lambda lm=lm: lm.generate_until(requests, disable_tqdm=True) for size, lm in peers.items()}
    yield from compare("translation", ours, theirs, difference)


def compare(name, ours, peers, difference, rounds=3):
    """Rows of one workload: our function and {batch size: theirs}, which return the same up to rounding."""
    answers = ours()
    for theirs in peers.values():
        error = difference(answers, theirs())
        assert error < 1e-3, f"{name}: our answers differ from lm-eval's by {error}"
    best = dict.fromkeys([None, *peers], math.inf)
    for _ in range(rounds):
        for size, function in {None: ours, **peers}.items():
            start = time.process_time()
            function()
            best[size] = min(best[size], time.process_time() - start)
    short = name.split(",")[0].split("'")[0].lower()
    for size in peers:
        yield row(f"eval_{short}_batch_{size}", f"{name}, lm-eval's batch {size}", best[None], best[size], of="lm-eval")
