"""Text <-> ids. The files decide: tiktoken runs byte-level BPE (Qwen2, Qwen3, Llama 3), sentencepiece the rest (Llama
2, ours).

    t = load("models/Qwen2-1.5B"); t.encode("Salam!"); t.decode(ids); t.encode_chat([{"role": "user", "content":
    "Salam!"}])

Control tokens written in a text are ordinary text unless special=True says otherwise. Control are: tokens flagged
special, tokens that the folder names for a role (eos_token, pad_token, additional_special_tokens, ...), sentencepiece's
control and user-defined symbols, and every added token that the chat template contains. BOS is never added: t.bos_id is
the id that this tokenizer puts before a text, or None.
"""
import codecs
import functools
import hashlib
import json
import re
import unicodedata
import warnings
from pathlib import Path

from hf.chat_template import TEMPLATES, is_looked_for, protect, render_all, unused_character
from hf.folder import AddedToken, download_hint, list_tokenizer_files, read_declarations, read_json
from hf.sentencepiece_files import model_from_json, read_model, train
from hf.tokenizer_files import EOT, IM_END, IM_START, QWEN_SPECIAL, find_bos, read_vocabulary
from hf.words import COMPLETE_PATTERNS, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, check_pattern, cut_words, to_utf8

__all__ = ["EOT", "GPT2_PATTERN", "IM_END", "IM_START", "LLAMA3_PATTERN", "QWEN2_PATTERN", "QWEN_SPECIAL",
           "TEMPLATES", "list_tokenizer_files", "load", "train"]
TURN_ENDS = (IM_END, "<|eot_id|>", "<|eom_id|>")    # where the folder declares nothing: tokens that end a turn,
SEPARATORS = (EOT, "<|end_of_text|>", "</s>")       # and tokens that stand between documents


def load(folder):
    """The tokenizer of a folder; ValueError when it has none or one that this code does not implement."""
    folder = Path(folder)
    files = [folder / name for name in ("tokenizer.model", "tokenizer.json", "vocab.json")]
    for path in files + sorted(folder.glob("*.tiktoken")):
        if path.exists():
            try:
                return _load(folder, path)
            except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as e:
                raise ValueError(f"{path}: damaged, or of a shape that is not implemented "
                                 f"({type(e).__name__}: {e})") from None
    raise ValueError(f"{folder}: no tokenizer; expected tokenizer.model (sentencepiece), "
                     f"vocab.json or tokenizer.json or *.tiktoken (byte-level BPE){download_hint(folder)}")


def _load(folder, path):
    whole = read_json(path) if path.name == "tokenizer.json" else None
    declared = read_declarations(folder, whole)
    if whole is not None and whole["model"].get("byte_fallback"):
        return SentencePiece(path, declared, whole)
    if path.name == "tokenizer.model" and not path.read_bytes()[:256].split(b"\n")[0].endswith(b" 0"):
        return SentencePiece(path, declared)  # else it has tiktoken's lines of base64 and rank, as Llama 3's
    return ByteBPE(read_vocabulary(path, whole, declared), declared)


def generation_token_ids(folder):
    """{"bos_token_id": ..., "eos_token_id": ...} for generation_config.json; empty, with a warning, if the tokenizer
    cannot be read."""
    if not list_tokenizer_files(folder):
        return {}
    try:
        t = load(folder)
    except ValueError as e:
        warnings.warn(f"generation_config.json names no end-of-text id, as the tokenizer cannot be read: {e}",
                      stacklevel=2)
        return {}
    return {"bos_token_id": t.bos_id, "eos_token_id": t.stop_ids[0] if len(t.stop_ids) == 1 else t.stop_ids}


class Tokenizer:
    """What both kinds share. A kind provides `_ids(text, first)`, `token_bytes[id]` and `digest`, a key of its ids."""

    prefix_space, forms = None, ()  # where a text gets a first space; Unicode normal forms applied to a text

    def finish(self, path, declared, added, bos_id, user_defined=()):
        """added: {content: AddedToken}, recognized whole. bos_id: int or None. user_defined: contents that are control
        tokens though no flag says so."""
        ids = [*self.token_bytes, *(token.id for token in added.values())]
        if not all(type(i) is int and i >= 0 for i in ids) or len({token.id for token in added.values()}) < len(added):
            raise ValueError(f"{path}: an id is not a number, or occurs twice")
        self.added_tokens = {c: token.id for c, token in added.items()}
        self.bos_id, self.config = bos_id, declared.config
        self.chat_template, self.names, template = declared.template, declared.names, declared.template or ""
        named = {*declared.names.values(), *declared.special}
        special = {content for content, token in added.items() if token.special or content in named}
        in_template = {content for content in added if content in template}
        control = special | in_template | set(user_defined)
        self.special_ids = {added[content].id for content in special}    # shown only if special=True
        self.control_ids = {added[content].id for content in control}    # never produced from text
        late = {self.normalize(c): token.id for c, token in added.items() if token.normalized and c not in control}
        early = [c for c, token in added.items() if c in control or not token.normalized]
        self._late = late
        self._all, self._plain, self._normal = (
            _alternatives(names) for names in (early, [c for c in early if c not in control], late))
        self._control = _alternatives(control)
        answers = {c for c in in_template - special - set(user_defined) if is_looked_for(c, template)}
        self._control_in_answers, self._thinks = _alternatives(control - answers), bool(answers)
        self.vocab_size = max(ids) + 1
        self.eot_id = self._find_eot(path, declared.eos_ids)
        self.prefix_token_id = self.eot_id if bos_id is None else bos_id  # the context of a text that has none
        reachable = {self.eot_id, bos_id, *(self.added_tokens[c] for c in in_template)} - {None}
        self.min_rows = 1 + max(reachable | {i for i in ids if i not in self.control_ids})
        flagged = [content for content, token in added.items() if token.special]
        facts = self.digest + json.dumps([sorted(self.added_tokens.items()), sorted(flagged)] if added else []).encode()
        self.fingerprint = hashlib.sha256(facts).hexdigest()[:16]
        return self

    def _find_eot(self, path, eos_ids):
        """The id between documents: the folder's eos, except one that ends a turn; else a separator known by name."""
        name = self.names.get("eos_token")
        declared = [i for i in eos_ids if i in self.token_bytes]
        if name is not None:
            i = self.added_tokens.get(name, self.piece_id(name))
            if i is None:
                raise ValueError(f"{path}: eos_token {name!r} is not a token of this tokenizer")
            declared.append(i)
        self._declared_ends = list(dict.fromkeys([*eos_ids, *declared]))
        separators = [self.added_tokens[c] for c in SEPARATORS if c in self.added_tokens]
        turn_ends = {self.added_tokens[c] for c in TURN_ENDS if c in self.added_tokens}
        order = [i for i in declared if i in separators] + [i for i in declared if i not in turn_ends]
        order += separators + declared
        if not order:
            raise ValueError(f"{path}: no end-of-text token: set eos_token in tokenizer_config.json (none of "
                             f"{', '.join(SEPARATORS)} is a token)")
        return order[0]

    @functools.cached_property
    def stop_ids(self):
        """Ids that end a generation: the one that ends a turn in the chat template, and the folder's own; those known
        by name only where the folder declares none."""
        known = [self.added_tokens[c] for c in (*TURN_ENDS, *SEPARATORS) if c in self.added_tokens]
        turn_end = self._find_turn_end()
        ends = [] if turn_end is None else [turn_end]
        return list(dict.fromkeys(ends + (self._declared_ends or known) + [self.eot_id]))

    def _find_turn_end(self):
        """The control token that the chat template writes behind an answer, or None."""
        if self.chat_template is None:
            return None
        try:
            text = self.render_chat([{"role": "user", "content": "Question"},
                                     {"role": "assistant", "content": "Answer"}], False)
        except ValueError:  # a template for other conversations
            return None
        end = self._control.search(text.rpartition("Answer")[2]) if self._control and "Answer" in text else None
        return self.added_tokens[end[0]] if end else None

    def encode(self, text, special=False):
        """Ids of a text. special=True: control tokens in it become control ids (never do that with untrusted text)."""
        pattern = self._all if special else self._plain
        return self._encode_parts(pattern.split(text) if pattern else [text])

    def _encode_parts(self, parts):
        """Ids of text (even indices) and added tokens (odd indices) in turn."""
        ids = []
        for n, part in enumerate(parts):
            if n % 2:
                ids.append(self.added_tokens[part])
            elif part:
                ids += self._encode_text(part, n == 0)
        return ids

    def _encode_text(self, text, first):
        """Ids of a text without control tokens; first: whether it is the beginning."""
        text = self.normalize(text)
        if self._normal is None:
            return self._ids(text, first)
        ids = []
        for n, part in enumerate(self._normal.split(text)):
            if n % 2:
                ids.append(self._late[part])
            elif part:
                ids += self._ids(part, first and n == 0)
        return ids

    def normalize(self, text):
        """The text as the merges see it. (Hugging Face knows Unicode 9: runs of newer marks may differ in order.)"""
        for form in self.forms if not text.isascii() else ():
            text = unicodedata.normalize(form, text)
        return text

    def decode(self, ids, prefix=(), special=False):
        """Text of ids; special tokens are left out unless special=True. prefix: the ids before them."""
        stream = self.stream(prefix, special)
        return "".join([stream.push(i) for i in ids] + [stream.end()])

    def stream(self, prefix=(), special=False):
        """A Stream that turns ids into text one by one. prefix: the ids before them."""
        return Stream(self, any(map(self.has_text, prefix)), special)

    def has_text(self, i):
        """Whether an id has text: special tokens and padding rows of the embedding have none."""
        return i not in self.special_ids and bool(self.token_bytes.get(i))

    def contains_control_text(self, text):
        """Whether a text spells a control token (which stays text: see `encode`)."""
        return bool(self._control and self._control.search(text))

    # ---- conversations

    def render_chat(self, messages, add_generation_prompt=True, **variables):
        """The text of a conversation by the model's own template."""
        return self._render([(messages, add_generation_prompt)], variables)[0]

    def _render(self, conversations, variables):
        """The texts of several (messages, add_generation_prompt). tools and documents are None unless given, and a
        message's fields that are None are left out, as in transformers."""
        if self.chat_template is None:
            raise ValueError("this tokenizer has no chat template (tokenizer_config.json: chat_template)")
        shared = self.names | {"tools": None, "documents": None} | variables
        many = []
        for messages, add_generation_prompt in conversations:
            messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
            many.append(shared | {"messages": messages, "add_generation_prompt": add_generation_prompt})
        return render_all(self.chat_template, many)

    def encode_chat(self, messages, add_generation_prompt=True, **variables):
        """Ids of a conversation [{"role", "content"}, ...] by the model's own template; add_generation_prompt: end
        where the assistant speaks. tools=: function descriptions, for templates that know them.

        What people wrote never becomes a control token: a marker is inserted into every control token in it until the
        text is cut. An answer may contain the tokens the template looks for in answers (</think>).
        """
        return self._encode_chats([(messages, add_generation_prompt)], variables)[0]

    def _encode_chats(self, conversations, variables):
        marker = unused_character([[messages for messages, _ in conversations], variables])
        protected = []
        for messages, add_generation_prompt in conversations:
            patterns = [self._control_in_answers if m.get("role") == "assistant" else self._control for m in messages]
            safe = [protect(m, pattern, marker) for m, pattern in zip(messages, patterns)]
            protected.append((safe, add_generation_prompt))
        out = []
        for text in self._render(protected, protect(variables, self._control, marker)):
            parts = self._all.split(text) if self._all else [text]
            parts[::2] = [part.replace(marker, "") for part in parts[::2]]
            out.append(self._encode_parts(parts))
        return out

    def encode_with_loss_mask(self, messages, first=0, **variables):
        """(ids of a conversation, mask): mask[i] says whether id i belongs to an answer, its tool calls or the token
        that ends it, from message `first` on.

        An answer begins where its prompt ends, and ends with the first of `stop_ids`. Templates may render earlier
        answers without their thinking (Qwen3); then that is what is learned of them. ValueError when the template
        renders an answer in another way than after its own prompt, as the model would learn what it is never asked, and
        when it ignores tools or fields of a message.
        """
        self._check_fields(messages, variables)
        places = [n for n, m in enumerate(messages) if n >= first and m["role"] == "assistant"]
        conversations = [(messages, False)]
        for n in places:
            conversations += [(messages[:n], True), (messages[:n + 1], False)]
        ids, *others = self._encode_chats(conversations, variables)
        ends = {*self.stop_ids, *(self.added_tokens[c] for c in TURN_ENDS if c in self.added_tokens)}
        mask = [False] * len(ids)
        # the whole conversation up to an answer, without and with it
        for prompt, turn in zip(others[::2], others[1::2]):
            begin = len(prompt)
            answer, asked = _up_to(ids[begin:], ends), _up_to(turn[begin:], ends)
            if turn[:begin] == prompt and not asked:
                raise ValueError("the chat template ends no answer with one of "
                                 f"{', '.join(c for c, i in self.added_tokens.items() if i in ends)}")
            thoughtless = self._thinks and answer and asked[-len(answer):] == answer
            if not (turn[:begin] == prompt == ids[:begin] and (answer == asked or thoughtless)):
                raise ValueError("the chat template renders an answer differently than after its own prompt")
            mask[begin:begin + len(answer)] = [True] * len(answer)
        return ids, mask

    def _check_fields(self, messages, variables):
        """Refuse what the template would ignore: tools, and a message's tool_calls or reasoning_content."""
        fields = {key for m in messages for key, value in m.items() if value} - {"role", "content"}
        fields |= {key for key, value in variables.items() if value}
        for key in sorted(fields):
            if key not in (self.chat_template or ""):
                raise ValueError(f"the chat template ignores {key!r}; leave it out or use a template that renders it")


def _alternatives(contents):
    """A pattern that finds any of these texts, longer ones first, or None; with a group, so that split keeps them."""
    return re.compile("(" + "|".join(map(re.escape, sorted(contents, key=len, reverse=True)))
                      + ")") if contents else None


def _up_to(ids, ends):
    """The ids up to the first of `ends`, which is included; nothing without one."""
    return next((ids[:n + 1] for n, i in enumerate(ids) if i in ends), [])


class Stream:
    """Ids to text as they come: the bytes of a character wait until it is complete."""

    def __init__(self, t, inside, special):
        self.t, self.special, self.skip = t, special, t.prefix_space is not None and not inside
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, i):
        """The text that id i completes."""
        if i in self.t.special_ids:
            return self.end() + self.t.token_bytes[i].decode() if self.special else ""
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
    """Byte-level BPE run by tiktoken. Bytes without a token are dropped, as transformers drops them."""

    def __init__(self, v, declared):
        import tiktoken
        if len(set(v.tokens)) < len(v.tokens) or len(set(v.ids)) < len(v.ids):
            raise ValueError(f"{v.path}: a token or an id occurs twice")
        self.path, self.pattern, self.tokens, self.forms = v.path, v.pattern, v.tokens, v.forms
        self.lacking = bytes(sorted(set(range(256)) - {token[0] for token in v.tokens if len(token) == 1}))
        check_pattern(v.path, v.pattern)
        pattern = v.pattern
        if pattern not in COMPLETE_PATTERNS:  # what a pattern leaves out is a word of its own
            pattern = rf"{pattern}|(?s:.+?)(?=(?:{pattern})|\z)"
        ranks = {token: rank for rank, token in enumerate([*v.tokens, *(bytes([b]) for b in self.lacking)])}
        try:
            self.bpe = tiktoken.Encoding(str(v.path), pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError as e:
            raise ValueError(f"{v.path}: tiktoken cannot use its pattern {v.pattern!r} ({e})") from None
        self._run(self.bpe.encode_ordinary, "a b1!\n '\u4e00 " * 3)
        self.id_of = None if v.ids == list(range(len(v.ids))) else v.ids
        self.token_bytes = dict(zip(v.ids, v.tokens)) | v.unmerged
        self.token_bytes |= {token.id: content.encode() for content, token in v.added.items()}
        self.digest = json.dumps([v.pattern, v.forms, v.ids]).encode() + b"\0".join(v.tokens)
        self.finish(v.path, declared, v.added, v.bos_id)

    def piece_id(self, content):
        """The id of a piece of the vocabulary, or None."""
        return next((i for i, text in self.token_bytes.items() if text == content.encode()), None)

    def _run(self, encode, text):
        """tiktoken's panics, which are no Exception, as ValueError."""
        try:
            return encode(text)
        except BaseException as e:
            if type(e).__name__ != "PanicException":
                raise
            raise ValueError(f"{self.path}: tiktoken cannot cut a text of {len(text)} characters with the pattern "
                             f"{self.pattern[:200]!r} ({e})") from None

    def _ids(self, text, first=True):
        ranks = self.ranks(text)
        return ranks if self.id_of is None else [self.id_of[rank] for rank in ranks]

    def ranks(self, text):
        """Ranks of the tokens of a normalized text."""
        if not self.lacking or to_utf8(text).translate(None, self.lacking) == to_utf8(text):
            return self._run(self.bpe.encode_ordinary, text)
        ranks = []
        for word in self.words(text):
            if data := to_utf8(word).translate(None, self.lacking):
                ranks += self.bpe._encode_single_piece(data)
        return ranks

    def words(self, text):
        """The words of a normalized text, within which merges take place."""
        return cut_words(self.path, self.pattern, text)


# ---------------------------------------------------------------------- sentencepiece

class SentencePiece(Tokenizer):
    """A sentencepiece model: tokenizer.model, or a tokenizer.json of its kind (BPE with byte fallback) as one."""

    def __init__(self, path, declared, whole=None):
        """whole: the content of tokenizer.json, if that is to be used."""
        import sentencepiece
        try:
            model = read_model(path) if whole is None else model_from_json(path, whole)
            self.sp = sp = sentencepiece.SentencePieceProcessor(model_proto=model.proto)
        except (RuntimeError, OSError) as e:
            raise ValueError(f"{path}: not a sentencepiece model ({e})") from None
        self.digest, self.prefix_space, self.lossless = model.proto, model.prefix_space, model.lossless
        self.token_bytes = {}
        for i in range(sp.vocab_size()):
            piece = sp.id_to_piece(i)
            text = piece.replace("\u2581", " ").encode()
            self.token_bytes[i] = bytes([int(piece[3:5], 16)]) if sp.is_byte(i) else text
        added = dict(declared.added)
        for content in (*declared.names.values(), *declared.special):
            if content not in added and sp.is_control(sp.piece_to_id(content)):
                added[content] = AddedToken(sp.piece_to_id(content), True, False)
        if whole is None:
            bos_id = sp.bos_id() if sp.bos_id() >= 0 and declared.config.get("add_bos_token", True) else None
            pieces = {sp.id_to_piece(i): AddedToken(i, True, False) for i in range(sp.vocab_size()) if sp.is_control(i)}
            pieces |= {c: AddedToken(sp.piece_to_id(c), False, False) for c in model.user_defined}
            added = {c: token for c, token in (pieces | added).items() if token.id != sp.unk_id()}
            for content, token in added.items():
                if token.normalized and not token.special:
                    raise ValueError(f"{path}: normalized=true of added token {content!r} is not implemented beside "
                                     "sentencepiece; such a token is found behind spaces only")
        else:
            bos_id = find_bos(whole, declared)
        self.token_bytes |= {token.id: content.encode() for content, token in added.items()}
        self.token_bytes[sp.unk_id()] = " \u2047 ".encode()
        self.finish(path, declared, added, bos_id, model.user_defined)

    def piece_id(self, content):
        i = self.sp.piece_to_id(content)
        return None if i == self.sp.unk_id() else i

    def _ids(self, text, first=True):
        prefixed = self.prefix_space == "always" or (self.prefix_space == "first" and first)
        if prefixed and not text.startswith((" ", "\u2581")):
            text = " " + text
        if not text.isprintable():
            text = to_utf8(text).decode()
        if not self.lossless or "\u2581" not in text:
            return self.sp.encode(text)
        ids, *parts = map(self.sp.encode, text.split("\u2581"))  # sentencepiece's own mark of a space: spelled in bytes
        for part in parts:
            ids += [self.sp.piece_to_id(f"<0x{byte:02X}>") for byte in "\u2581".encode()] + part
        return ids


# ---------------------------------------------------------------------- chat templates

def write_template(folder, name):
    """Give the tokenizer of a folder one of TEMPLATES; ValueError when it lacks a token that the template contains."""
    if name not in TEMPLATES:
        raise ValueError(f"template is one of {', '.join(TEMPLATES)}, got {name!r}")
    t = load(folder)
    lacking = sorted(set(re.findall(r"<\|\w+\|>|</s>", TEMPLATES[name])) - set(t.added_tokens))
    lacking += ["a BOS token"] if "bos_token" in TEMPLATES[name] and "bos_token" not in t.names else []
    if lacking:
        raise ValueError(f"{folder}: this tokenizer has no {', '.join(lacking)}, which template={name} writes; choose "
                         f"another of {', '.join(TEMPLATES)}")
    (Path(folder) / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
