"""Text <-> ids. The files decide: tiktoken runs byte-level BPE (Qwen2, Qwen3, Llama 3), sentencepiece the rest (Llama 2, ours).

    t = load("Qwen/Qwen2-1.5B"); t.encode("Salam!"); t.decode(ids); t.encode_chat([{"role": "user", "content": "Salam!"}])

Special tokens written in a text are ordinary text unless special=True says otherwise. BOS is never added: t.bos_id is the id that
this tokenizer puts before a text, or None.
"""
import codecs
import datetime
import functools
import hashlib
import io
import json
import re
import unicodedata
import warnings
from itertools import chain
from pathlib import Path

from hf.folder import list_tokenizer_files, read_json
from hf.tokenizer_files import (EOT, GPT2_PATTERN, IM_END, IM_START, LLAMA3_PATTERN, QWEN2_PATTERN, QWEN_SPECIAL,
                                added_tokens, declared_tokens, from_tiktoken, from_tokenizer_json, from_vocab, model_proto)

ENDS = (IM_END, "<|eot_id|>", "<|eom_id|>", EOT, "<|end_of_text|>", "</s>")  # tokens that end a turn or a text
SEPARATORS = (EOT, "<|end_of_text|>", "</s>")  # of these the first known one stands between documents
_TURNS = "{{ bos_token }}%s{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}{{ %r }}{%% endif %%}"
_HEADERS = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}"
_HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_NO_SYSTEM = "{%% if messages[0].role != 'system' %%}%s{%% endif %%}"
TEMPLATES = {  # by name, for tokenizers that bring none; BayLing 2's as bayling/conversation.py of ictnlp/BayLing joins the turns
    "chatml": _TURNS.removeprefix("{{ bos_token }}") % ("", "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}",
                                                        "<|im_start|>assistant\n"),
    "llama3": _TURNS % ("", _HEADERS, _HEADER),
    "bayling": _TURNS % (_NO_SYSTEM % (
        "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.{{ '\\n' }}Below is a dialog consisting of "
        "instructions and responses. Write a response that completes the request.{{ '\\n' }}"),
        "{{ {'system': '', 'user': '### Instruction:\\n', 'assistant': '### Response:\\n'}[m.role] + m.content"
        " + ('</s>' if m.role == 'assistant' else '') + '\\n' }}", "### Response:\n"),
    "bayling-llama3": _TURNS % (_NO_SYSTEM % (
        "<|start_header_id|>system<|end_header_id|>{{ '\\n\\n' }}I am BayLing developed by the NLP Group of ICT/CAS.<|eot_id|>"),
        _HEADERS, _HEADER),
}


def load(folder):
    """The tokenizer of a folder; ValueError when it holds none or one that this code does not implement."""
    folder = Path(folder)
    named = [folder / name for name in ("tokenizer.model", "tokenizer.json", "vocab.json")]
    for path in named + sorted(folder.glob("*.tiktoken")):
        if path.exists():
            try:
                return _load(folder, path)
            except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as e:
                raise ValueError(f"{path}: damaged, or of a shape that is not implemented ({type(e).__name__}: {e})") from None
    raise ValueError(f"{folder}: no tokenizer; expected tokenizer.model (sentencepiece), "
                     "vocab.json or tokenizer.json or *.tiktoken (byte-level BPE)")


def _load(folder, path):
    if path.name == "vocab.json":
        return ByteBPE(from_vocab(folder))
    if path.name == "tokenizer.json":
        whole = read_json(path)
        return SentencePiece(folder, whole) if whole["model"].get("byte_fallback") else ByteBPE(from_tokenizer_json(path, whole))
    if path.suffix == ".tiktoken" or path.read_bytes()[:256].split(b"\n")[0].endswith(b" 0"):
        return ByteBPE(from_tiktoken(folder, path))
    return SentencePiece(folder)


def generation_token_ids(folder):
    """{"bos_token_id": ..., "eos_token_id": ...} for generation_config.json; empty, with a warning, for a tokenizer that cannot be read."""
    if not list_tokenizer_files(folder):
        return {}
    try:
        t = load(folder)
    except ValueError as e:
        warnings.warn(f"generation_config.json names no end-of-text id, as the tokenizer cannot be read: {e}", stacklevel=2)
        return {}
    return {"bos_token_id": t.bos_id, "eos_token_id": t.stop_ids[0] if len(t.stop_ids) == 1 else t.stop_ids}


class Tokenizer:
    """What both kinds share. A kind gives `_ids(text, first)`, `token_bytes[id]`, and `digest`, which tells what its ids depend on."""

    space, forms = False, ()  # whether a text's first space belongs to the tokenizer; Unicode normal forms applied to a text

    def finish(self, path, added, special, bos, normalized=()):
        """added {content: id}: tokens recognised whole; special: those of them that are control tokens; bos: id or None;
        normalized: those that are looked for in normalised text."""
        ids = [*self.token_bytes, *added.values()]
        if not all(type(i) is int and i >= 0 for i in ids) or "" in added or len(set(added.values())) < len(added):
            raise ValueError(f"{path}: an id is no number, stands twice, or has no text")
        self.added_tokens, self.bos_id, self.config = added, bos, read_json(path.parent / "tokenizer_config.json", {})
        self.control_ids = {added[name] for name in special}
        self._late = {self.normalize(name): added[name] for name in normalized if name not in special}
        early = [name for name in added if name not in self._late]
        self._all, self._plain, self._normal = (
            re.compile("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")") if names else None
            for names in (early, [name for name in early if name not in special], list(self._late)))
        self._control = re.compile("|".join(map(re.escape, special)) or "$^")
        self.vocab_size = max(ids) + 1
        self.eot_id = next((added[name] for name in SEPARATORS if name in added), None)
        if self.eot_id is None:
            raise ValueError(f"{path}: none of {', '.join(SEPARATORS)} is a token; one is needed to stand between documents")
        self.prefix_token_id = self.eot_id if bos is None else bos  # what a text begins with when nothing stands before it
        self.stop_ids = [added[name] for name in ENDS if name in added]
        self.chat_template = _template(path.parent, self.config)
        facts = self.digest + json.dumps([sorted(added.items()), sorted(special)] if added else []).encode()
        self.fingerprint = hashlib.sha256(facts).hexdigest()[:16]
        return self

    def encode(self, text, special=False):
        """Ids of text. special=True: control tokens written in it become control ids (never do that with a stranger's text)."""
        tokens = self._all if special else self._plain
        parts = tokens.split(text) if tokens else [text]
        return [i for n, part in enumerate(parts) if part for i in ([self.added_tokens[part]] if n % 2 else self._words(part, n == 0))]

    def _words(self, text, first):
        """Ids of text without control tokens; first: whether it is the beginning."""
        text = self.normalize(text)
        if self._normal is None:
            return self._ids(text, first)
        return [i for n, part in enumerate(self._normal.split(text)) if part
                for i in ([self._late[part]] if n % 2 else self._ids(part, first and n == 0))]

    def normalize(self, text):
        """The text as the merges see it. (Hugging Face knows marks up to Unicode 9: runs of newer ones may differ in order.)"""
        for form in self.forms if not text.isascii() else ():
            text = unicodedata.normalize(form, text)
        return text

    def decode(self, ids, prefix=(), special=False):
        """Text of ids; control tokens are left out unless special=True. prefix: the ids before them."""
        stream = self.stream(prefix, special)
        return "".join([stream.push(i) for i in ids] + [stream.end()])

    def stream(self, prefix=(), special=False):
        """A Stream that turns ids into text one by one. prefix: the ids before them."""
        return Stream(self, any(map(self.has_text, prefix)), special)

    def has_text(self, i):
        """Whether an id has text: control tokens and the rows a matrix is padded with have none."""
        return i not in self.control_ids and bool(self.token_bytes.get(i))

    def render_chat(self, messages, reply=True, **variables):
        """The text of a conversation by the model's own template."""
        if self.chat_template is None:
            raise ValueError("this tokenizer has no chat template (tokenizer_config.json: chat_template)")
        names = {k: v["content"] if isinstance(v, dict) else v for k, v in self.config.items()
                 if k.endswith("_token") and v is not None}
        return _render(self.chat_template, **names, messages=messages, add_generation_prompt=reply, **variables)

    def encode_chat(self, messages, reply=True, **variables):
        """Ids of a conversation [{"role", "content"}, ...] by the model's own template; reply: end where the assistant speaks.

        What people wrote never becomes a control token: a letter is put into every control token in it until the text is cut.
        """
        said = json.dumps([messages, variables], ensure_ascii=False, default=str)
        mark = next(c for c in map(chr, chain(range(0xFDD0, 0xFDF0), range(0xF0000, 0x10FFFE))) if c not in said)  # no letter

        def broken(x):
            if isinstance(x, str):
                return self._control.sub(lambda m: m[0][0] + mark + m[0][1:], x)
            if isinstance(x, dict):
                return {broken(k): broken(v) for k, v in x.items()}
            return [broken(v) for v in x] if isinstance(x, (list, tuple)) else x

        text = self.render_chat(broken(messages), reply, **broken(variables))
        parts = self._all.split(text) if self._all else [text]
        return [i for n, part in enumerate(parts) if part
                for i in ([self.added_tokens[part]] if n % 2 else self._words(part.replace(mark, ""), n == 0))]

    def contains_control_text(self, text):
        """Whether a text spells a control token (which stays text: see `encode`)."""
        return bool(self._control.search(text))

    def encode_with_loss_mask(self, messages, first=0, **variables):
        """(ids of a conversation, mask): mask[i] says whether id i is of an answer, from message `first` on, or ends one.

        An answer begins where the prompt that asks for it ends, and ends with the first of `stops`. ValueError when the
        conversation does not begin with that very prompt: the model would learn what it is never asked.
        """
        ids, before = self.encode_chat(messages, reply=False, **variables), "the chat template "
        mask = [False] * len(ids)
        for n, m in enumerate(messages):
            if n < first or m["role"] != "assistant":
                continue
            prompt = self.encode_chat(messages[:n], **variables)
            turn = self.encode_chat(messages[:n + 1], reply=False, **variables) if n + 1 < len(messages) else ids
            end = next((i for i in range(len(prompt), len(turn)) if turn[i] in self.stop_ids), None)
            if turn[:len(prompt)] != prompt or (end and ids[:end + 1] != turn[:end + 1]):
                raise ValueError(before + "tells an answer otherwise than it asks for it")
            if end is None:
                raise ValueError(before + f"ends no answer with one of {', '.join(k for k in ENDS if k in self.added_tokens)}")
            mask[len(prompt):end + 1] = [True] * (end + 1 - len(prompt))
        return ids, mask


class Stream:
    """Ids to text as they come: the bytes of a character wait until it is whole."""

    def __init__(self, t, inside, special):
        self.t, self.control_ids, self.skip = t, special, t.space and not inside
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, i):
        """The text that id i completes."""
        if i in self.t.control_ids:
            return self.end() + self.t.token_bytes[i].decode() if self.control_ids else ""
        text = self.utf8.decode(self.t.token_bytes.get(i, b""))
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
    """Byte-level BPE run by tiktoken, from a Vocabulary."""

    def __init__(self, v):
        import tiktoken
        lacking = set(range(256)) - {token[0] for token in v.tokens if len(token) == 1}
        if lacking:
            raise ValueError(f"{v.path}: no token for byte {min(lacking)} ({len(lacking)} lacking); byte-level BPE needs all 256")
        if len(set(v.tokens)) < len(v.tokens) or len(set(v.ids)) < len(v.ids):
            raise ValueError(f"{v.path}: a token or an id stands twice")
        self.pattern = v.pattern
        if v.pattern not in (QWEN2_PATTERN, LLAMA3_PATTERN, GPT2_PATTERN):  # what a pattern leaves out is a word of its own
            self.pattern = rf"{v.pattern}|(?s:.+?)(?=(?:{v.pattern})|\z)"
        ranks = {t: rank for rank, t in enumerate(v.tokens)}
        try:
            self.bpe = tiktoken.Encoding(str(v.path), pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError as e:
            raise ValueError(f"{v.path}: tiktoken cannot use its pattern {v.pattern!r} ({e})") from None
        self.tokens, self.forms = v.tokens, v.forms
        self.id_of = None if v.ids == list(range(len(v.ids))) else v.ids
        self.token_bytes = dict(zip(v.ids, v.tokens)) | v.unmerged | {i: name.encode() for name, i in v.added.items()}
        self.digest = json.dumps([v.pattern, v.forms, v.ids]).encode() + b"\0".join(v.tokens)
        self.finish(v.path, v.added, v.special, v.bos_id, v.normalized)

    def _ids(self, text, first=True):
        ids = self.bpe.encode_ordinary(text)
        return ids if self.id_of is None else [self.id_of[i] for i in ids]


# ---------------------------------------------------------------------- sentencepiece

class SentencePiece(Tokenizer):
    """A sentencepiece model (tokenizer.model), or a tokenizer.json of its kind (BPE with byte fallback) turned into one."""

    def __init__(self, folder, whole=None):
        """whole: the content of tokenizer.json, when that is to be used."""
        import sentencepiece
        folder, self.metaspace = Path(folder), None
        path = folder / ("tokenizer.json" if whole else "tokenizer.model")
        config = read_json(folder / "tokenizer_config.json", {})
        added, special, bos = {}, [], None
        try:
            if whole is None:
                self.digest = path.read_bytes()
                self.sp = sentencepiece.SentencePieceProcessor(model_proto=self.digest)
                self.space = self.sp.encode(" ") != [] and self.sp.id_to_piece(self.sp.encode("a")[0]).startswith("\u2581")
                bos = self.sp.bos_id() if self.sp.bos_id() >= 0 and config.get("add_bos_token", True) else None
            else:
                self.digest, self.space, self.metaspace = model_proto(path, whole)
                added, special, bos = added_tokens(path, whole)
                self.sp = sentencepiece.SentencePieceProcessor(model_proto=self.digest)
        except (RuntimeError, OSError) as e:
            raise ValueError(f"{path}: not a sentencepiece model ({e})") from None
        sp, n = self.sp, self.sp.vocab_size()
        self.token_bytes = {i: bytes([int(sp.id_to_piece(i)[3:5], 16)]) if sp.is_byte(i)
                       else sp.id_to_piece(i).replace("\u2581", " ").encode() for i in range(n)}
        control = {sp.id_to_piece(i): i for i in range(n) if sp.is_control(i)}
        if whole is None:
            more, marked = declared_tokens(folder, config, {})
            added, special = control | {k: i for k, i in more.items() if i != sp.unk_id()}, [*control, *marked]
        self.token_bytes |= {i: name.encode() for name, i in added.items()}
        self.token_bytes[sp.unk_id()] = " \u2047 ".encode()
        self.finish(path, added, [name for name in special if name in added], bos)

    def _ids(self, text, first=True):
        if (self.metaspace == "always" or (self.metaspace and first)) and not text.startswith((" ", "\u2581")):
            text = " " + text
        whole = text if text.isprintable() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self.sp.encode(whole)


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
    decoders = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    whole = {"version": "1.0", "added_tokens": [{"id": vocab[p], "content": p} | flags for p in ("<unk>", *QWEN_SPECIAL)],
             "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": None,
             "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders},
             "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                       "vocab": vocab, "merges": merges}}
    (out / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "eos_token": EOT, "unk_token": "<unk>",
         "clean_up_tokenization_spaces": False}, indent=1))


# ---------------------------------------------------------------------- chat templates

def write_template(folder, name):
    """Give the tokenizer of a folder one of TEMPLATES; ValueError when it lacks a token that the template writes."""
    if name not in TEMPLATES:
        raise ValueError(f"template is one of {', '.join(TEMPLATES)}, got {name!r}")
    t = load(folder)
    lacking = sorted(set(re.findall(r"<\|\w+\|>|</s>", TEMPLATES[name])) - set(t.added_tokens))
    lacking += ["a BOS token"] if "bos_token" in TEMPLATES[name] and not t.config.get("bos_token") else []
    if lacking:
        raise ValueError(f"{folder}: this tokenizer has no {', '.join(lacking)}, which template={name} writes; choose another of "
                         f"{', '.join(TEMPLATES)}")
    (Path(folder) / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")


def _template(folder, config):
    """The chat template of a folder, or None."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    found = read_json(folder / "chat_template.json", {}).get("chat_template", config.get("chat_template"))
    return {t["name"]: t["template"] for t in found}.get("default") if isinstance(found, list) else found


@functools.lru_cache
def _compiled(template):
    """A Jinja template in its sandbox: it is a stranger's program. A loss mask's mark ({% generation %}) says nothing here."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise ValueError(message)

    template = re.sub(r"(\{%-?\s*)(end)?generation(\s*-?%\})", lambda m: m[1] + ("endif" if m[2] else "if true") + m[3], template)
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    env.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    return env.from_string(template)


def _render(template, **variables):
    try:
        return _compiled(template).render(**variables)
    except Exception as e:  # whatever a stranger's program may do
        raise ValueError(f"the chat template refuses this conversation: {type(e).__name__}: {e}") from None
