"""Ours beside what people use, on the same input, the same machine, in one run; only ratios are worth quoting.

    python bench.py                   # make bench: every row that this machine can measure
    python bench.py training head     # some of them, by the names in BENCHES

One table: what it is, ours, the peer, their ratio, and the fraction of the floor we reach: on a CPU and in matrix work the time a
matrix product of this run would need for the same FLOPs, for what only moves memory the time of a copy. The ratio says how many
times as fast we are; of memory, which part of the peer's we need. The last line is one JSON object, {name: {"ratio": ...}}.

Both sides take turns, and the best of several turns counts: process CPU time of one thread on a CPU (neighbours disturb it
little), CUDA events on a GPU. Both compute the same numbers, which is checked before they are timed. To add rows, write a
function that yields `row(...)` and name it in BENCHES.
"""
import json
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch._functorch.config
import torch.nn.functional as F

import kernels
import tokenizer
from corpus import dedup, measure
from model import IGNORE, ModelConfig, Qwen2
from tinyworld.__main__ import main as tell
from training import estimate as plan

SHAPE = dict(vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=4)
WIDER = SHAPE | dict(hidden_size=512, intermediate_size=1408, num_key_value_heads=2)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def row(name, what, ours, peer=None, unit="s", of=None, floor=None):
    """One line of the table. ours, peer: numbers of that unit; s and GiB are better when smaller, anything else when larger."""
    ratio = None if not peer else ours / peer if unit == "GiB" else peer / ours if unit == "s" else ours / peer
    return dict(name=name, what=what, ours=ours, peer=peer, unit=unit, of=of, ratio=ratio, floor=floor)


def seconds(steps, rounds=5):
    """Best seconds of each function, called in turn after one call to warm up."""
    best = [math.inf] * len(steps)
    for turn in range(rounds + 1):
        for i, step in enumerate(steps):
            took = once(step)
            best[i] = min(best[i], took) if turn else math.inf
    return best


def once(step):
    if not torch.cuda.is_available():
        begin = time.process_time()
        step()
        return time.process_time() - begin
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def matrix_rate(dtype, device="cpu"):
    """FLOP/s of a large matrix product."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n ** 3 / seconds([lambda: a @ b])[0]


# ---------------------------------------------------------------------- a training step beside transformers

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


def packed(T, mean, seed=0):
    """starts (T,): documents of log-normal length (sigma 1) with that mean, cut at T."""
    draw, starts = np.random.default_rng(seed), []
    while len(starts) < T:
        length = max(2, round(draw.lognormal(math.log(mean) - 0.5, 1)))
        starts += [len(starts)] * length
    return torch.tensor(starts[:T])


def pair(shape, dtype, device="cpu"):
    """Our model and transformers', with the same weights in the same dtype."""
    ours = Qwen2(ModelConfig(**shape), dtype).init_weights(0).to(device=device, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        return ours, peer(ours.config, folder, dtype).to(device)


def steps(ours, theirs, batch, padded):
    """The two training steps, after a check that their losses agree: forward, backward, fused AdamW with a rate of 0."""
    count = int((batch[1] != IGNORE).sum())
    losses = [lambda: -ours(*batch).sum() / count, lambda: theirs(**padded, use_cache=False).loss]
    with torch.no_grad():
        a, b = (float(loss()) for loss in losses)
    assert abs(a - b) < (1e-4 if ours.dtype == torch.float32 else 2e-2), f"the losses differ: {a} and {b}"

    def step(loss, optimizer):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    both = [torch.optim.AdamW(model.parameters(), lr=0.0, fused=True) for model in (ours, theirs)]
    return [lambda loss=loss, optimizer=optimizer: step(loss, optimizer) for loss, optimizer in zip(losses, both)]


def packed_steps(shape, dtype, T, mean, device="cpu", compiled=False):
    """(our step, transformers' with its block-diagonal mask on the same packed row, FLOPs of the model in either)."""
    ours, theirs = pair(shape, dtype, device)
    ids = torch.randint(shape["vocab_size"], (1, T + 1), generator=torch.Generator().manual_seed(0))
    starts = packed(T, mean)[None]
    tokens, targets, starts = (x.to(device) for x in (ids[:, :-1], ids[:, 1:], starts))
    position = torch.arange(T, device=device) - starts
    flops = plan.flops(ours.config, plan.parameters(ours.config), T, int((position + 1).sum()))
    if compiled:
        theirs.model.compile()
    padded = dict(input_ids=tokens, position_ids=position, labels=targets, shift_labels=targets)
    return *steps(ours, theirs, (tokens, targets, starts), padded), flops


def training():
    """One packed row; rows of one full document each; short documents, which we pack and transformers pads."""
    g = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randint(SHAPE["vocab_size"], (n,), generator=g).tolist()
    full, short = [draw(513) for _ in range(8)], [draw(int(n)) for n in torch.randint(10, 101, (72,), generator=g)]
    for name, dtype in DTYPES.items():
        *both, flops = packed_steps(WIDER, dtype, 4096, 450)
        mine, other = seconds(both, 2)
        yield row(f"train_step_{name}", "training step, 4096 tokens packed, documents of 450", mine, other,
                  of="transformers, sdpa", floor=flops / matrix_rate(dtype) / mine)
        for kind, documents in (("unpacked", full), ("short", short)):
            padded = their_batch(documents)
            if padded["attention_mask"].all():
                del padded["attention_mask"]  # transformers is faster without a mask that says nothing
            mine, other = seconds(steps(*pair(SHAPE, dtype), our_batch(documents, 512), padded), 3)
            yield row(f"{kind}_{name}", f"training step, {kind} documents", mine, other, of="transformers, sdpa")


def peak(step):
    """GiB of memory that step takes at its highest (Linux: resident set)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2 ** 30
    field = lambda name: int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])  # KiB
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set starts anew
    before = field("VmRSS")
    step()
    return (field("VmHWM") - before) / 2 ** 20


def head():
    """Head and loss, forward and backward: peak memory above what the weights take."""
    if not Path("/proc/self/clear_refs").exists():
        return
    from transformers.loss.loss_utils import ForCausalLMLoss
    T, C, V = 2048, 256, 151936
    x, w, targets = torch.randn(T, C, requires_grad=True), torch.randn(V, C).mul_(0.02).requires_grad_(), torch.randint(V, (T,))

    def ours():
        return torch.autograd.grad(-kernels.target_logprobs(x, w, targets).sum() / T, (x, w))

    def theirs():
        return torch.autograd.grad(ForCausalLMLoss((x @ w.T)[None], targets[None], V, shift_labels=targets[None]), (x, w))

    torch.testing.assert_close(ours()[0], theirs()[0], atol=1e-8, rtol=1e-3)
    mine, other = peak(ours), peak(theirs)
    yield row("head_memory", "head and loss, 2048 tokens, 151,936 words", mine, other, unit="GiB", of="transformers, fp32")


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
    """The lines of the tinyworld's web documents one by one, the same vocabulary."""
    from tokenizers import Tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tell([f"out={folder}/raw"])
        files = sorted(Path(folder, "raw").glob("web/*.jsonl"))
        texts = [json.loads(line)["text"] for file in files for line in file.open(encoding="utf-8")]
        lines = [line for text in texts for line in text.split("\n") if line]
        tokenizer.train(lines, 8192, f"{folder}/sp")
        os.mkdir(f"{folder}/bpe")
        peers = {"bpe": qwen2_like(lines, 16000, f"{folder}/bpe"),
                 "sentencepiece": Tokenizer.from_file(f"{folder}/sp/tokenizer.json")}
        for name, theirs in peers.items():
            ours = tokenizer.load(folder + ("/bpe" if name == "bpe" else "/sp"))
            differ = sum(ours.encode(line) != theirs.encode(line, add_special_tokens=False).ids for line in lines)
            mine, other = seconds([lambda: [ours.encode(line) for line in lines],
                                   lambda: [theirs.encode(line, add_special_tokens=False).ids for line in lines]])
            size = sum(len(line.encode()) for line in lines) / 1e6
            yield row(f"tokenize_{name}", f"{len(lines)} lines in 29 languages, {differ} with other ids", size / mine,
                      size / other, unit="MB/s", of="tokenizers")


# ---------------------------------------------------------------------- documents

def near(rng, words, share, n=300):
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
    a, b = seconds([lambda: [measure.measures(t) for t in texts], lambda: [dedup.signature(t) for t in texts]], 3)
    yield row("measures", "quality measures of documents of 300 words", size / a, unit="MB/s")
    yield row("minhash", "MinHash signatures of the same", size / b, unit="MB/s")
    for share in (0.4, 0.7, 0.8, 0.9):
        texts = [t for _ in range(200) for t in near(rng, words, share)]
        keys = np.stack([dedup.exact_key(t) for t in texts]), np.stack([dedup.signature(t) for t in texts])
        same = dedup.cluster(*keys, np.array([len(t) for t in texts]))
        found = 100 * (same[::2] == same[1::2]).mean()
        yield row(f"near_duplicates_{share}", f"pairs found at a similarity of {share}", found, unit="%")
    draw, n = np.random.default_rng(0), 1_000_000
    signatures, exact = draw.integers(0, 1 << 32, (n, 112), dtype=np.uint32), draw.integers(0, 1 << 62, (n, 2), dtype=np.uint64)
    signatures[n // 2::4] = signatures[:n // 8]  # an eighth are copies
    begin = time.process_time()
    same = dedup.cluster(exact, signatures, np.ones(n, np.int64))
    took, copies = time.process_time() - begin, (same != np.arange(n)).mean()
    yield row("clusters", f"clusters of a million signatures; {copies:.1%} are copies", took)


def cascade():
    """Heuristics and MinHash signature beside datatrove, in nine languages (bench/cascade.py); GOOD: published text."""
    try:
        from bench import cascade as bench_cascade
        found = bench_cascade.measure_languages(os.environ.get("GOOD"))
    except ImportError as e:
        return print(f"cascade: not compared ({e}); bench/cascade.py says what to install")
    for r in found:
        what = f"cascade, {r['documents']} documents in {r['name'][-2:]}"
        yield row(r["name"], what, r["ours"], r["peer"], unit="MB/s", of="datatrove")


# ---------------------------------------------------------------------- evaluation

def evaluation():
    """Scoring and translation beside lm-eval's HFLM: same random model, prompts, process; answers must agree.

    Belebele's shape has 1.84 questions to a passage as the original (900 on 488), MMLU's five shots before every question,
    XCOPA's a sentence and two ends. Translation ends at a letter, since a random model ends no line: one that most texts meet
    at any length. lm-eval runs at batch size 1, its default, and 16. Process CPU time, one thread, best of three interleaved.
    """
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return print("evaluation: not compared; pip install lm-eval accelerate")

    from evaluation.scoring import encode, encode_pair, loglikelihoods
    from generate import cut, generate
    rng = random.Random(0)
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
        yield from beside(name, ours, {k: lambda lm=lm: lm.loglikelihood(asked, disable_tqdm=True) for k, lm in peers.items()},
                      lambda a, b: max(abs(x - y) if g == h else math.inf for (x, g), (y, h) in zip(a, b)))
    prompts = [f"English sentence: {say(8, 25)}\nGerman sentence:" for _ in range(16)]
    ids = [encode(t, x) for x in prompts]
    said = [t.decode(new) for new in generate(model, ids, 48, {t.eot_id})]
    stop = max("abcdefghijklmnopqrstuvwxyz", key=lambda k: -abs(12 - sum(k in x[:len(x) // 2] for x in said)))
    ours = lambda: [cut(t.decode(new), [stop]) for new in generate(model, ids, 48, {t.eot_id}, t=t, stop_text=[stop])]
    asked = [Instance("generate_until", {}, (x, {"until": [stop], "max_gen_toks": 48, "do_sample": False}), i)
             for i, x in enumerate(prompts)]
    theirs = {k: lambda lm=lm: lm.generate_until(asked, disable_tqdm=True) for k, lm in peers.items()}
    yield from beside("translation", ours, theirs, lambda a, b: sum(x != y for x, y in zip(a, b)))


def beside(name, ours, peers, differ, rounds=3):
    """Rows for one workload: our function and {batch size: theirs}, which return the same but for rounding."""
    answer = ours()
    for size, theirs in peers.items():
        assert (apart := differ(answer, theirs())) < 1e-3, f"{name}: answers {apart} apart from lm-eval's"
    best = dict.fromkeys([None, *peers], math.inf)
    for _ in range(rounds):
        for size, work in {None: ours, **peers}.items():
            begin = time.process_time()
            work()
            best[size] = min(best[size], time.process_time() - begin)
    for size in peers:
        short = name.split(",")[0].split("'")[0].lower()
        yield row(f"eval_{short}_batch_{size}", f"{name}, lm-eval's batch {size}", best[None], best[size], of="lm-eval")


# ---------------------------------------------------------------------- on a GPU

def forward_backward(f, inputs):
    """(forward, backward alone) of f as functions, with random upstream gradients."""
    out = f()
    up = torch.randn_like(out)
    return f, lambda: torch.autograd.grad(out, inputs, up, retain_graph=True)


def gpu_attention(device="cuda", T=8192, rows=4):
    """Dense rows beside SDPA, packed ones beside FlexAttention with the same document mask; TFLOP/s of what the mask leaves."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    flex, rate = torch.compile(flex_attention), matrix_rate(torch.bfloat16, device)
    for D, H, K in ((64, 14, 2), (128, 28, 4)):
        for mean in (None, 256, 1024, 4096):
            lengths = [torch.zeros(T, dtype=torch.int64) if mean is None else packed(T, mean, b) for b in range(rows)]
            starts = torch.stack(lengths).to(device)
            q, k, v = (torch.randn(rows, T, n, D, device=device, dtype=torch.bfloat16, requires_grad=True)
                       for n in (H, K, K))
            docs = kernels.documents(starts)
            over = [x.transpose(1, 2) for x in (q, k, v)]
            sees = lambda b, h, i, j: (j <= i) & (j >= starts[b, i])
            block = create_block_mask(sees, rows, None, T, T, device=device)
            ours = forward_backward(lambda: kernels.attention(q, k, v, docs), (q, k, v))
            peers = {"FlexAttention": lambda: flex(*over, block_mask=block, enable_gqa=True)}
            if mean is None:
                peers["SDPA"] = lambda: F.scaled_dot_product_attention(*over, is_causal=True, enable_gqa=True)
            work = 4 * H * D * float((torch.arange(T, device=device) - starts + 1).sum())
            kind = "dense" if mean is None else f"mean_{mean}"
            for peer_name, f in peers.items():
                theirs = forward_backward(f, (q, k, v))
                torch.testing.assert_close(ours[0](), theirs[0]().transpose(1, 2), atol=2e-2, rtol=2e-2)
                for part, mine, other, flops in zip(("forward", "backward"), ours, theirs, (work, 2.5 * work)):
                    a, b = seconds([mine, other])
                    yield row(f"attention_{part}_{kind}_d{D}_{peer_name}", f"attention {part}, {kind}, D={D}", flops / a / 1e12,
                              flops / b / 1e12, unit="TFLOP/s", of=peer_name, floor=flops / rate / a)


def gpu_head(device="cuda", T=16384):
    """Head and loss, forward and backward, beside cross_entropy on whole logits: time and peak memory."""
    rate = matrix_rate(torch.bfloat16, device)
    for C, V in ((896, 151936), (3584, 152064)):
        x, w = torch.randn(T, C, device=device), torch.randn(V, C, device=device) * 0.02
        x, w = (t.bfloat16().requires_grad_() for t in (x, w))
        targets = torch.randint(V, (T,), device=device)
        ours = lambda: torch.autograd.grad(kernels.target_logprobs(x, w, targets).sum(), (x, w))
        theirs = lambda: torch.autograd.grad(-F.cross_entropy((x @ w.T).float(), targets, reduction="sum"), (x, w))
        torch.testing.assert_close(ours()[0], theirs()[0], atol=2e-2, rtol=5e-2)
        a, b = seconds([ours, theirs])
        yield row(f"head_{C}", f"head and loss, {T} tokens, C={C}", a, b, of="cross_entropy", floor=6 * T * C * V / rate / a)
        yield row(f"head_memory_{C}", "its peak memory", peak(ours), peak(theirs), unit="GiB", of="cross_entropy")


def gpu_elementwise(device="cuda", T=16384, C=3584):
    """RMSNorm and SwiGLU, where kernels has them, beside torch.compile; floor: a copy of the bytes they must move."""
    big = torch.empty(1 << 30, dtype=torch.bfloat16, device=device)
    copied = 2 * big.nbytes / seconds([lambda: big.clone()])[0]  # bytes/s read and written
    x, y, w = (torch.randn(*s, device=device, dtype=torch.bfloat16, requires_grad=True) for s in ((T, C), (T, C), (C,)))
    # reads and writes of a (T, C) tensor: forward; backward
    for name, inputs, moves, plain in (
            ("rms_norm", (x, w), (2, 3), lambda: F.rms_norm(x, (C,), w, 1e-6)),
            ("swiglu", (x, y), (3, 5), lambda: F.silu(x) * y)):
        if not hasattr(kernels, name):
            continue
        f = getattr(kernels, name)
        ours = forward_backward((lambda: f(x, w, 1e-6)) if name == "rms_norm" else (lambda: f(x, y)), inputs)
        theirs = forward_backward(torch.compile(plain), inputs)
        torch.testing.assert_close(ours[0](), theirs[0](), atol=2e-2, rtol=2e-2)
        for part, mine, other, n in zip(("forward", "backward"), ours, theirs, moves):
            a, b = seconds([mine, other], 20)
            yield row(f"{name}_{part}", f"{name} {part}, {T} x {C}", n * x.nbytes / a / 1e9, n * x.nbytes / b / 1e9, unit="GB/s",
                      of="torch.compile", floor=n * x.nbytes / copied / a)


def gpu_decode(device="cuda", B=64, S=8192):
    """Attention of one new token in each of B texts behind a cache of S, beside SDPA; floor: reading the cache once."""
    big = torch.empty(1 << 30, dtype=torch.bfloat16, device=device)
    copied = 2 * big.nbytes / seconds([lambda: big.clone()])[0]
    for D, H, K in ((64, 14, 2), (128, 28, 4)):
        q, k, v = (torch.randn(B, n, heads, D, device=device, dtype=torch.bfloat16) for n, heads in ((1, H), (S, K), (S, K)))
        docs = kernels.documents(torch.zeros(B, 1, dtype=torch.int64, device=device))
        over = [x.transpose(1, 2) for x in (q, k, v)]
        with torch.no_grad():
            ours = lambda: kernels.attention(q, k, v, docs)
            theirs = lambda: F.scaled_dot_product_attention(*over, enable_gqa=True)
            torch.testing.assert_close(ours(), theirs().transpose(1, 2), atol=2e-2, rtol=2e-2)
            a, b = seconds([ours, theirs], 20)
        yield row(f"decode_d{D}", f"decoding, {B} texts, {S} cached, D={D}", a, b, of="SDPA",
                  floor=(k.nbytes + v.nbytes) / copied / a)


def gpu_training(device="cuda", T=8192):
    """A training step on one packed row (documents of 1,024) beside transformers, compiled."""
    rate = matrix_rate(torch.bfloat16, device)
    for name in ("0.5B", "1.5B"):
        *both, flops = packed_steps(plan.SHAPES[f"Qwen2-{name}"], torch.bfloat16, T, 1024, device, compiled=True)
        mine, other = seconds(both)
        yield row(f"train_step_{name}", f"training step of Qwen2-{name}, {T} tokens packed", mine, other,
                  of="transformers, sdpa, compiled", floor=flops / rate / mine)


BENCHES = {"training": training, "head": head, "tokenizing": tokenizing, "documents": documents,
           "evaluation": evaluation, "cascade": cascade}
GPU_BENCHES = {"attention": gpu_attention, "loss": gpu_head, "elementwise": gpu_elementwise, "decode": gpu_decode,
               "step": gpu_training}


def main(names):
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch._functorch.config.donated_buffer = False  # a compiled peer's backward runs more than once here
    benches = GPU_BENCHES if torch.cuda.is_available() else BENCHES
    if unknown := set(names) - set(benches):
        raise ValueError(f"no such rows here: {', '.join(sorted(unknown))}; there are {', '.join(benches)}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU thread"
    print(f"{device}, torch {torch.__version__}\n{'':52} {'ours':>10} {'peer':>10} {'':8} {'ratio':>6} {'of floor':>8}")
    found = {}
    for name in names or benches:
        for r in benches[name]():
            told = ["" if r[k] is None else form.format(r[k])
                    for k, form in (("peer", "{:.3g}"), ("ratio", "{:.2f}"), ("floor", "{:.0%}"))]
            print(f"{r['what']:52} {r['ours']:10.3g} {told[0]:>10} {r['unit']:8} {told[1]:>6} {told[2]:>8}"
                  f"  {r['name']}" + (f"; peer: {r['of']}" if r["of"] else ""), flush=True)
            found[r["name"]] = {k: r[k] for k in ("ratio", "ours", "peer", "unit", "floor")}
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
