"""Find a benchmark's files, and read their rows in the shapes that benchmarks are published in.

.jsonl, .json (a list, {"data": [...]}, SQuAD's articles, or one object per line), .csv, .tsv, .parquet, plain lines;
.gz of any of the text formats.
"""
import csv
import functools
import gzip
import io
import json
import re
import zlib
from pathlib import Path

from evaluation.results import BENCHMARKS

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".dev", ".devtest")
SPLIT_WORDS = {"val": ("val", "validation", "valid", "dev"), "devtest": ("devtest", "test")}  # others: the split's name
ALL_SPLIT_WORDS = {"train", "val", "validation", "valid", "dev", "test", "devtest", "eval"}
MAX_BYTES = 1 << 30  # of a file, decompressed; it is read whole
NEUTRAL_WORDS = ALL_SPLIT_WORDS | {  # beside a subject or a language in a file name
    "", "of", "data", "part", "question", "questions", "goldp", "gold", "default", "main", "redux", "final", "split",
    "v1", "v2",
    *(word for name in BENCHMARKS for word in name.split("_"))}


# ---------------------------------------------------------------------- find

def find_files(data: str, folders: tuple, words: tuple, split: str, unnamed_split: bool = True) -> list[Path]:
    """The files of a split: below data/FOLDER, with each of words and a word of the split in the path.

    words: "a|b": a, or b where no path has a; "=a": a folder or a file of that name. unnamed_split: a path without any
    split's word counts where none has the right one. The shortest path wins; of a file in parts (-00000-of-0000N) all
    are returned. Nothing fits: an empty list.
    """
    depth = len(Path(data).parts)
    candidates = []
    for root in benchmark_folders(Path(data), folders):
        for path in sorted(root.rglob("*")):
            if suffix_of(path) in SUFFIXES and path.name.lower() != "readme.txt":
                candidates.append(path)
    for word in words:
        candidates = first_nonempty([p for p in candidates if has_name(p, alternative, depth, folders)]
                                    for alternative in word.split("|"))
    matches = first_nonempty([p for p in candidates if has_word(p, word, depth)]
                             for word in SPLIT_WORDS.get(split, (split,)))
    if not matches and unnamed_split:
        matches = [p for p in candidates if not any(has_word(p, word, depth) for word in ALL_SPLIT_WORDS)]
    if not matches:
        return []
    best = min(matches, key=lambda p: (len(str(p)), str(p)))
    all_parts = re.sub(r"-\d{5}-of-", "-*-of-", best.name)
    return sorted(best.parent.glob(all_parts)) if all_parts != best.name else [best]


def first_nonempty(lists):
    return next((items for items in lists if items), [])


def benchmark_folders(data, folders):
    """The existing folders, also as Hugging Face's cache has them: [datasets--OWNER--]NAME/snapshots/HASH."""
    roots = []
    for folder in folders:
        name, *below = Path(folder).parts
        for root in (data / name, *sorted(data.glob(f"datasets--*--{name}"))):
            roots += [root.joinpath(*below), *(s.joinpath(*below) for s in sorted(root.glob("snapshots/*")) if below)]
    return [root for root in dict.fromkeys(roots) if root.is_dir()]


def has_word(path, word, depth):
    """Whether a word of a split is in a path below the folder of the benchmark, which is its part number `depth`."""
    return re.search(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", "/".join(path.parts[depth + 1:]), re.I) is not None


def has_name(path, name, depth, folders):
    """Whether a path below the folder of the benchmark has a name: a subject, a language.

    The name is whole: "education" is not in college_education.csv. Words that "_", "-" or a blank join to it may only
    name a benchmark, a split or a number.
    """
    if not name:
        return True
    if name.startswith("="):
        return name[1:] in (*path.parts[depth:-1], path.name.split(".")[0])
    harmless = NEUTRAL_WORDS | {word for folder in folders for word in re.split(r"[\W_]+", folder.lower())}
    wanted = re.split("[_ -]", name.lower())
    for field in re.split("[/.]", "/".join(path.parts[depth + 1:]).lower()):
        words = re.split("[_ -]", field)
        for i in range(len(words) - len(wanted) + 1):
            others = words[:i] + words[i + len(wanted):]
            if words[i:i + len(wanted)] == wanted and all(w in harmless or w[:1].isdigit() for w in others):
                return True
    return False


def suffix_of(path):
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


# ---------------------------------------------------------------------- read

def read_benchmark_file(path: Path, header: tuple | None = None) -> list[tuple]:
    """[(line or row number, row or None, problem or None)]. header: the columns of a .csv or .tsv that names none."""
    return read_version(path, header, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)  # one file may hold many tasks (57 subjects)
def read_version(path, header, mtime):
    kind = suffix_of(path)
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: unknown format; expected {', '.join(SUFFIXES[:6])}")
    if kind == ".parquet":
        return read_parquet(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8 at byte {e.start}") from None
    if kind == ".json":
        try:
            return parse_json_document(json.loads(text))
        except json.JSONDecodeError:
            kind = ".jsonl"  # one object per line, whatever the file is called
    numbered_lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if kind == ".jsonl":
        return [parse_json_line(i, line) for i, line in numbered_lines]
    if kind in (".csv", ".tsv"):
        return parse_cells(text, kind, header)
    return [(i, {"text": line}, None) for i, line in numbered_lines]


def read_bytes(path):
    """The content of a file, decompressed; ValueError when it is damaged or has more than MAX_BYTES."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
            raw = f.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{path} cannot be read ({e}); download it again") from None
    if len(raw) > MAX_BYTES:
        raise too_large(path)
    return raw


def too_large(path):
    return ValueError(f"{path} has more than {MAX_BYTES >> 20} MiB of data, which is no benchmark's; replace it")


def read_parquet(path):
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: parquet needs a package: pip install pyarrow") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) <= MAX_BYTES:
            return [(i, row, None) for i, row in enumerate(file.read().to_pylist(), 1)]
    except (OSError, ValueError) as e:  # pyarrow's errors are subclasses
        raise ValueError(f"{path} cannot be read ({e}); download it again") from None
    raise too_large(path)


def parse_json_line(number, line):
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        return number, None, f"not JSON: {e.msg} at column {e.colno}"
    return (number, row, None) if isinstance(row, dict) else (number, None, "not an object")


def parse_json_document(document):
    """Rows of a whole JSON document; SQuAD's questions get the context of their paragraph."""
    items = document if isinstance(document, list) else [document]
    if isinstance(document, dict) and "data" in document:
        items = document["data"]
    if items and isinstance(items[0], dict) and "paragraphs" in items[0]:
        items = [{**question, "context": paragraph["context"]}
                 for article in items for paragraph in article["paragraphs"] for question in paragraph["qas"]]
    return [(i, item, None) if isinstance(item, dict) else (i, None, "not an object")
            for i, item in enumerate(items, 1)]


def parse_cells(text, kind, header):
    """Rows by column name. A .csv may use semicolons. A file whose first line names none of `header` has no header."""
    rows, columns = [], None
    for number, cells in numbered_cells(text, kind):
        if not any(cells):
            continue
        if columns is None:
            has_header = header is None or set(header) & set(cells)
            columns = cells if has_header else list(header)
            if has_header:
                continue
        if len(cells) == len(columns):
            rows.append((number, dict(zip(columns, cells)), None))
        else:
            rows.append((number, None, f"{len(cells)} cells, the header has {len(columns)}"))
    return rows


def numbered_cells(text, kind):
    """Yield (line number, cells)."""
    lines = text.split("\n")
    if kind == ".tsv" and len({line.count("\t") for line in lines if line}) == 1:  # most quotes are text there
        for number, line in enumerate(lines, 1):
            yield number, [unquote(cell) for cell in line.rstrip("\r").split("\t")]
        return
    semicolons = lines[0].count(";") > lines[0].count(",")
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""),
                        delimiter="\t" if kind == ".tsv" else ";" if semicolons else ",")
    for cells in reader:
        yield reader.line_num, cells


def unquote(cell):
    """A cell whose inner quotes are doubled was quoted by a program; other quotes are the author's."""
    if re.fullmatch(r'"(?:[^"]|"")*"', cell) and '""' in cell[1:-1]:
        return cell[1:-1].replace('""', '"')
    return cell
