"""Sources: what a row of the setting `sources` may say, the files it names, and which kind of text it holds."""
from pathlib import Path

from corpus import chat

REQUIRED = {"name", "path", "category", "language"}
# clean: the text is already clean; target: bitext, with min_score, vectors ("en.npy|kk.npy", row i of each belongs to
# line i of the file) and align (the vectors are those of a language model, whose languages lie apart)
KEYS = REQUIRED | {"kind", "clean", "unit", "licence", "target", "min_score", "vectors", "align"}
UNITS = ("line", "paragraph", "file")
RESERVED = ("tokenizer", "text", "dropped")  # folders of the output


def check_sources(sources: list[dict], language_names: dict) -> list[str]:
    """What is wrong with the sources, one sentence per problem."""
    problems = []
    if not sources:
        problems.append("sources is empty: name at least one file of text")
    for source in sources:
        problems += check_source(source, language_names)
    names = [source.get("name") for source in sources]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.append(f"two sources are named {name!r}")
    return problems


def check_source(source: dict, language_names: dict) -> list[str]:
    if not set(source) >= REQUIRED:
        return [f"source {source!r} needs name, path, category and language"]
    problems, name, kind = [], source["name"], source.get("kind", "text")
    if set(source) - KEYS:
        problems.append(f"source {name!r} has unknown {sorted(set(source) - KEYS)}; the keys are {sorted(KEYS)}")
    if "/" in str(name) or str(name).endswith("-valid") or name in RESERVED:
        problems.append(f"source name {name!r} is taken: choose one without '/', not tokenizer, text, dropped or "
                        "...-valid")
    if source.get("unit", "file") not in UNITS:
        problems.append(f"unit must be line, paragraph or file, got {source['unit']!r}")
    if kind not in ("text", *chat.KINDS) or ("target" in source and "kind" in source):
        problems.append(f"source {name!r}: kind is text, chat or preference (bitext has a target), got {kind!r}")
    if "target" not in source and {"vectors", "align", "min_score"} & set(source):
        problems.append(f"source {name}: vectors, align and min_score are for bitext (target)")
    if "vectors" in source and str(source["vectors"]).count("|") != 1:
        problems.append(f'source {name}: vectors are two files, "en.npy|kk.npy", got {source["vectors"]!r}')
    if "target" in source:
        for code in (source["language"], source["target"]):
            if code not in language_names:
                problems.append(f"language_names has no English name for language {code!r}")
    return problems


def has_chats(source: dict) -> bool:
    """Whether a source holds chats or preference pairs."""
    return source.get("kind", "text") != "text"


def is_web(source: dict) -> bool:
    """Whether a source holds running text as found on the web."""
    return not ("target" in source or source.get("clean") or has_chats(source))


def language_of(source: dict) -> str:
    """The language of a source, as data.py groups them: "kk", or "en-kk" for bitext."""
    return f"{source['language']}-{source['target']}" if "target" in source else source["language"]


def find_files(c, source: dict) -> list[str]:
    """The files of a source, in a fixed order; ValueError when there is none. A Moses pair is "a.en|a.kk"."""
    if "|" in source["path"]:
        paths = [Path(c.raw) / p for p in source["path"].split("|")]
        found = ["|".join(map(str, paths))] if all(p.exists() for p in paths) else []
    else:
        found = sorted(str(p) for p in Path(c.raw).glob(source["path"]))
    if not found:
        raise ValueError(f"source {source['name']}: nothing at {Path(c.raw) / source['path']}; "
                         f"correct its path or raw={c.raw}")
    if "vectors" in source and len(found) > 1:
        raise ValueError(f"source {source['name']}: its vectors are of one file, but its path matches {len(found)}; "
                         "make each file a source")
    return found


def work_folder(c, source: dict) -> Path:
    """The folder of a source's stamps and intermediate files."""
    return Path(c.out) / "work" / source["name"]


def kept_file(c, source: dict) -> Path:
    return Path(c.out) / "text" / f"{source['name']}.jsonl"


def dropped_file(c, source: dict) -> Path:
    return Path(c.out) / "dropped" / f"{source['name']}.jsonl"


def refused_file(c, source: dict) -> Path:
    """The chats that the chat template refused."""
    return Path(c.out) / "dropped" / f"{source['name']}.template.jsonl"
