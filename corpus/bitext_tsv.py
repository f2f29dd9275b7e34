"""Tab-separated files of sentence pairs: which columns hold the two sentences, a header, the quotes of spreadsheets.

    source, target, more                     the plain format
    score, source, target                    WikiMatrix
    id, source, id, target                   Tatoeba
    code, code, source, target               the Tatoeba Challenge
    a header that names the columns          "de", "English", "source", "sentence2" ...; its order counts
"""
import csv
from itertools import islice
from typing import NamedTuple

import regex

from configs.language_table import LANGUAGES
from corpus.files import read_lines
from corpus.read import Document

SAMPLE = 2_000  # lines by which a file is judged
MAX_LINES = 100  # of one row in quotes
NUMBER = regex.compile(r"\s*-?\d+(?:[.,]\d+)?(?:e-?\d+)?\s*", regex.I)
ADDRESS = regex.compile(r"\s*(?:https?://|www\.)\S+\s*")
CODE = regex.compile(r"\s*[a-z]{2,3}(?:[-_]\w{2,8})*\s*", regex.I)
QUOTED = regex.compile(r'\s*"(?:[^"]|"")*"\s*')
SOURCE_NAMES = ("source", "src", "sentence1", "sentence_1", "text1", "source_text", "src_text")
TARGET_NAMES = ("target", "tgt", "sentence2", "sentence_2", "text2", "target_text", "tgt_text", "translation")
SCORE_NAMES = ("score", "laser_score", "margin", "similarity")
OTHER_NAMES = ("id", "url", "label", "source_id", "target_id", "src_id", "tgt_id", "source_lang", "target_lang",
               "lang1", "lang2", "source_url", "target_url", "src_url", "tgt_url", "domain", "text", "sentence")


class Columns(NamedTuple):
    source: int
    target: int
    score: int | None
    header: bool        # the first row names the columns
    quoted: bool        # by a spreadsheet: "" is one quote, and a field may hold tabs and line breaks


def read_tsv(path, source=None, target=None, start=0, end=None):
    """Yield the pairs of a file, or those that begin in its bytes from start to end, if it has no quoted fields.

    source, target: codes, by which a header may name the columns.
    """
    columns = find_columns(path, source, target)
    is_header = columns.header and not start
    for number, offset, fields, problem in read_fields(path, columns.quoted, start, end):
        doc = Document("", line=number, offset=offset, reason=problem, file=str(path))
        if problem is None and is_header:
            is_header = False
            continue
        if problem is None:
            fill_pair(doc, fields, columns)
        yield doc


def fill_pair(doc, fields, columns):
    cells = dict(enumerate(fields))
    doc.text, doc.more["target"] = cells.pop(columns.source, ""), cells.pop(columns.target, None)
    score = cells.get(columns.score, "")
    if NUMBER.fullmatch(score):
        doc.more["score"] = float(score.replace(",", "."))
    doc.url = next((cell.strip() for cell in cells.values() if ADDRESS.fullmatch(cell)), "")
    if doc.more["target"] is None:
        doc.reason = "no pair: the row has no target sentence"


def read_fields(path, quoted, start=0, end=None):
    """Yield (line, offset, fields, problem) of every row that is not blank."""
    held = []  # lines of a quoted row that has not ended
    for number, offset, text, problem in read_lines(path, start, end):
        if problem:
            yield number, offset, None, problem
        elif not quoted and text.strip():
            yield number, offset, text.split("\t"), None
        elif quoted and (held or text.strip()):
            held.append((number, offset, text))
            row = "\n".join(line for _, _, line in held)
            if row.count('"') % 2 == 0:
                yield *held[0][:2], *parse_quoted(row)
                held = []
            elif len(held) > MAX_LINES:
                yield from (unclosed(line) for line in held)
                held = []
    yield from (unclosed(line) for line in held)


def parse_quoted(row):
    try:
        return next(csv.reader([row], delimiter="\t")), None
    except csv.Error as e:
        return None, f"quotes: {e}"


def unclosed(line):
    number, offset, _ = line
    return number, offset, None, "quotes: a field is not closed by a quote"


# ---------------------------------------------------------------------- what the columns are

def find_columns(path, source, target):
    sample = [fields for *_, fields, problem in islice(read_fields(path, False), SAMPLE) if problem is None]
    quoted = is_quoted(sample)
    if quoted:
        sample = [fields for *_, fields, problem in islice(read_fields(path, True), SAMPLE) if problem is None]
    names = [name.strip().lower() for name in sample[0]] if sample else []
    if is_header(names, source, target):
        columns = named_columns(names, source, target)
        if columns is not None:
            return Columns(*columns, True, quoted)
        return Columns(*guessed_columns(sample[1:]), True, quoted)
    return Columns(*guessed_columns(sample), False, quoted)


def is_quoted(rows):
    """Whether a spreadsheet wrote the file: some quotes are doubled within quotes, or all fields are quoted, and no
    field contradicts it. A sentence in quotes alone proves nothing: it may well be a quotation."""
    cells = [cell for row in rows for cell in row if '"' in cell]
    if not cells or not all(QUOTED.fullmatch(cell) for cell in cells):
        # fields with tabs or line breaks are cut here: look at the file as a whole
        text = "\n".join("\t".join(row) for row in rows)
        return '""' in text and regex.fullmatch(r'(?:(?:"(?:[^"]|"")*"|[^"\t\n]*)(?:[\t\n]|\Z))*+', text) is not None
    every = all(QUOTED.fullmatch(cell) for row in rows for cell in row if cell.strip())
    return every or any('""' in cell.strip()[1:-1] for cell in cells)


def spellings(code):
    """How a header may name a language."""
    if code is None:
        return ()
    row = LANGUAGES.get(code.lower())
    return {code.lower(), *((row.name.lower(), row.flores.lower(), row.flores[:3].lower()) if row else ())}


def is_header(names, source, target):
    known = {*SOURCE_NAMES, *TARGET_NAMES, *SCORE_NAMES, *OTHER_NAMES, *spellings(source), *spellings(target)}
    return len(names) > 1 and all(name in known for name in names if name) and any(names)


def named_columns(names, source, target):
    """(source, target, score) columns by a header's names, or None."""
    for sources, targets in ((spellings(source), spellings(target)), (SOURCE_NAMES, TARGET_NAMES)):
        found = [next((i for i, name in enumerate(names) if name in wanted), None)
                 for wanted in (sources, targets, SCORE_NAMES)]
        if found[0] is not None and found[1] is not None:
            return found
    return None


def guessed_columns(rows):
    """(source, target, score) by content: the sentences are the first two columns that hold text.

    The score is the first column of numbers with decimals, or a number right behind the target; whole numbers in every
    row are ids.
    """
    kinds = [column_kind(cells) for cells in columns_of(rows)]
    texts = [i for i, kind in enumerate(kinds) if kind == "text"]
    source, target = texts[:2] if len(texts) >= 2 else (0, 1)
    if "score" in kinds:
        return source, target, kinds.index("score")
    behind = target + 1
    return source, target, None if kinds[behind:behind + 1] == ["id"] else behind


def columns_of(rows):
    """The cells of each column that most rows have."""
    width = sorted(map(len, rows))[len(rows) // 2] if rows else 0
    return [[row[i].strip() for row in rows if i < len(row) and row[i].strip()] for i in range(width)]


def column_kind(cells):
    """"score", "id", "address", "code" or "text"."""
    if cells and all(NUMBER.fullmatch(cell) for cell in cells):
        return "id" if all(regex.fullmatch(r"-?\d+", cell) for cell in cells) else "score"
    if cells and all(ADDRESS.fullmatch(cell) for cell in cells):
        return "address"
    if len(cells) > 1 and len(set(cells)) == 1 and CODE.fullmatch(cells[0]):
        return "code"
    return "text"
