"""Tasks of one's own: rows of a config's table, with prompts as format strings over a file's columns.

    dict(name="xcopa", kind="choice", path="xcopa/{lang}.jsonl", context="{premise} {link}", link="question",
         choices=["{choice1}", "{choice2}"], gold="label")

A row becomes one task per language (or per pair of languages), in the shape of evaluation/tasks. Its keys:

    name, kind, path    kind: choice, translate, chat or bpb; path: the file below data=, with {lang}
    context, choices    format strings over the columns and the words of labels= in the language
    gold, first         the column of the right answer, and what it calls the first choice: 0 (default), 1 or "A"
    link                a column whose value names the word of labels= that {link} becomes
    pairs, prompt       of a translation: "en-kk", ...; the prompt has {src}, {tgt} (languages) and {x} (the text)
    languages, limit, where, delimiter, max_new_tokens, join    where: {column: value}; join: lines of one document
"""
import json
from pathlib import Path

from evaluation.documents import InvalidGold

REQUIRED = {
    "bpb": {"path"},
    "choice": {"path", "context", "choices", "gold"},
    "translate": {"path", "pairs", "prompt"},
    "chat": {"path"},
}
OPTIONAL = {"name", "kind", "limit", "where", "languages", "join", "link", "first", "delimiter", "max_new_tokens"}


def check_custom_task(task, languages, data):
    """ValueError names what a row of the table lacks or has too much."""
    name, kind = task.get("name"), task.get("kind")
    if kind not in REQUIRED:
        raise ValueError(f"task {name}: kind is {kind!r}; the kinds are {', '.join(REQUIRED)}")
    required = REQUIRED[kind]
    if required - set(task) or name is None:
        raise ValueError(f"task {name}: a {kind} task needs name, {', '.join(sorted(required))}")
    if unknown := set(task) - required - OPTIONAL:
        raise ValueError(f"task {name}: unknown {sorted(unknown)}; the keys are {sorted(required | OPTIONAL)}")
    if not languages:
        raise ValueError(f"languages is empty: nothing to measure; is there a file in data={data}?")


def load_labels(c):
    """labels={code: {name: text}}, or a JSON file of them whose path is relative to data=."""
    if isinstance(c.labels, dict):
        return c.labels
    path = Path(c.data) / c.labels
    if not path.is_file():
        raise ValueError(f"labels: {path} is missing; correct labels= (a path below data=) or data={c.data}")
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ValueError(f"labels: {path} is not JSON: {e}") from None
    if not isinstance(labels, dict) or not all(isinstance(words, dict) for words in labels.values()):
        raise ValueError(f"labels: {path} must hold {{code: {{name: text}}}}")
    return labels


def expand_custom_task(c, task, labels):
    """Yield one task per language or pair of a row of the table."""
    translate = task["kind"] == "translate"
    for lang in task["pairs"] if translate else task.get("languages", c.languages):
        codes = lang.split("-") if translate else [lang]
        expanded = dict(
            name=task["name"], kind=task["kind"], lang=lang, groups=(), custom=True,
            path=[task["path"].format(lang=code) for code in codes],
            delimiter=task.get("delimiter", " "), description="", split="test", fewshot_split=None, shots=0,
            fewshot_order="first", header=None, convert_row=None, keep=None, limit=task.get("limit"),
            max_new_tokens=task.get("max_new_tokens", 64), stop_strings=["\n"], join=task.get("join", 1))
        if "where" in task:
            expanded["keep"] = row_filter(task["where"])
        if task["kind"] == "choice":
            expanded |= choice_fields(task, lang, labels.get(lang, {}))
        if translate:
            expanded |= translation_fields(task, *(c.language_names[code] for code in codes))
        yield expanded


def row_filter(where):
    return lambda row: all(row.get(column) == value for column, value in where.items())


def choice_fields(task, lang, words):
    def fill(template, row):
        values = {**words, **row, "link": words.get(str(row.get(task.get("link"))), "")}
        try:
            return template.format(**values)
        except KeyError as e:
            raise ValueError(f"task {task['name']}, {lang}: the prompt needs {e}; "
                             f"the rows and labels have {sorted({*words, *row})}") from None

    return dict(context=lambda row: fill(task["context"], row),
                choices=lambda row: [fill(template, row) for template in task["choices"]],
                gold=lambda row: gold_index(task, row, len(task["choices"])), metrics=("acc", "acc_norm"))


def translation_fields(task, source, target):
    return dict(context=lambda row: task["prompt"].format(src=source, tgt=target, x=row["source"]),
                gold=lambda row: [row["target"]])


def gold_index(task, row, n):
    """Index of the right choice; the gold column counts from task["first"] (0, 1 or "A")."""
    first, value = task.get("first", 0), row[task["gold"]]
    names = [chr(ord(first) + i) if isinstance(first, str) else str(first + i) for i in range(n)]
    if str(value).strip() in names:
        return names.index(str(value).strip())
    raise InvalidGold(f"task {task['name']}: {task['gold']}={value!r} names none of the {n} choices "
                      f"({', '.join(names)})")
