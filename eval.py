"""A model -> numbers: bits per byte, multiple choice by log-likelihood, translation. One JSON line per result.

    python eval.py configs/tiny/eval.py model=out/demo/stage2
    torchrun --nproc-per-node 8 eval.py configs/tiny/eval.py model=out/demo/stage2
    python eval.py sample=out/demo/stage2 temperature=0.8       # talk to it: generate.py on the terminal

A benchmark is a row of a table in a config: a file, a prompt, what to score. This file knows the kinds of measurement and no
benchmark's name. Results do not depend on batch size or on the number of processes.
"""
import csv
import hashlib
import io
import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

import tokenizer
from configs import load
from generate import generate, ids_of
from generate import main as talk
from model import IGNORE, Cache, Qwen2


@dataclass(frozen=True)
class Eval:
    model: str                  # Hugging Face folder
    tasks: list                 # rows of the table of benchmarks; see the kinds below
    data: str                   # folder that the tasks' paths are relative to
    languages: list             # codes that replace {lang} in the paths
    out: str | None = None      # results.jsonl to add to; None: only print
    checkpoint: str | None = None  # name in the results; None: the folder's name
    names: dict = field(default_factory=dict)   # {code: English name} for translation prompts
    labels: dict = field(default_factory=dict)  # {code: {field: text}}: words of the prompts in each language
    limit: int | None = None    # items per task and language
    batch_tokens: int = 8192    # tokens in one forward
    dtype: str = "float32"
    threads: int | None = None  # CPU threads of a process

    def __post_init__(self):
        for task in self.tasks:
            need = {"bpb": {"path"}, "choice": {"path", "context", "choices", "gold"}, "translate": {"path", "pairs", "prompt"}}
            if task.get("kind") not in need:
                raise ValueError(f"task {task.get('name')}: kind is {task.get('kind')!r}; the kinds are {', '.join(need)}")
            if need[task["kind"]] - set(task) or "name" not in task:
                raise ValueError(f"task {task.get('name')}: a {task['kind']} task needs name, "
                                 f"{', '.join(sorted(need[task['kind']]))}")
            known = need[task["kind"]] | {"name", "kind", "limit", "where", "languages",
                                          "join", "link", "first", "delimiter", "max_new"}
            if set(task) - known:
                raise ValueError(f"task {task['name']}: unknown {sorted(set(task) - known)}; the keys are {sorted(known)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        if not self.languages:
            raise ValueError(f"languages is empty: nothing to measure; is there a file in data={self.data}?")


# ---------------------------------------------------------------------- scoring

def encode_pair(t, context, continuation):
    """Ids of context and of continuation as they stand in the joined text, split by the length of the context's ids (lm-eval's
    rule: white space at the end of the context moves to the continuation)."""
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped):] + continuation
    if not context:
        return [t.opener], t.encode(continuation)
    ids = t.encode(context)
    return ([] if t.bos is None else [t.bos]) + ids, t.encode(context + continuation)[len(ids):]


@torch.inference_mode()
def loglikelihoods(model, pairs, batch_tokens):
    """Sum of log-probabilities of each continuation after its context; pairs of id lists -> list of floats.

    Pairs with one context share its forward pass: contexts fill a KV cache padded on the left, then all continuations run
    behind it, the last id of the context first:      cache c1 .. c(n-1) | tokens cn w1 w2   targets w1 w2 w3
    """
    groups = {}
    for i, (context, continuation) in enumerate(pairs):
        groups.setdefault(tuple(context), []).append(i)
    out, order, device = [0.0] * len(pairs), sorted(groups, key=len), model.lm_head.weight.device
    while order:
        T, B = len(order[-1]), 0
        while B < len(order) and (B + 1) * T * len(groups[order[-1 - B]]) <= max(batch_tokens, T * len(groups[order[-1]])):
            B += 1
        batch, order = order[-B:], order[:-B]
        members = [i for context in batch for i in groups[context]]
        owner = torch.tensor([b for b, context in enumerate(batch) for _ in groups[context]], device=device)
        starts = torch.tensor([[T - len(context)] for context in batch], device=device)  # (B, 1)
        size = max(len(pairs[i][1]) for i in members)
        cache = Cache(model, B, T - 1 + size)
        if T > 1:
            rows = torch.tensor([[0] * (T - len(context)) + list(context[:-1]) for context in batch], device=device)
            model(rows, starts=starts.expand(-1, T - 1), cache=cache, hidden=True)
        cache.keep(owner)
        tokens, targets = (torch.full((len(members), size), fill) for fill in (0, IGNORE))
        for row, i in enumerate(members):
            context, continuation = pairs[i]
            tokens[row, :len(continuation)] = torch.tensor([context[-1], *continuation[:-1]])
            targets[row, :len(continuation)] = torch.tensor(continuation)
        logp = model(tokens.to(device), targets.to(device), starts[owner].expand(-1, size), cache)
        for i, value in zip(members, logp.sum(1).tolist()):
            out[i] = value
    return out


@torch.inference_mode()
def total_logprobs(model, documents, batch_tokens, opener):
    """Log-probability of each whole document (list of ids), its first id predicted from `opener`. Documents stand one
    behind the other in one row without padding; `starts` keeps them apart."""
    out, order = [0.0] * len(documents), sorted((i for i, d in enumerate(documents) if d), key=lambda i: len(documents[i]))
    device = model.lm_head.weight.device
    while order:
        batch, size = [], 0
        while order and (not batch or size + len(documents[order[-1]]) <= batch_tokens):
            batch.append(order.pop())
            size += len(documents[batch[-1]])
        tokens, targets, starts, ends = [], [], [], []
        for i in batch:
            begin = len(tokens)
            tokens += [opener, *documents[i][:-1]]
            targets += documents[i]
            starts += [begin] * len(documents[i])
            ends.append(len(tokens))
        logp = model(*(torch.tensor([x], device=device) for x in (tokens, targets, starts)))[0]
        for i, piece in zip(batch, torch.tensor_split(logp, ends[:-1])):
            out[i] = float(piece.sum())
    return out


# ---------------------------------------------------------------------- the kinds of task

def bpb(task, c, model, t, lang, mine):
    """Bits per byte of held-out text: minus log2 p(text) / UTF-8 bytes. It does not depend on the tokenizer."""
    lines, n = [row["text"] for row in rows(c, task, lang)], task.get("join", 1)  # join: lines that make up one document
    texts = mine(["\n".join(lines[i:i + n]) for i in range(0, len(lines), n)])
    ids = [t.encode(text) for text in texts]
    logps = total_logprobs(model, ids, c.batch_tokens, t.opener)
    return [(-logp / math.log(2), len(text.encode())) for logp, text in zip(logps, texts)]


def bpb_metrics(task, values):
    bits, size = (sum(column) for column in zip(*values))
    rate = bits / size
    spread = math.sqrt(sum((b - rate * n) ** 2 for b, n in values) * len(values) / max(1, len(values) - 1)) / size
    return [("bits_per_byte", rate, spread, None)]


def choice(task, c, model, t, lang, mine):
    """Which choice is likeliest after the context. Per item: (right by sum, right by sum / characters)."""
    items, pairs = [], []
    for row in mine(rows(c, task, lang)):
        row = {**c.labels.get(lang, {}), **row}
        row["link"] = c.labels.get(lang, {}).get(str(row.get(task.get("link"))), "")
        try:
            context, options = task["context"].format(**row), [option.format(**row) for option in task["choices"]]
        except KeyError as e:
            raise ValueError(f"task {task['name']}, {lang}: the prompt asks for {e}; "
                             f"the rows and labels have {sorted(row)}") from None
        gold = gold_index(task, row, len(options))
        items.append((options, gold))
        pairs += [encode_pair(t, context, task.get("delimiter", " ") + option) for option in options]
    scores, out = iter(loglikelihoods(model, pairs, c.batch_tokens)), []
    for options, gold in items:
        sums = [next(scores) for _ in options]
        by_length = [s / max(1, len(o)) for s, o in zip(sums, options)]
        out.append((sums.index(max(sums)) == gold, by_length.index(max(by_length)) == gold))
    return out


def gold_index(task, row, n):
    """Place of the right choice: the gold field counts from task["first"] (0, 1 or "A")."""
    first, value = task.get("first", 0), row[task["gold"]]
    names = [chr(ord(first) + i) if isinstance(first, str) else str(first + i) for i in range(n)]
    if str(value).strip() in names:
        return names.index(str(value).strip())
    raise ValueError(f"task {task['name']}: {task['gold']}={value!r} names none of the {n} choices ({', '.join(names)})")


def choice_metrics(task, values):
    n, out = len(values), []
    for name, column in zip(("acc", "acc_norm"), zip(*values)):
        mean = sum(column) / n
        out.append((name, mean, math.sqrt(mean * (1 - mean) / max(1, n - 1)), None))
    return out


def translate(task, c, model, t, pair, mine):
    """Greedy translations of the source lines, up to the first line break. Per item: (hypothesis, reference)."""
    src, tgt = pair.split("-")
    source, reference = ([row["text"] for row in rows(c, task, code)] for code in (src, tgt))
    if len(source) != len(reference):
        raise ValueError(f"task {task['name']}: {src} has {len(source)} lines, {tgt} {len(reference)}; they must be aligned")
    both = mine(list(zip(source, reference)))
    prompts = [ids_of(t, task["prompt"].format(src=c.names[src], tgt=c.names[tgt], x=x)) for x, _ in both]
    newline = t.encode("a\n")[-1]
    outputs = generate(model, prompts, task.get("max_new", 64), stop={t.eot, newline}, batch=max(1, c.batch_tokens // 128))
    return [(t.decode(ids).split("\n")[0].strip(), y) for ids, (_, y) in zip(outputs, both)]


def translate_metrics(task, values, tgt):
    """chrF++ and BLEU by sacreBLEU, with its signatures. BLEU's tokenizer: zh for Chinese, characters where words have no
    spaces (Japanese, Thai), else 13a."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ValueError("translation scores need a package: pip install sacrebleu") from None
    hypotheses, references = (list(column) for column in zip(*values))
    out = []
    tok = {"zh": "zh", "ja": "char", "th": "char"}.get(tgt, "13a")
    for name, metric in (("chrf++", CHRF(word_order=2)), ("bleu", BLEU(tokenize=tok))):
        score = metric.corpus_score(hypotheses, [references]).score
        out.append((name, score, None, str(metric.get_signature())))
    return out


# ---------------------------------------------------------------------- files

def rows(c, task, lang):
    """The items of a task in a language: .jsonl objects, .csv and .tsv rows by column name, .txt lines as {"text"}."""
    path = Path(c.data) / task["path"].format(lang=lang)
    if not path.exists():
        raise ValueError(f"task {task['name']}: {path} is missing; correct data={c.data}, the task's path or languages=")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"task {task['name']}: {path} is not UTF-8 at byte {e.start}") from None
    if path.suffix == ".jsonl":
        found = [json_row(path, i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    elif path.suffix in (".csv", ".tsv"):
        found = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="," if path.suffix == ".csv" else "\t"))
    elif path.suffix == ".txt":
        found = [{"text": line} for line in text.split("\n") if line.strip()]
    else:
        raise ValueError(f"task {task['name']}: {path}: unknown format; expected .jsonl, .csv, .tsv or .txt")
    if "where" in task:  # {"Subject": "stated"}: only the rows with these values
        found = [row for row in found if all(row.get(k) == v for k, v in task["where"].items())]
    limit = min(x for x in (task.get("limit"), c.limit, len(found)) if x is not None)
    if not limit:
        raise ValueError(f"task {task['name']}: {path} has no items" + (f" with {task['where']}" if "where" in task else ""))
    return found[:limit]


def json_row(path, number, line):
    try:
        return json.loads(line)
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}, line {number}: not JSON: {e.msg} at column {e.colno}") from None


def files(c, task, lang):
    """SHA-256 of the files that a task reads for a language or a pair."""
    codes = lang.split("-") if task["kind"] == "translate" else [lang]
    paths = [Path(c.data) / task["path"].format(lang=code) for code in codes]
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.exists()]


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    if any(word.startswith("sample=") for word in words):
        return talk([word.replace("sample=", "model=", 1) if word.startswith("sample=") else word for word in words])
    c, = load(Eval, argv=words)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if c.threads:
        torch.set_num_threads(c.threads)
    if size > 1:
        dist.init_process_group("gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval()
    t = tokenizer.load(c.model)
    if t.vocab_size > model.config.vocab_size:
        raise ValueError(f"{c.model}: its tokenizer has {t.vocab_size} ids, its model {model.config.vocab_size} rows")
    about = {"checkpoint": c.checkpoint or Path(c.model).name, "weights": weights_hash(c.model), "tokenizer": t.fingerprint}
    done = [finished(c.out, about)]
    if size > 1:
        dist.broadcast_object_list(done)
    done = done[0]
    for task in c.tasks:
        begin, scores, again = time.time(), [], 0
        for lang in task["pairs"] if task["kind"] == "translate" else task.get("languages", c.languages):
            settings = {k: v for k, v in task.items() if k != "pairs"}
            asked = [settings, c.limit, c.labels.get(lang), c.names, c.dtype, files(c, task, lang)]
            facts = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
            if (task["name"], lang, facts) in done:
                again += 1
                continue
            values = KINDS[task["kind"]][0](task, c, model, t, lang, lambda items: items[rank::size])
            if size > 1:
                parts = [None] * size
                dist.all_gather_object(parts, values)
                values = [parts[i % size][i // size] for i in range(sum(map(len, parts)))]
            more = (lang.split("-")[1],) if task["kind"] == "translate" else ()
            lines = ""
            for metric, score, error, signature in KINDS[task["kind"]][1](task, values, *more):
                row = {**about, "task": task["name"], "lang": lang, "metric": metric, "score": round(score, 5), "n": len(values),
                       "stderr": None if error is None else round(error, 5), "shots": 0, "prompt": facts, "signature": signature}
                scores.append((metric, score))
                lines += json.dumps(row) + "\n"
            if rank == 0 and c.out:
                append(c.out, lines)
        if rank == 0:
            means = {m: [s for k, s in scores if k == m] for m in dict(scores)}
            told = ", ".join(f"{m} {sum(v) / len(v):.3f} (mean of {len(v)})" for m, v in means.items())
            print(f"{about['checkpoint']} {task['name']}: {told}" + (f" {again} were in {c.out} already" if again else "")
                  + f"  [{time.time() - begin:.1f} s]", flush=True)
    if size > 1:
        dist.destroy_process_group()


KINDS = {"bpb": (bpb, bpb_metrics), "choice": (choice, choice_metrics), "translate": (translate, translate_metrics)}


def weights_hash(folder):
    h = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with open(file, "rb") as f:
            h.update(hashlib.file_digest(f, "sha256").digest())
    return h.hexdigest()[:16]


def append(out, lines):
    """Add lines to the results; a line that a kill has cut is ended first, and its result computed again."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a+b") as f:
        if f.tell() and f.seek(-1, os.SEEK_END) is not None and f.read() != b"\n":
            lines = "\n" + lines
        f.write(lines.encode())


def finished(out, about):
    """(task, language, prompt) of the results already in the file for these weights: they are not computed again. The metrics
    of one result are written together; one with the last of them missing was cut."""
    found = set()
    for line in Path(out).read_text().split("\n") if out and Path(out).exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if all(row[k] == v for k, v in about.items()) and row["metric"] in ("bits_per_byte", "acc_norm", "bleu"):
            found.add((row["task"], row["lang"], row["prompt"]))
    return found


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
