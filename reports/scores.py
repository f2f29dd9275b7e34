"""Read results.jsonl and the training logs, and check that scores are comparable."""
import json
import math
from pathlib import Path

REQUIRED = ("checkpoint", "weights", "task", "lang", "metric", "score", "n", "shots", "prompt", "signature")


def read_jsonl(path, required=()) -> list[dict]:
    """The objects of results.jsonl or log.jsonl. A line cut short by a kill is skipped: a resumed run appends after it.

    ValueError names the file that is missing, and the line that is damaged otherwise or lacks a required key.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing; run eval.py on the checkpoints with out= its folder")
    rows = []
    for i, raw in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = raw.decode()
            row = json.loads(line)
        except UnicodeDecodeError as e:
            if not raw.endswith(b"}"):
                continue
            raise ValueError(f"{path}, line {i}: not UTF-8 at byte {e.start}; remove the line") from None
        except json.JSONDecodeError as e:
            if e.pos >= len(line) or not line.endswith("}"):
                continue
            raise ValueError(f"{path}, line {i}: not JSON: {e.msg} at column {e.colno}; remove the line") from None
        if not isinstance(row, dict) or any(key not in row for key in required):
            raise ValueError(f"{path}, line {i}: lacks one of {', '.join(required)}; "
                             "was it written by this version of eval.py?")
        rows.append(row)
    return rows


def read_scores(path, checkpoints=None, **filters) -> list[dict]:
    """Rows of results.jsonl without group means: each checkpoint's newest weights, the later of two rows for one score.

    filters: the value that a field must have; None accepts any. ValueError if no row is left.
    """
    rows = read_jsonl(path, REQUIRED)
    newest = {row["checkpoint"]: row["weights"] for row in rows}
    wanted = {key: value for key, value in filters.items() if value is not None}
    kept = {}
    for row in rows:
        if row["weights"] != newest[row["checkpoint"]] or row["lang"] == "mean":
            continue
        if checkpoints is not None and row["checkpoint"] not in checkpoints:
            continue
        if any(row.get(key) != value for key, value in wanted.items()):
            continue
        kept[tuple(row.get(key) for key in ("checkpoint", "task", "lang", "metric", "shots", "preset"))] = row
    if not kept:
        requested = ({} if checkpoints is None else {"checkpoints": checkpoints}) | wanted
        text = ", ".join(f"{key}={value}" for key, value in requested.items()) or "a score"
        raise ValueError(f"{path} has no row with {text}; its checkpoints: {', '.join(newest)}")
    return list(kept.values())


def check_comparable(rows: list[dict], name: str) -> None:
    """ValueError naming two rows of one benchmark and metric that were measured differently.

    All rows need the same shots and preset, and the same signature up to its tokenizer, which depends on the target
    language. All checkpoints need the same tasks and languages, and for each the same n, prompt and signature.
    """
    first_row: dict = {}  # {fact: (row, value)}
    places: dict = {}  # {checkpoint: {(task, lang): row}}
    for row in rows:
        place = row["task"], row["lang"]
        places.setdefault(row["checkpoint"], {})[place] = row
        facts = {("", key): row.get(key) for key in ("shots", "preset")}
        facts["", "signature"] = "|".join(x for x in (row["signature"] or "").split("|") if not x.startswith("tok:"))
        facts |= {(place, key): row[key] for key in ("n", "prompt", "signature")}
        for key, value in facts.items():
            other, other_value = first_row.setdefault(key, (row, value))
            if other_value != value:
                a, b = (f"{r['task']} ({r['lang']}) of {r['checkpoint']} has {key[1]} {v!r}"
                        for r, v in ((other, other_value), (row, value)))
                raise ValueError(f"{name}: {a}, {b}: not one measurement. Run eval.py on every checkpoint with the "
                                 "same settings, or choose with checkpoints=, shots= or preset=")
    for a in places:
        for b in places:
            if lacking := [" ".join(place) for place in places[a] if place not in places[b]]:
                raise ValueError(f"{name}: {a} has {', '.join(lacking[:6])} ({len(lacking)} in all), {b} has not: "
                                 "their means cover different tests. Run eval.py on both, or choose with checkpoints=")


def read_training_log(run, checkpoint, key) -> list[dict]:
    """Rows of a checkpoint's log.jsonl that have the key, by step; none without a log, as for a downloaded base."""
    file = Path(run) / checkpoint / "log.jsonl"
    rows = read_jsonl(file) if file.is_file() else []
    by_step = {row["step"]: row for row in rows if key in row}  # a resumed run repeats steps; the later row counts
    return [by_step[step] for step in sorted(by_step)]


def read_json(path):
    """What a report saved; ValueError names the file that is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: cannot be read as a report's JSON: {e}") from None


def check_runs(runs) -> None:
    """ValueError unless runs are two or more different folders: one named twice would make standard errors smaller."""
    runs = runs or []
    if not all(isinstance(run, str) for run in runs) or len({Path(run) for run in runs}) < max(2, len(runs)):
        raise ValueError(f"runs must name two or more different folders, got {runs}; "
                         """set runs='["out/seed0", "out/seed1"]'""")


def check_saved(path, rows, is_valid) -> None:
    """ValueError that names the file and row unless rows, which a report saved, are dicts and is_valid(row) of each."""
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: not the rows that this report saves; write it again from its runs")
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not is_valid(row):
            raise ValueError(f"{path}: row {i} is damaged: {str(row)[:100]}; write it again from its runs")


def are_numbers(values, least=2) -> bool:
    """Whether values is a list of so many finite numbers, or more."""
    return isinstance(values, list) and len(values) >= least and all(
        type(x) in (int, float) and math.isfinite(x) for x in values)


def write_json(path, value) -> None:
    """A list of rows, or a dict whose values may be such lists, with a line for each row."""
    def rows(x):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in x) + "\n]" if isinstance(x, list) \
            else json.dumps(x, ensure_ascii=False)

    text = rows(value)
    if isinstance(value, dict):
        text = "{" + ",\n".join(f"{json.dumps(key)}: {rows(x)}" for key, x in value.items()) + "}"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n", encoding="utf-8")
