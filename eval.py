"""A model -> numbers: multiple choice, question answering, translation, bits per byte, chat. The harness's scores, for less.

    python eval.py MODEL data=DIR 'tasks=xcopa_zh,belebele_*' preset=lm-eval shots=0 limit=40 out=OUT
    python eval.py MODEL data=DIR out=OUT                       # the suite of Marco-LLM, as far as DIR has its files
    torchrun --nproc-per-node 8 eval.py MODEL data=DIR out=OUT  # documents in shares
    python eval.py configs/tiny/eval.py model=out/demo/stage2   # tasks of one's own: a table of files and prompts
    python eval.py MODEL chat=True temperature=0.8              # talk to it: generate.py on the terminal

This file knows the kinds of measurement and no benchmark's name: those are data, in configs/benchmarks. DIR holds a folder for
each benchmark with its files as published. Results do not depend on batch size, processes or what is cached.

OUT/results.jsonl: {"checkpoint", "weights", "tokenizer", "task", "lang", "metric", "score", "n", "stderr", "low", "high" (95 %),
"shots", "preset", "group", "prompt" (hash of all that was asked), "signature", "malformed", "lines" (of this result)}. A mean
over a group of tasks is a row with "lang": "mean" and METRIC_micro (every document counts the same) or METRIC_macro (every task).
OUT/samples.jsonl, one line per document: {"checkpoint", "weights", "task", "lang", "prompt", "doc_id", "gold"} and
    choice     "pairs": [{"context", "continuation", "loglikelihood", "is_greedy"}], "acc", "acc_norm"
    generate   "context", "response", its metrics ("f1", "em", "exact_match", "acc"), "empty", "looping", "in_language"
    translate  "context", "response", "empty", "looping", "in_language"; scores are of the whole set
    chat       "messages" (with the answers), "responses", "response" (the last), "empty", "looping", "in_language"
Killed and started again, it goes on with the first unfinished task.
"""
import fnmatch
import hashlib
import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

from evaluation import metrics
import tokenizer
from configs import load
from evaluation import tasks as benchmarks
from evaluation.documents import absent, documents, gold_index, prompts, task_files, written
from generate import generate, truncate
from generate import main as talk
from model import Qwen2
from evaluation.scoring import encode, encode_pair, eos_ids, loglikelihoods, total_logprobs

KEYS = {"bpb": {"path"}, "choice": {"path", "context", "choices", "gold"}, "translate": {"path", "pairs", "prompt"},
        "chat": {"path"}}  # what a row of one's own table must have
PAIR = ("context", "continuation", "loglikelihood", "is_greedy")
MORE = {"name", "kind", "limit", "where", "languages", "join", "link", "first", "delimiter", "max_new"}


@dataclass(frozen=True)
class Eval:
    model: str                  # Hugging Face folder
    data: str                   # folder of the benchmarks' files
    tasks: list | str | None = None  # names and patterns, comma-separated; None: all of the paper's; or a table of one's own
    preset: str = "paper"       # splits, shots and lengths: paper (Marco-LLM's Table 4) or lm-eval (the harness's defaults)
    shots: int | None = None    # examples in the prompt; None: the preset's
    apply_chat_template: bool = False  # as the harness does: examples become turns
    max_length: int | None = None      # tokens the model sees, the end of longer prompts; None: its max_position_embeddings
    languages: list = field(default_factory=list)  # of one's own tasks: codes that replace {lang} in the paths
    out: str | None = None      # folder for results.jsonl and samples.jsonl, or the .jsonl file itself; None: only print
    checkpoint: str | None = None  # name in the results; None: the folder's name
    names: dict = field(default_factory=dict)   # of one's own tasks: {code: English name} for translation prompts
    labels: dict = field(default_factory=dict)  # ... {code: {field: text}}: words of the prompts in each language
    limit: int | None = None    # documents per task
    batch_tokens: int | None = None  # tokens in one forward; None: 8192, on the CPU 1024, whose activations stay in its cache
    dtype: str = "float32"
    threads: int | None = None  # CPU threads of a process

    def __post_init__(self):
        for task in self.tasks if isinstance(self.tasks, list) else ():
            if isinstance(task, str):
                continue
            if task.get("kind") not in KEYS:
                raise ValueError(f"task {task.get('name')}: kind is {task.get('kind')!r}; the kinds are {', '.join(KEYS)}")
            need = KEYS[task["kind"]]
            if need - set(task) or "name" not in task:
                raise ValueError(f"task {task.get('name')}: a {task['kind']} task needs name, {', '.join(sorted(need))}")
            if set(task) - need - MORE:
                raise ValueError(f"task {task['name']}: unknown {sorted(set(task) - need - MORE)}; "
                                 f"the keys are {sorted(need | MORE)}")
            if not self.languages:
                raise ValueError(f"languages is empty: nothing to measure; is there a file in data={self.data}?")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        for name, least in (("shots", 0), ("limit", 1), ("max_length", 2), ("batch_tokens", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


# ---------------------------------------------------------------------- which tasks

def plan(c):
    """The tasks that were asked for and whose files are there, and what to say of the missing ones."""
    asked = c.tasks if isinstance(c.tasks, list) else c.tasks.split(",") if c.tasks else benchmarks.PAPER
    if any(isinstance(task, dict) for task in asked):
        return [own for task in asked for own in own_tasks(c, task)]
    suite, chosen = benchmarks.tasks(c.preset), {}
    for pattern in (word.strip() for word in asked):
        names = [name for name, task in suite.items() if fnmatch.fnmatchcase(name, pattern) or pattern in task["groups"]]
        if not names:
            raise ValueError(f"tasks: nothing is called {pattern!r}; the groups are "
                             f"{', '.join(dict.fromkeys(g for task in suite.values() for g in task['groups']))}")
        chosen |= {name: (suite[name], pattern) for name in names}
    ready, missing = [], {}
    for name, (task, pattern) in chosen.items():
        shots = task["shots"] if c.shots is None else c.shots
        splits = [task["split"], *([task["pool"]] if shots and task["pool"] else [])]
        lacking = next((absent(c, task, split) for split in splits if not all(task_files(c, task, split))), None)
        if lacking is None:
            ready.append(task)
        elif name == pattern and c.tasks:
            raise ValueError(lacking)
        else:
            missing.setdefault(task["source"].split(",")[0], []).append(lacking)
    for some in missing.values():
        print(f"{len(some)} {'tasks are' if len(some) > 1 else 'task is'} left out, first {some[0]}", file=sys.stderr)
    if not ready:
        raise ValueError(f"no file of {', '.join(asked)} below data={c.data}")
    return ready


def own_tasks(c, task):
    """One task per language (or pair) of a row of a config's table, in the shape of configs/benchmarks; its prompts are format
    strings over the file's columns and the language's labels."""
    for lang in task["pairs"] if task["kind"] == "translate" else task.get("languages", c.languages):
        codes, labels = lang.split("-") if task["kind"] == "translate" else [lang], c.labels.get(lang, {})

        def text(form, r, labels=labels):
            link = labels.get(str(r.get(task.get("link"))), "")
            try:
                return form.format(**{**labels, **r, "link": link})
            except KeyError as e:
                raise ValueError(f"task {task['name']}, {lang}: the prompt asks for {e}; "
                                 f"the rows and labels have {sorted({*labels, *r})}") from None

        one = dict(name=task["name"], kind=task["kind"], lang=lang, groups=(), path=[task["path"].format(lang=x) for x in codes],
                   delimiter=task.get("delimiter", " "), description="", split="test", pool=None, shots=0, columns=None,
                   prepare=None, limit=task.get("limit"), own=True, draw="first", max_new=task.get("max_new", 64), stop=["\n"],
                   join=task.get("join", 1),
                   keep=(lambda r: all(r.get(k) == v for k, v in task["where"].items())) if "where" in task else None)
        if task["kind"] == "choice":
            one |= dict(context=lambda r, text=text: text(task["context"], r), metrics=("acc", "acc_norm"),
                        choices=lambda r, text=text: [text(option, r) for option in task["choices"]],
                        gold=lambda r: gold_index(task, r, len(task["choices"])))
        if task["kind"] == "translate":
            a, b = (c.names[code] for code in codes)
            one |= dict(context=lambda r, a=a, b=b: task["prompt"].format(src=a, tgt=b, x=r["source"]),
                        gold=lambda r: [r["target"]])
        yield one


# ---------------------------------------------------------------------- the kinds of task: documents -> samples

def run_choice(c, task, docs, model, t):
    """Which choice is likeliest: by its log-probability (acc), and divided by its characters (acc_norm)."""
    asked = []
    for doc in docs:
        contexts = [doc["context"]] * len(doc["choices"]) if isinstance(doc["context"], str) else doc["context"]
        for context, option in zip(contexts, doc["choices"]):
            text, delimiter = written(c, t, doc, context, task["delimiter"])
            asked.append((text, delimiter + option))
    scores, out = iter(loglikelihoods(model, [encode_pair(t, *pair) for pair in asked], c.batch_tokens, c.max_length)), []
    pairs = iter(asked)
    for doc in docs:
        mine = [dict(zip(PAIR, (*next(pairs), *next(scores)))) for _ in doc["choices"]]
        sums = [pair["loglikelihood"] for pair in mine]
        rates = [s / max(1, len(option)) for s, option in zip(sums, doc["choices"])]
        out.append({"gold": doc["gold"], "pairs": mine, "acc": float(sums.index(max(sums)) in doc["gold"]),
                    "acc_norm": float(rates.index(max(rates)) in doc["gold"])})
    return out


def run_text(c, task, docs, model, t):
    """Greedy continuations up to the first stop string; a longer prompt loses its beginning, as the harness has it."""
    texts = [written(c, t, doc, doc["context"], "")[0] for doc in docs]
    limit, stops = c.max_length or model.config.max_position_embeddings, eos_ids(t, c.model)
    if limit <= task["max_new"]:
        raise ValueError(f"task {task['name']}: max_new={task['max_new']} leaves no room in max_length={limit}")
    ids = [encode(t, text)[-(limit - task["max_new"]):] or [t.prefix_token_id] for text in texts]
    said = generate(model, ids, task["max_new"], stops, batch_size=max(1, c.batch_tokens // 16),
                    tokenizer=t, stop_strings=task["stop"])
    out = []
    for doc, text, new in zip(docs, texts, said):
        response = truncate(t.decode(new), task["stop"])
        sample = {"gold": doc["gold"], "context": text, "response": response}
        for name in task.get("metrics", ()) if task["kind"] == "generate" else ():
            sample |= metrics.SCORERS[name](response if name == "math" else response.strip(), doc["gold"], task["lang"])
        out.append(sample | about_text(response, task["lang"], len(new) >= task["max_new"]))
    return out


def about_text(response, lang, unended):
    """What is counted of every generated text. A loop is an unended text that repeats itself."""
    language = metrics.in_language(response, lang) if response.strip() else None
    return {"empty": float(not response.strip()), "looping": float(unended and metrics.looping(response)),
            **({} if language is None else {"in_language": float(language)})}


def run_chat(c, task, docs, model, t):
    """Answers to conversations; the turns of a document are asked one after the other, each with the answers so far."""
    if t.chat_template is None:
        raise ValueError(f"task {task['name']}: {c.model} has no chat template, which a chat task needs")
    talks, room = [[] for _ in docs], c.max_length or model.config.max_position_embeddings
    asked = [[[m] for m in doc["messages"]] if doc["turns"] else [doc["messages"]] for doc in docs]
    for turn in range(max(map(len, asked), default=0)):
        open_ = [i for i, steps in enumerate(asked) if turn < len(steps)]
        for i in open_:
            talks[i] += asked[i][turn]
        ids = [t.encode_chat(talks[i])[-(room - task["max_new"]):] for i in open_]
        said = generate(model, ids, task["max_new"], {*t.stop_ids, *eos_ids(t, c.model)},
                        batch_size=max(1, c.batch_tokens // 16))
        for i, new in zip(open_, said):
            talks[i].append({"role": "assistant", "content": t.decode(new), "ids": len(new)})
    out = []
    for doc, talk_ in zip(docs, talks):
        answers = [m for m in talk_ if m["role"] == "assistant" and "ids" in m]
        unended = any(m.pop("ids") >= task["max_new"] for m in answers)
        said = [m["content"] for m in answers]
        out.append({"gold": doc["gold"], "messages": talk_, "responses": said, "response": said[-1],
                    **about_text(said[-1], task["lang"], unended)})
    return out


def run_bpb(c, task, docs, model, t):
    """Bits per byte of held-out text: minus log2 p(text) / UTF-8 bytes. It does not depend on the tokenizer."""
    texts = [doc["text"] for doc in docs]
    logps = total_logprobs(model, [t.encode(text) for text in texts], c.batch_tokens, t.prefix_token_id)
    return [{"bits": -logp / math.log(2), "bytes": len(text.encode())} for logp, text in zip(logps, texts)]


RUNS = {"choice": run_choice, "generate": run_text, "translate": run_text, "chat": run_chat, "bpb": run_bpb}


# ---------------------------------------------------------------------- samples -> scores

def scores(task, samples):
    """[(metric, score, stderr, low, high, signature)] of a task's samples."""
    if task["kind"] == "bpb":
        bits, size = (math.fsum(s[k] for s in samples) for k in ("bits", "bytes"))
        rate, n = bits / size, len(samples)
        spread = math.sqrt(sum((s["bits"] - rate * s["bytes"]) ** 2 for s in samples) * n / max(1, n - 1)) / size
        return [("bits_per_byte", rate, spread, rate - 1.96 * spread, rate + 1.96 * spread, None)]
    out, known = [], ("acc", "acc_norm", "f1", "em", "exact_match")
    for name in [k for k in known if k in samples[0] and (task["kind"] != "choice" or k in task["metrics"])]:
        out.append((name, *metrics.interval([s[name] for s in samples]), None))
    if task["kind"] == "translate":
        said = [s["response"].strip() for s in samples]
        target = task.get("sides", task["lang"].split("-"))[1]
        out += metrics.translation(said, [s["gold"][0] for s in samples], target, simple="own" in task)
    if task["kind"] != "choice" and "own" not in task or task["kind"] == "chat":
        for name in ("empty", "looping", "in_language"):
            values = [s[name] for s in samples if name in s]
            out += [(name, *metrics.interval(values), None)] if values else []
    return out


def group_means(results, planned):
    """Rows of the means over each group of at least two tasks: micro weighs documents alike, macro tasks."""
    for group in dict.fromkeys(g for task in planned for g in task["groups"]):
        members = [results[task["name"]] for task in planned if group in task["groups"] and task["name"] in results]
        for name in dict.fromkeys(row["metric"] for some in members for row in some):
            some = [row for rows_ in members for row in rows_ if row["metric"] == name]
            if len(some) < 2 or name in ("empty", "looping"):
                continue
            for way, weights in (("micro", [row["n"] for row in some]), ("macro", [1] * len(some))):
                if way == "micro" and name in ("spbleu", "chrf++", "bleu"):
                    continue  # a corpus score has no mean over documents
                total = sum(weights)
                score = math.fsum(w * row["score"] for w, row in zip(weights, some)) / total
                error = None if any(row["stderr"] is None for row in some) else math.hypot(
                    *(w * row["stderr"] for w, row in zip(weights, some))) / total  # the tasks' errors taken as independent
                asked = hashlib.sha256("".join(sorted(row["prompt"] for row in some)).encode()).hexdigest()[:12]
                one = lambda key: some[0][key] if len({row[key] for row in some}) == 1 else "several"
                yield {"task": group, "lang": "mean", "metric": f"{name}_{way}", "score": round(score, 5),
                       "n": sum(row["n"] for row in some), "stderr": error and round(error, 5),
                       "low": error and round(score - 1.96 * error, 5), "high": error and round(score + 1.96 * error, 5),
                       "shots": one("shots"), "preset": one("preset"), "group": group, "prompt": asked,
                       "signature": one("signature"), "malformed": sum(row["malformed"] for row in some), "lines": 1}


# ---------------------------------------------------------------------- files

def weights_hash(folder):
    h = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with open(file, "rb") as f:
            h.update(hashlib.file_digest(f, "sha256").digest())
    return h.hexdigest()[:16]


def append(out, lines):
    """Add lines to a file and see them on the disk; a line that a kill has cut is ended first, and its result computed again."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a+b") as f:
        if f.tell() and f.seek(-1, os.SEEK_END) is not None and f.read() != b"\n":
            lines = "\n" + lines
        f.write(lines.encode())
        f.flush()
        os.fsync(f.fileno())


def json_lines(path):
    """The whole objects of a .jsonl file, and their lines."""
    if not path or not Path(path).exists():
        return
    with open(path, encoding="utf-8") as f:
        for line in f:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # cut by a kill
                continue
            if isinstance(row, dict):
                yield row, line


def finished(results, samples, about):
    """{(task, language, prompt): rows} of the results already there for these weights. Samples without a result are dropped: they
    are computed again."""
    found = {}
    for row, _ in json_lines(results):
        if all(row.get(k) == v for k, v in about.items()):
            found.setdefault((row["task"], row["lang"], row["prompt"]), {})[row["metric"]] = row
    whole = {key: list(some.values()) for key, some in found.items()
             if len(some) >= max(r.get("lines", 1) for r in some.values())}
    if samples and Path(samples).exists():
        others = lambda row: any(row.get(k) != about[k] for k in ("checkpoint", "weights"))
        kept = [line for row, line in json_lines(samples) if others(row) or (row["task"], row["lang"], row["prompt"]) in whole]
        with open(f"{samples}.new", "w", encoding="utf-8") as f:
            f.writelines(line if line.endswith("\n") else line + "\n" for line in kept)
        os.replace(f"{samples}.new", samples)
    return whole


def outputs(out):
    """(results file, samples file)"""
    if out is None:
        return None, None
    results = Path(out) if str(out).endswith(".jsonl") else Path(out) / "results.jsonl"
    return results, results.with_name("samples.jsonl")


# ---------------------------------------------------------------------- the program

def ask(c, task, t):
    """(documents with their prompts, complaints, a hash of all that is asked)."""
    limit = min((x for x in (task.get("limit"), c.limit) if x is not None), default=None)
    joined = task.get("join", 1)
    docs, complaints = documents(c, task, task["split"], limit)
    if not docs and not complaints and "own" not in task and task["name"] not in str(c.tasks):
        return [], [], None  # one of a group: a file need not have every subject
    if not docs:
        raise ValueError(f"task {task['name']}, {task['lang']}: no items in {task_files(c, task, task['split'])[0][0]}"
                         + (f"; the first of {len(complaints)} malformed rows is {complaints[0]}" if complaints else ""))
    if task["kind"] in ("choice", "generate", "translate"):
        docs = prompts(c, task, docs, t)
    if task["kind"] == "bpb":  # join: lines that make up one document
        docs = [{"text": "\n".join(d["text"] for d in docs[i:i + joined])} for i in range(0, len(docs), joined)]
    plain = {k: task.get(k) for k in ("name", "lang", "kind", "delimiter", "stop", "max_new", "metrics")}
    facts = [plain, [{k: v for k, v in doc.items() if k != "row"} for doc in docs], c.dtype, c.max_length, c.apply_chat_template]
    return docs, complaints, hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def measure(c, task, docs, complaints, asked, about, model, t, rank, size):
    """Run one task over all processes -> (rows of results, samples)."""
    samples = RUNS[task["kind"]](c, task, docs[rank::size], model, t)
    if size > 1:
        parts = [None] * size
        dist.all_gather_object(parts, samples)
        samples = [parts[i % size][i // size] for i in range(len(docs))]
    found = scores(task, samples)
    shots = docs[0].get("shots", 0)
    number = lambda x: None if x is None else round(x, 5)
    result = [{**about, "task": task["name"], "lang": task["lang"], "metric": name, "score": round(score, 5), "n": len(samples),
               "stderr": number(error), "low": number(low), "high": number(high), "shots": shots,
               "preset": None if "own" in task else c.preset, "group": task["groups"][0] if task["groups"] else None,
               "prompt": asked, "signature": signature, "malformed": len(complaints), "lines": len(found)}
              for name, score, error, low, high, signature in found]
    same = {k: result[0][k] for k in ("checkpoint", "weights", "task", "lang", "prompt")}
    return result, [{**same, "doc_id": i, **sample} for i, sample in enumerate(samples)]


def words_of(argv):
    """The command line: a folder stands for model=, chat=True and sample= mean a conversation."""
    words = sys.argv[1:] if argv is None else argv
    words = [f"model={word}" if "=" not in word and Path(word).is_dir() else word for word in words]
    talking = any(word.startswith("sample=") for word in words) or "chat=True" in words
    words = [word.replace("sample=", "model=", 1) if word.startswith("sample=") else word for word in words]
    return [word for word in words if word != "chat=True"], talking


def open_model(c):
    """(model, tokenizer, what the results say of them)."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval()
    t = tokenizer.load(c.model)
    if t.vocab_size > model.config.vocab_size:
        raise ValueError(f"{c.model}: its tokenizer has {t.vocab_size} ids, its model {model.config.vocab_size} rows")
    name = c.checkpoint or Path(c.model).resolve().name
    return model, t, {"checkpoint": name, "weights": weights_hash(c.model), "tokenizer": t.fingerprint}


def main(argv=None):
    words, talking = words_of(argv)
    if talking:
        return talk(words)
    c, = load(Eval, argv=words)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if c.threads:
        torch.set_num_threads(c.threads)
    planned = plan(c)
    if size > 1:
        dist.init_process_group("gloo")
    model, t, about = open_model(c)
    if c.batch_tokens is None:
        object.__setattr__(c, "batch_tokens", 1024 if model.lm_head.weight.device.type == "cpu" else 8192)
    results, samples = outputs(c.out)
    done = [finished(results, samples, about) if rank == 0 else None]
    if size > 1:
        dist.broadcast_object_list(done)
    found, begin = {}, time.time()
    for i, task in enumerate(planned):
        docs, complaints, asked = ask(c, task, t)
        if not docs:
            continue
        rows_ = done[0].get((task["name"], task["lang"], asked))
        old = rows_ is not None
        if not old:
            rows_, lines = measure(c, task, docs, complaints, asked, about, model, t, rank, size)
        found.setdefault(task["name"], []).extend(rows_)
        if rank == 0:
            if not old and c.out:
                append(samples, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
                append(results, "".join(json.dumps(row) + "\n" for row in rows_))
            tell(task, rows_, complaints, old, i, len(planned), begin)
    if rank == 0:
        for row in group_means(found, planned):
            if c.out and (row["task"], "mean", row["prompt"]) not in done[0]:
                append(results, json.dumps({**about, **row}) + "\n")
            print(f"{row['task']} {row['metric']} {row['score']:.4f}", flush=True)
    if size > 1:
        dist.destroy_process_group()


def tell(task, result, complaints, old, i, n, begin):
    """One line per task on the terminal, malformed rows on the error output."""
    for complaint in complaints[:5]:
        print(f"malformed, left out: {complaint}", file=sys.stderr)
    if len(complaints) > 5:
        print(f"... and {len(complaints) - 5} more in {task['name']}", file=sys.stderr)
    spent = time.time() - begin
    left = f", about {spent / (i + 1) * (n - i - 1) / 60:.0f} min left" if i + 1 < n and spent > 60 else ""
    told = ", ".join(f"{row['metric']} {row['score']:.4f}" for row in result)
    print(f"{result[0]['checkpoint']} {task['name']} {task['lang']}: {told}" + (" (was there already)" if old else "")
          + f"  [{i + 1}/{n}, {spent:.0f} s{left}]", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
