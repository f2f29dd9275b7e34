"""sentencepiece models: what tokenizer.model says beyond its Python interface, a tokenizer.json of that kind as a
model, and training one.

A model is a protocol buffer; the few fields needed here are read and written by hand.
"""
import io
import json
import re
import struct
from pathlib import Path
from typing import NamedTuple

from hf.tokenizer_files import EOT, IM_END, IM_START, QWEN_SPECIAL
from hf.words import steps_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of pieces
PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of a model
MAX_LINE = 1 << 16  # bytes; sentencepiece skips longer lines in training


class SentencePieceModel(NamedTuple):
    """proto: the model, its user-defined symbols turned into control pieces, so that text never forms them.
    user_defined: those symbols. prefix_space: where a text gets a first space: "model" (the model adds it), "first" (at
    the beginning of the text), "always" (behind every control token too), None. lossless: decoding gives back every
    text."""
    proto: bytes
    user_defined: list
    prefix_space: str | None
    lossless: bool


# ---------------------------------------------------------------------- tokenizer.model

def read_model(path: Path) -> SentencePieceModel:
    """The model in a file. White space among the user-defined symbols stays text, as in Gemma's model."""
    proto = bytearray(path.read_bytes())
    user_defined, normalizer = [], {}
    try:
        for number, begin, end in fields_of(proto, 0, len(proto)):
            if number == NORMALIZER:
                normalizer = {n: bytes(proto[b:e]) for n, b, e in fields_of(proto, begin, end)}
            elif number == PIECES and proto[end - 2:end] == bytes([3 << 3, USER_DEFINED]):
                piece = next(bytes(proto[b:e]).decode() for n, b, e in fields_of(proto, begin, end) if n == 1)
                if piece.replace("\u2581", " ").strip():
                    user_defined.append(piece)
                    proto[end - 1] = CONTROL
    except (IndexError, StopIteration, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not a sentencepiece model ({type(e).__name__})") from None
    dummy_prefix = normalizer.get(3, b"\1") == b"\1"
    keeps_spaces = normalizer.get(4, b"\1") == b"\0"
    identity = normalizer.get(1) == b"identity"
    return SentencePieceModel(bytes(proto), user_defined, "model" if dummy_prefix else None,
                              identity and keeps_spaces and not dummy_prefix)


def fields_of(data, begin, end):
    """(number, begin, end) of the fields in data[begin:end]; of a varint the bytes of its value."""
    while begin < end:
        key, begin = read_varint(data, begin)
        kind = key & 7
        if kind == 2:
            length, begin = read_varint(data, begin)
            stop = begin + length
        elif kind == 0:
            stop = read_varint(data, begin)[1]
        elif kind in (1, 5):
            stop = begin + (8 if kind == 1 else 4)
        else:
            raise IndexError(f"wire type {kind}")
        if stop > end:
            raise IndexError("a field runs past the end")
        yield key >> 3, begin, stop
        begin = stop


def read_varint(data, i):
    """(value, index behind it)."""
    value = shift = 0
    while True:
        value |= (data[i] & 127) << shift
        shift += 7
        i += 1
        if data[i - 1] < 128:
            return value, i


# ---------------------------------------------------------------------- tokenizer.json

PREFIX_SPACES = {  # normalizer and pre-tokenizer: where a text gets a first space
    (("Prepend", "\u2581"), ("Replace", None)): "model", (("Replace", None),): None, (("Metaspace", "never"),): None,
    (("Metaspace", "first"),): "first", (("Metaspace", "always"),): "always"}


def model_from_json(path: Path, whole: dict) -> SentencePieceModel:
    """The model that a tokenizer.json (BPE with byte fallback) describes."""
    model = whole["model"]
    steps = steps_of(whole.get("normalizer"), "normalizers") + steps_of(whole.get("pre_tokenizer"), "pretokenizers")
    shape = tuple((step.get("type"), step.get("prepend", step.get("prepend_scheme"))) for step in steps)
    if shape not in PREFIX_SPACES or any(step.get("split") for step in steps):
        raise ValueError(f"{path}: normalizer and pre-tokenizer {json.dumps(steps)[:200]} with byte fallback are not "
                         f"implemented")
    prefix_space = PREFIX_SPACES[shape]
    for token in whole.get("added_tokens") or []:
        if token.get("normalized") and prefix_space:
            raise ValueError(f"{path}: normalized=true of added token {token['content']!r} is not implemented with a "
                             "first space; such a token is found behind spaces only")
    vocab, merges = model["vocab"], [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    lacking = [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in vocab]
    if lacking:
        raise ValueError(f"{path}: byte fallback without a token {lacking[0]} ({len(lacking)} lacking) is not "
                         f"implemented")
    rank: dict[str, int] = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank) + 1)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError(f"{path}: the ids of its vocabulary have gaps; sentencepiece needs them dense")
    added = {token["content"] for token in whole.get("added_tokens") or []}
    pieces = []
    for piece in sorted(vocab, key=vocab.get):
        if piece == model.get("unk_token"):
            kind = UNKNOWN
        elif piece in added:
            kind = CONTROL
        elif re.fullmatch("<0x[0-9A-F]{2}>", piece):
            kind = BYTE
        else:
            # what no merge produces never comes from text
            kind = NORMAL if piece in rank or len(piece) == 1 else CONTROL
        pieces.append((piece, -float(rank.get(piece, 0)), kind))
    ids = [vocab.get(str(content), -1) for content in (model.get("unk_token"), "<s>", "</s>")]
    return SentencePieceModel(build_proto(pieces, [*ids, -1], prefix_space == "model"), [], prefix_space, False)


def build_proto(pieces, ids, dummy_prefix):
    """A BPE model with byte fallback. pieces: (text, score, type). ids: of unknown, begin, end, padding; -1: none."""
    named = b"".join(field(number, i) for number, i in zip((40, 41, 42, 43), ids))
    parts = [field(PIECES, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces]
    parts.append(field(TRAINER, field(3, 2) + field(35, 1) + named))  # BPE, byte fallback
    parts.append(field(NORMALIZER, field(1, b"identity") + field(3, int(dummy_prefix)) + field(4, 0) + field(5, 1)))
    return b"".join(parts)


def field(number, value):
    """One field of a protocol buffer: float, varint or bytes."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(n):
    """Seven bits a byte, the lowest first; a negative number as its 64 bits."""
    n, out = n & (1 << 64) - 1, b""
    while n > 127:
        n, out = n >> 7, out + bytes([n & 127 | 128])
    return out + bytes([n])


# ---------------------------------------------------------------------- training

def train(texts, vocab_size, out):
    """Train a sentencepiece BPE and write it to the folder `out`. texts: an iterable of lines.

    Byte fallback: every text can be encoded. Digits are split, so numbers are spelled alike in every language. No
    normalization: decode(encode(text)) == text.
    """
    import sentencepiece
    model = io.BytesIO()  # a file name, or another number of threads, would give the same pieces another fingerprint
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=cut_lines(texts), model_writer=model, vocab_size=vocab_size, model_type="bpe",
            byte_fallback=True, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, control_symbols=[EOT, IM_START, IM_END],
            bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0, num_threads=16, max_sentence_length=MAX_LINE,
            shuffle_input_sentence=False, minloglevel=2)
    except RuntimeError as e:
        raise ValueError(f"vocab_size={vocab_size} does not fit the text: {e}") from None
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(model.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # Hugging Face reads tokenizer.model only with one more package
    whole = sentencepiece_to_json(sp, ["<unk>", *QWEN_SPECIAL])
    (out / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "eos_token": EOT, "unk_token": "<unk>",
         "clean_up_tokenization_spaces": False}, indent=1))


def cut_lines(texts):
    """Lines that sentencepiece would skip for their length, in parts that end with a word where there is one."""
    for text in texts:
        while len(text.encode()) > MAX_LINE:
            head = text.encode()[:MAX_LINE].decode(errors="ignore")
            cut = head.rfind(" ") + 1 or len(head)
            yield head[:cut]
            text = text[cut:]
        yield text


def sentencepiece_to_json(sp, special):
    """The tokenizer.json of a sentencepiece BPE with byte fallback and no first space. special: its control tokens."""
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    normal = [p for p, i in vocab.items() if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i))]
    merges = []
    for piece in sorted(normal, key=lambda piece: -sp.get_score(vocab[piece])):
        merges += [[piece[:k], piece[k:]] for k in range(1, len(piece)) if piece[:k] in vocab and piece[k:] in vocab]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    return {"version": "1.0", "added_tokens": [{"id": vocab[content], "content": content} | flags
                                               for content in special],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                      "vocab": vocab, "merges": merges}}
