"""BayLing 2's instruction set: instructions in English and Chinese, and a star that binds every other language to both.

    python recipes/bayling_data.py "instructions={'en': 'raw/en/*', 'zh': 'raw/zh/*'}" 'bitext=raw/bitext/**' \\
        'aligned=raw/aligned/*' out=raw/bayling

    bitext          sentence pairs in corpus/bitext.py's formats: en-kk.tsv, zh-kk/*.jsonl, en-kk.en with en-kk.kk, en-kk.tmx, or
                    what prepare.py has cleaned, text/bitext-en-kk.jsonl; nothing is filtered here but empty and equal sides
    aligned         JSON lines {"question": {"en": "...", "kk": "..."}, "answer": {"en": "...", "kk": "..."}}: a question in one
                    language is answered in another; likewise "document" and "summary", "term" and "explanation", and "text"
    instructions    chats in JSON lines, passed on as they are: prepare.py reads and accounts for them

Languages are codes of configs/bayling/names.py or FLORES's. The paper (arXiv 2411.16300) gives the sum, 3.2 M, the two pivots and
the star in both directions; how the sum is split is our choice. Written are OUT/chat/en.jsonl and zh.jsonl, a file
OUT/crosslingual/SRC-TGT.jsonl for every direction with English or Chinese, and last OUT/account.json. No other language gets
instructions of its own. The data is read twice and never held: it is counted, then each direction takes its number at random.
"""
import json
import os
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import load  # noqa: E402
from configs.bayling.names import HUBS, NAMES, PROMPTS, code_of  # noqa: E402
from corpus import bitext, files  # noqa: E402

FIELDS = {"translation": ("text", "text"), "question": ("question", "answer"), "summary": ("document", "summary"),
          "explanation": ("term", "explanation")}  # of aligned rows: what is given, and what is answered


@dataclass(frozen=True)
class BayLing:
    out: str                          # folder
    instructions: dict                # {"en": files, "zh": files}, JSON lines, as patterns
    bitext: str | None = None         # files of sentence pairs, as a pattern
    aligned: str | None = None        # files of aligned rows
    languages: list | None = None     # of the star, beside English and Chinese; None: all there are
    counts: dict = field(default_factory=lambda: {"instruction": 1_200_000, "translation": 1_400_000, "question": 300_000,
                                                  "summary": 150_000, "explanation": 150_000})  # 3.2 M, as in the paper
    scale: float = 1.0                # times all counts
    most_chars: int = 8000            # of a prompt and of an answer; longer ones are passed over
    seed: int = 0                     # of the choice

    def __post_init__(self):
        wrong = []
        if strange := set(self.instructions) - set(HUBS):
            wrong.append(f"instructions are in en and zh only, the others learn by the star; take out {sorted(strange)}")
        if unknown := [k for k in self.languages or () if code_of(k) is None]:
            wrong.append(f"languages: {unknown} are not in configs/bayling/names.py; add them there with their two names")
        if strange := set(self.counts) - {"instruction", *FIELDS}:
            wrong.append(f"counts: {sorted(strange)} are no categories; they are instruction, {', '.join(FIELDS)}")
        if self.scale <= 0 or self.most_chars < 1 or any(type(n) is not int or n < 0 for n in self.counts.values()):
            wrong.append("scale and most_chars must be above 0, counts whole numbers from 0")
        if wrong:
            raise ValueError("BayLing: " + "; ".join(wrong))


def main(argv=None):
    c, = load(BayLing, argv=argv)
    out = Path(c.out)
    if (out / "account.json").exists():
        raise ValueError(f"{out} holds a finished instruction set; remove it or set out= another folder")
    passed = Counter()
    available = Counter(row[:3] for row in rows(c, passed))
    check(c, available)
    quota = {}
    for category, n in c.counts.items():
        quota |= shares(round(n * c.scale), {d: k for d, k in available.items() if d[0] == category})
    write(c, out, available, quota)
    report(c, out, available, +Counter(quota), passed)


def rows(c, passed):
    """Yield (category, source, target, row) of everything that can be taken; what cannot is counted in passed by reason."""
    wanted = {code_of(k) for k in c.languages} | set(HUBS) if c.languages is not None else set(NAMES)
    for code, pattern in c.instructions.items():
        for row in json_rows(pattern, passed):
            yield "instruction", code, code, row | {"kind": "instruction"}
    for category, a, b, x, y in pairs(c, wanted, passed) if c.bitext else ():
        if row := turn(c, category, a, b, x, y, passed):
            yield category, a, b, row
    for row in json_rows(c.aligned, passed) if c.aligned else ():
        for category, (given, answer) in FIELDS.items():
            for a, x in by_code(row.get(given), wanted):
                for b, y in by_code(row.get(answer), wanted):
                    if a != b and {a, b} & set(HUBS) and (made := turn(c, category, a, b, x, y, passed)):
                        yield category, a, b, made


def by_code(field, wanted):
    """[(language, text)] of a field of an aligned row; nothing where it is absent or of another shape."""
    some = field.items() if isinstance(field, dict) else ()
    return [(code_of(k), text) for k, text in some if isinstance(text, str) and code_of(k) in wanted]


def files(pattern):
    return [Path(name) for name in sorted(glob(pattern, recursive=True)) if Path(name).is_file()]


def json_rows(pattern, passed):
    """The objects of JSON-lines files."""
    for path in files(pattern):
        for _, _, text, problem in files.read_lines(path):
            if problem is None and not text.strip():
                continue
            try:
                row = json.loads(text) if problem is None else None
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                passed["no JSON object"] += 1


def pairs(c, wanted, passed):
    """Yield ("translation", source, target, sentence, translation) of every pair of the folder, in both directions."""
    for path in files(c.bitext):
        parts = (path.name.split(".")[0] if "-" in path.name else path.parent.name).split("-")[-2:]
        codes, spec = [code_of(part) for part in parts], str(path)
        if len(codes) != 2 or None in codes:
            raise ValueError(f"{path}: name it or its folder like en-kk.tsv, by codes of configs/bayling/names.py")
        if f".{parts[1]}" in path.suffixes:
            continue  # the second of two aligned files comes with the first
        if f".{parts[0]}" in path.suffixes:
            spec = f"{path}|{path.with_name(path.name.replace(f'.{parts[0]}', f'.{parts[1]}', 1))}"
        a, b = codes
        for doc in bitext.pairs(spec, a, b) if set(codes) <= wanted else ():
            if doc.reason or a == b or not set(codes) & set(HUBS):
                passed["unreadable pair" if doc.reason else "neither side is English or Chinese"] += 1
                continue
            yield "translation", a, b, doc.text, doc.more["target"]
            yield "translation", b, a, doc.more["target"], doc.text


def turn(c, category, a, b, x, y, passed):
    """The chat that asks in a pivot's words for what y says in language b; None, and counted, where it teaches nothing."""
    x, y = x.strip(), y.strip()
    reason = "an empty side" if not x or not y else "both sides alike" if x == y else \
        "too long" if max(len(x), len(y)) > c.most_chars else None
    if reason:
        passed[reason] += 1
        return None
    hub = a if a in HUBS else b
    prompt = PROMPTS[hub][category].format(tgt=NAMES[b][HUBS.index(hub)], x=x)
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": y}], "kind": category,
            "source": a, "target": b}


def check(c, available):
    """ValueError where there is nothing, or nothing of a language that was asked for."""
    if not available:
        raise ValueError("nothing was found; set instructions=, bitext= and aligned= to files that exist")
    have = {code for _, a, b in available for code in (a, b)}
    if missing := [k for k in c.languages or () if code_of(k) not in have]:
        raise ValueError(f"no pair or aligned row binds {missing} to English or Chinese; bring some or leave them out")
    if missing := [k for k in c.instructions if ("instruction", k, k) not in available]:
        raise ValueError(f"instructions: no chat in {', '.join(c.instructions[k] for k in missing)}")


def shares(n, available):
    """n divided evenly among directions, none above what it has: what a small one leaves goes to the larger ones."""
    out, order = {}, sorted(available, key=lambda d: (available[d], d))
    for i, direction in enumerate(order):
        out[direction] = min(available[direction], n // (len(order) - i))
        n -= out[direction]
    return out


def write(c, out, available, quota):
    """Take exactly quota[direction] of its rows, every subset being as likely (selection sampling, Knuth's algorithm S)."""
    draws = {d: random.Random(f"{c.seed}/{'/'.join(d)}") for d in available}
    left, need, held, paths = Counter(available), Counter(quota), defaultdict(list), set()
    for old in out.rglob("*.part"):  # of a run that was stopped
        old.unlink()

    def flush(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", newline="\n") as f:
            f.write("".join(held.pop(path)))

    for category, a, b, row in rows(c, Counter()):
        direction = category, a, b
        take = draws[direction].random() * left[direction] < need[direction]
        left[direction] -= 1
        if take:
            need[direction] -= 1
            path = out / (f"chat/{a}.part" if category == "instruction" else f"crosslingual/{a}-{b}.part")
            paths.add(path)
            held[path].append(json.dumps(row, ensure_ascii=False) + "\n")
            if len(held[path]) == 256:  # 900 directions are too many files to hold open
                flush(path)
    for path in list(held):
        flush(path)
    assert not any(need.values()), "the data changed while it was read"
    for path in paths:
        os.replace(path, path.with_suffix(".jsonl"))


def report(c, out, available, written, passed):
    """Print and keep what was asked for, what there was and what was taken, by category and by direction."""
    by = {name: {"asked": round(n * c.scale), "available": sum(k for d, k in available.items() if d[0] == name),
                 "written": sum(k for d, k in written.items() if d[0] == name)} for name, n in c.counts.items()}
    account = {"categories": by, "directions": {" ".join(d): k for d, k in sorted(written.items())},
               "passed_over": dict(passed), "languages": len({code for d in written for code in d[1:]})}
    (out / "account.tmp").write_text(json.dumps(account, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(out / "account.tmp", out / "account.json")
    for name, n in by.items():
        short = "" if n["written"] == n["asked"] else ": there is no more"
        print(f"{name:12} {n['written']:>10,} of {n['asked']:,} asked for{short}")
    print(f"{out}: {written.total():,} instructions, {account['languages']} languages; passed over: {dict(passed) or 'none'}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
