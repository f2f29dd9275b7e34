"""PLUG (arXiv 2311.08711): within one response a model restates the instruction in a pivot language, answers there, and
only then answers in the target language.

    python recipes/plug.py configs/plug/tiny.py                # data, training of all modes, evaluation, the table
    python recipes/plug.py configs/plug/full.py estimate=True  # memory and days of the published setting, without a GPU
    python recipes/plug.py merge verdicts=out/judge/verdicts.jsonl  # a judge's verdicts in both orders, merged

Rows are JSON lines {"instruction", "response", "instruction_pivot", "response_pivot"}, a file for each language. A mode
is what the assistant writes, each part after its language's label:

    plug             the instruction in the pivot, the response in the pivot, the response in the target language
    pivot_response   the two responses
    direct           the response in the target language, without a label: ordinary SFT

The controls are direct, for as many epochs as plug, and direct-matched, on as many tokens. It writes
OUT/chats/MODE/kk.jsonl (what prepare.py reads) and account.json, OUT/MODE (the models), OUT/answers/MODE.jsonl in the
shape of eval.py's samples (eval.py judge compares two of them), and last OUT/outcome.json.
"""
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import errors, language_table, load
from evaluation import outcomes, results, verdicts
from evaluation.programs import seconds_of
from recipes import pipeline
from recipes.pipeline import Pipeline, locate, write_rows

MODES = ("plug", "pivot_response", "direct")
# the published labels; the restated instruction's is not published
LABELS = {"en": "English response:", "zh": "中文回复：", "it": "Risposta in italiano:", "es": "Respuesta en español:",
          "ko": "한국어 응답:"}
SYSTEM = {"plug": "Please interpret the instruction in {pivot}, and then respond both in {pivot} and in {target}.",
          "pivot_response": "Please respond both in {pivot} and in {target}.",
          "direct": "Please respond to the following user message in {target}."}


@dataclass(frozen=True)
class Plug:
    languages: list               # target languages, codes of configs/language_table.py
    rows: str                     # training rows, '{lang}.jsonl', below OUT/raw or as it is
    test: str                     # test rows, likewise: {"instruction"} with "check", "response" or "answer"
    epochs: float = 4.0           # of the rows
    modes: list = field(default_factory=lambda: list(MODES))
    pivot: str = "en"
    labels: dict = field(default_factory=lambda: dict(LABELS))  # {language: label of its response}
    instruction_label: str = "English instruction:"
    system: dict = field(default_factory=lambda: dict(SYSTEM))  # {mode: system prompt}

    def __post_init__(self):
        problems = []
        if self.pivot in self.languages:
            problems.append(f"languages contains the pivot, {self.pivot}; take it out or choose another pivot")
        if not self.modes or set(self.modes) - set(MODES):
            problems.append(f"modes are some of {', '.join(MODES)}, got {self.modes}")
        if lacking := [code for code in (*self.languages, self.pivot) if not self.labels.get(code)]:
            problems.append(f"labels lacks {lacking}; set labels={{code: 'the words before a response:'}}")
        labels = [self.labels.get(code) for code in (*self.languages, self.pivot)] + [self.instruction_label]
        if len(set(labels)) < len(labels):
            problems.append(f"two labels are alike in {labels}; a response could not be found by its label")
        if problems:
            raise ValueError("Plug: " + "; ".join(problems))


# ---------------------------------------------------------------------- rows to chats, and back

def build_chat(c: Plug, row: dict, lang: str, mode: str) -> dict:
    """{"messages"} of a row in a mode; ValueError says why the row cannot be used."""
    needed = ("instruction", "response", *(("instruction_pivot", "response_pivot") if mode != "direct" else ()))
    text = {name: str(row.get(name) or "").strip() for name in needed}
    if empty := [name for name in needed if not text[name]]:
        raise ValueError(f"no {empty[0]}")
    answer = text["response"]
    if mode != "direct":
        parts = [f"{c.instruction_label} {text['instruction_pivot']}"] if mode == "plug" else []
        parts += [f"{c.labels[c.pivot]} {text['response_pivot']}", f"{c.labels[lang]} {text['response']}"]
        answer = "\n".join(parts)
        if extract_target(answer, c.labels[c.pivot], c.labels[lang])[0] != text["response"]:
            raise ValueError("a label inside the text")
    return {"messages": [*prompt(c, text["instruction"], lang, mode), {"role": "assistant", "content": answer}]}


def prompt(c, instruction, lang, mode):
    names = {name: language_table.NAMES.get(code, code) for name, code in (("pivot", c.pivot), ("target", lang))}
    return [{"role": "system", "content": c.system[mode].format(**names)}, {"role": "user", "content": instruction}]


def extract_target(text: str, pivot_label: str, target_label: str) -> tuple[str, str]:
    """(the response in the target language, "ok"), or ("", "not found").

    It follows the first target label after the pivot's label; a label in the restated instruction is plain text. ":"
    and its full-width form count as equal.
    """
    begin = 0
    for label in (pivot_label, target_label):
        found = re.compile(re.sub("[:：]", "[:：]", re.escape(label))).search(text, begin)
        if not found:
            return "", "not found"
        begin = found.end()
    return text[begin:].strip(), "ok"


def build_chats(c: Plug, p: Pipeline, t) -> dict:
    """Write OUT/chats/MODE/LANG.jsonl of all modes from the same rows; writes and returns the account.

    A row that one mode cannot use is left out of all, so all train on the same rows. A row longer than seq_len would
    lose its end, the target part, and teach the model to stop in the pivot.
    """
    account = {}
    for lang in c.languages:
        path, chats, dropped = locate(p, c.rows, lang), {mode: [] for mode in c.modes}, Counter()
        for row in results.read_rows(path, ()):
            try:
                made = {mode: build_chat(c, row, lang, mode) for mode in c.modes}
                if any(len(t.encode_chat(chat["messages"], False)) - 1 > p.sft["seq_len"] for chat in made.values()):
                    raise ValueError("the target part would be truncated")
            except ValueError as e:
                dropped[str(e)] += 1
                continue
            for mode, chat in made.items():
                chats[mode].append(chat)
        kept = len(chats[c.modes[0]])
        account[lang] = {"read": kept + dropped.total(), "kept": kept, "dropped": dict(dropped)}
        if not kept:
            raise ValueError(f"{path}: no row can be used; dropped: {dict(dropped) or 'none, it is empty'}")
        for mode, some in chats.items():
            write_rows(Path(p.out) / f"chats/{mode}/{lang}.jsonl", some)
        print(f"{lang}: {kept} of {account[lang]['read']} rows; dropped: {dict(dropped) or 'none'}")
    Path(p.out, "chats/account.json").write_text(json.dumps(account, indent=1, ensure_ascii=False), encoding="utf-8")
    return account


# ---------------------------------------------------------------------- answers

def ask(c: Plug, p: Pipeline, name: str, mode: str, model: str) -> dict[str, dict]:
    """Answer all test rows: {language: means of "correct", "language", "found", "cut", "tokens"}.

    Writes OUT/answers/NAME.jsonl.
    """
    rows = [(lang, i, row) for lang in c.languages
            for i, row in enumerate(results.read_rows(locate(p, c.test, lang), ("instruction",)))]
    answers = pipeline.answer(p, model, [prompt(c, row["instruction"], lang, mode) for lang, _, row in rows])
    samples, scores = [], {lang: [] for lang in c.languages}
    for (lang, i, row), reply in zip(rows, answers):
        response, status = reply["text"], "ok"
        if mode != "direct":
            response, status = extract_target(response, c.labels[c.pivot], c.labels[lang])
        score = pipeline.score_answer(row, response, lang)
        scores[lang].append({"found": status == "ok", "cut": reply["cut"], "tokens": reply["tokens"]} | score)
        samples.append({"checkpoint": name, "task": "plug", "lang": lang, "doc_id": i, "context": [row["instruction"]],
                        "reference": row.get("correct_answers", row.get("response")), "response": [response],
                        "text": reply["text"], "status": status} | score)
    write_rows(Path(p.out) / f"answers/{name}.jsonl", samples)
    return {lang: {key: sum(score[key] for score in some) / len(some) for key in some[0]}
            for lang, some in scores.items()}


def mean(scores: dict, key: str) -> float:
    """The mean over languages."""
    return sum(score[key] for score in scores.values()) / len(scores)


# ---------------------------------------------------------------------- all of it

@dataclass(frozen=True)
class Merge:
    verdicts: str  # verdicts.jsonl of eval.py judge


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["merge"]:
        c, = load(Merge, argv=argv[1:])
        print(results.format_table(verdicts.merged_table(c.verdicts), terminal=True))
        return
    begin, (c, p) = time.time(), load(Plug, Pipeline, argv=argv)
    if p.estimate:
        pipeline.print_estimate(p)
        return
    start, t = pipeline.prepare_start(p), pipeline.prepare_tokenizer(p)
    build_chats(c, p, t)
    pipeline.prepare_chats(p, c.modes)
    runs = {mode: (mode, pipeline.count_tokens(p, mode, c.epochs)) for mode in c.modes}
    if {"plug", "direct"} <= set(c.modes):
        runs["direct-matched"] = "direct", runs["plug"][1]
    scores = {}
    for name, (mode, tokens) in runs.items():
        scores[name] = ask(c, p, name, mode, pipeline.tune(p, start, name, mode, tokens))
    tokens = {name: n + p.adapt.get("tokens", 0) for name, (_, n) in runs.items()}
    print_table(c, scores, tokens)
    if "plug" in runs and len(runs) > 1:
        save_outcome(c, p, scores, tokens, seconds_of(p.out, begin))


COLUMNS = {"correct": "exact %", "language": "in language %", "found": "extracted %", "cut": "cut %"}


def print_table(c, scores, tokens):
    table = [["", *COLUMNS.values(), "generated tokens", "trained tokens", *(f"exact {k}" for k in c.languages)]]
    for name, of_languages in scores.items():
        table.append([name, *(f"{100 * mean(of_languages, key):.1f}" for key in COLUMNS),
                      f"{mean(of_languages, 'tokens'):.1f}", f"{tokens[name]:,}",
                      *(f"{100 * of_languages[k]['correct']:.0f}" for k in c.languages)])
    print(results.format_table(table, terminal=True))


def save_outcome(c, p, scores, tokens, seconds):
    exact = {name: round(100 * mean(of_languages, "correct"), 2) for name, of_languages in scores.items()}
    control = next(name for name in ("direct", *exact) if name in exact and name != "plug")
    english, english_rows = pipeline.english_fields(p, f"{p.out}/plug", f"{p.out}/{control}")
    details = [{"model": name, "code": lang, **{key: round(value, 4) for key, value in score.items()},
                "trained tokens": tokens[name]} for name, of_languages in scores.items()
               for lang, score in of_languages.items()]
    outcome = outcomes.Outcome(
        system="plug", title="PLUG", paper="2311.08711", seed=p.seed, base=outcomes.hash_base(p.init),
        claim="Restating the question and answering in English first makes answers in other languages right more "
              "often: plug > pivot_response > direct",
        metric=f"exact match in {' '.join(c.languages)}, %", method=exact["plug"],
        controls={control: exact[control]} | {k: v for k, v in exact.items() if k not in ("plug", control)},
        right_language=round(100 * mean(scores["plug"], "language"), 2), tokens=tokens["plug"],
        control_tokens=tokens[control], seconds=seconds, details=details + english_rows, **english)
    print(f"English, {outcome.english_metric}: {outcome.english_before} before, {outcome.english_after} after")
    print(f"saved {outcomes.save(outcome, p.out)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
