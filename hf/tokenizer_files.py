"""What a tokenizer's files say: tokenizer.json, vocab.json with merges.txt, tiktoken's lines of base64, as one Vocabulary.

Only what tokenizer.py runs exactly is accepted; everything else in a file is refused by name, never ignored.
"""
import base64
import json
import re
import struct
from pathlib import Path
from typing import NamedTuple

from hf.folder import read_json

EOT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# How text is cut into words before merging. Qwen2: contractions, words with one leading mark, single digits, runs of marks,
# newlines, spaces. Llama 3 keeps up to three digits together.
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN_SPECIAL = [EOT, IM_START, IM_END]
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
                  "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>",
                  *(f"<|reserved_special_token_{i}|>" for i in range(5, 251))]


class Vocabulary(NamedTuple):
    """A byte-level BPE. tokens: byte strings in the order of their merges; ids: their ids, in that order."""
    path: Path          # of the file, for messages
    tokens: list
    ids: list
    pattern: str        # how a text is cut into words
    forms: list         # Unicode normal forms applied to it before
    added: dict         # {content: id} of tokens recognised whole
    special: list       # those of them that are control tokens
    bos_id: int | None     # the id in front of every text
    normalized: list    # added tokens that are looked for in normalised text
    unmerged: dict      # {id: bytes} of tokens that no text has


# ---------------------------------------------------------------------- byte-level BPE

def from_tokenizer_json(path, whole):
    """Vocabulary of a tokenizer.json, given what it holds."""
    model = whole["model"]

    def refuse(what, found):
        raise ValueError(f"{path}: {what} {json.dumps(found)[:200]} is not implemented")

    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        refuse("the model type", model.get("type"))
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            refuse(name, model[name])
    steps = _steps(whole.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        pattern = GPT2_PATTERN
    elif kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) and not steps[0].get("invert") \
            and str(steps[0].get("behavior")).lower() == "isolated" and "Regex" in steps[0].get("pattern", {}):
        pattern = steps[0]["pattern"]["Regex"]
    else:
        refuse("the pre-tokenizer", steps)
    if steps[-1].get("add_prefix_space"):
        refuse("add_prefix_space in", steps[-1])
    forms = [step.get("type") for step in _steps(whole.get("normalizer"), "normalizers")]
    if set(forms) - {"NFC", "NFD", "NFKC", "NFKD"}:
        refuse("the normalizer", whole["normalizer"])
    added, special, bos = added_tokens(path, whole)
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    normalized = [token["content"] for token in whole.get("added_tokens") or [] if token.get("normalized")]
    return _merged(path, model["vocab"], merges, pattern, forms, added, special, bos, model.get("ignore_merges"), normalized)


def from_vocab(folder):
    """Vocabulary of vocab.json and merges.txt; the class that tokenizer_config.json names says how text is cut."""
    vocab, config = read_json(folder / "vocab.json"), read_json(folder / "tokenizer_config.json", {})
    name = str(config.get("tokenizer_class", "GPT2Tokenizer" if EOT in vocab else "Qwen2Tokenizer")).removesuffix("Fast")
    if name not in ("Qwen2Tokenizer", "GPT2Tokenizer"):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: tokenizer_class {name!r} with vocab.json is not implemented; "
                         "tokenizer.json is needed")
    path = folder / "merges.txt"
    if not path.exists():
        raise ValueError(f"{path}: missing; vocab.json is of no use without it")
    lines = path.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))]
    default = {EOT: vocab[EOT]} if EOT in vocab else {n: len(vocab) + i for i, n in enumerate(QWEN_SPECIAL)}
    added, special = declared_tokens(folder, config, default)
    pattern, forms = (QWEN2_PATTERN, ["NFC"]) if name == "Qwen2Tokenizer" else (GPT2_PATTERN, [])
    return _merged(path, vocab, merges, pattern, forms, added, special, None, False)


def _merged(path, vocab, merges, pattern, forms, added, special, bos, whole_words, normalized=()):
    """Vocabulary of pieces and their merges, written in GPT-2's stand-in characters.

    tiktoken joins any neighbours that make a token, a list of merges only the pairs it names. The two agree when it names them
    all, and when every token is reached by its own merge; one that never is reached is left out here, as no text has it.
    """
    to_byte = {char: byte for byte, char in byte_characters().items()}
    order = [piece for piece in vocab if len(piece) == 1 and piece in to_byte]
    made = {}  # piece: how many merges make it
    for merge in merges:
        if len(merge) != 2 or "".join(merge) not in vocab:
            raise ValueError(f"{path}: the merge {merge} does not fit the vocabulary; the tokenizer's files are damaged")
        made[merge[0] + merge[1]] = made.get(merge[0] + merge[1], 0) + 1
    if len(merges) > len(made) and all(
            n == sum(p[:k] in vocab and p[k:] in vocab for k in range(1, len(p))) for p, n in made.items()):
        order += made  # Llama 3's list names all neighbours that make a token
    else:
        rank, pairs, halves = {piece: i for i, piece in enumerate(order)}, {}, {}
        for left, right in merges:
            a, b, new = rank.get(left), rank.get(right), len(order)
            if a is not None and b is not None and left + right not in rank and _meet(a, b, new, pairs, halves):
                rank[left + right], pairs[a, b], halves[new] = new, new, (a, b)
                order.append(left + right)
    known = set(order)
    rest = {piece: i for piece, i in vocab.items() if piece not in known and piece not in added}
    if whole_words:  # ignore_merges: a word that is a token is taken whole; tiktoken does so, but also joins its halves elsewhere
        for piece in rest:
            if any(piece[:k] in vocab and piece[k:] in vocab for k in range(1, len(piece))):
                raise ValueError(f"{path}: ignore_merges with a token, {piece!r}, whose halves no merge joins is not implemented")
        order, rest = [*order, *rest], {}
    table = str.maketrans({char: chr(byte) for char, byte in to_byte.items()})
    def as_bytes(piece):
        return piece.translate(table).encode("latin-1") if to_byte.keys() >= set(piece) else piece.encode()
    return Vocabulary(path, [as_bytes(piece) for piece in order], [vocab[piece] for piece in order], pattern, forms,
                      added, special, bos, normalized, {i: as_bytes(piece) for piece, i in rest.items()})


def _meet(a, b, limit, pairs, halves):
    """Whether tokens a and b, side by side, both come to be before merge `limit`: no earlier merge joins their inner ends.

    Back in time from the end: of two neighbours the one made last falls into its halves, until bytes meet. Of two merges of one
    rank the left one goes first.
    """
    until_a = until_b = limit  # the merges that end a and b
    while True:
        joined = pairs.get((a, b))
        if joined is not None and joined < until_a and joined <= until_b:
            return False
        if a > b and a in halves:
            until_a, a = a, halves[a][1]
        elif b in halves:
            until_b, b = b, halves[b][0]
        else:
            return True


def from_tiktoken(folder, path):
    """Vocabulary of lines of base64 and rank: Qwen's (*.tiktoken) or Llama 3's (tokenizer.model)."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as e:
        raise ValueError(f"{path}: not lines of base64 and rank ({e})") from None
    if len(ranks) < len(pairs):
        raise ValueError(f"{path}: a token stands twice")
    tokens, config = sorted(ranks, key=ranks.get), read_json(folder / "tokenizer_config.json", {})
    model_type = read_json(folder / "config.json", {}).get("model_type")
    about = f"{config.get('tokenizer_class')} {model_type} {path.name}".lower()
    llama = "qwen" not in about and ("llama" in about or path.name == "tokenizer.model" or len(tokens) == 128000)
    if not llama and "qwen" not in about and len(tokens) != 151643:
        raise ValueError(f"{path}: {len(tokens)} ranks of unknown family; tokenizer_config.json must name a Qwen or Llama class")
    names = LLAMA3_SPECIAL if llama else QWEN_SPECIAL + [f"<|extra_{i}|>" for i in range(205)]
    added, special = declared_tokens(folder, config, {name: len(tokens) + i for i, name in enumerate(names)})
    bos = added.get("<|begin_of_text|>") if llama else None
    pattern, forms = (LLAMA3_PATTERN, []) if llama else (QWEN2_PATTERN, ["NFC"])
    return Vocabulary(path, tokens, [ranks[t] for t in tokens], pattern, forms, added, special, bos, [], {})


def byte_characters():
    """GPT-2's printable stand-in for every byte: itself where printable, else the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


# ---------------------------------------------------------------------- sentencepiece

def model_proto(path, whole):
    """(sentencepiece ModelProto, whether a text gets a first space, None or where Metaspace puts it) of a tokenizer.json."""
    model = whole["model"]
    steps = _steps(whole.get("normalizer"), "normalizers") + _steps(whole.get("pre_tokenizer"), "pretokenizers")
    shapes = [(step.get("type"), step.get("prepend", step.get("prepend_scheme"))) for step in steps]
    known = {(("Prepend", "\u2581"), ("Replace", None)): (True, None), (("Replace", None),): (False, None),
             (("Metaspace", "never"),): (False, None), (("Metaspace", "first"),): (True, "first"),
             (("Metaspace", "always"),): (True, "always")}
    if tuple(shapes) not in known or any(step.get("split") for step in steps):
        raise ValueError(f"{path}: normalizer and pre-tokenizer {json.dumps(steps)[:200]} with byte fallback are not implemented")
    space, metaspace = known[tuple(shapes)]
    vocab, merges = model["vocab"], [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    rank = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank) + 1)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError(f"{path}: the ids of its vocabulary have gaps; sentencepiece needs them dense")
    control = {token["content"] for token in whole.get("added_tokens", [])}
    out = b""
    for piece, i in sorted(vocab.items(), key=lambda x: x[1]):
        # unknown, control, byte, normal; what no merge makes never comes from text
        kind = (2 if piece == model.get("unk_token") else 3 if piece in control else 6 if re.fullmatch("<0x[0-9A-F]{2}>", piece)
                else 1 if piece in rank or len(piece) == 1 else 3)
        out += _field(1, _field(1, piece.encode()) + _field(2, -float(rank.get(piece, 0))) + _field(3, kind))
    ids = [vocab.get(str(name), -1) for name in (model.get("unk_token"), "<s>", "</s>")]
    named = b"".join(_field(n, i) for n, i in zip((40, 41, 42, 43), [*ids, -1]))
    out += _field(2, _field(3, 2) + _field(35, 1) + named)  # BPE, byte fallback
    normalizer = _field(1, b"identity") + _field(3, int(space and not metaspace)) + _field(4, 0) + _field(5, 1)
    return out + _field(3, normalizer), space, metaspace


def _field(number, value):
    """One field of a protocol buffer: varint, float or bytes."""
    def varint(n):
        n, out = n & (1 << 64) - 1, b""
        while n > 127:
            n, out = n >> 7, out + bytes([n & 127 | 128])
        return out + bytes([n])
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + varint(len(value)) + value


# ---------------------------------------------------------------------- parts of files

def _steps(step, name):
    """The steps of a normalizer or pre-tokenizer: none, one, or a Sequence."""
    return [] if step is None else step[name] if step.get("type") == "Sequence" else [step]


def added_tokens(path, whole):
    """({content: id}, control tokens, BOS id or None) of a tokenizer.json."""
    tokens = whole.get("added_tokens", [])
    for token in tokens:
        if any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise ValueError(f"{path}: added token {token['content']!r} takes spaces or words around it; that is not implemented")
    added = {token["content"]: token["id"] for token in tokens}
    steps = _steps(whole.get("post_processor"), "processors")
    first = [s["single"][0].get("SpecialToken", {}).get("id") for s in steps
             if s.get("type") == "TemplateProcessing" and s.get("single")]
    return added, [token["content"] for token in tokens if token.get("special")], added.get(first[0]) if first else None


def declared_tokens(folder, config, default):
    """({content: id}, control tokens) that the files beside a vocabulary declare."""
    known = {x["content"]: (int(i), x.get("special", False)) for i, x in config.get("added_tokens_decoder", {}).items()}
    for name, i in read_json(folder / "added_tokens.json", {}).items():
        known.setdefault(name, (i, name.startswith("<|") and name.endswith("|>")))
    known = known or {name: (i, True) for name, i in default.items()}
    return {name: i for name, (i, _) in known.items()}, [name for name, (_, special) in known.items() if special]
