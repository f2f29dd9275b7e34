"""Sources: what a row of the setting `sources` may say, the files it names, and which kind of text it holds."""
from pathlib import Path

from corpus import bitext_files, bitext_tsv, chat, files, read, rows

REQUIRED = {"name", "path", "category", "language"}
# clean: the text is already clean; target: bitext, with min_score, vectors ("en.npy|kk.npy", row i of each belongs to
# line i of the file) and align (the vectors are those of a language model, whose languages lie apart)
KEYS = REQUIRED | {"kind", "clean", "unit", "licence", "target", "min_score", "vectors", "align"}
UNITS = ("line", "paragraph", "file")
RESERVED = ("tokenizer", "text", "dropped", "work", "ranked")  # folders of the output
PART_BYTES = 64 << 20  # a larger plain file is cleaned in parts of this size, by as many processes


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
    if not is_path_component(name):
        problems.append(f"source name {name!r} must be the name of a folder: text without /, not empty, . or ..")
    elif name.endswith(("-valid", ".json", ".jsonl", ".tmp")) or name.lower() in RESERVED:
        problems.append(f"source name {name!r} is taken: choose one that is not {', '.join(RESERVED)}, ...-valid or a "
                        "file of the output")
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


def is_path_component(name: object) -> bool:
    """Whether a name can be joined to a folder and stays in it."""
    return isinstance(name, str) and name not in ("", ".", "..") and name == name.strip() and len(name.encode()) < 200 \
        and not any(character in '/\\:' or ord(character) < 32 for character in name)


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
    for path in () if "|" in source["path"] else map(Path, found):
        if path.is_dir():
            raise ValueError(f"source {source['name']}: {path} is a folder; move its files up, or make {path.name}/* a "
                             "source of its own")
        if not path.exists():
            raise ValueError(f"source {source['name']}: {path} is a link to nothing; remove or fix it")
    if "vectors" in source and len(found) > 1:
        raise ValueError(f"source {source['name']}: its vectors belong to one file, but its path matches {len(found)}; "
                         "make each file its own source")
    return found


def check_formats(source: dict, paths: list[str]):
    """ValueError names files of a source whose format no reader knows: their turn may come after hours."""
    formats = rows.FORMATS if has_chats(source) else bitext_files.FORMATS if "target" in source else read.FORMATS
    unknown = [path for path in paths if "|" not in path and files.format_of(path) not in formats]
    if unknown:
        raise ValueError(f"source {source['name']}: unknown format of {', '.join(unknown[:5])}"
                         f"{' ...' * (len(unknown) > 5)}; move them out of this folder, or end path="
                         f"{source['path']!r} in one of {', '.join(formats)}")


def find_parts(c, source: dict) -> list[tuple[str, str, int, int | None]]:
    """(name, path, start, end) of the parts of a source that are cleaned one by one, in their order.

    A part is a file, or of a large plain one the documents that begin in the bytes from start to end.
    """
    parts: list[tuple[str, str, int, int | None]] = []
    for i, path in enumerate(find_files(c, source)):
        borders = find_borders(c, source, path)
        for j, start in enumerate(borders):
            end = borders[j + 1] if j + 1 < len(borders) else None
            parts.append((f"{i:05}" if len(borders) == 1 else f"{i:05}-{j:05}", path, start, end))
    return parts


def find_borders(c, source: dict, path: str) -> list[int]:
    """Where the parts of a file begin; [0] when pairs need the whole file: two aligned files, vectors by line, quoted
    fields that may hold line breaks.
    """
    if "|" in path or "vectors" in source:
        return [0]
    borders = read.find_borders(path, source.get("unit", c.unit), PART_BYTES)
    quoted = "target" in source and borders != [0] and Path(path).suffix == ".tsv" \
        and bitext_tsv.find_columns(path, None, None).quoted
    return [0] if quoted else borders


def check_output(c):
    """ValueError when the output folder holds what prepare.py did not make: no run deletes or overwrites that."""
    out = Path(c.out)
    written = {*RESERVED, *(f"{source['name']}{end}" for source in c.sources for end in ("", "-valid"))}
    for source in c.sources:
        for path in "|".join(find_files(c, source)).split("|"):
            place = Path(path).resolve()
            if place.is_relative_to(out.resolve()) and place.relative_to(out.resolve()).parts[0] in written:
                raise ValueError(f"{path} lies where out={out} is written and would be overwritten; set out= to "
                                 "another folder")
    if not out.is_dir() or (out / "work").is_dir():
        return
    own = {*RESERVED, "account.json", "account.tmp", "rejects.jsonl", "samples.jsonl"}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in own)
    if foreign:
        raise ValueError(f"{out} holds files that prepare.py did not make ({', '.join(foreign[:5])}); set out= to a "
                         "new or empty folder")


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
