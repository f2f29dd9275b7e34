"""Byte-level BPE as files store it: tokenizer.json, vocab.json with merges.txt, tiktoken's ranks. Each becomes a
Vocabulary.

Only what tokenizer.py runs exactly is accepted; everything else in a file is refused by name, never ignored.
"""
import base64
import json
from pathlib import Path
from typing import NamedTuple

from hf.folder import AddedToken, Declarations, read_json
from hf.merges import rank_pieces, to_bytes
from hf.words import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, read_pattern, steps_of

EOT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
QWEN_SPECIAL = [EOT, IM_START, IM_END]
# Llama 3.1's names; Llama 3 has two more reserved ones in place of <|finetune_right_pad_id|> and <|eom_id|>
LLAMA3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
                  "<|eom_id|>",
    "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(3, 248))]


class Family(NamedTuple):
    """A published tokenizer whose tiktoken file says nothing but its ranks."""
    special: list
    bos: str | None
    pattern: str
    forms: list


FAMILIES = {  # by the number of ranks: a file's name says nothing
    151643: Family(QWEN_SPECIAL + [f"<|extra_{i}|>" for i in range(205)], None, QWEN2_PATTERN, ["NFC"]),
    128000: Family(LLAMA3_SPECIAL, "<|begin_of_text|>", LLAMA3_PATTERN, [])}


class Vocabulary(NamedTuple):
    """A byte-level BPE. tokens: byte strings in the order of their merges; ids: their ids, in that order."""
    path: Path            # of the file, for messages
    tokens: list
    ids: list
    pattern: str          # how a text is cut into words
    forms: list           # Unicode normal forms applied to it before
    added: dict           # {content: AddedToken}
    bos_id: int | None    # the id in front of every text
    unmerged: dict        # {id: bytes} of tokens that no text has


def read_vocabulary(path: Path, whole: dict | None, declared: Declarations) -> Vocabulary:
    """Vocabulary of vocab.json, of tokenizer.json (whole: its content), or of a file of tiktoken's ranks."""
    if path.name == "vocab.json":
        return from_vocab(path.parent, declared)
    return from_tiktoken(path, declared) if whole is None else from_tokenizer_json(path, whole, declared)


def from_tokenizer_json(path: Path, whole: dict, declared: Declarations) -> Vocabulary:
    """Vocabulary of a tokenizer.json, given its content."""
    model = whole["model"]

    def refuse(what, value):
        raise ValueError(f"{path}: {what} {json.dumps(value)[:200]} is not implemented")

    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        refuse("the model type", model.get("type"))
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            refuse(name, model[name])
    pattern = read_pattern(path, whole.get("pre_tokenizer"))
    forms = [step.get("type") for step in steps_of(whole.get("normalizer"), "normalizers")]
    if set(forms) - {"NFC", "NFD", "NFKC", "NFKD"}:
        refuse("the normalizer", whole["normalizer"])
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    added = with_named(declared, model["vocab"], merges)
    return from_merges(path, model["vocab"], merges, pattern, forms, added, find_bos(whole, declared),
                       model.get("ignore_merges"))


def from_vocab(folder: Path, declared: Declarations) -> Vocabulary:
    """Vocabulary of vocab.json and merges.txt; the class that tokenizer_config.json names says how text is cut."""
    vocab = read_json(folder / "vocab.json")
    name = str(declared.config.get("tokenizer_class", "GPT2Tokenizer" if EOT in vocab else "Qwen2Tokenizer"))
    name = name.removesuffix("Fast")
    if name not in ("Qwen2Tokenizer", "GPT2Tokenizer"):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: tokenizer_class {name!r} with vocab.json is not "
                         "implemented; tokenizer.json is needed")
    path = folder / "merges.txt"
    if not path.exists():
        raise ValueError(f"{path}: missing; vocab.json is of no use without it")
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[0].startswith("#version"):
        del lines[0]
    merges = [line.split(" ") for line in lines if line]
    added = with_named(declared, vocab, merges)
    if not added:
        missing = QWEN_SPECIAL if EOT not in vocab else []
        added = {EOT: AddedToken(vocab[EOT], True, False)} if EOT in vocab else {}
        added |= {content: AddedToken(len(vocab) + i, True, False) for i, content in enumerate(missing)}
    pattern, forms = (QWEN2_PATTERN, ["NFC"]) if name == "Qwen2Tokenizer" else (GPT2_PATTERN, [])
    return from_merges(path, vocab, merges, pattern, forms, added, None, False)


def from_merges(path, vocab, merges, pattern, forms, added, bos_id, whole_words) -> Vocabulary:
    """Vocabulary of pieces, written in GPT-2's stand-in characters, and their merges."""
    order, unmerged = rank_pieces(path, vocab, merges, whole_words, added)
    return Vocabulary(path, [to_bytes(piece) for piece in order], [vocab[piece] for piece in order], pattern, forms,
                      added,
                      bos_id, {i: to_bytes(piece) for i, piece in unmerged.items()})


def with_named(declared, vocab, merges):
    """The added tokens, and those named for a role (eos_token, ...) that are in the vocabulary only.

    A named token that merges produce, or a single character, stays a piece of text ("!" as pad_token).
    """
    produced = {"".join(merge) for merge in merges}
    added = dict(declared.added)
    for content in (*declared.names.values(), *declared.special):
        if content not in added and content in vocab and content not in produced and len(content) > 1:
            added[content] = AddedToken(vocab[content], True, False)
    return added


def find_bos(whole, declared):
    """The id that the post-processor, or add_bos_token, puts in front of every text, or None."""
    content = declared.names.get("bos_token") if declared.config.get("add_bos_token") else None
    for step in steps_of(whole.get("post_processor"), "processors"):
        if step.get("type") == "TemplateProcessing" and step.get("single"):
            content = step["single"][0].get("SpecialToken", {}).get("id", content)
    return declared.added[content].id if content in declared.added else None


def from_tiktoken(path: Path, declared: Declarations) -> Vocabulary:
    """Vocabulary of lines of base64 and rank: Qwen's or Llama 3's, recognized by the number of ranks."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as e:
        raise ValueError(f"{path}: not lines of base64 and rank ({e})") from None
    if len(ranks) < len(pairs):
        raise ValueError(f"{path}: a token occurs twice")
    family = FAMILIES.get(len(ranks))
    if family is None:
        raise ValueError(f"{path}: {len(ranks)} ranks match no tokenizer family that this code knows "
                         f"({', '.join(map(str, FAMILIES))}); the file does not say how text is cut; "
                         "convert it to tokenizer.json")
    tokens = sorted(ranks, key=lambda token: ranks[token])
    default = {content: AddedToken(len(tokens) + i, True, False) for i, content in enumerate(family.special)}
    added = declared.added or default
    bos_id = added[family.bos].id if family.bos in added else None
    return Vocabulary(path, tokens, [ranks[t] for t in tokens], family.pattern, family.forms, added, bos_id, {})
