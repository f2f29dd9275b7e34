"""A model -> scores: multiple choice, question answering, translation, bits per byte, conversations.

    python eval.py MODEL data=DIR 'tasks=xcopa_zh,belebele_*' preset=lm-eval shots=0 limit=40 out=OUT
    python eval.py MODEL data=DIR out=OUT                       # the suite of Marco-LLM, as far as DIR has its files
    torchrun --nproc-per-node 8 eval.py MODEL data=DIR out=OUT  # documents are divided among the processes
    python eval.py configs/tiny/eval.py model=out/demo/stage2   # tasks of one's own (evaluation/custom_tasks.py)
    python eval.py compare A/samples.jsonl B/samples.jsonl      # two models on the same documents
    python eval.py judge a=A/samples.jsonl b=B/samples.jsonl judge=https://HOST/v1 judge_name=MODEL out=OUT

A task's path from file to score: select_tasks, load_documents (read_documents, format_prompts), a runner of
evaluation/run.py, score_samples. No benchmark's name is known here: they are data, in evaluation/tasks. DIR holds a
folder for each benchmark with its files as published. Scores do not depend on batch size or processes.

OUT/results.jsonl: {"checkpoint", "weights", "tokenizer", "task", "lang", "metric", "score", "n", "stderr", "low",
"high" (95 %), "shots", "preset", "group", "prompt" (hash of all prompts), "setup" (hash of what else the score depends
on), "signature", "malformed" (rows left out), "failed" (documents without a score), "cut" (prompts that lost their
beginning), "lines" (of this result)}. A mean over a group is a row with "lang": "mean" and METRIC_micro (of documents)
or METRIC_macro (of tasks).
OUT/samples.jsonl, one line per document: {"checkpoint", "weights", "task", "lang", "prompt", "doc_id", "gold"} and
    choice     "pairs": [{"context", "continuation", "loglikelihood", "is_greedy"}], "acc", "acc_norm"
    generate   "context", "response", its metrics ("f1", "em", "exact_match", "acc"), "empty", "looping", "in_language"
    translate  "context", "response", "empty", "looping", "in_language"; scores are of the whole set
    chat       "messages" (with the answers), "responses", "response" (the last), "empty", "looping", "in_language"
A run that was killed resumes with the first unfinished task.
"""
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import tokenizer
from configs import language_table, load
from configs.errors import errors_name
from evaluation import compare, custom_tasks, judge, results
from evaluation.aggregate import group_means, score_samples, target_language
from evaluation.documents import missing_file_message, read_documents, task_files
from evaluation.prompts import format_prompts
from evaluation.run import RUNNERS, generation_stop_ids
from evaluation.tasks import PAPER_SUITE, load_tasks
from evaluation.translation import signature_of, translation_metrics
from hf.folder import download_hint
from model import Qwen2
from training import peers
from training.distributed import die_with_parent, exit_with, tune_cpu


@dataclass(frozen=True)
class Eval:
    model: str                  # Hugging Face folder
    data: str                   # folder of the benchmarks' files
    tasks: list | str | None = None  # names and patterns, comma-separated; None: all of the paper's; or custom tasks
    preset: str = "paper"       # splits, shots and lengths: paper (Marco-LLM's Table 4) or lm-eval (its defaults)
    shots: int | None = None    # few-shot examples; None: the preset's
    apply_chat_template: bool = False  # as the harness does: examples become turns
    max_length: int | None = None  # longer prompts lose their beginning; None: the model's max_position_embeddings
    languages: list = field(default_factory=list)  # of custom tasks: codes that replace {lang} in the paths
    out: str | None = None      # folder for results.jsonl and samples.jsonl, or the .jsonl file; None: only print
    checkpoint: str | None = None  # name in the results; None: the folder's name
    language_names: dict = field(default_factory=dict)  # of custom tasks: {code: name} in translation prompts
    labels: dict | str = field(default_factory=dict)  # ... {code: {name: text}}: words of the prompts by language,
    #                                                     or a JSON file below data= that holds them
    limit: int | None = None    # documents per task
    batch_tokens: int | None = None  # tokens in one forward; None: 8192, on the CPU 1024 (its cache holds them)
    dtype: str = "float32"
    threads: int | None = None  # CPU threads of a process

    def __post_init__(self):
        for task in self.tasks if isinstance(self.tasks, list) else ():
            if isinstance(task, dict):
                custom_tasks.check_custom_task(task, self.languages, self.data)
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        for name, least in (("shots", 0), ("limit", 1), ("max_length", 2), ("batch_tokens", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")


# ---------------------------------------------------------------------- which tasks

def select_tasks(c):
    """The requested tasks whose files are there. A missing file is reported; of a task requested by name, an error."""
    requested = c.tasks if isinstance(c.tasks, list) else c.tasks.split(",") if c.tasks else PAPER_SUITE
    if any(isinstance(task, dict) for task in requested):
        needs_labels = any(task["kind"] == "choice" for task in requested)
        labels = custom_tasks.load_labels(c) if needs_labels else {}
        return [expanded for task in requested for expanded in custom_tasks.expand_custom_task(c, task, labels)]
    available, selected = load_tasks(c.preset), {}
    for pattern in (word.strip() for word in requested):
        matches = [name for name, task in available.items()
                   if fnmatch.fnmatchcase(name, pattern) or pattern in task["groups"]]
        if not matches:
            groups = dict.fromkeys(group for task in available.values() for group in task["groups"])
            raise ValueError(f"tasks: nothing is called {pattern!r}; the groups are {', '.join(groups)}")
        selected |= dict.fromkeys(matches, pattern)
    ready, missing = [], {}
    for name, pattern in selected.items():
        task = available[name]
        problem = missing_split(c, task)
        if problem is None:
            ready.append(task)
        elif name == pattern and c.tasks:
            raise ValueError(problem)
        else:
            missing.setdefault(task["source"].split(",")[0], []).append(problem)
    for problems in missing.values():
        print(f"{len(problems)} {'tasks are' if len(problems) > 1 else 'task is'} left out, first {problems[0]}",
              file=sys.stderr)
    if not ready:
        raise ValueError(f"no file of {', '.join(requested)} below data={c.data}")
    return ready


def missing_split(c, task):
    """What is missing of a task's files, or None."""
    splits = [task["split"]]
    if (task["shots"] if c.shots is None else c.shots) and task["fewshot_split"]:
        splits.append(task["fewshot_split"])
    for split in splits:
        if not all(task_files(c, task, split)):
            return missing_file_message(c, task, split)
    return None


# ---------------------------------------------------------------------- one task

def load_documents(c, task, t):
    """(documents with their prompts, complaints about malformed rows, a hash of all prompts)."""
    limits = [limit for limit in (task.get("limit"), c.limit) if limit is not None]
    documents, complaints = read_documents(c, task, task["split"], min(limits, default=None))
    if not documents:
        if not complaints and "custom" not in task and task["name"] not in str(c.tasks):
            return [], [], None  # one of a group: a file need not have every subject
        first = f"; the first of {len(complaints)} malformed rows is {complaints[0]}" if complaints else ""
        file = task_files(c, task, task["split"])[0][0]
        raise ValueError(f"task {task['name']}, {task['lang']}: no items in {file}{first}")
    if task["kind"] in ("choice", "generate", "translate"):
        documents = format_prompts(c, task, documents, t)
    if task["kind"] == "bpb":
        documents = join_documents(documents, task.get("join", 1))
    return documents, complaints, hash_prompts(c, task, documents)


def join_documents(documents, n):
    """Documents of n lines each."""
    return [{"text": "\n".join(d["text"] for d in documents[i:i + n])} for i in range(0, len(documents), n)]


def hash_setup(c, task, model, t):
    """A hash of what a score depends on besides the prompts, the weights and the tokenizer.

    The model's config, the window, the tokenizer's declared tokens, the chat template, the ids that end a response, and
    the metrics that can be computed on this machine.
    """
    declared = {name: token for name, token in t.config.items() if name.endswith("_token")}
    facts = [asdict(model.config), c.max_length or model.config.max_position_embeddings, c.dtype, t.bos_id, declared]
    if c.apply_chat_template or task["kind"] == "chat":
        facts.append(t.chat_template)
    if task["kind"] in ("generate", "translate", "chat"):
        facts += [sorted(generation_stop_ids(c, task, t)), installed_version("py3langid")]
    if task["kind"] == "translate":
        available = translation_metrics(target_language(task), "custom" in task)
        facts.append({name: signature_of(*metric) for name, metric in available.items()})
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def installed_version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def hash_prompts(c, task, documents):
    keys = "name", "lang", "kind", "delimiter", "stop_strings", "max_new_tokens", "metrics"
    fields = {k: task.get(k) for k in keys}
    prompts = [{k: v for k, v in document.items() if k != "row"} for document in documents]
    facts = [fields, prompts, c.dtype, c.max_length, c.apply_chat_template]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def measure(c, task, documents, complaints, key, identity, model, t, rank, world_size):
    """Run one task over all processes: (rows of results, samples). key: {"task", "lang", "prompt", "setup"}."""
    share, error = [], None
    try:
        share = RUNNERS[task["kind"]](c, task, documents[rank::world_size], model, t)
    except ValueError as e:  # raised below, by all ranks alike
        error = e
    shares = [(share, error)]
    if world_size > 1:
        shares *= world_size
        dist.all_gather_object(shares, (share, error))
    for _, error in shares:
        if error:
            raise error
    samples = [shares[i % world_size][0][i // world_size] for i in range(len(documents))]
    scored = [sample for sample in samples if "failed" not in sample]
    if not scored:
        raise ValueError(f"task {task['name']}, {task['lang']}: no document can be scored; "
                         f"document 0: {samples[0]['failed']}")
    scores = score_samples(task, scored)
    rows = []
    for metric, score, error, low, high, signature in scores:
        rows.append({
            **identity, "task": key["task"], "lang": key["lang"], "metric": metric, "score": rounded(score),
            "n": len(scored), "stderr": rounded(error), "low": rounded(low), "high": rounded(high),
            "shots": documents[0].get("shots", 0), "preset": None if "custom" in task else c.preset,
            "group": task["groups"][0] if task["groups"] else None, "prompt": key["prompt"], "setup": key["setup"],
            "signature": signature, "malformed": len(complaints), "failed": len(samples) - len(scored),
            "cut": sum("cut" in sample for sample in samples), "lines": len(scores)})
    common = {"checkpoint": identity["checkpoint"], "weights": identity["weights"], **key, "preset": rows[0]["preset"]}
    return rows, [{**common, "doc_id": i, **sample} for i, sample in enumerate(samples)]


def score_task(c, task, finished, identity, model, t, rank, world_size):
    """(rows of results, samples, complaints); no samples of a finished task, no rows of one without documents."""
    documents, complaints, prompt_hash = load_documents(c, task, t)
    if not documents:
        return [], [], complaints
    key = {"task": task["name"], "lang": task["lang"], "prompt": prompt_hash, "setup": hash_setup(c, task, model, t)}
    rows = finished.get(tuple(key.values()))
    if rows is not None:
        return rows, [], complaints
    return *measure(c, task, documents, complaints, key, identity, model, t, rank, world_size), complaints


def rounded(number):
    return None if number is None else round(number, 5)


# ---------------------------------------------------------------------- the program

def parse_arguments(argv):
    """Settings; a folder, or what may be a name on the Hub, stands for model=."""
    words = []
    for word in argv:
        if word.startswith("sample=") or word == "chat=True":
            raise ValueError(f"{word}: eval.py scores models; to talk to one: python generate.py model=FOLDER")
        is_model = "=" not in word and not word.endswith(".py") and (Path(word).is_dir() or download_hint(word))
        words.append(f"model={word}" if is_model else word)
    c, = load(Eval, argv=words)
    on_cpu = not torch.cuda.is_available()
    names = {code: row.name for code, row in language_table.LANGUAGES.items()} | c.language_names
    return replace(c, batch_tokens=c.batch_tokens or (1024 if on_cpu else 8192), language_names=names)


def open_model(c):
    """(model, tokenizer, what the results say of them)."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval()
    t = tokenizer.load(c.model)
    if t.min_rows > model.config.vocab_size:
        raise ValueError(f"{c.model}: its tokenizer has {t.min_rows} ids, its model {model.config.vocab_size} rows")
    name = c.checkpoint or Path(c.model).resolve().name
    return model, t, {"checkpoint": name, "weights": hash_weights(c.model), "tokenizer": t.fingerprint}


def hash_weights(folder):
    h = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with open(file, "rb") as f:
            h.update(hashlib.file_digest(f, "sha256").digest())
    return h.hexdigest()[:16]


def broadcast(value, world_size):
    """Rank 0's value, on every rank."""
    box = [value]
    if world_size > 1:
        dist.broadcast_object_list(box)
    return box[0]


def lock_results(path, rank, world_size):
    """Lock the results file in rank 0; all ranks refuse when another eval.py holds it."""
    lock = refusal = None
    if path and rank == 0:
        try:
            lock = results.lock_results(path)
        except ValueError as e:
            refusal = str(e)
    refusal = broadcast(refusal, world_size)
    if refusal:
        raise ValueError(refusal)
    return lock


def evaluate(c):
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world_size > 1:
        die_with_parent()
    if c.threads:
        torch.set_num_threads(c.threads)
    if not torch.cuda.is_available():
        tune_cpu(flush_denormals=False)
    tasks = select_tasks(c)
    if world_size > 1:
        peers.init_process_group("gloo", timedelta(minutes=30))
    results_file, samples_file = results.output_paths(c.out)
    lock = lock_results(results_file, rank, world_size)
    model, t, identity = open_model(c)
    finished = results.finished_results(results_file, samples_file, identity) if rank == 0 else None
    finished = broadcast(finished, world_size)
    rows_by_task, failures, begin = {}, [], time.time()
    for i, task in enumerate(tasks):
        try:
            rows, samples, complaints = score_task(c, task, finished, identity, model, t, rank, world_size)
        except ValueError as e:  # the same on all ranks: of the files, the settings, or all documents
            failures.append(str(e))
            if rank == 0:
                print(f"failed: {e}", file=sys.stderr, flush=True)
            continue
        if rows:
            rows_by_task.setdefault(task["name"], []).extend(rows)
        if rows and rank == 0:
            if samples and c.out:
                results.append_rows(samples_file, samples)
                results.append_rows(results_file, rows)
            print_failed_documents(task, samples)
            print_scores(task, rows, complaints, bool(samples), i, len(tasks), begin)
    if rank == 0:
        for row in group_means(rows_by_task, tasks):
            if c.out and (row["task"], "mean", row["prompt"], row["setup"]) not in finished:
                results.append_rows(results_file, [{**identity, **row}])
            print(f"{row['task']} {row['metric']} {row['score']:.4f}", flush=True)
    if world_size > 1:
        peers.part()
        dist.destroy_process_group()
    if lock:
        lock.close()
    report_failures(failures, rows_by_task, len(tasks))


def report_failures(failures, rows_by_task, n_tasks):
    """ValueError, so that the exit status tells, when a task or a document could not be measured."""
    documents = sum(rows[0]["failed"] for rows in rows_by_task.values())
    if len(failures) == n_tasks == 1:
        raise ValueError(failures[0])
    if failures:
        raise ValueError(f"{len(failures)} of {n_tasks} tasks failed, the others are done; the first: {failures[0]}")
    if documents:
        raise ValueError(f"{documents} documents could not be scored; they are listed above and excluded from scores")


def print_failed_documents(task, samples):
    failed = [(i, sample["failed"]) for i, sample in enumerate(samples) if "failed" in sample]
    for i, reason in failed[:5]:
        print(f"not scored: task {task['name']}, {task['lang']}, document {i}: {reason}", file=sys.stderr)
    if len(failed) > 5:
        print(f"... and {len(failed) - 5} more documents of {task['name']}", file=sys.stderr)


def print_scores(task, rows, complaints, is_new, i, n_tasks, begin):
    """One line per task on the terminal, malformed rows on the error output."""
    for complaint in complaints[:5]:
        print(f"malformed, left out: {complaint}", file=sys.stderr)
    if len(complaints) > 5:
        print(f"... and {len(complaints) - 5} more in {task['name']}", file=sys.stderr)
    seconds = time.time() - begin
    left = ""
    if i + 1 < n_tasks and seconds > 60:
        left = f", about {seconds / (i + 1) * (n_tasks - i - 1) / 60:.0f} min left"
    scores = ", ".join(f"{row['metric']} {row['score']:.4f}" for row in rows)
    known = "" if is_new else " (was there already)"
    for count, what in ((rows[0]["cut"], "prompts cut"), (rows[0]["failed"], "documents not scored")):
        if count:
            scores += f", {count} of {rows[0]['n'] + rows[0]['failed']} {what}"
    print(f"{rows[0]['checkpoint']} {task['name']} {task['lang']}: {scores}{known}"
          f"  [{i + 1}/{n_tasks}, {seconds:.0f} s{left}]", flush=True)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    if argv[:1] == ["judge"]:
        return judge.main(argv[1:])
    c = parse_arguments(argv)
    with errors_name(Path(c.out or ".")):
        return evaluate(c)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        exit_with(e)
