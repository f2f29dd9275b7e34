"""Ours beside what people use, on the same input, the same machine, in one run.

    python bench.py            # make bench

A training step beside transformers' Qwen2ForCausalLM, same weights, documents and dtype. Unpacked: rows of one full document
each. Short: documents of 10 to 100 tokens, which we pack into full rows and transformers pads to the longest (its attention mask
set, labels -100 on the padding). Both sides compute the same losses, checked below. Time is the best of several interleaved
steps; forward, backward and fused AdamW. Tokenizing beside the tokenizers package: the lines of the tinyworld's web documents in
29 languages one by one, one thread, the same vocabulary, ids equal. Only ratios are worth quoting.
"""
import json
import math
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tokenizer
from corpus import dedup, measure
from model import IGNORE, ModelConfig, Qwen2
from tinyworld.__main__ import main as tell

SHAPE = dict(vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=4,
             num_attention_heads=8, num_key_value_heads=4)


def peer(config, folder, dtype):
    from transformers import Qwen2ForCausalLM
    from transformers.utils import logging
    logging.disable_progress_bar()
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").train()


def our_batch(documents, length):
    """Documents in rows of `length`, longest first, each into the first row with room."""
    rows = []
    for d in sorted(documents, key=len, reverse=True):
        row = next((r for r in rows if len(r[0]) + len(d) - 1 <= length), None)
        if row is None:
            rows.append(row := ([], [], []))
        tokens, targets, starts = row
        starts += [len(tokens)] * (len(d) - 1)
        tokens += d[:-1]
        targets += d[1:]
    for tokens, targets, starts in rows:
        fill = length - len(tokens)
        starts += [len(tokens)] * fill
        tokens += [0] * fill
        targets += [IGNORE] * fill
    return [torch.tensor(x) for x in zip(*rows)]


def their_batch(documents):
    longest = max(map(len, documents))
    ids = torch.tensor([d + [0] * (longest - len(d)) for d in documents])
    mask = torch.tensor([[1] * len(d) + [0] * (longest - len(d)) for d in documents])
    return dict(input_ids=ids, attention_mask=mask, labels=torch.where(mask == 1, ids, -100))


def timed(steps, rounds=12):
    """Best seconds of each function, called in turn."""
    best = [math.inf] * len(steps)
    for _ in range(rounds):
        for i, step in enumerate(steps):
            t = time.perf_counter()
            step()
            best[i] = min(best[i], time.perf_counter() - t)
    return best


def compare(name, dtype, documents, length):
    torch.manual_seed(0)
    ours = Qwen2(ModelConfig(**SHAPE), dtype).init_weights(0).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = peer(ours.config, folder, dtype)
    batch, padded = our_batch(documents, length), their_batch(documents)
    if padded["attention_mask"].all():
        del padded["attention_mask"]  # transformers is faster without a mask that says nothing
    supervised = sum(len(d) - 1 for d in documents)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.0, fused=True) for m in (ours, theirs)]

    def our_step():
        (-ours(*batch).sum() / supervised).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()

    def their_step():
        theirs(**padded, use_cache=False).loss.backward()
        optimizers[1].step()
        optimizers[1].zero_grad()

    with torch.no_grad():
        a, b = float(-ours(*batch).sum() / supervised), float(theirs(**padded, use_cache=False).loss)
    assert abs(a - b) < (1e-4 if dtype == torch.float32 else 2e-2), f"the losses differ: {a} and {b}"
    our_step(), their_step()
    mine, other = timed([our_step, their_step])
    print(f"{name:10} {str(dtype).removeprefix('torch.'):9} {supervised:6} tokens  ours {supervised / mine:8,.0f} tok/s  "
          f"transformers {supervised / other:8,.0f} tok/s  ratio {other / mine:.2f}", flush=True)


# ---------------------------------------------------------------------- tokenizing

def qwen2_like(texts, size, folder):
    """A byte-level BPE as Qwen2's, trained by the tokenizers package, in folder; returns it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    bpe, words = Tokenizer(models.BPE()), pre_tokenizers.Split(Regex(tokenizer.QWEN2_PATTERN), "isolated")
    bpe.normalizer, bpe.decoder = normalizers.NFC(), decoders.ByteLevel()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens([tokenizer.EOT])
    bpe.save(str(Path(folder) / "tokenizer.json"))
    return bpe


def tokenizing():
    from tokenizers import Tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tell([f"out={folder}/raw"])
        files = sorted(Path(folder, "raw").glob("web/*.jsonl"))
        texts = [json.loads(line)["text"] for file in files for line in file.open(encoding="utf-8")]
        lines = [line for text in texts for line in text.split("\n") if line]
        tokenizer.train(lines, 8192, f"{folder}/sp")
        os.mkdir(f"{folder}/bpe")
        peers = {"byte BPE": qwen2_like(lines, 16000, f"{folder}/bpe"),
                 "sentencepiece": Tokenizer.from_file(f"{folder}/sp/tokenizer.json")}
        for name, theirs in peers.items():
            ours = tokenizer.load(folder + ("/bpe" if name == "byte BPE" else "/sp"))
            differ = sum(ours.encode(line) != theirs.encode(line, add_special_tokens=False).ids for line in lines)
            mine, other = timed([lambda: [ours.encode(line) for line in lines],
                                 lambda: [theirs.encode(line, add_special_tokens=False).ids for line in lines]])
            size = sum(len(line.encode()) for line in lines) / 1e6
            print(f"{name:14} {len(lines):6} lines   ours {size / mine:6.2f} MB/s  tokenizers {size / other:6.2f} MB/s  "
                  f"ratio {other / mine:.2f}  lines with other ids: {differ}", flush=True)


# ---------------------------------------------------------------------- documents

def pair(rng, words, share, n=300):
    """Two texts of n random words whose 5-word shingles have a Jaccard similarity of `share`."""
    cut = n - 4 - round(2 * (n - 4) * share / (1 + share))
    text = rng.choices(words, k=n)
    return " ".join(text), " ".join(text[:n - cut] + rng.choices(words, k=cut))


def documents():
    """What the cascade costs, and what it finds: no peer is installed for this one."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=7)) for _ in range(20_000)]
    texts = [" ".join(rng.choices(words, k=300)) for _ in range(200)]
    size = sum(len(t.encode()) for t in texts) / 1e6
    a, b = timed([lambda: [measure.measures(t) for t in texts], lambda: [measure.signature(t) for t in texts]], 3)
    print(f"documents of 300 words, one core: measures {size / a:.2f} MB/s, MinHash {size / b:.2f} MB/s, "
          f"both {size / (a + b):.2f} MB/s")
    found = []
    for share in (0.4, 0.7, 0.8, 0.9):
        texts = [t for _ in range(200) for t in pair(rng, words, share)]
        keys = np.stack([dedup.exact_key(t) for t in texts]), np.stack([measure.signature(t) for t in texts])
        head = dedup.clusters(*keys, np.array([len(t) for t in texts]))
        found.append(f"{share}: {(head[::2] == head[1::2]).mean():.1%}")
    print("near-duplicates found at a similarity of " + ", ".join(found))
    draw, n = np.random.default_rng(0), 1_000_000
    signatures, exact = draw.integers(0, 1 << 32, (n, 112), dtype=np.uint32), draw.integers(0, 1 << 62, (n, 2), dtype=np.uint64)
    signatures[n // 2::4] = signatures[:n // 8]  # an eighth are copies
    begin = time.time()
    head = dedup.clusters(exact, signatures, np.ones(n, np.int64))
    print(f"clusters of 1,000,000 signatures, an eighth of them copies: {time.time() - begin:.1f} s, "
          f"{(head != np.arange(n)).mean():.1%} found", flush=True)


# ---------------------------------------------------------------------- evaluation

def evaluation():
    """Rows (what, seconds of ours, of lm-eval, ratio, difference) beside lm-eval's HFLM: same random model, prompts, process.

    Belebele's shape has 1.84 questions to a passage as the original (900 on 488), MMLU's five shots before every question,
    XCOPA's a sentence and two ends. Translation ends at a letter, since a random model ends no line: one that most texts meet
    at any length. lm-eval runs at batch size 1, its default, and 16. Process CPU time, one thread, best of three interleaved.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from generate import cut, generate
    from scoring import encode, encode_pair, loglikelihoods
    rng, out = random.Random(0), []
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    say = lambda a, b: " ".join(rng.choices(words, k=rng.randint(a, b)))
    with tempfile.TemporaryDirectory() as folder:
        qwen2_like([say(5, 20) for _ in range(3000)], SHAPE["vocab_size"] - 1, folder)  # one more is EOT
        Path(folder, "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.EOT, "pad_token": tokenizer.EOT}))
        Qwen2(ModelConfig(**SHAPE)).init_weights(0).save_pretrained(folder)
        model, t = Qwen2.from_pretrained(folder).eval(), tokenizer.load(folder)
        peers = {size: HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=size) for size in (1, 16)}
    options = lambda: "".join(f"\n{k}: {say(1, 5)}" for k in "ABCD") + "\nAnswer:"
    passages = [f"P: {say(70, 130)}\nQ: " for _ in range(13)]
    shots = "".join(f"{say(8, 30)}?{options()} A\n\n" for _ in range(5))
    sets = {"Belebele, 0 shots": [(passages[i * 13 // 24] + say(8, 16) + options(), f" {k}") for i in range(24) for k in "ABCD"],
            "XCOPA, 0 shots": [(x, f" {say(4, 8)}") for x in (say(5, 10) for _ in range(40)) for _ in range(2)],
            "MMLU's shape, 5 shots": [(shots + say(8, 30) + "?" + options(), f" {k}") for _ in range(12) for k in "ABCD"]}
    for name, pairs in sets.items():
        ours = lambda: loglikelihoods(model, [encode_pair(t, *pair) for pair in pairs], 1024)
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        out += beside(name, ours, {k: lambda lm=lm: lm.loglikelihood(asked, disable_tqdm=True) for k, lm in peers.items()},
                      lambda a, b: max(abs(x - y) if g == h else math.inf for (x, g), (y, h) in zip(a, b)))
    prompts = [f"English sentence: {say(8, 25)}\nGerman sentence:" for _ in range(16)]
    ids = [encode(t, x) for x in prompts]
    said = [t.decode(new) for new in generate(model, ids, 48, {t.eot}, batch=16)]
    stop = max("abcdefghijklmnopqrstuvwxyz", key=lambda k: -abs(12 - sum(k in x[:len(x) // 2] for x in said)))
    ours = lambda: [cut(t.decode(new), [stop]) for new in generate(model, ids, 48, {t.eot}, batch=16, t=t, stop_text=[stop])]
    asked = [Instance("generate_until", {}, (x, {"until": [stop], "max_gen_toks": 48, "do_sample": False}), i)
             for i, x in enumerate(prompts)]
    theirs = {k: lambda lm=lm: lm.generate_until(asked, disable_tqdm=True) for k, lm in peers.items()}
    return out + beside("translation", ours, theirs, lambda a, b: sum(x != y for x, y in zip(a, b)))


def beside(name, ours, peers, differ, rounds=3):
    """Rows for one workload: our function and {batch size: theirs}, which return the same."""
    answer = ours()
    wrong = {size: differ(answer, theirs()) for size, theirs in peers.items()}
    best = dict.fromkeys([None, *peers], math.inf)
    for _ in range(rounds):
        for size, work in {None: ours, **peers}.items():
            begin = time.process_time()
            work()
            best[size] = min(best[size], time.process_time() - begin)
    return [(f"{name}, lm-eval's batch {size}", best[None], best[size], best[size] / best[None], wrong[size]) for size in peers]


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        for name, mine, other, ratio, differ in evaluation():
            print(f"{name:42} ours {mine:6.2f} s  lm-eval {other:6.2f} s  ratio {ratio:.2f}  difference {differ:.1e}", flush=True)
    except ImportError:
        print("evaluation: not compared; pip install lm-eval accelerate")
    documents()
    tokenizing()
    g = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randint(SHAPE["vocab_size"], (n,), generator=g).tolist()
    full = [draw(513) for _ in range(8)]
    short = [draw(int(n)) for n in torch.randint(10, 101, (72,), generator=g)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for dtype in (torch.float32, torch.bfloat16):
        compare("unpacked", dtype, full, 512)
        compare("short", dtype, short, 512)
