"""Multilingual self-instruct (PolyLM, arXiv 2307.06018): a model writes tasks and answers in rounds, by language.

    python recipes/self_instruct.py seeds='seeds/{lang}.jsonl' languages='["kk", "uk"]' model=M out=OUT
    python recipes/self_instruct.py ... endpoint=http://localhost:8000/v1 name=M      # key: $API_KEY_LOCALHOST

seeds: {"instruction", "input", "output"} a line, in the language. OUT/LANG.jsonl: the tasks kept, in the same shape;
OUT/LANG.rejects.jsonl: the others, with the reason; OUT/account.json: the counts; OUT/raw: the answers of each round. A
finished round is not requested again, so the same command resumes after a kill. PolyLM: 162 seeds, translated to 11
languages; ten rounds of 100 prompts, ten in the first; 132,701 tasks. prepare.py reads the files as chats (Alpaca).
"""
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import language_table, load
from corpus import self_instruct
from evaluation import client


@dataclass(frozen=True)
class SelfInstruct:
    seeds: str                    # path of the seed tasks, with {lang}
    languages: list               # codes of configs/language_table.py
    out: str
    model: str | None = None      # the writer: a Hugging Face folder or a checkpoint of train.py; or
    endpoint: str | None = None   # the address of an OpenAI-compatible server, and
    name: str | None = None       # the model's name there
    rounds: int = 10
    prompts: int = 100            # of a round
    prompts_first: int = 10       # of the first round, while the pool is empty
    shown: list = field(default_factory=lambda: [2, 1])  # seed tasks and pool tasks in a prompt
    last: int = 20                # number of the last task that a prompt asks for
    rouge: float = 0.7            # maximum ROUGE-L of an instruction with any other (exclusive)
    input_rouge: dict = field(default_factory=dict)  # {language: bound}, over self_instruct.INPUT_ROUGE
    max_new: int = 2048           # tokens of an answer
    temperature: float = 0.7
    threads: int = 8              # concurrent requests
    timeout: float = 300.0        # seconds for an answer
    batch: int = 16               # prompts that a checkpoint answers together
    seed: int = 0

    def __post_init__(self):
        problems = []
        if bool(self.model) == bool(self.endpoint) or bool(self.name) != bool(self.endpoint):
            problems.append("set model, or endpoint and name")
        if "{lang}" not in self.seeds:
            problems.append(f"seeds must hold {{lang}}, got {self.seeds!r}")
        unknown = [code for code in self.languages if code not in language_table.LANGUAGES]
        if unknown or not self.languages:
            problems.append(f"languages must be codes of configs/language_table.py, got {self.languages}")
        if len(self.shown) != 2 or not all(type(n) is int and n >= 0 for n in self.shown) or not sum(self.shown):
            problems.append(f"shown must be two counts, of seeds and of pool tasks, got {self.shown}")
        elif self.last <= sum(self.shown):
            problems.append(f"last must be above the {sum(self.shown)} tasks that a prompt shows, got {self.last}")
        if not 0 < self.rouge <= 1:
            problems.append(f"rouge must be above 0 and at most 1, got {self.rouge}")
        for name in ("rounds", "prompts", "prompts_first", "max_new", "threads", "batch"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1, got {getattr(self, name)}")
        if problems:
            raise ValueError("SelfInstruct: " + "; ".join(problems))


def main(argv=None):
    c, = load(SelfInstruct, argv=argv)
    seeds = {code: read_tasks(c.seeds.format(lang=code)) for code in c.languages}
    ask = make_generator(c)
    account = {code: grow_pool(c, code, seeds[code], ask) for code in c.languages}
    write(Path(c.out, "account.json"), json.dumps(account, indent=1))
    print("\n".join(f"{code}: {a['kept']} of {a['tasks']} tasks kept; dropped: {a['dropped'] or 'none'}"
                    for code, a in account.items()))


def read_tasks(path) -> list[dict]:
    """The tasks of a file. ValueError names a malformed line. An input may be null or absent."""
    tasks = []
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of seed tasks; seeds= names one for each language, with {{lang}}")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            task = {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"]}
            if not all(isinstance(text, str) for text in task.values()):
                raise TypeError("the fields must be text")
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise ValueError(f"{path}: line {number} is no task (instruction, input, output): {e!r}") from None
        tasks.append(task)
    return tasks


def grow_pool(c, code, seeds, ask) -> dict:
    """All rounds of a language; writes its files and returns the counts. tasks = kept + dropped by reason."""
    pool = self_instruct.Pool(code, seeds, c.rouge, c.input_rouge)
    dropped: Counter = Counter()
    rejects, prompts_sent, shown = [], 0, sum(c.shown)
    for n in range(c.rounds):
        language = language_table.LANGUAGES[code].name
        prompts = [self_instruct.make_prompt(seeds, pool.tasks, language, f"{c.seed} {code} {n} {i}", c.shown, c.last)
                   for i in range(c.prompts if n else c.prompts_first)]
        prompts_sent += len(prompts)
        for answer in answer_round(c, Path(c.out, "raw", f"{code}-{n}.jsonl"), prompts, ask):
            is_cut = answer["finish"] == "length"
            tasks, reasons = self_instruct.parse_tasks(answer["text"], shown + 1, is_cut)
            if answer["finish"] not in ("stop", "length"):
                tasks, reasons = [], [f"no answer: {answer['finish']}"]
            dropped.update(reasons)
            for task in tasks:
                reason = pool.add(task)
                if reason:
                    dropped[reason] += 1
                    rejects.append({"reason": reason} | task)
        print(f"{code}: round {n + 1} of {c.rounds}, {len(pool.tasks)} tasks", flush=True)
    write(Path(c.out, f"{code}.jsonl"), "".join(json.dumps(t, ensure_ascii=False) + "\n" for t in pool.tasks))
    write(Path(c.out, f"{code}.rejects.jsonl"), "".join(json.dumps(t) + "\n" for t in rejects))
    kept = len(pool.tasks)
    return {"prompts": prompts_sent, "tasks": kept + dropped.total(), "kept": kept,
            "dropped": dict(sorted(dropped.items()))}


def answer_round(c, path, prompts, ask) -> list[dict]:
    """The answers to a round's prompts: read back from path, or generated and written there."""
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if [row["prompt"] for row in rows] != prompts:
            raise ValueError(f"{path}: these are answers to other prompts; settings, seeds or the model's answers have "
                             "changed: set out= another folder")
        return rows
    rows = [{"prompt": prompt} | answer for prompt, answer in zip(prompts, ask(prompts))]
    write(path, "".join(json.dumps(row) + "\n" for row in rows))  # escaped: an answer may hold lone surrogates
    return rows


def make_generator(c):
    """A function: prompts -> their answers, {"text", "finish"}."""
    if c.endpoint:
        send = client.connect(c.endpoint, c.name, {"max_tokens": c.max_new, "temperature": c.temperature}, c.timeout)

        def ask_server(prompts):
            with ThreadPoolExecutor(c.threads) as threads:
                return list(threads.map(send, ([{"role": "user", "content": prompt}] for prompt in prompts)))
        return ask_server
    from generate import Decoding, encode_prompt, generate  # imported here: an endpoint needs no torch
    model, t = client.load_model(c.model, needs_template=False)

    def ask_model(prompts):
        if t.chat_template:
            encoded = [t.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
        else:
            encoded = [encode_prompt(t, prompt) for prompt in prompts]
        decoding = Decoding(c.temperature, seed=c.seed)
        replies = generate(model, encoded, c.max_new, t.stop_ids, decoding, c.batch)
        return [{"text": t.decode(ids, prefix=prompt), "finish": "length" if len(ids) == c.max_new else "stop"}
                for prompt, ids in zip(encoded, replies)]
    return ask_model


def write(path: Path, text: str):
    """Write a file under another name, then rename it: it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(text, encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
