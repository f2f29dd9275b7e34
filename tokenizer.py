"""Text <-> ids. The files decide: byte-level BPE runs in tiktoken (Qwen2, Qwen3, Llama 3), the rest in sentencepiece (Llama 2, ours).

    t = load("Qwen/Qwen2-1.5B"); t.encode("Salam!"); t.decode(ids); t.chat([{"role": "user", "content": "Salam!"}])

Special tokens written in a text are ordinary text unless special=True says otherwise. BOS is never added: t.bos is the id that
this tokenizer puts before a text, or None.
"""
import base64
import codecs
import datetime
import hashlib
import io
import json
import re
import struct
import unicodedata
from pathlib import Path

EOT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# How text is cut into words before merging. Qwen2: contractions, words with one leading mark, single digits, runs of marks,
# newlines, spaces. Llama 3 keeps up to three digits together.
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN_SPECIAL = [EOT, IM_START, IM_END]
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)), "<|start_header_id|>",
                  "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>", *(f"<|reserved_special_token_{i}|>" for i in range(5, 251))]
ENDS = (IM_END, "<|eot_id|>", "<|eom_id|>", EOT, "<|end_of_text|>", "</s>")  # tokens that end a turn or a text
SEPARATORS = (EOT, "<|end_of_text|>", "</s>")  # of these the first known one stands between documents
FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "chat_template.jinja", "chat_template.json")


def load(folder):
    """The tokenizer of a folder; ValueError when it holds none or one that this code does not implement."""
    folder = Path(folder)
    model, ranks = folder / "tokenizer.model", sorted(folder.glob("*.tiktoken"))
    if model.exists():
        return from_tiktoken(folder, model) if model.read_bytes()[:256].split(b"\n")[0].endswith(b" 0") else SentencePiece(folder)
    if (folder / "tokenizer.json").exists():
        if _json(folder / "tokenizer.json").get("model", {}).get("byte_fallback"):
            return SentencePiece(folder)
        return from_tokenizer_json(folder)
    if (folder / "vocab.json").exists():
        return from_vocab(folder)
    if ranks:
        return from_tiktoken(folder, ranks[0])
    raise ValueError(f"{folder}: no tokenizer; expected tokenizer.model (sentencepiece), vocab.json or tokenizer.json or *.tiktoken (byte-level BPE)")


def files(folder):
    """The files of a folder that belong to its tokenizer."""
    return [p for p in sorted(Path(folder).glob("*")) if p.name in FILES or p.suffix == ".tiktoken"]


class Tokenizer:
    """What both kinds share. A kind gives `_ids(text)`, `_bytes[id]`, and `digest`, which tells what its ids depend on."""

    space = False  # whether a text's first space belongs to the tokenizer, not to the text

    def finish(self, folder, added, special, bos):
        """added {content: id}: tokens recognised whole; special: those of them that are control tokens; bos: id or None."""
        self.added, self.bos, self.config = added, bos, _json(folder / "tokenizer_config.json", {})
        self.special = {added[name] for name in special}
        self._all, self._plain = (re.compile("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")") if names else None
                                  for names in (list(added), [name for name in added if name not in special]))
        self.vocab_size = max(self._bytes) + 1
        self.eot = next((added[name] for name in SEPARATORS if name in added), None)
        if self.eot is None:
            raise ValueError(f"{folder}: none of {', '.join(SEPARATORS)} is a token; one is needed to stand between documents")
        self.stops = [added[name] for name in ENDS if name in added]
        self.template = _template(folder, self.config)
        facts = self.digest + json.dumps([sorted(added.items()), sorted(special)] if added else []).encode()
        self.fingerprint = hashlib.sha256(facts).hexdigest()[:16]
        return self

    def encode(self, text, special=False):
        """Ids of text. special=True: control tokens written in it become control ids (never do that with a stranger's text)."""
        tokens = self._all if special else self._plain
        if tokens is None or not tokens.search(text):
            return self._ids(text)
        return [i for n, part in enumerate(tokens.split(text)) if part for i in ([self.added[part]] if n % 2 else self._ids(part))]

    def decode(self, ids, before=(), special=False):
        """Text of ids; control tokens are left out unless special=True. before: ids that stand in front of them."""
        stream = self.stream(before, special)
        return "".join([stream.push(i) for i in ids] + [stream.end()])

    def stream(self, before=(), special=False):
        """A Stream that turns ids into text one by one. before: ids that stand in front of them."""
        return Stream(self, bool(before), special)

    def chat(self, messages, reply=True, **variables):
        """Ids of a conversation [{"role", "content"}, ...] by the model's own template; reply: end where the assistant speaks.

        What people wrote never becomes a control token: a letter is put into every control token in it until the text is cut.
        """
        if self.template is None:
            raise ValueError("this tokenizer has no chat template (tokenizer_config.json: chat_template)")
        mark = next(c for c in map(chr, range(0xFDD0, 0xFDF0)) if c not in str(messages))  # never a character of a text
        broken = [{k: self._all.sub(lambda m: m[0][0] + mark + m[0][1:], v) if isinstance(v, str) and self._all else v
                   for k, v in message.items()} for message in messages]
        names = {k: v["content"] if isinstance(v, dict) else v for k, v in self.config.items() if k.endswith("_token")}
        text = _render(self.template, messages=broken, add_generation_prompt=reply, **names, **variables)
        parts = self._all.split(text) if self._all else [text]
        return [i for n, part in enumerate(parts) if part for i in ([self.added[part]] if n % 2 else self.encode(part.replace(mark, "")))]


class Stream:
    """Ids to text as they come: the bytes of a character wait until it is whole."""

    def __init__(self, t, inside, special):
        self.t, self.special, self.skip = t, special, t.space and not inside
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, i):
        """The text that id i completes."""
        if i in self.t.special:
            return self.end() + self.t._bytes[i].decode() if self.special else ""
        text = self.utf8.decode(self.t._bytes.get(i, b""))  # an id of a padded row has no text
        if self.skip and text:
            self.skip, text = False, text.removeprefix(" ")
        return text

    def end(self):
        """What is left: U+FFFD for a character that was cut."""
        text = self.utf8.decode(b"", True)
        self.utf8.reset()
        return text


# ---------------------------------------------------------------------- byte-level BPE

class ByteBPE(Tokenizer):
    """Byte-level BPE run by tiktoken. tokens: byte strings in the order of their merges; ids: their ids, in that order."""

    def __init__(self, folder, tokens, ids, pattern, forms, added, special, bos=None, unmerged=None):
        import tiktoken
        lacking = set(range(256)) - {token[0] for token in tokens if len(token) == 1}
        if lacking:
            raise ValueError(f"{folder}: no token for byte {min(lacking)} ({len(lacking)} are lacking); byte-level BPE needs all 256")
        try:
            self.bpe = tiktoken.Encoding(str(folder), pat_str=pattern, mergeable_ranks={t: rank for rank, t in enumerate(tokens)}, special_tokens={})
        except ValueError as e:
            raise ValueError(f"{folder}: tiktoken cannot use its pattern {pattern!r} ({e})") from None
        self.tokens, self.pattern, self.forms = tokens, pattern, forms
        self.id_of = None if ids == list(range(len(ids))) else ids
        self._bytes = dict(zip(ids, tokens)) | (unmerged or {}) | {i: name.encode() for name, i in added.items()}
        self.digest = json.dumps([pattern, forms, ids]).encode() + b"\0".join(tokens)
        self.finish(Path(folder), added, special, bos)

    def _ids(self, text):
        if not text.isascii():
            for form in self.forms:
                text = unicodedata.normalize(form, text)
        ids = self.bpe.encode_ordinary(text)
        return ids if self.id_of is None else [self.id_of[i] for i in ids]


def from_tokenizer_json(folder):
    """ByteBPE from tokenizer.json; anything in it that this code does not do is refused by name."""
    path = folder / "tokenizer.json"
    whole, model = _json(path), _json(path).get("model", {})

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
    added, special, bos = _added(path, whole)
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    return _merged(folder, model["vocab"], merges, pattern, forms, added, special, bos, model.get("ignore_merges"))


def from_vocab(folder):
    """ByteBPE from vocab.json and merges.txt; the class that tokenizer_config.json names says how text is cut."""
    vocab, config = _json(folder / "vocab.json"), _json(folder / "tokenizer_config.json", {})
    name = str(config.get("tokenizer_class", "GPT2Tokenizer" if EOT in vocab else "Qwen2Tokenizer")).removesuffix("Fast")
    if name not in ("Qwen2Tokenizer", "GPT2Tokenizer"):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: tokenizer_class {name!r} with vocab.json is not implemented; tokenizer.json is needed")
    path = folder / "merges.txt"
    if not path.exists():
        raise ValueError(f"{path}: missing; vocab.json is of no use without it")
    lines = path.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))]
    added, special = _declared(folder, config, {EOT: vocab[EOT]} if EOT in vocab else {n: len(vocab) + i for i, n in enumerate(QWEN_SPECIAL)})
    pattern, forms = (QWEN2_PATTERN, ["NFC"]) if name == "Qwen2Tokenizer" else (GPT2_PATTERN, [])
    return _merged(folder, vocab, merges, pattern, forms, added, special, None, False)


def _merged(folder, vocab, merges, pattern, forms, added, special, bos, whole_words):
    """ByteBPE of a vocabulary and its merges, written in GPT-2's stand-in characters."""
    to_byte = {char: byte for byte, char in byte_characters().items()}
    order = dict.fromkeys([piece for piece in vocab if len(piece) == 1 and piece in to_byte])
    try:
        for left, right in merges:
            order.setdefault(left + right)
        ids = [vocab[piece] for piece in order]
    except (KeyError, ValueError, TypeError) as e:
        raise ValueError(f"{folder}: a merge does not fit the vocabulary ({type(e).__name__}: {e}); the tokenizer's files are damaged") from None
    rest = {piece: i for piece, i in vocab.items() if piece not in order and piece not in added}
    if whole_words:  # ignore_merges: a word that is a token is taken whole, whether or not merges lead to it
        order, ids, rest = order | dict.fromkeys(rest), ids + list(rest.values()), {}
    as_bytes = lambda piece: bytes(to_byte[c] for c in piece) if all(c in to_byte for c in piece) else piece.encode()  # noqa: E731
    return ByteBPE(folder, [as_bytes(piece) for piece in order], ids, pattern, forms, added, special, bos, {i: as_bytes(p) for p, i in rest.items()})


def from_tiktoken(folder, path):
    """ByteBPE from lines of base64 and rank: Qwen's (*.tiktoken) or Llama 3's (tokenizer.model)."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as e:
        raise ValueError(f"{path}: not lines of base64 and rank ({e})") from None
    tokens, config = sorted(ranks, key=ranks.get), _json(folder / "tokenizer_config.json", {})
    about = " ".join([str(config.get("tokenizer_class")), str(_json(folder / "config.json", {}).get("model_type")), path.name]).lower()
    llama = "qwen" not in about and ("llama" in about or path.name == "tokenizer.model" or len(tokens) == 128000)
    if not llama and "qwen" not in about and len(tokens) != 151643:
        raise ValueError(f"{path}: {len(tokens)} ranks of an unknown family; tokenizer_config.json must name the class (Qwen or Llama)")
    names = LLAMA3_SPECIAL if llama else QWEN_SPECIAL + [f"<|extra_{i}|>" for i in range(205)]
    added, special = _declared(folder, config, {name: len(tokens) + i for i, name in enumerate(names)})
    bos = added.get("<|begin_of_text|>") if llama else None
    return ByteBPE(folder, tokens, [ranks[t] for t in tokens], LLAMA3_PATTERN if llama else QWEN2_PATTERN, [] if llama else ["NFC"], added, special, bos)


def byte_characters():
    """GPT-2's printable stand-in for every byte: itself where printable, else the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), ord("\u00ff") + 1)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


# ---------------------------------------------------------------------- sentencepiece

class SentencePiece(Tokenizer):
    """A sentencepiece model (tokenizer.model), or a tokenizer.json of its kind (BPE with byte fallback) turned into one."""

    def __init__(self, folder):
        import sentencepiece
        folder, self.metaspace = Path(folder), False
        path, config = folder / "tokenizer.model", _json(folder / "tokenizer_config.json", {})
        added, special, bos = {}, [], None
        try:
            if path.exists():
                self.digest = path.read_bytes()
                self.sp = sentencepiece.SentencePieceProcessor(model_proto=self.digest)
                self.space = self.sp.encode(" ") != [] and self.sp.id_to_piece(self.sp.encode("a")[0]).startswith("\u2581")
                bos = self.sp.bos_id() if self.sp.bos_id() >= 0 and config.get("add_bos_token", True) else None
            else:
                path = folder / "tokenizer.json"
                self.digest, self.space, self.metaspace = _model_proto(path)
                added, special, bos = _added(path, _json(path))
                self.sp = sentencepiece.SentencePieceProcessor(model_proto=self.digest)
        except (RuntimeError, OSError) as e:
            raise ValueError(f"{path}: not a sentencepiece model ({e})") from None
        sp, n = self.sp, self.sp.vocab_size()
        self._bytes = {i: bytes([int(sp.id_to_piece(i)[3:5], 16)]) if sp.is_byte(i) else sp.id_to_piece(i).replace("\u2581", " ").encode() for i in range(n)}
        control = {sp.id_to_piece(i): i for i in range(n) if sp.is_control(i)}
        if path.name == "tokenizer.model":
            more, marked = _declared(folder, config, {})
            added, special = control | {k: i for k, i in more.items() if i != sp.unk_id()}, [*control, *marked]
        self._bytes |= {i: name.encode() for name, i in added.items()}
        self._bytes[sp.unk_id()] = " \u2047 ".encode()
        self.finish(folder, added, [name for name in special if name in added], bos)

    def _ids(self, text):
        if self.metaspace and not text.startswith((" ", "\u2581")) and text:
            text = " " + text
        return self.sp.encode(text)


def _model_proto(path):
    """(sentencepiece ModelProto, whether a text gets a first space, whether only when it has none) of a tokenizer.json."""
    whole, model = _json(path), _json(path)["model"]
    steps = _steps(whole.get("normalizer"), "normalizers") + _steps(whole.get("pre_tokenizer"), "pretokenizers")
    shapes = [(step.get("type"), step.get("prepend", step.get("prepend_scheme"))) for step in steps]
    known = {(("Prepend", "\u2581"), ("Replace", None)): (True, False), (("Replace", None),): (False, False),
             (("Metaspace", "never"),): (False, False), (("Metaspace", "first"),): (True, True), (("Metaspace", "always"),): (True, True)}
    if tuple(shapes) not in known or any(step.get("split") for step in steps):
        raise ValueError(f"{path}: the normalizer and pre-tokenizer {json.dumps(steps)[:200]} with byte fallback are not implemented")
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
        kind = 2 if piece == model.get("unk_token") else 3 if piece in control else 6 if re.fullmatch("<0x[0-9A-F]{2}>", piece) else \
            1 if piece in rank or len(piece) == 1 else 3  # unknown, control, byte, normal; what no merge makes never comes from text
        out += _field(1, _field(1, piece.encode()) + _field(2, -float(rank.get(piece, 0))) + _field(3, kind))
    ids = [vocab.get(str(name), -1) for name in (model.get("unk_token"), "<s>", "</s>")]
    out += _field(2, _field(3, 2) + _field(35, 1) + b"".join(_field(n, i) for n, i in zip((40, 41, 42, 43), [*ids, -1])))  # BPE, byte fallback
    return out + _field(3, _field(1, b"identity") + _field(3, int(space and not metaspace)) + _field(4, 0) + _field(5, 1)), space, metaspace


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


def train(texts, vocab_size, out):
    """Train a sentencepiece BPE and write it to the folder `out`. texts: an iterable of lines.

    Byte fallback: no text is unencodable. Digits are split, so numbers are spelled the same way in every language. No
    normalisation: decode(encode(text)) == text.
    """
    import sentencepiece
    made = io.BytesIO()  # with a file name or another number of threads the same pieces would have another fingerprint
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=made, vocab_size=vocab_size, model_type="bpe",
            byte_fallback=True, split_digits=True, character_coverage=1.0, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, control_symbols=[EOT, IM_START, IM_END],
            bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0, num_threads=16, max_sentence_length=1 << 16,
            shuffle_input_sentence=False, minloglevel=2)
    except RuntimeError as e:
        raise ValueError(f"vocab_size={vocab_size} does not fit the text: {e}") from None
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(made.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    # the same for Hugging Face, which reads tokenizer.model only with one more package
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    normal = [p for p, i in vocab.items() if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i))]
    merges = [[p[:k], p[k:]] for p in sorted(normal, key=lambda p: -sp.get_score(vocab[p])) for k in range(1, len(p))
              if p[:k] in vocab and p[k:] in vocab]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    whole = {"version": "1.0", "added_tokens": [{"id": vocab[p], "content": p} | flags for p in ("<unk>", *QWEN_SPECIAL)],
             "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": None, "post_processor": None,
             "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]},
             "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": merges}}
    (out / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "eos_token": EOT, "unk_token": "<unk>",
         "clean_up_tokenization_spaces": False}, indent=1))


# ---------------------------------------------------------------------- files and templates

def _json(path, default=None):
    if default is not None and not path.exists():
        return default
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not JSON ({e})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return found


def _steps(step, name):
    """The steps of a normalizer or pre-tokenizer: none, one, or a Sequence."""
    return [] if step is None else step[name] if step.get("type") == "Sequence" else [step]


def _added(path, whole):
    """({content: id}, control tokens, BOS id or None) of a tokenizer.json."""
    tokens = whole.get("added_tokens", [])
    for token in tokens:
        if any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise ValueError(f"{path}: added token {token['content']!r} takes the spaces or words around it; that is not implemented")
    added = {token["content"]: token["id"] for token in tokens}
    steps = _steps(whole.get("post_processor"), "processors")
    first = [s["single"][0].get("SpecialToken", {}).get("id") for s in steps if s.get("type") == "TemplateProcessing" and s.get("single")]
    return added, [token["content"] for token in tokens if token.get("special")], added.get(first[0]) if first else None


def _declared(folder, config, default):
    """({content: id}, control tokens) that the files beside a vocabulary declare."""
    known = {entry["content"]: (int(i), entry.get("special", False)) for i, entry in config.get("added_tokens_decoder", {}).items()}
    for name, i in _json(folder / "added_tokens.json", {}).items():
        known.setdefault(name, (i, name.startswith("<|") and name.endswith("|>")))
    known = known or {name: (i, True) for name, i in default.items()}
    return {name: i for name, (i, _) in known.items()}, [name for name, (_, special) in known.items() if special]


def _template(folder, config):
    """The chat template of a folder, or None."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    found = _json(folder / "chat_template.json", {}).get("chat_template", config.get("chat_template"))
    return {t["name"]: t["template"] for t in found}.get("default") if isinstance(found, list) else found


def _render(template, **variables):
    """Jinja in its sandbox: a template is a stranger's program."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    env.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    try:
        return env.from_string(template).render(**variables)
    except TemplateError as e:
        raise ValueError(f"the chat template refuses this conversation: {e}") from None
