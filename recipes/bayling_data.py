"""BayLing 2's instruction set: instructions in English and Chinese, paired with every other language.

    python recipes/bayling_data.py "instructions={'en': 'raw/en/*', 'zh': 'raw/zh/*'}" 'bitext=raw/bitext/**' \\
        'aligned=raw/aligned/*' out=raw/bayling

    instructions    chats in JSON lines, copied unchanged for prepare.py to read and account for
    bitext          sentence pairs in the formats of corpus/bitext_files.py: en-kk.tsv, zh-kk/*.jsonl, en-kk.en with
                    en-kk.kk, en-kk.tmx; or text/bitext-en-kk.jsonl of prepare.py
    aligned         JSON lines {"question": {"en": "...", "kk": "..."}, "answer": {"en": "...", "kk": "..."}}; also
                    "document" and "summary", "term" and "explanation", and "text": given in one language, answered
                    in another

Languages are codes of recipes/bayling_languages.py or FLORES codes. The paper (arXiv 2411.16300) gives the total,
3.2 M, the two pivots and both directions of every pair; the split of the total is our choice. It writes
OUT/chat/en.jsonl and zh.jsonl, OUT/crosslingual/SRC-TGT.jsonl for every direction with English or Chinese, and last
OUT/account.json. No other language gets native instructions. The data is read twice, never held in memory: once to
count it, once to sample from each direction.
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
from configs import load
from corpus import bitext_files, files
from recipes.bayling_languages import NAMES, PIVOTS, PROMPTS, find_code

FIELDS = {"translation": ("text", "text"), "question": ("question", "answer"), "summary": ("document", "summary"),
          "explanation": ("term", "explanation")}  # of aligned rows, by category: what is given, what is answered
COUNTS = {"instruction": 1_200_000, "translation": 1_400_000, "question": 300_000, "summary": 150_000,
          "explanation": 150_000}  # 3.2 M in all, as in the paper


@dataclass(frozen=True)
class BayLing:
    out: str                          # folder
    instructions: dict                # {"en": files, "zh": files}, JSON lines, as patterns
    bitext: str | None = None         # files of sentence pairs, as a pattern
    aligned: str | None = None        # files of aligned rows, as a pattern
    languages: list | None = None     # besides English and Chinese; None: all that occur
    counts: dict = field(default_factory=lambda: dict(COUNTS))  # rows of each category
    scale: float = 1.0                # multiplies all counts
    max_chars: int = 8000             # of a prompt and of an answer; longer ones are left out
    seed: int = 0                     # of the sampling

    def __post_init__(self):
        problems = []
        if extra := set(self.instructions) - set(PIVOTS):
            problems.append("instructions are in en and zh only, the other languages learn from the star; "
                            f"take out {sorted(extra)}")
        if unknown := [name for name in self.languages or () if find_code(name) is None]:
            problems.append(f"languages: {unknown} are not in recipes/bayling_languages.py; add them there with their "
                            "two names")
        if extra := set(self.counts) - set(COUNTS):
            problems.append(f"counts: {sorted(extra)} are no categories; they are {', '.join(COUNTS)}")
        if self.scale <= 0 or self.max_chars < 1 or any(type(n) is not int or n < 0 for n in self.counts.values()):
            problems.append("scale and max_chars must be above 0, counts whole numbers from 0")
        if problems:
            raise ValueError("BayLing: " + "; ".join(problems))


def main(argv=None):
    c, = load(BayLing, argv=argv)
    out = Path(c.out)
    if (out / "account.json").exists():
        raise ValueError(f"{out} holds a finished instruction set; remove it or set out= another folder")
    skipped = Counter()
    available = Counter((category, source, target) for category, source, target, _ in read_all(c, skipped))
    check_available(c, available)
    quota = {}
    for category, n in c.counts.items():
        quota |= split_evenly(round(n * c.scale), {d: k for d, k in available.items() if d[0] == category})
    write_sample(c, out, available, quota)
    write_account(c, out, available, +Counter(quota), skipped)


def read_all(c, skipped):
    """Yield (category, source, target, row) of all usable rows; the others are counted in skipped, by reason."""
    for code, pattern in c.instructions.items():
        for row in read_json_lines(pattern, skipped):
            yield "instruction", code, code, row | {"kind": "instruction"}
    languages = set(NAMES) if c.languages is None else {find_code(name) for name in c.languages} | set(PIVOTS)
    if c.bitext:
        for source, target, x, y in read_bitext(c, languages, skipped):
            if row := make_chat(c, "translation", source, target, x, y, skipped):
                yield "translation", source, target, row
    if c.aligned:
        for category, source, target, x, y in read_aligned(c, languages, skipped):
            if row := make_chat(c, category, source, target, x, y, skipped):
                yield category, source, target, row


def read_aligned(c, languages, skipped):
    """Yield (category, source, target, given text, answer) of every combination of languages with a pivot."""
    for row in read_json_lines(c.aligned, skipped):
        for category, (given, answer) in FIELDS.items():
            for source, x in texts_by_language(row.get(given), languages):
                for target, y in texts_by_language(row.get(answer), languages):
                    if source != target and (source in PIVOTS or target in PIVOTS):
                        yield category, source, target, x, y


def texts_by_language(value, languages):
    """[(language, text)] of a field of an aligned row; empty if it is absent or has another shape."""
    items = value.items() if isinstance(value, dict) else ()
    return [(find_code(k), text) for k, text in items if isinstance(text, str) and find_code(k) in languages]


def files_of(pattern):
    return [Path(name) for name in sorted(glob(pattern, recursive=True)) if Path(name).is_file()]


def read_json_lines(pattern, skipped):
    """The objects of JSON-lines files."""
    for path in files_of(pattern):
        for _, _, text, problem in files.read_lines(path):
            if problem is None and not text.strip():
                continue
            try:
                row = json.loads(text or "")
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                skipped["no JSON object"] += 1


def read_bitext(c, languages, skipped):
    """Yield (source, target, sentence, translation) of every pair of the files, in both directions."""
    for path in files_of(c.bitext):
        parts = (path.name.split(".")[0] if "-" in path.name else path.parent.name).split("-")[-2:]
        codes, moses = [find_code(part) for part in parts], [f".{part}" for part in parts]
        if len(codes) != 2 or None in codes:
            raise ValueError(f"{path}: name it or its folder like en-kk.tsv, by codes of recipes/bayling_languages.py")
        if moses[1] in path.suffixes or not set(codes) <= languages:
            continue  # the second of two aligned files is read with the first
        files = str(path)
        if moses[0] in path.suffixes:
            files += f"|{path.with_name(path.name.replace(moses[0], moses[1], 1))}"
        a, b = codes
        for doc in bitext_files.read_pairs(files, a, b):
            if doc.reason:
                skipped["unreadable pair"] += 1
            elif a == b or not set(codes) & set(PIVOTS):
                skipped["neither side is English or Chinese"] += 1
            else:
                yield a, b, doc.text, doc.more["target"]
                yield b, a, doc.more["target"], doc.text


def make_chat(c, category, source, target, x, y, skipped):
    """A chat whose prompt is in a pivot's words and whose answer is y; None, and counted, if it teaches nothing."""
    x, y = x.strip(), y.strip()
    if not x or not y:
        skipped["an empty side"] += 1
    elif x == y:
        skipped["both sides alike"] += 1
    elif max(len(x), len(y)) > c.max_chars:
        skipped["too long"] += 1
    else:
        pivot = source if source in PIVOTS else target
        prompt = PROMPTS[pivot][category].format(tgt=getattr(NAMES[target], pivot), x=x)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": y}]
        return {"messages": messages, "kind": category, "source": source, "target": target}
    return None


def check_available(c, available):
    """ValueError if there are no rows at all, or none of a language in the settings."""
    if not available:
        raise ValueError("nothing was found; set instructions=, bitext= and aligned= to files that exist")
    languages = {code for direction in available for code in direction[1:]}
    if missing := [name for name in c.languages or () if find_code(name) not in languages]:
        raise ValueError(f"no pair or aligned row binds {missing} to English or Chinese; add some or leave them out")
    if missing := [code for code in c.instructions if ("instruction", code, code) not in available]:
        raise ValueError(f"instructions: no chat in {', '.join(c.instructions[code] for code in missing)}")


def split_evenly(n, available):
    """{direction: its share of n}: even, capped at what a direction has; larger ones absorb the remainder."""
    quota, order = {}, sorted(available, key=lambda direction: (available[direction], direction))
    for i, direction in enumerate(order):
        quota[direction] = min(available[direction], n // (len(order) - i))
        n -= quota[direction]
    return quota


def write_sample(c, out, available, quota):
    """Write exactly quota[direction] rows of each direction, every subset being equally likely.

    Selection sampling (Knuth's algorithm S): a row is taken with probability needed / left.
    """
    rngs = {direction: random.Random(f"{c.seed}/{'/'.join(direction)}") for direction in available}
    left, needed, buffers, paths = Counter(available), Counter(quota), defaultdict(list), set()
    for unfinished in out.rglob("*.part"):  # of an interrupted run
        unfinished.unlink()

    def flush(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", newline="\n") as f:
            f.write("".join(buffers.pop(path)))

    for category, source, target, row in read_all(c, Counter()):
        direction = category, source, target
        take = rngs[direction].random() * left[direction] < needed[direction]
        left[direction] -= 1
        if not take:
            continue
        needed[direction] -= 1
        path = out / (f"chat/{source}.part" if category == "instruction" else f"crosslingual/{source}-{target}.part")
        paths.add(path)
        buffers[path].append(json.dumps(row, ensure_ascii=False) + "\n")
        if len(buffers[path]) == 256:  # 900 directions are too many files to keep open
            flush(path)
    for path in list(buffers):
        flush(path)
    assert not any(needed.values()), "the data changed while it was read"
    for path in paths:
        os.replace(path, path.with_suffix(".jsonl"))


def write_account(c, out, available, written, skipped):
    """Write and print what was requested, available and written, by category and by direction."""
    categories = {}
    for name, n in c.counts.items():
        categories[name] = {"asked": round(n * c.scale),
                            "available": sum(k for direction, k in available.items() if direction[0] == name),
                            "written": sum(k for direction, k in written.items() if direction[0] == name)}
    account = {"categories": categories, "directions": {" ".join(d): k for d, k in sorted(written.items())},
               "passed_over": dict(skipped), "languages": len({code for d in written for code in d[1:]})}
    (out / "account.tmp").write_text(json.dumps(account, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(out / "account.tmp", out / "account.json")
    for name, n in categories.items():
        note = "" if n["written"] == n["asked"] else ": there is no more"
        print(f"{name:12} {n['written']:>10,} of {n['asked']:,} asked for{note}")
    print(f"{out}: {written.total():,} instructions, {account['languages']} languages;",
          f"skipped: {dict(skipped) or 'none'}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
