"""Shared by recipes that fine-tune a model on chats: shards, training, answers, English before and after.

Every step runs a program of this repository in its own process (evaluation/programs.py); OUT/steps has the output.
"""
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import data
import tokenizer
from configs import language_table
from evaluation import client, metrics, outcomes, results
from evaluation.programs import ROOT, run_once, run_step, words_of
from evaluation.scoring import loglikelihoods
from generate import Decoding, generate
from tinyworld import marks
from training.checkpoint import sha256


@dataclass(frozen=True)
class Pipeline:
    out: str                      # folder
    init: str                     # Hugging Face folder or checkpoint that training starts from
    sft: dict                     # settings of train.py for the chats, without data, mixture, tokens, init, out, seed
    replay: dict = field(default_factory=dict)  # {category of the text's shards: its share of the SFT mixture}
    template: str | None = None   # chat template, where init has none
    world: dict = field(default_factory=dict)   # settings of tinyworld, which writes OUT/raw; {}: bring your own files
    text: dict = field(default_factory=dict)    # settings of prepare.py: documents in OUT/raw to OUT/text; {}: none
    adapt: dict = field(default_factory=dict)   # settings of train.py: a stage on that text before SFT; {}: none
    english: dict = field(default_factory=dict)  # settings of eval.py: tasks that measure English; {}: none
    max_new_tokens: int = 1024    # of an answer
    batch_size: int = 64          # prompts decoded together
    seed: int = 0                 # of the world's documents and of the training order
    estimate: int | None = None   # tokens: print what SFT on so many needs, and stop

    def __post_init__(self):
        problems = []
        if taken := sorted({"data", "mixture", "tokens", "init", "out", "seed"} & set(self.sft)):
            problems.append(f"sft: the recipe sets {', '.join(taken)}; take them out")
        if "seq_len" not in self.sft:
            problems.append("sft needs seq_len, the length of a row of chats")
        if not 0 <= sum(self.replay.values()) < 1 or min(self.replay.values(), default=0) < 0:
            problems.append(f"replay must be shares that sum to less than 1, got {self.replay}")
        if (self.replay or self.adapt) and not self.text:
            problems.append("replay and adapt read the shards of text=, which is not set")
        if problems:
            raise ValueError("Pipeline: " + "; ".join(problems))


# ---------------------------------------------------------------------- data and training

def prepare_start(p: Pipeline) -> str:
    """Write the world's files and text shards and train on them, as set; return the model to fine-tune."""
    out = Path(p.out)
    if p.world:
        run_step(p.out, "world", "-m tinyworld", {"out": f"{out}/raw", "seed": p.seed} | p.world)
    if p.text:
        run_step(p.out, "text", "prepare.py", {"raw": f"{out}/raw", "out": f"{out}/text", "tokenizer": p.init} | p.text)
    if not p.adapt:
        return p.init
    run_step(p.out, "adapt", "train.py", {"data": f"{out}/text", "init": p.init, "out": f"{out}/adapted",
                                          "seed": p.seed, "resume": True} | p.adapt)
    return f"{out}/adapted"


def prepare_tokenizer(p: Pipeline):
    """init's tokenizer, with the chat template of the settings, as OUT/tokenizer; ValueError if there is no template.
    """
    folder = Path(p.out) / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.list_tokenizer_files(p.init, with_generation_config=True):
        shutil.copy(file, folder / file.name)
    if p.template:
        tokenizer.write_template(folder, p.template)
    t = tokenizer.load(folder)
    if t.chat_template is None:
        raise ValueError(f"{p.init} has no chat template; set template= to one of {', '.join(tokenizer.TEMPLATES)}")
    return t


def prepare_chats(p: Pipeline, names: Sequence[str], shards: str = "shards") -> None:
    """OUT/chats/NAME/LANG.jsonl of every name -> shards of the category NAME and the language LANG in OUT/SHARDS.

    ValueError if an earlier run with other settings made the shards from other chats.
    """
    folder = Path(p.out) / "chats"
    files = [(name, path) for name in names for path in sorted((folder / name).glob("*.jsonl"))]
    sources = [{"name": f"{name}-{path.stem}", "path": f"{name}/{path.name}", "category": name, "language": path.stem,
                "kind": "chat"} for name, path in files]
    run_once(p.out, f"{shards}-chats", {"template": p.template} | {
        f"{name}/{path.name}": sha256(path) for name, path in files})
    languages = {path.stem: language_table.NAMES.get(path.stem, path.stem) for _, path in files}
    run_step(p.out, shards, "prepare.py", {
        "raw": folder, "out": f"{p.out}/{shards}", "tokenizer": f"{p.out}/tokenizer", "sources": sources,
        "language_names": languages, "valid_fraction": 0.0})


def count_tokens(p: Pipeline, category: str, epochs: float, shards: str = "shards") -> int:
    """Training tokens, with padding and replayed text, for `epochs` passes over a category's chats."""
    sources = [s for s in data.open_sources(f"{p.out}/{shards}") if s.category == category]
    rows = sum(len(data.best_fit(s.lengths, p.sft["seq_len"], (p.seed, i))) for i, s in enumerate(sources))
    return int(epochs * rows * p.sft["seq_len"] / (1 - sum(p.replay.values())))


def tune(p: Pipeline, start: str, name: str, category: str, tokens: int, shards: str = "shards") -> str:
    """SFT from a model on the chats of a category and the replayed text; the folder of the new model, OUT/NAME."""
    folders = [f"{p.out}/{shards}"] + [f"{p.out}/text"] * bool(p.replay)
    mixture = {category: 1 - sum(p.replay.values())} | p.replay
    run_step(p.out, name, "train.py", {"data": folders, "mixture": mixture, "tokens": tokens, "init": start,
                                       "out": f"{p.out}/{name}", "seed": p.seed, "resume": True} | p.sft)
    return f"{p.out}/{name}"


def print_estimate(p: Pipeline) -> None:
    """Memory and days of SFT on p.estimate tokens, by train.py."""
    settings = {"data": p.out, "mixture": {"chat": 1}, "tokens": p.estimate, "init": p.init, "out": p.out,
                "estimate": True} | p.sft
    subprocess.run([sys.executable, "train.py", *words_of(settings)], cwd=ROOT, check=True)


# ---------------------------------------------------------------------- evaluation

def answer(p: Pipeline, model: str, conversations: list) -> list[dict]:
    """Greedy answers of a model: {"text", "tokens" (with the end token), "cut": whether it was cut off}.

    They are cached in OUT/steps for a rerun.
    """
    key = results.fingerprint(outcomes.hash_base(model), p.max_new_tokens, conversations)
    path = Path(p.out) / f"steps/answers-{key}.jsonl"
    if not path.exists():
        net, t = client.load_model(model)
        prompts = [t.encode_chat(messages) for messages in conversations]
        outputs = generate(net, prompts, p.max_new_tokens, t.stop_ids, Decoding(), p.batch_size)
        rows = [{"text": t.decode(ids, prefix=prompt).strip(), "cut": len(ids) == p.max_new_tokens,
                 "tokens": min(len(ids) + 1, p.max_new_tokens)} for prompt, ids in zip(prompts, outputs)]
        write_rows(path.with_suffix(".part"), rows)
        os.replace(path.with_suffix(".part"), path)
    return list(results.read_rows(path, ("text", "cut", "tokens")))


def loglikelihood(model: str, chats: list) -> float:
    """Mean log-probability, in nats, of the tokens of each conversation's last answer, end tokens included."""
    net, t = client.load_model(model)
    pairs = []
    for messages in chats:
        ids, mask = t.encode_with_loss_mask(messages, len(messages) - 1)
        first = mask.index(True)
        pairs.append((ids[:first], [i for i, learned in zip(ids[first:], mask[first:]) if learned]))
    return sum(total for total, _ in loglikelihoods(net, pairs, 1024)) / sum(len(answer) for _, answer in pairs)


def score_answer(row, response, lang):
    """{"correct", "language"}: by the tinyworld's judge, as the number of "answer", or as SQuAD's exact match."""
    if "check" in row:
        mark = marks.mark_answer(lang, row["check"], response)
        return {"correct": bool(mark["fact"]), "language": mark["language"]}
    in_language = bool(response) and metrics.in_language(response, lang)
    if "answer" in row:
        correct = metrics.exact_number(response, [str(row["answer"])], lang)["exact_match"]
    else:
        correct = metrics.squad(response, [row["response"]], lang)["em"] if "response" in row else 0.0
    return {"correct": bool(correct), "language": bool(in_language)}


def measure_english(p: Pipeline, name: str, model: str) -> dict[str, float]:
    """{"task metric": score} of a model on the tasks of english=."""
    if not p.english:
        return {}
    folder = f"{p.out}/english/{name}"
    settings = {"model": model, "out": folder, "checkpoint": name, "threads": 1} | p.english
    below_raw = Path(p.out, "raw", settings["data"])
    run_step(p.out, f"english-{name}", "eval.py", settings | ({"data": str(below_raw)} if below_raw.is_dir() else {}))
    rows = [json.loads(line) for line in Path(folder, "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {f"{row['task']} {row['metric']}": row["score"] for row in rows}


def english_fields(p: Pipeline, tuned: str, control: str) -> tuple[dict, list]:
    """(fields of an Outcome about English, in % if a share, and rows of its details): init, tuned model, control."""
    models = {"before": p.init, "after": tuned, "after, control": control}
    scores = {when: measure_english(p, when.replace(", ", "-"), model) for when, model in models.items()}
    before, after = scores["before"], scores["after"]
    rows = [{"english": name} | {when: scores[when][name] for when in models} for name in before]
    if not rows:
        return {"english_metric": "not measured", "english_before": None, "english_after": None}, rows
    name = rows[0]["english"]
    scale, unit = (1, "") if name.split()[-1] in results.NOT_PERCENT else (100, ", %")
    return {"english_metric": name + unit, "english_before": round(scale * before[name], 4),
            "english_after": round(scale * after[name], 4)}, rows


def write_rows(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def locate(p: Pipeline, pattern: str, lang: str) -> Path:
    """The file of a language: pattern with {lang}, below OUT/raw or as it is."""
    path = pattern.format(lang=lang)
    if found := [file for file in (Path(p.out, "raw", path), Path(path)) if file.is_file()]:
        return found[0]
    raise ValueError(f"neither {p.out}/raw/{path} nor {path} is a file; correct the pattern or languages=")
