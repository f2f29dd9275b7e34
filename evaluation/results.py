"""Files of results: read, resume and lock them; the language, group and benchmark of a row; tables.

eval.py writes results.jsonl and samples.jsonl; compare, judge and report.py read them.
"""
import hashlib
import json
import os
from pathlib import Path

from configs import language_table, locks

GROUPS = ("English", "Chinese", "other high-resource", "low-resource", "other languages",
          "from English", "into English", "any to any", "all")
NOT_PERCENT = ("bleu", "spbleu", "chrf++", "bits_per_byte")  # metrics that are no fraction of 1
BENCHMARKS = sorted("""
    agieval arc_challenge belebele ceval cmmlu flores global_mmlu include_base_44 m_arc m_hellaswag m_mmlu mgsm mmlu
    mmmlu paws sib200 tydiqa wmt16 xcopa xmmlu xnli xstorycloze xwinograd
""".split(), key=len, reverse=True)  # the longest prefix of a task's name counts
FLORES_CODES = {row.flores: code for code, row in language_table.LANGUAGES.items()}


# ---------------------------------------------------------------------- rows

def read_rows(path, required):
    """Yield the objects of a .jsonl file; each must have the keys `required`. A last line cut by a kill is skipped.

    ValueError names file and line.
    """
    with open(path, "rb") as f:
        for i, line in enumerate(f, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as e:  # also of bytes that are not UTF-8
                if not line.endswith(b"\n"):
                    return
                problem = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else str(e)
                raise ValueError(f"{path}, line {i}: not JSON: {problem}; remove the line") from None
            if row is None:
                continue
            if not isinstance(row, dict) or any(k not in row for k in required):
                raise ValueError(f"{path}, line {i}: lacks one of {', '.join(required)}; is it from this eval.py?")
            yield row


def json_line(row):
    return json.dumps(row) + "\n"


def open_locked(path):
    """Open a file to append to; ValueError while another process holds it."""
    f = open(path, "a+b")
    if not locks.try_lock(f):
        f.close()
        raise ValueError(f"{path} is in use by another process; stop it or set out= another folder")
    return f


def open_resumable(path):
    """({id: row} that an earlier run wrote, the file locked to append to). A last line cut by a kill is removed."""
    f = open_locked(path)
    f.seek(0)
    f.truncate(f.read().rfind(b"\n") + 1)
    return {row["id"]: row for row in read_rows(path, ("id",))}, f


def fingerprint(*facts):
    """A 64-bit hex hash of JSON values."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------- eval.py's two files

def output_paths(out):
    """(results file, samples file) of out=, a folder or a .jsonl file."""
    if out is None:
        return None, None
    results = Path(out) if str(out).endswith(".jsonl") else Path(out) / "results.jsonl"
    return results, results.with_name("samples.jsonl")


def append_rows(path, rows):
    """Add rows to a file and flush them to disk; a line that a kill has cut is ended first."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as f:
        if f.tell():
            f.seek(-1, os.SEEK_END)
            if f.read() != b"\n":
                text = "\n" + text
        f.write(text.encode())
        f.flush()
        os.fsync(f.fileno())


def complete_lines(path):
    """Yield (row, line) of the whole JSON objects of a file; a line that a kill has cut or a disk spoilt is skipped."""
    if not path or not Path(path).exists():
        return
    with open(path, "rb") as f:
        for line in f:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row, line.decode()


def finished_results(results, samples, identity):
    """{(task, language, prompt, setup): rows} of the results that are complete for a model.

    identity: fields that a row must have (checkpoint, weights, ...). Rows and samples of incomplete results are removed
    and computed again.
    """
    def is_ours(row):
        return all(row.get(k) == v for k, v in identity.items())

    by_key = {}
    for row, _ in complete_lines(results):
        if is_ours(row):
            by_key.setdefault(result_key(row), {})[row.get("metric")] = row
    complete = {key: list(rows.values()) for key, rows in by_key.items()
                if len(rows) >= max(row.get("lines", 1) for row in rows.values())}
    if len(complete) < len(by_key):
        keep_rows(results, lambda row: not is_ours(row) or result_key(row) in complete)
    if samples and Path(samples).exists():
        keep_rows(samples, lambda row: any(row.get(k) != identity[k] for k in ("checkpoint", "weights"))
                  or result_key(row) in complete)
    return complete


def keep_rows(path, is_kept):
    """Write a file anew with the rows that is_kept accepts; a line that a kill has cut is left out."""
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        f.writelines(line.rstrip("\n") + "\n" for row, line in complete_lines(path) if is_kept(row))
    os.replace(f"{path}.new", path)


def result_key(row):
    return tuple(row.get(k) for k in ("task", "lang", "prompt", "setup"))


def lock_results(path):
    """Lock a results file: one eval.py at a time writes to it. Hold the file that is returned."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return open_locked(f"{path}.lock")


# ---------------------------------------------------------------------- languages, groups, benchmarks

def language_code(lang):
    """A language or pair in the paper's codes: arb_Arab, AR_XY and AR -> ar, eng_Latn-kaz_Cyrl -> en-kk."""
    codes = []
    for part in lang.split("-"):
        regional = part[2:3] in ("", "_")
        codes.append(FLORES_CODES.get(part) or (part[:2].lower() if regional else part))
    return "-".join(codes)


def benchmark_of(task, lang):
    """The benchmark that a task is a part of: a known name, else the task's name without the language at its end."""
    for name in BENCHMARKS:
        if task == name or task.startswith((f"{name}_", f"{name}-")):
            return name
    return task.removesuffix(lang).rstrip("_-") or task


def groups_of(lang):
    """Names of GROUPS that a language or a pair belongs to."""
    code = language_code(lang)
    if "-" in code:
        source, target = code.split("-", 1)
        return ["from English" if source == "en" else "into English" if target == "en" else "any to any", "all"]
    names = {"en": "English", "zh": "Chinese", "high": "other high-resource", "low": "low-resource"}
    return [names[language_table.group(code)] if code in language_table.MARCO else "other languages", "all"]


# ---------------------------------------------------------------------- tables

def format_table(rows, terminal=False):
    """Rows of cells, the header first, as an aligned Markdown table; terminal: as plain columns."""
    rows = [[str(cell).replace("**", "") if terminal else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))] for row in rows]
    if terminal:
        return "\n".join("  ".join(line) for line in lines)
    lines.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
