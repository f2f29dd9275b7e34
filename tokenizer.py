"""Text <-> ids. The format of the files decides: tokenizer.model is sentencepiece (Llama 2, our small ones), vocab.json or
tokenizer.json is byte-level BPE run by tiktoken (Qwen2).

    t = load("out/demo/tokenizer"); t.encode("Salam!"); t.decode(ids); t.eot; t.vocab_size; t.fingerprint
"""
import hashlib
import io
import json
import unicodedata
from pathlib import Path

EOT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Qwen2's pre-tokenizer: contractions, words with one leading mark, single digits, runs of marks, newlines, spaces
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")


class SentencePiece:
    """A sentencepiece model. encode never produces control ids from text."""

    def __init__(self, path):
        import sentencepiece
        self.files = [Path(path)]
        try:
            self.sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as e:
            raise ValueError(f"{path}: not a sentencepiece model ({e})") from None
        self.vocab_size = self.sp.vocab_size()
        eot = self.sp.piece_to_id(EOT)
        self.eot = self.sp.eos_id() if eot == self.sp.unk_id() else eot

    def encode(self, text):
        return self.sp.encode(text)

    def decode(self, ids):
        return self.sp.decode(ids)

    @property
    def fingerprint(self):
        return _fingerprint(self.files)


class ByteBPE:
    """Qwen2's byte-level BPE: merge ranks are the ids, so tiktoken runs it unchanged. Text is NFC-normalised first."""

    def __init__(self, folder):
        import tiktoken
        folder = Path(folder)
        if (folder / "vocab.json").exists():
            self.files = [folder / "vocab.json"]
            vocab, added = _json(self.files[0]), {}
        else:
            self.files = [folder / "tokenizer.json"]
            whole = _json(self.files[0])
            if whole.get("model", {}).get("type") != "BPE" or QWEN2_PATTERN not in _strings(whole.get("pre_tokenizer")):
                raise ValueError(f"{self.files[0]}: not a BPE with Qwen2's pre-tokenizer; this code implements only that one")
            vocab, added = whole["model"]["vocab"], {t["content"]: t["id"] for t in whole.get("added_tokens", [])}
        to_byte = {char: byte for byte, char in byte_characters().items()}
        ranks = {bytes(to_byte[c] for c in piece): i for piece, i in vocab.items() if piece not in added}
        added = added or {name: len(vocab) + i for i, name in enumerate((EOT, IM_START, IM_END))}
        self.bpe = tiktoken.Encoding(str(folder), pat_str=QWEN2_PATTERN, mergeable_ranks=ranks, special_tokens=added)
        self.vocab_size, self.eot = self.bpe.max_token_value + 1, added[EOT]

    def encode(self, text):
        return self.bpe.encode_ordinary(unicodedata.normalize("NFC", text))

    def decode(self, ids):
        return self.bpe.decode([i for i in ids if i not in self.bpe._special_tokens.values()])

    @property
    def fingerprint(self):
        return _fingerprint(self.files)


def load(folder):
    """The tokenizer of a folder; ValueError when it holds none."""
    folder = Path(folder)
    if (folder / "tokenizer.model").exists():
        return SentencePiece(folder / "tokenizer.model")
    if (folder / "vocab.json").exists() or (folder / "tokenizer.json").exists():
        return ByteBPE(folder)
    raise ValueError(f"{folder}: no tokenizer; expected tokenizer.model (sentencepiece), vocab.json or tokenizer.json (Qwen2)")


def byte_characters():
    """GPT-2's printable stand-in for every byte: itself where printable, else the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), ord("\u00ff") + 1)]
    rest = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}


def _strings(tree):
    """Every string in a tree of dicts and lists."""
    if isinstance(tree, (dict, list)):
        return [s for branch in (tree.values() if isinstance(tree, dict) else tree) for s in _strings(branch)]
    return [tree] if isinstance(tree, str) else []


def _json(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ValueError(f"{path}: not JSON ({e})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return found


def _fingerprint(files):
    h = hashlib.sha256()
    for f in files:
        h.update(f.read_bytes())
    return h.hexdigest()[:16]


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
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "tokenizer.model").write_bytes(made.getvalue())
    # what Hugging Face reads beside it
    (Path(out) / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": False, "add_eos_token": False,
         "add_prefix_space": False, "eos_token": EOT, "unk_token": "<unk>", "clean_up_tokenization_spaces": False}, indent=1))
