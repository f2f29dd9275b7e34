"""Multilingual probing (arXiv 2409.14459): what each layer encodes of a statement's truth, by language.

    python recipes/probing.py configs/probing/tiny.py                                        # the tinyworld's facts
    python recipes/probing.py configs/probing/tiny.py models='["tinyworld/base", "out/demo/stage2"]'  # before and after
    python recipes/probing.py models='["models/Qwen2-1.5B"]' statements=cities.jsonl out=out/probing   # your statements

A linear classifier predicts from the state at a statement's last token whether it is true. It prints one row per model,
and writes for each OUT/MODEL.json (accuracy, F1 and AUC by language and layer, and the cosines of the probes of
different languages), and with matplotlib OUT/MODEL-depth.png and -similarity.png. OUT/outcome.json has the last model.

statements= is a .jsonl of {"text", "label": 0 or 1, "group", "language"}. A group is never split between training
and test: a fact, its false twin, and both in every language. Three controls accompany each model: shuffled labels, a
bag of tokens in place of the states, and the same model with random weights.
"""
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, language_table, load
from corpus.jobs import file_sha256
from corpus.rows import read_rows
from evaluation import outcomes
from evaluation.probe import FEATURES, METRICS
from evaluation.probe_figures import GROUPS, by_group, draw, mean
from evaluation.probe_languages import (
    compare_languages,
    compute_states,
    count_tokens,
    encode_statements,
    probe_languages,
)
from evaluation.programs import run_once, run_step, seconds_of
from evaluation.results import fingerprint
from evaluation.scoring import bits_per_byte
from model import Qwen2
from tinyworld import world
from tinyworld.__main__ import write_jsonl
from tinyworld.documents import make_document, make_web
from tinyworld.grammar import load_language
from tinyworld.sizes import describes_far_countries
from tinyworld.statements import make_statements, make_verdicts
from training.estimate import describe_passes

FIELDS = ("text", "label", "group", "language")
CONTROLS = ("shuffled labels", "bag of tokens", "random weights")


@dataclass(frozen=True)
class Probing:
    models: list                  # Hugging Face folders or checkpoints of train.py; a row of the table for each
    out: str                      # folder
    statements: str | None = None  # .jsonl; None: the tinyworld's facts, true and false
    languages: list | None = None  # None: all of the statements; needed without a file
    feature: str = "block_out"    # the residual stream after a layer, or mlp_in: the normalized input of its MLP
    scaling: str = "shared"       # standardize by the training statements of all languages; own: of each (no cosines)
    c: float = 1.0                # of the logistic regression: inverse regularization, as in scikit-learn
    test_fraction: float = 0.4    # of the groups
    splits: int = 1               # random splits; scores are their means
    seed: int = 0                 # of the splits, the controls, and of the tinyworld's false statements
    max_tokens: int = 512         # of a statement; a longer one is left out, since its last token would be cut
    batch_tokens: int = 8192
    dtype: str = "float32"        # of the model's computation
    estimate: int | None = None   # tokens of all statements together: print what they need, and stop
    # the tinyworld only: settings of train.py for a model that goes on from the first one with verdicts on statements
    verdicts: dict = field(default_factory=dict)
    documents: dict = field(default_factory=dict)  # {group: (web documents, documents with verdicts)} of a language

    def __post_init__(self):
        checks = [(bool(self.models), "models is empty: name a folder"),
                  (len(set(map(slug, self.models))) == len(self.models), f"models has a folder twice: {self.models}"),
                  (self.feature in FEATURES, f"feature must be {' or '.join(FEATURES)}, got {self.feature!r}"),
                  (self.scaling in ("shared", "own"), f"scaling must be shared or own, got {self.scaling!r}"),
                  (0 < self.test_fraction < 1, f"test_fraction must be between 0 and 1, got {self.test_fraction}"),
                  (self.c > 0, f"c must be positive, got {self.c}"),
                  (min(self.splits, self.max_tokens, self.batch_tokens) > 0, "splits, max_tokens and batch_tokens must "
                   f"be positive, got {self.splits}, {self.max_tokens} and {self.batch_tokens}"),
                  (self.dtype in ("float32", "bfloat16"), f"dtype must be float32 or bfloat16, got {self.dtype!r}"),
                  (bool(self.statements or self.languages), "languages= is needed for the tinyworld's statements"),
                  (not (self.statements and self.verdicts), "verdicts= trains on the tinyworld; remove statements=")]
        if problems := [message for is_right, message in checks if not is_right]:
            raise ValueError("Probing: " + "; ".join(problems))


def main(argv=None):
    c, = load(Probing, argv=argv)
    if c.estimate:  # with the model's own weights, and with random ones
        print(*(describe_passes(folder, 2 * c.estimate) for folder in c.models), sep="\n")
        return
    begin, facts, models = time.time(), world.make_facts(0), list(c.models)  # world 0 is the shipped base's
    rows = read_statements(c.statements) if c.statements else make_statements(facts, c.languages, c.seed)
    if missing := sorted(set(c.languages or []) - {row["language"] for row in rows}):
        raise ValueError(f"languages={c.languages}: no statement of {', '.join(missing)} in {c.statements}")
    rows = [row for row in rows if row["language"] in (c.languages or [row["language"]])]
    models += [train_on_verdicts(c, facts)] if c.verdicts else []
    results = [probe_model(c, folder, rows) for folder in models]
    print(format_table(results))
    for result in results:
        draw(Path(c.out) / slug(result["model"]), result)
    if c.statements is None:
        print(outcomes.save(make_outcome(c, results, facts, seconds_of(c.out, begin)), c.out))


def slug(folder) -> str:
    """The name of a model's files."""
    return "-".join(Path(folder).parts).strip("-./") or "model"


def read_statements(path) -> list[dict]:
    """The rows of a .jsonl; ValueError names file and line of a malformed one."""
    rows = []
    for doc, row in read_rows(path):
        text, label, group, language = ((row or {}).get(k) for k in FIELDS) if not doc.reason else [None] * len(FIELDS)
        problem = doc.reason or next((message for is_wrong, message in (
            (not (isinstance(text, str) and isinstance(language, str)), "text and language must be strings"),
            (label not in (0, 1) or isinstance(label, float), f"label must be 0 or 1, got {label!r}"),
            (not isinstance(group, str | int) or isinstance(group, bool), "group must be a name or a number, the same "
             f"for a fact and its false twin, got {group!r}")) if is_wrong), None)
        if problem:
            raise ValueError(f"{path}, line {doc.line}: {problem}")
        rows.append({"text": text, "label": int(label), "group": str(group), "language": language})
    if not rows:
        raise ValueError(f"{path} holds no statement")
    return rows


# ---------------------------------------------------------------------- models

def train_on_verdicts(c, facts) -> str:
    """The folder of models[0], trained further on web documents and on verdicts."""
    raw, model, sources = Path(c.out) / "raw", Path(c.out) / "verdicts", []
    run_once(c.out, "settings", {"model": c.models[0], "languages": c.languages, "documents": c.documents,
                                 "seed": c.seed})
    for code in c.languages:
        group, all_facts = language_table.group(code), describes_far_countries(code)
        n_web, n_verdicts = c.documents[group]
        for kind, category, rows in (
                ("web", group, make_web(facts, c.seed, code, n_web, 0.0, all_facts, c.languages)),
                ("verdicts", "verdicts", make_verdicts(facts, c.seed, code, n_verdicts))):
            write_jsonl(raw / f"{kind}/{code}.jsonl", rows)
            sources.append({"name": f"{kind}-{code}", "path": f"{kind}/{code}.jsonl", "category": category,
                            "language": code, "clean": True})
    run_step(c.out, "tokens", "prepare.py", dict(
        raw=raw, out=f"{c.out}/tokens", sources=sources, tokenizer=c.models[0], workers=1, valid_fraction=0.0,
        language_names={code: language_table.NAMES[code] for code in c.languages}))
    run_step(c.out, "train", "train.py", dict(
        data=f"{c.out}/tokens", init=c.models[0], out=model, seed=c.seed, resume=True, **c.verdicts))
    return str(model)


def probe_model(c, folder, rows) -> dict:
    """The results of a model, from OUT/MODEL.json where it holds those of the same weights, statements and settings."""
    path, settings = Path(c.out) / f"{slug(folder)}.json", {k: v for k, v in asdict(c).items()
                                                              if k not in ("models", "estimate")}
    weights = [file_sha256(file) for file in sorted(Path(folder).glob("*.safetensors"))]
    inputs = fingerprint(weights, rows, settings)
    if path.exists() and (found := json.loads(path.read_text(encoding="utf-8")))["inputs"] == inputs:
        return found
    device, t = "cuda" if torch.cuda.is_available() else "cpu", tokenizer.load(folder)
    model = Qwen2.from_pretrained(folder, getattr(torch, c.dtype)).to(device).eval()
    data = encode_statements(c, t, rows)
    states = compute_states(c, model, data)
    result = {"model": folder, "inputs": inputs, "weights": weights[0][:12], "feature": c.feature,
              "first_layer": int(c.feature == "mlp_in"),
              "languages": probe_languages(c, data, states, c.scaling)}
    controls = {"shuffled labels": probe_languages(c, data, states, c.scaling, shuffled=True),
                "bag of tokens": probe_languages(c, data, count_tokens(data), "own")}
    layer = Counter(i for r in result["languages"].values() for i in r["picked"]).most_common(1)[0][0]
    result["similarity"] = None if c.scaling == "own" else compare_languages(c, data, states, layer)
    states = compute_states(c, model.init_weights(c.seed), data)
    controls["random weights"] = probe_languages(c, data, states, c.scaling)
    for code, language in data.items():
        found = result["languages"][code]
        found["controls"] = {name: {k: control[code][k] for k in METRICS} for name, control in controls.items()}
        found |= {"statements": len(language.ids), "dropped": language.dropped,
                  "last_tokens": dict(language.last_tokens.most_common(5)),
                  "other_last_token": len(language.ids) - language.last_tokens.most_common(1)[0][1]}
        if language.dropped or found["other_last_token"]:
            print(f"{folder}, {code}: left out {dict(language.dropped)}; {found['other_last_token']} do not end in the "
                  f"usual {next(iter(found['last_tokens']))!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


# ---------------------------------------------------------------------- table, figures, outcome

def summarize(result) -> dict:
    """The row of a model: accuracies in % and cosines, by group of languages."""
    languages = result["languages"]
    accuracy = by_group({code: r["accuracy"] for code, r in languages.items()})
    accuracy |= {name: mean(r["controls"][name]["accuracy"] for r in languages.values()) for name in CONTROLS}
    row = {GROUPS.get(name, name): None if x is None else f"{100 * x:.1f}" for name, x in accuracy.items()}
    if result["similarity"]:
        is_high, cosine = {code: code in language_table.HIGH for code in languages}, result["similarity"]["cosine"]
        cosines = {f"cos {a}-{b}": mean(cosine[x][y] for x in cosine for y in cosine if x < y and
                                        {is_high[x], is_high[y]} == {a == "high", b == "high"})
                   for a, b in (("high", "high"), ("high", "low"), ("low", "low"))}
        halves = by_group(result["similarity"]["reliability"])
        cosines |= {f"halves {name}": x for name, x in halves.items()}
        row |= {name: None if x is None else f"{x:.2f}" for name, x in cosines.items()}
    return row


def format_table(results) -> str:
    rows = {"accuracy, %; cosine": {}} | {r["model"]: summarize(r) for r in results}
    names, first = list(dict.fromkeys(k for row in rows.values() for k in row)), max(map(len, rows))
    return "\n".join("  ".join([f"{model:{first}}", *(f"{(row.get(k) or '-') if row else k:>{len(k)}}" for k in names)])
                     for model, row in rows.items())


def make_outcome(c, results, facts, seconds):
    """English and Chinese against the low-resource languages, in the last model, and the controls."""
    base, last = ({name: 100 * (x or 0) for name, x in by_group({code: r["accuracy"] for code, r in
                   result["languages"].items()}).items()} for result in (results[0], results[-1]))
    known = [name for name in ("en", "zh") if name in last]
    controls = {"low-resource languages": last.get("low", 0.0)} | {
        name: 100 * (mean(results[-1]["languages"][code]["controls"][name]["accuracy"] for code in known) or 0)
        for name in CONTROLS} | {f"in {results[0]['model']}": mean(base[name] for name in known)}
    rng, folders = random.Random("probing/English"), [results[0]["model"], results[-1]["model"]]
    texts = [make_document(facts, load_language("en"), rng, True) for _ in range(40)]  # in no training text
    before, after = (bits_per_byte(Qwen2.from_pretrained(m).eval(), tokenizer.load(m), texts) for m in folders)
    return outcomes.Outcome(
        system="probing", title="Multilingual probing", paper="2409.14459", seed=c.seed,
        claim="truth is read more easily from the states of the languages that the model has read most",
        metric="accuracy of linear probes in English and Chinese, %", method=mean(last[name] for name in known),
        controls=controls, english_metric="bits per byte (less is better)", english_before=before,
        english_after=after, right_language=None, tokens=c.verdicts.get("tokens", 0),
        control_tokens=c.verdicts.get("tokens", 0), base=results[0]["weights"], seconds=seconds,
        details=[{"model": r["model"], **summarize(r)} for r in results])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
