"""A knowledge base in several languages as Prix-LM reads it: triples of names, and names of one thing in two languages.

    triples    language <TAB> subject <TAB> relation <TAB> object
    links      language <TAB> language <TAB> name in the first <TAB> name in the second

A row is one question and its answer. Of a triple the question is the subject and the relation with the language, of a
link the name and both languages: "Karvia\ncapital [de]", "Karvia\n[en] [kk]". The language after the relation is ours:
where names are spelled alike, one question would have an answer in each language.
"""
from collections import Counter

from corpus.files import read_lines

COLUMNS = {True: ("language", "subject", "relation", "object"), False: ("language", "language", "name", "name")}
Row = tuple[str, ...]


def is_triple(kind: str) -> bool:
    """Whether rows of a kind are triples; all others are links: "triples", "test_triples", "links", "test_words" ..."""
    return kind.endswith("triples")


def read_knowledge_base(files: dict[str, str], languages: list[str]) -> dict[str, list[Row]]:
    """{kind: rows} of {kind: path}, each row once; what is left out is counted by reason and printed. ValueError for a
    language that is not one of `languages`, and for a file without rows.
    """
    kb = {}
    for kind, path in files.items():
        columns, codes = COLUMNS[is_triple(kind)], 1 if is_triple(kind) else 2
        kept: dict[Row, None] = {}
        dropped: Counter = Counter()
        for number, _, line, problem in read_lines(path):
            row = tuple(cell.strip() for cell in (line or "").split("\t"))
            if problem is None and row == ("",):
                continue
            if problem is not None or len(row) != len(columns):
                dropped[problem or f"{len(row)} columns, not {' '.join(columns)}"] += 1
            elif not all(row):
                dropped["an empty name"] += 1
            elif row in kept:
                dropped["duplicate"] += 1
            elif unknown := [code for code in row[:codes] if code not in languages]:
                raise ValueError(f"{path}, line {number}: unknown language {unknown[0]!r}; languages= has "
                                 f"{' '.join(languages)}")
            else:
                kept[row] = None
        kb[kind] = list(kept)
        if dropped:
            print(f"{path}: {len(kept)} rows, left out: {dict(dropped)}")
        if not kept:
            raise ValueError(f"{path}: no row of {', '.join(columns)}, separated by tabs")
    return kb


def question(kind, row) -> tuple[str, str, str]:
    """(what is asked, the right answer, its language) of a row."""
    if not is_triple(kind):
        source, target, name, translation = row
        return f"{name}\n[{source}] [{target}]", translation, target
    language, subject, relation, answer = row
    return f"{subject}\n{relation} [{language}]", answer, language


def kb_rows(kind, rows) -> list[dict]:
    """Chats of one question: the loss is on the answer and its end."""
    return [{"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
            for asked, answer, _ in (question(kind, row) for row in rows)]


def count_leaks(kb: dict[str, list[Row]]) -> Counter:
    """What makes test rows easier, or impossible, by reason: they are trained on, so is a triple's inverse, or its
    relation or language never is."""
    trained, inverse = {*kb["triples"], *kb["links"]}, {(k, o, s) for k, s, _, o in kb["triples"]}
    relations = {(row[0], row[2]) for row in kb["triples"]}
    counts: Counter = Counter()
    for kind, rows in kb.items():
        for row in rows if kind.startswith("test_") else ():
            counts[f"{kind} that are trained on"] += row in trained
            if is_triple(kind):
                counts[f"{kind} whose inverse is trained on"] += (row[0], row[1], row[3]) in inverse
                counts[f"{kind} of a relation that is never trained on"] += (row[0], row[2]) not in relations
    return +counts


def names_of(kb: dict[str, list[Row]]) -> dict[str, list[str]]:
    """{language: every name in the files}."""
    names: dict[str, set] = {}
    for kind, rows in kb.items():
        for row in rows:
            named = ((row[0], row[1]), (row[0], row[3])) if is_triple(kind) else ((row[0], row[2]), (row[1], row[3]))
            for code, name in named:
                names.setdefault(code, set()).add(name)
    return {code: sorted(found) for code, found in names.items()}
