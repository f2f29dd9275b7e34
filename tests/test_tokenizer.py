"""tokenizer.py: ids equal those of tokenizers, transformers and sentencepiece; text survives; text never becomes
control tokens.

Every oracle is computed here: tiny tokenizers are trained in session fixtures and written as Hugging Face folders,
which both sides read. Lines come from a seeded generator over the blocks of more than forty scripts.
"""
import base64
import codecs
import functools
import itertools
import json
import random
import shutil
import time
import unicodedata

import pytest

import tokenizer
from hf import tokenizer_files
from hf.merges import byte_characters

CORPUS = ["The quick brown fox jumps over the lazy dog.", "Сәлем, әлем! Бұл қысқа мәтін.", "这是一个很短的句子。",
          "これは短い文です。",
          "नमस्ते दुनिया, यह एक छोटा वाक्य है।", "سلام دنیا، یہ ایک چھوٹا جملہ ہے۔", "Γειά σου Κόσμε!", "שלום עולם",
          "안녕하세요 세계",
          "สวัสดีชาวโลก",
          "In 1987 it cost 65,536 coins.", "don't we'll it's I'M", "function(x) { return x * 2; }"] * 3

SCRIPTS = {
    "english": "The quick brown fox.", "german": "Straße, Äpfel und Öl", "french": "L’été où naît l’œuvre",
    "spanish": "¿Dónde está el niño?",
    "portuguese": "coração, três, ação", "turkish": "İstanbul'da ılık iğde", "azerbaijani": "Əziz dostum, gəlin!",
    "polish": "Zażółć gęślą jaźń",
    "czech": "Příliš žluťoučký kůň", "hungarian": "árvíztűrő tükörfúrógép", "romanian": "șapte țări și încă",
    "vietnamese": "Tiếng Việt rất đẹp",
    "indonesian": "Selamat pagi, dunia", "greek": "Ξεσκεπάζω την ψυχοφθόρα", "russian": "Съешь ещё этих булок",
    "ukrainian": "Ґанок, їжак і єнот",
    "kazakh": "Қазақ тілі: әіңғүұқөһ", "arabic": "اللُّغَةُ العَرَبِيَّة", "urdu": "اُردو زبان ۔",
           "hebrew": "שָׁלוֹם עוֹלָם",
    "bengali": "আমার সোনার বাংলা", "nepali": "नेपाली भाषा क्ष त्र ज्ञ", "thai": "น้ำใจไมตรีกำลัง",
           "chinese": "天地玄黄，宇宙洪荒。",
    "japanese": "ひらがな、カタカナ、漢字。ガ", "korean": "다람쥐 헌 쳇바퀴에",
    "georgian": "საქართველო", "armenian": "Հայաստան",
           "amharic": "አማርኛ",
    "tamil": "தமிழ் மொழி", "burmese": "မြန်မာဘာသာ", "khmer": "ភាសាខ្មែរ", "tibetan": "བོད་སྐད་", "cherokee": "ᏣᎳᎩ",
    "gothic": "𐌲𐌿𐍄𐌹𐍃𐌺",
    "emoji": "😀 👍🏽 🇰🇿", "joined emoji": "👨‍👩‍👧‍👦 🏳️‍🌈", "joiners": "क्‍ष می‌خواهم",
           "combining": "z̷a̴l̵g̶o e\u0301 \u0301",
    "right to left": "a\u200fb\u202ec\u202c",
}
EDGES = {
    "empty": "", "space": " ", "spaces": "   a    b  ", "tabs": "\ta\t\tb", "newlines": "\n\na\n\n\nb\n",
         "windows": "a\r\nb\r",
    "mixed": " \n \t\n x",
    "digits": "0123456789 3.14 1,000,000", "other digits": "٠١٢٣ ०१२३ 二〇二六 ½ ²",
    "code": "def f(x):\n    return x['a'] != 3  # ok\n",
    "address": "https://a.example/?q=1&b=%20#c", "no break space": "a\u00a0b\u2003c\u3000d",
    "separators": "a\u2028b\u2029c\u0085d",
    "controls": "a\x01b\x1b[0m\x7f", "byte order mark": "\ufeffa", "private": "\ue000\U000f0000",
    "not a character": "\ufffd\uffff",
    "long": "ab" * 3000, "marks": "!!!???...---***", "contractions": "I'm you'll they'RE it'S 'tis",
    "fallback spelt": "<0x41><unk><s>",
}
ALL = SCRIPTS | EDGES

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| "
        r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # Llama 3 keeps up to three digits together
QWEN_SPECIAL = (tokenizer.EOT, tokenizer.IM_START, tokenizer.IM_END)
LLAMA_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>",
                 "<|end_header_id|>", "<|eot_id|>")
TOOLS = ("<tool_call>", "</tool_call>", "<|a b\u00df|>")  # added, not special: always recognised
LATER = ("zqxjzqxj", "\u0120wholeword")  # in the vocabulary, but no merge makes them: found only with ignore_merges

# size of the trained vocabulary, pattern (None: ByteLevel's own, GPT-2's), normaliser, special and other added tokens
KINDS = {
    "qwen2": dict(size=1500, pattern=QWEN, form="NFC", special=QWEN_SPECIAL),
    "qwen2 bytes": dict(size=256, pattern=QWEN, form="NFC", special=QWEN_SPECIAL),
    "qwen2.5": dict(size=700, pattern=QWEN, form="NFC", special=QWEN_SPECIAL, plain=TOOLS, merges="text"),
    "qwen2.5 large": dict(size=4000, pattern=QWEN, form="NFC", special=QWEN_SPECIAL, plain=TOOLS),
    "llama3": dict(size=1500, pattern=LLAMA, form=None, special=LLAMA_SPECIAL, ignore_merges=True,
                   bos=LLAMA_SPECIAL[0]),
    "llama3 text": dict(size=400, pattern=LLAMA, form=None, special=LLAMA_SPECIAL, ignore_merges=True, merges="text"),
    "gpt2": dict(size=1500, pattern=None, form=None, special=(tokenizer.EOT,)),
    "gpt2 nfc": dict(size=300, pattern=None, form="NFC", special=(tokenizer.EOT,), merges="text"),
}

# The first code points of most of Unicode's scripts: letters with their marks and digits, and a few unassigned ones
# between
BLOCKS = [tuple(int(x, 16) for x in b.split("-")) for b in """
    61-7A 41-5A C0-FF 100-24F 250-2AF 370-3FF 400-52F 531-58A 591-5F4 600-6FF 700-74F 780-7B1 7C0-7FA 904-97F 985-9FE
    A05-A76 A85-AF1 B05-B77 B85-BFA C05-C7F C85-CF2 D05-D7F D85-DF4 E01-E5B E81-EDF F00-FDA 1000-109F 10A0-10FF
    1100-11FF 1200-139F
    13A0-13FF 1401-167F 1681-169C 16A0-16F8 1700-1715 1780-17F9 1800-18AA 1900-194F 1950-1974 1B00-1B7C 1C00-1C4F
    1E00-1FFE
    2C00-2C5F 2D30-2D7F 3041-309F 30A0-30FF 3105-312F 4E00-4E7F A000-A07F A500-A5FF AC00-AC7F 10330-1034A 10400-1049D
    12000-1207F 13000-1307F 1D400-1D4FF 1E900-1E95F 20000-2007F""".split()]
MARKS = [chr(c) for c in (*range(0x300, 0x370), *range(0x20d0, 0x20f1), 0xfe0f, 0x200c, 0x200d, 0x93c, 0x94d, 0x3099)]
SPACES = [*" " * 6,
          *"\t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u180e\u2000\u2003\u2009\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"]
ZEROS = [0x30] * 6 + [0x660, 0x6f0, 0x966, 0x9e6, 0xe50, 0xff10, 0x1d7ce, 0x2160, 0xb2, 0xbc, 0x3021, 0x1369, 0x4e00]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¿«»·—–…、。「！؟،।€©™∀→"
EMOJI = "😀 👍🏽 🇰🇿 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ 1️⃣ 🧑🏿‍🚀".split()
CONTRACTIONS = "'s 't 're 've 'm 'll 'd 'S 'LL 'Re \u2019s '\u017f 'x".split()

# The combining marks that Unicode 10 to 14 added, and one composed vowel. The tokenizers package normalises by Unicode
# 9, where none of them is a mark yet, so it orders a run of marks with one of them otherwise than Python does.
NEWER_MARKS = {c for r in """
    7FD 898-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 10D24-10D27 10EAB-10EAC 10F46-10F50
    10F82-10F85 11070
    1133B 1145E 11839-1183A 11938 1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42 11D44-11D45 11D97 16FF0-16FF1
    1E130-1E136 1E2AE
    1E2EC-1E2EF""".split() for c in range(int(r.split("-")[0], 16), int(r.split("-")[-1], 16) + 1)}


def generate(count, seed, between=()):
    """Lines of words, digits, spaces, marks, emoji, contractions, cut samples, stray code points and the strings
    `between`."""
    r, samples = random.Random(seed), list(ALL.values())

    def some(characters, most):
        return "".join(r.choices(characters, k=r.randint(1, most)))

    def word():
        low, high = r.choice(BLOCKS)
        return "".join(chr(low + int((high - low + 1) * r.random() ** 2)) for _ in range(r.randint(1, 7)))

    def cut():
        text = r.choice(samples)
        i = r.randrange(len(text) + 1)
        return text[i:i + 20]

    def stray():
        low, high = r.choice(((0, 0x20), (0x7f, 0xa0), (0xe000, 0xf900), (0x30000, 0x110000)))
        return chr(r.randrange(low, high))

    parts = {word: 50, lambda: "".join(chr(r.choice(ZEROS) + r.randrange(10)) for _ in range(r.randint(1, 6))): 10,
             lambda: some(SPACES, 4): 10, lambda: some(PUNCTUATION, 4): 7, lambda: r.choice(EMOJI): 5,
             lambda: r.choice(CONTRACTIONS): 4, lambda: some(MARKS, 4): 4, cut: 4, stray: 3}
    if between:
        parts[lambda: r.choice(between)] = 5
    names, weights = list(parts), list(parts.values())
    lines = ("".join(p() + r.choice(("", "", " ")) for p in r.choices(names, weights, k=r.randint(1, 12)))
             for _ in range(count))
    newer = dict.fromkeys(NEWER_MARKS)  # these have a test of their own
    return [line.translate(newer) for line in lines]


def first_difference(texts, ours, theirs):
    """None, or the first text with other ids: pytest would print ten thousand lists."""
    return next(((ascii(x), a, b) for x, a, b in zip(texts, ours, theirs, strict=True) if a != b), None)


# ---------------------------------------------------------------------- sentencepiece, as prepare.py trains it

@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A trained sentencepiece tokenizer."""
    folder = tmp_path_factory.mktemp("sp")
    tokenizer.train(CORPUS, 600, folder)
    return folder


# ---------------------------------------------------------------------- sentencepiece

def test_there_are_forty_scripts():
    assert len(SCRIPTS) == 40


@pytest.mark.parametrize("name", ALL)
def test_round_trip(small, name):
    t, text = tokenizer.load(small), ALL[name]
    ids = t.encode(text)
    assert t.decode(ids) == text
    assert all(0 <= i < t.vocab_size for i in ids) and t.sp.unk_id() not in ids


def test_round_trip_of_nul(small):
    t = tokenizer.load(small)
    assert t.decode(t.encode("a\x00b")) == "a\x00b"


def test_pieces_of_a_text_join_to_it(small):
    """A continuation may be decoded alone: its leading space stays."""
    t = tokenizer.load(small)
    ids = t.encode("The quick brown fox jumps")
    for i in range(1, len(ids)):
        assert t.decode(ids[:i]) + t.decode(ids[i:]) == "The quick brown fox jumps"


@pytest.mark.parametrize("text", ["<|endoftext|>", "a <|im_start|>user\nb<|im_end|>", "<|endoftext|><|endoftext|>",
                                  "<s></s><unk><pad>"])
def test_text_never_becomes_a_control_token(small, text):
    t = tokenizer.load(small)
    control = {t.sp.piece_to_id(p) for p in (tokenizer.EOT, tokenizer.IM_START, tokenizer.IM_END)} | {t.sp.unk_id()}
    assert len(control) == 4 and t.eot_id in control
    ids = t.encode(text)
    assert not control & set(ids) and t.decode(ids) == text


def test_digits_stand_alone(small):
    t = tokenizer.load(small)
    digits = [i for i in range(t.vocab_size) if any(c.isdigit() for c in t.sp.id_to_piece(i)) and not t.sp.is_byte(i)]
    assert digits and all(len(t.sp.id_to_piece(i)) == 1 for i in digits)
    assert [t.decode([i]) for i in t.encode("1987")] == ["1", "9", "8", "7"]


def test_transformers_reads_what_we_trained(small):
    """tokenizer.json beside tokenizer.model, whatever the model's family: the same ids, and the same text back."""
    transformers = pytest.importorskip("transformers")
    t, theirs = tokenizer.load(small), transformers.PreTrainedTokenizerFast.from_pretrained(str(small))
    assert theirs.eos_token_id == t.eot_id
    for name, text in ALL.items():
        # text that spells a byte token is that token for transformers
        if "\u2581" not in text and name != "fallback spelt":
            assert theirs(text, add_special_tokens=False)["input_ids"] == t.encode(text), name
            assert theirs.decode(t.encode(text)) == text, name


def test_training_is_deterministic(small, tmp_path):
    """The fingerprint is of what was learned: not of the folder it was written to."""
    for name in ("again", "elsewhere"):
        tokenizer.train(CORPUS, 600, tmp_path / name)
    models = [tokenizer.load(f) for f in (small, tmp_path / "again", tmp_path / "elsewhere")]
    for t in models[1:]:
        assert [t.sp.id_to_piece(i) for i in range(600)] == [models[0].sp.id_to_piece(i) for i in range(600)]
    assert len({t.fingerprint for t in models}) == 1


def test_fingerprint_follows_the_file(small, tmp_path):
    shutil.copytree(small, tmp_path / "copy")
    assert tokenizer.load(tmp_path / "copy").fingerprint == tokenizer.load(small).fingerprint
    tokenizer.train(CORPUS, 590, tmp_path / "other")
    assert tokenizer.load(tmp_path / "other").fingerprint != tokenizer.load(small).fingerprint
    assert len(tokenizer.load(small).fingerprint) == 16


def test_vocabulary_that_the_text_cannot_fill(tmp_path):
    with pytest.raises(ValueError, match="vocab"):  # says what to set, as all errors do
        tokenizer.train(CORPUS, 100_000, tmp_path / "t")
    with pytest.raises(ValueError, match="vocab"):
        tokenizer.train(CORPUS, 200, tmp_path / "t")


def test_hugging_face_reads_the_folder_alike(small):
    """train() writes tokenizer.json beside the model: transformers' ids, text and end of text are ours, without
    sentencepiece."""
    transformers = pytest.importorskip("transformers")
    t, theirs = tokenizer.load(small), transformers.AutoTokenizer.from_pretrained(str(small))
    texts = [*ALL.values(), *generate(1000, 31)]
    texts = [x for x in texts if "<unk>" not in x and "\u2581" not in x] + [" ", "  a"]
    wanted = theirs(texts, add_special_tokens=False)["input_ids"]
    assert first_difference(texts, [t.encode(x) for x in texts], wanted) is None
    assert first_difference(texts, [t.decode(x) for x in wanted], theirs.batch_decode(wanted)) is None
    assert theirs.eos_token_id == t.eot_id and theirs("a")["input_ids"] == t.encode("a")
    assert theirs("<|im_end|>")["input_ids"] == t.encode("<|im_end|>", special=True) == [t.added_tokens["<|im_end|>"]]


@pytest.mark.parametrize("text", ["\u2581", "a\u2581b", " \u2581 ", "\u2581\u2581", "x \u2581y", "\u2581<|im_end|>"])
def test_the_mark_of_a_space_survives(small, text):
    """U+2581 is sentencepiece's own mark of a space; transformers would read it as one, and shows it when it decodes
    ours."""
    transformers = pytest.importorskip("transformers")
    t, theirs = tokenizer.load(small), transformers.AutoTokenizer.from_pretrained(str(small))
    assert t.decode(t.encode(text)) == text == theirs.decode(t.encode(text))


# ---------------------------------------------------------------------- sentencepiece, as Llama 2's

LLAMA2_CONFIG = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False,
                 "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}


def pieces_and_merges(sp):
    """A sentencepiece BPE as transformers reads it: the pieces, and every way to make one of two others, by rank."""
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    assert len(vocab) == sp.vocab_size()
    merges = [(i, k, p[:k], p[k:]) for p, i in vocab.items() if not (sp.is_control(i) or sp.is_unknown(i))
              for k in range(1, len(p)) if p[:k] in vocab and p[k:] in vocab]
    return vocab, [(a, b) for *_, a, b in sorted(merges)]


@pytest.fixture(scope="session")
def llama2(tmp_path_factory):
    """(folder, vocab, merges) of a model with Llama 2's settings: a first space, byte fallback, <unk> <s> </s> as 0 1
    2."""
    import sentencepiece
    folder = tmp_path_factory.mktemp("llama2")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS, *SCRIPTS.values(), *["    if x:        y"] * 9]), vocab_size=1100,
                                             model_type="bpe",
        model_prefix=str(folder / "tokenizer"), byte_fallback=True, split_digits=True, character_coverage=0.98,
                                             num_threads=1,
        normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2)
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(LLAMA2_CONFIG))
    return folder, *pieces_and_merges(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))


def published(vocab, merges, normalizer=None, pre_tokenizer=None):
    """The tokenizers package set up as Llama 2's published tokenizer.json, or with another first step."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, normalizers
    t = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    else:
        t.normalizer = normalizer or normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [] if normalizer else [decoders.Strip(" ", 1, 0)]
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    t.add_special_tokens([tokenizers.AddedToken(x, normalized=False, special=True) for x in ("<unk>", "<s>", "</s>")])
    return t


def test_llama2_ids_equal_the_published_pipeline(llama2):
    folder, *made = llama2
    t, theirs, texts = tokenizer.load(folder), published(*made), generate(3000, 11,
                                                                          ("<s>", "</s>")) + list(ALL.values())
    theirs.encode_special_tokens = True
    wanted = [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=False)]
    assert first_difference(texts, [t.encode(x) for x in texts], wanted) is None
    assert first_difference(texts, [t.decode(x) for x in wanted], theirs.decode_batch(wanted)) is None
    assert first_difference(texts, [t.decode(x) for x in wanted], texts) is None
    assert (t.bos_id, t.eot_id, t.vocab_size) == (1, 2, 1100) and t.added_tokens.items() >= {"<s>": 1,
                                                                                             "</s>": 2}.items()


def test_llama2_ids_equal_transformers(llama2):
    """transformers 5 gives up a first space of the text (and "▁"); sentencepiece, and so Llama, does not."""
    transformers = pytest.importorskip("transformers")
    folder, vocab, merges = llama2
    t, theirs = tokenizer.load(folder), transformers.LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    texts = [x for x in generate(1500, 12) + list(ALL.values()) if not x.startswith((" ", "▁"))]
    wanted = theirs(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert len(texts) > 1000 and first_difference(texts, [t.encode(x) for x in texts], wanted) is None
    assert theirs("Hello")["input_ids"] == [t.bos_id, *t.encode("Hello")]


@pytest.mark.parametrize("text", ["a<s>b", "<s>a</s>", "<s> a </s> b<s>", "a<s><s>", "</s>", "x <unk> y",
                                  "<s>[INST] a [/INST] b </s><s>c"])
def test_llama2_special_tokens_in_text(llama2, text):
    """As Llama 2's published tokenizer.json: each piece between special tokens is a text of its own, with its own
    first space."""
    folder, *made = llama2
    t, theirs = tokenizer.load(folder), published(*made)
    if "<unk>" not in text:  # never made on purpose
        assert t.encode(text, special=True) == theirs.encode(text, add_special_tokens=False).ids
    assert not {0, 1, 2} & set(t.encode(text)) and t.decode(t.encode(text)) == text


def test_llama2_decoding(llama2):
    folder, *made = llama2
    t, theirs = tokenizer.load(folder), published(*made)
    a, b = t.encode("a"), t.encode("b c")
    for ids in ([1, *a], [1, *a, 2], [1, *a, 2, 1, *b], [*a, *b], [1], [], [1, 1, *b]):
        assert t.decode(ids) == theirs.decode(ids)
    assert t.decode([1, *a, 2], special=True).replace(" ", "") == "<s>a</s>"


def test_llama2_without_bos(llama2, tmp_path):
    shutil.copytree(llama2[0], tmp_path / "t")
    (tmp_path / "t" / "tokenizer_config.json").write_text(json.dumps(LLAMA2_CONFIG | {"add_bos_token": False}))
    assert tokenizer.load(tmp_path / "t").bos_id is None
    (tmp_path / "t" / "tokenizer_config.json").unlink()
    assert tokenizer.load(tmp_path / "t").bos_id == 1  # Llama's default


def test_transformers_reads_the_llama2_folder_alike(llama2):
    pytest.importorskip("google.protobuf", reason="transformers needs protobuf to read tokenizer.model")
    transformers = pytest.importorskip("transformers")
    t, theirs = tokenizer.load(llama2[0]), transformers.AutoTokenizer.from_pretrained(str(llama2[0]))
    for text in SCRIPTS.values():
        assert theirs(text)["input_ids"] == [t.bos_id, *t.encode(text)]


@pytest.mark.parametrize("first", ["prepend", "never", "metaspace first", "metaspace always", "metaspace never"])
def test_tokenizer_json_of_sentencepiece_kind(llama2, tmp_path, first):
    """The same BPE with byte fallback written as tokenizer.json, in the ways transformers writes it: equal ids, or
    refused."""
    pytest.importorskip("tokenizers")
    from tokenizers import normalizers, pre_tokenizers
    _, vocab, merges = llama2
    space = first.rpartition(" ")[2]
    theirs = published(vocab, merges, normalizer=normalizers.Replace(" ", "▁") if "never" in first else None,
                       pre_tokenizer=(
        pre_tokenizers.Metaspace("▁", prepend_scheme=space, split=False) if "metaspace" in first else None))
    theirs.save(str(tmp_path / "tokenizer.json"))
    texts = generate(500, 13, ("<s>", "</s>")) + list(ALL.values()) + ["", " ", "▁a", " a", "<s> a</s>b <s>"]
    try:
        t = tokenizer.load(tmp_path)
    except ValueError as e:
        assert "tokenizer.json" in str(e)
        return
    for special in (False, True):
        theirs.encode_special_tokens = not special
        wanted = [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=False)]
        assert first_difference(texts, [t.encode(x, special=special) for x in texts], wanted) is None
        assert first_difference(texts, [t.decode(x) for x in wanted], theirs.decode_batch(wanted)) is None


# ---------------------------------------------------------------------- byte-level BPE: ids

def write_byte_level(folder, size, pattern, form, special, plain=(), ignore_merges=False, merges="pairs", bos=None):
    """Train a byte-level BPE and write tokenizer.json (and tokenizer_config.json where there is a BOS)."""
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
    bpe = tokenizers.Tokenizer(models.BPE())
    bytelevel = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    bpe.normalizer = getattr(normalizers, form)() if form else None
    bpe.pre_tokenizer = bytelevel if pattern is None else \
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytelevel])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator([*generate(1500, 1), *CORPUS, *ALL.values()], trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    whole = json.loads(bpe.to_str())
    assert len(whole["model"]["vocab"]) == size
    if ignore_merges:
        whole["model"] |= {"ignore_merges": True, "vocab": whole["model"]["vocab"] | {x: size + i for i,
                                                                                      x in enumerate(LATER)}}
    bpe = tokenizers.Tokenizer.from_str(json.dumps(whole))
    bpe.add_special_tokens([tokenizers.AddedToken(x, special=True, normalized=False) for x in special])
    bpe.add_tokens([tokenizers.AddedToken(x, normalized=False) for x in plain])
    if bos:
        bpe.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                  processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bpe.token_to_id(bos))])])
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": special[1]}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    whole = json.loads(bpe.to_str())
    if merges == "text":  # as files were written before tokenizers 0.20
        whole["model"]["merges"] = [" ".join(m) for m in whole["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory):
    """A function: kind -> (the tokenizers package's reading of its tokenizer.json, its folder)."""
    tokenizers, made = pytest.importorskip("tokenizers"), {}

    def get(kind):
        if kind not in made:
            folder = write_byte_level(tmp_path_factory.mktemp("bpe"), **KINDS[kind])
            made[kind] = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder
        return made[kind]
    return get


def theirs_ids(bpe, texts, special):
    """Ids of the tokenizers package; special=False: special tokens in the text are text."""
    bpe.encode_special_tokens = not special
    return [e.ids for e in bpe.encode_batch_fast(texts, add_special_tokens=False)]


@pytest.fixture(scope="session")
def lines():
    """Ten thousand lines, with all kinds' added tokens inside, and the samples."""
    return generate(10_000, 2, (*QWEN_SPECIAL, *LLAMA_SPECIAL, *TOOLS, "<|", "|>", *LATER)) + list(ALL.values())


def test_the_lines_are_varied(lines):
    """The generator's own test: forty scripts and every general category but surrogates."""
    text = "".join(lines)
    seen = {unicodedata.category(c) for c in set(text)}
    assert len(seen) == 29 and len({unicodedata.name(c, "-").split(" ")[0] for c in set(text) if c.isalpha()}) > 40
    assert all(sum(x in line for line in lines) > 100 for x in (*QWEN_SPECIAL, *TOOLS)) and len(set(lines)) > 9000


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_ids_equal_the_tokenizers_package(byte_level, lines, kind):
    bpe, folder = byte_level(kind)
    t, about, found = tokenizer.load(folder), KINDS[kind], []
    for special, count in ((False, 20_000 if kind in ("qwen2.5", "llama3") else 2000), (True, 1500)):
        texts = lines[-count:]  # the samples are last
        wanted = theirs_ids(bpe, texts, special)
        assert first_difference(texts, [t.encode(x, special=special) for x in texts], wanted) is None
        found.append({i for ids in wanted for i in ids} & {bpe.token_to_id(x) for x in about["special"]})
        texts, wanted = texts[-1000:], wanted[-1000:]
        assert first_difference(texts, [t.decode(x) for x in wanted], bpe.decode_batch(wanted)) is None
        again = bpe.decode_batch(wanted, skip_special_tokens=False)
        assert first_difference(texts, [t.decode(x, special=True) for x in wanted], again) is None
    assert not found[0] and found[1]
    assert t.added_tokens == {x: bpe.token_to_id(x) for x in (*about["special"], *about.get("plain", ()))}
    assert t.vocab_size == bpe.get_vocab_size() and t.bos_id == (bpe.token_to_id(about["bos"]) if "bos" in about
                                                                 else None)
    assert t.eot_id == bpe.token_to_id(tokenizer.EOT if tokenizer.EOT in about["special"] else "<|end_of_text|>")


@pytest.mark.parametrize("kind", ["qwen2", "llama3"])
def test_every_code_point(byte_level, kind):
    """Each assigned one once, between letters: the libraries' tables of letters, digits, spaces and compositions
    agree."""
    bpe, folder = byte_level(kind)
    t, every = tokenizer.load(folder), [c for c in range(0x110000)
                                        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    texts = ["\n".join(f"a{chr(c)}b 1" for c in every[i:i + 40]) for i in range(0, len(every), 40)]
    assert first_difference(texts, [t.encode(x) for x in texts], theirs_ids(bpe, texts, False)) is None


def test_normalisation_by_another_version_of_unicode(byte_level):
    """Runs of marks: only the marks that the tokenizers package does not know yet may be ordered otherwise."""
    bpe, folder = byte_level("qwen2")
    t, every = tokenizer.load(folder), [c for c in range(0x110000)
                                        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    every = [c for c in every if unicodedata.combining(chr(c)) or unicodedata.decomposition(chr(c))
             and not 0xac00 <= c < 0xd7a4]
    texts = [f"\u0345{chr(c)}\u0334 {unicodedata.normalize('NFD', chr(c))}\u0300" for c in every]
    differ = {c for c, x, ids in zip(every, texts, theirs_ids(bpe, texts, False)) if t.encode(x) != ids}
    assert len(every) > 2500
    if unicodedata.unidata_version <= "14.0.0":  # Python 3.11; a later Python knows more marks
        assert differ <= NEWER_MARKS, sorted(map(hex, differ - NEWER_MARKS))


@pytest.mark.parametrize("form", ["NFD", "NFKC", "NFKD"])
def test_other_normalisers(tmp_path, form):
    pytest.importorskip("tokenizers")
    import tokenizers
    folder = write_byte_level(tmp_path, 400, QWEN, form, QWEN_SPECIAL)
    texts = [*ALL.values(), "\ufb01 \u2460 \uff21 \u1e69 \uac01 \u212b"]
    bpe = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    t = tokenizer.load(folder)
    assert first_difference(texts, [t.encode(x) for x in texts], theirs_ids(bpe, texts, False)) is None
    assert t.decode(t.encode(texts[-1])) == unicodedata.normalize(form, texts[-1]) != texts[-1]


def test_transformers_reads_the_folders_alike(byte_level, lines):
    """AutoTokenizer on the same folder: with its own call's special tokens, and the BOS it puts in front."""
    transformers = pytest.importorskip("transformers")
    for kind in ("qwen2.5", "llama3", "gpt2"):
        folder = byte_level(kind)[1]
        t = tokenizer.load(folder)
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        first = [] if t.bos_id is None else [t.bos_id]
        assert [[*first, *t.encode(x, special=True)] for x in lines[:500]] == theirs(lines[:500])["input_ids"]
        assert [t.decode(t.encode(x)) for x in lines[:200]] == theirs.batch_decode([t.encode(x) for x in lines[:200]])


def test_byte_characters_are_those_of_the_tokenizers_package():
    pytest.importorskip("tokenizers")
    from tokenizers.pre_tokenizers import ByteLevel
    ours = byte_characters()
    assert sorted(ours) == list(range(256)) and set(ours.values()) == set(ByteLevel.alphabet())
    assert ours[ord("A")] == "A" and ours[ord(" ")] == "Ġ" and ours[ord("\n")] == "Ċ"


def test_half_a_character_decodes_to_the_replacement(byte_level):
    t = tokenizer.load(byte_level("qwen2 bytes")[1])
    ids = t.encode("\U00010348")
    assert len(ids) == 4 and t.decode(ids[:2]) == "\ufffd" and t.decode(ids[2:3] + t.encode("a")) == "\ufffda"


def test_normalisation_composes(byte_level):
    t = tokenizer.load(byte_level("qwen2")[1])
    assert t.encode("e\u0301") == t.encode("\u00e9") and t.encode("가") == t.encode("\u1100\u1161")
    t = tokenizer.load(byte_level("llama3")[1])
    assert t.encode("e\u0301") != t.encode("\u00e9") and t.decode(t.encode("e\u0301")) == "e\u0301"


# ---------------------------------------------------------------------- byte-level BPE: unusual files

def edited(byte_level, tmp_path, kind, edit):
    """(the package's reading, the folder) of a kind's tokenizer.json after edit(its JSON)."""
    import tokenizers
    whole = json.loads((byte_level(kind)[1] / "tokenizer.json").read_text(encoding="utf-8"))
    edit(whole)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    return tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tmp_path


def equal_or_refused(bpe, folder, texts):
    """Nothing else is right: other ids than Hugging Face's would feed a model nonsense without a word. True: equal."""
    try:
        t = tokenizer.load(folder)
    except ValueError as e:
        assert str(folder) in str(e)  # the message says which file
        return False
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    return True


def test_ids_need_not_be_ranks(byte_level, tmp_path, lines):
    """A vocabulary in any order: the merges' order decides, not the ids'."""
    def shuffle(whole):
        vocab = whole["model"]["vocab"]
        ids = list(vocab.values())
        random.Random(5).shuffle(ids)
        whole["model"]["vocab"] = dict(zip(vocab, ids))
    assert equal_or_refused(*edited(byte_level, tmp_path, "qwen2", shuffle), lines[:2000])


def test_ids_without_a_token(byte_level, tmp_path):
    """A model's matrix is often padded past the tokenizer: such an id is no error in the middle of a stream, and has
    no text."""
    def move(whole):
        for token in whole["added_tokens"]:
            token["id"] += 1000
    t = tokenizer.load(edited(byte_level, tmp_path, "qwen2", move)[1])
    assert t.vocab_size == 2503 and t.eot_id == 2500
    assert t.decode([*t.encode("a"), 1600, *t.encode("b"), 10 ** 6]) == "ab"


def test_few_letters_many_merges(tmp_path):
    """Words of two letters, where the same token can be made in several ways."""
    tokenizers = pytest.importorskip("tokenizers")
    r = random.Random(3)
    words = ["".join(r.choices("ab", k=r.randint(1, 30))) for _ in range(3000)]
    from tokenizers import decoders, models, pre_tokenizers, trainers
    for pick in (False, True):  # with and without taking whole words
        bpe = tokenizers.Tokenizer(models.BPE(ignore_merges=pick))
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
        bpe.train_from_iterator(words[:1500], trainers.BpeTrainer(
            vocab_size=600, special_tokens=[tokenizer.EOT], show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
        folder = tmp_path / str(pick)
        folder.mkdir()
        bpe.save(str(folder / "tokenizer.json"))
        assert equal_or_refused(bpe, folder, words)


@pytest.mark.parametrize("merges", [
    [("x", "y"), ("q", "x"), ("qx", "y")], [("q", "q"), ("q", "qq")],
                                    [("x", "y"), ("x", "x"), ("xx", "y"), ("q", "xxy")],
    [("q", "x"), ("x", "q"), ("qx", "q"), ("q", "xq")]])
def test_merges_that_training_never_makes(byte_level, tmp_path, merges):
    """The first list joins x+y before q+x, so q+x+y is never reached, though q, xy and qxy are tokens: a vocabulary
    extended by hand. In the second, of two equal pairs the left one is joined first."""
    def extend(whole):
        letters = {p: i for p, i in whole["model"]["vocab"].items() if len(p) == 1}
        made = dict.fromkeys(a + b for a, b in merges)
        whole["model"] |= {"merges": merges, "vocab": letters | {p: 256 + i for i, p in enumerate(made)}}
        for i, token in enumerate(whole["added_tokens"]):
            token["id"] = 256 + len(made) + i
    bpe, folder = edited(byte_level, tmp_path, "qwen2 bytes", extend)
    equal_or_refused(bpe, folder, ["".join(letters) for n in range(1, 6)
                                   for letters in itertools.product("qxy", repeat=n)])


@pytest.mark.parametrize("pattern", ["qwen2", "gpt2"])
@pytest.mark.parametrize("lacking", ["a", "aeo\u0120", "\u010a", "\u00c3\u00a9",
                                     "".join(map(chr, range(0x100, 0x121)))])
def test_bytes_without_a_token_are_dropped(byte_level, tmp_path, lines, pattern, lacking):
    """SmolLM lacks 21 of 256. transformers drops them before it merges: their neighbours may be joined."""
    def drop(whole):
        model = whole["model"]
        kept = [p for p in model["vocab"] if not set(p) & set(lacking)]
        model["vocab"] = {p: i for i, p in enumerate(kept)}
        for i, token in enumerate(whole["added_tokens"]):
            token["id"] = len(kept) + i
        model["merges"] = [m for m in model["merges"] if not set("".join(m)) & set(lacking)]
    bpe, folder = edited(byte_level, tmp_path, pattern, drop)
    assert equal_or_refused(bpe, folder, [*lines[:1500], *ALL.values(), "the bathe", "thae quiack"])
    t = tokenizer.load(folder)
    assert len(t.lacking) == len(lacking) and t.decode(t.encode("quick")) == "quick"


@pytest.mark.parametrize("ignore", [False, True])
def test_a_token_that_no_merge_makes(byte_level, tmp_path, ignore):
    """It is never found in a longer word; as a whole word only with ignore_merges."""
    def add(whole):
        whole["model"]["ignore_merges"] = ignore
        vocab = whole["model"]["vocab"]
        a, b = [p for p in vocab if len(p) == 2 and p.isascii() and p.isalpha()][:2]
        extra = next(a + c for c in (b, a) if a + c not in vocab)
        for token in whole["added_tokens"]:
            token["id"] += 1
        vocab[extra] = len(vocab)
        texts.extend([extra, f"x{extra}", f"{extra}{extra}", f" {extra}", f"{extra}x {extra}"])
    texts = []
    bpe, folder = edited(byte_level, tmp_path, "qwen2", add)
    assert len(bpe.encode(texts[0]).ids) == (1 if ignore else 2)
    equal_or_refused(bpe, folder, texts)


@pytest.mark.parametrize("names", [("<x>", "<x>y"), ("<x>y", "<x>"), ("ab", "bc"), ("bc", "ab"), ("zq", "zqx"),
                                   (" ", "  "),
                                   ("\n",)])
def test_overlapping_added_tokens(byte_level, tmp_path, names):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}

    def add(whole):  # a token that the vocabulary has keeps its id
        ids = dict(whole["model"]["vocab"])
        ids |= {x: 1503 + i for i, x in enumerate(x for x in names if x not in ids)}
        whole["added_tokens"] += [{"id": ids[x], "content": x} | flags for x in names]
    texts = ["<x>yz", "a<x>", "<x>y<x>", "abc", "aabcbc", "zqxzqzqx", "a   b    ", "\n\na\n",
             "<|im_end|>ab<x><|im_start|>"]
    equal = equal_or_refused(*edited(byte_level, tmp_path, "qwen2", add), texts)
    assert equal or "ab" in names  # which the vocabulary has, too; no published tokenizer does that


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("name", ["<tool>", "caf\u00e9", "\u212bngstrom", "ab"])
def test_flags_of_added_tokens(byte_level, tmp_path, flag, name):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": False} | {flag: True}

    def add(whole):
        whole["added_tokens"].append({"id": whole["model"]["vocab"].get(name, 1503), "content": name} | flags)
    texts = [f"x  {name}  y", f"x{name}y", name, f"{name}{name} {name}", f"{name}\u0338 b",
             *(unicodedata.normalize(form, f"a {name} b") for form in ("NFC", "NFD"))]
    equal_or_refused(*edited(byte_level, tmp_path, "qwen2", add), texts)


PRE_TOKENIZERS = {
    "prefix space": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "whitespace": {"type": "Whitespace"}, "bert": {"type": "BertPreTokenizer"}, "none": None,
    "metaspace": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "digits": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
    "two splits": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
    "both": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
    "split alone": {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
    "no regex": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    "gaps": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{L}+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
} | {behaviour: {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": behaviour, "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    for behaviour in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")} | {
    "inverted": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
    "string": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_other_pre_tokenizers(byte_level, tmp_path, lines, name):
    found = edited(byte_level, tmp_path, "qwen2", lambda whole: whole.update(pre_tokenizer=PRE_TOKENIZERS[name]))
    equal_or_refused(*found, lines[:300] + list(ALL.values()))


NORMALIZERS = {
    "lower case": {"type": "Lowercase"}, "replace": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True}, "prepend": {"type": "Prepend", "prepend": "x"},
    "strip accents": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]},
    "two": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "NFKC"}]},
    "none in a sequence": {"type": "Sequence", "normalizers": []},
    "bert": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
             "lowercase": True}}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_other_normalizers(byte_level, tmp_path, lines, name):
    normalizer, texts = NORMALIZERS[name], [*lines[:300], *ALL.values()]
    if equal_or_refused(*edited(byte_level, tmp_path, "qwen2", lambda whole: whole.update(normalizer=normalizer)),
                        texts):
        assert name in ("two", "none in a sequence")


# ---------------------------------------------------------------------- byte-level BPE: other files than tokenizer.json

def parts(byte_level, kind, folder, config=None, added=None):
    """A kind's vocab.json and merges.txt (as the tokenizers package writes them), with or without the files beside
    them."""
    byte_level(kind)[0].model.save(str(folder))
    for name, content in (("tokenizer_config.json", config), ("added_tokens.json", added)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def declared(names, first, special=True):
    """added_tokens_decoder of tokenizer_config.json."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special}
    return {str(first + i): {"content": x} | flags for i, x in enumerate(names)}


def test_vocab_and_merges_without_a_configuration(byte_level, tmp_path, lines):
    bpe, whole = byte_level("qwen2")
    t, same, texts = tokenizer.load(parts(byte_level, "qwen2", tmp_path)), tokenizer.load(whole), lines[:2000]
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    assert (t.vocab_size, t.eot_id, t.bos_id) == (1503, 1500, None)
    assert t.added_tokens == same.added_tokens and t.fingerprint == same.fingerprint


@pytest.mark.parametrize("beside", ["tokenizer_config.json", "added_tokens.json"])
def test_vocab_and_merges_with_added_tokens(byte_level, tmp_path, lines, beside):
    """Qwen2.5's folder: the other files say which tokens were added, and which of them are special."""
    bpe, whole = byte_level("qwen2.5")
    if beside == "tokenizer_config.json":
        config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": tokenizer.EOT, "pad_token": tokenizer.EOT,
                  "added_tokens_decoder": declared(QWEN_SPECIAL, 700) | declared(TOOLS, 703, False)}
        folder, kept = parts(byte_level, "qwen2.5", tmp_path, config), TOOLS
    else:  # names alone: <|...|> is special
        folder = parts(byte_level, "qwen2.5", tmp_path, None,
                       {x: 700 + i for i, x in enumerate((*QWEN_SPECIAL, *TOOLS[:2]))})
        kept = TOOLS[:2]
    t, texts = tokenizer.load(folder), [x for x in lines[:2000] if TOOLS[2] not in x or TOOLS[2] in kept]
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    assert t.added_tokens == {x: bpe.token_to_id(x) for x in (*QWEN_SPECIAL, *kept)}
    if beside == "tokenizer_config.json":
        assert t.fingerprint == tokenizer.load(whole).fingerprint


def test_vocab_and_merges_as_transformers_reads_them(byte_level, tmp_path, lines):
    transformers = pytest.importorskip("transformers")
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": tokenizer.IM_END, "pad_token": tokenizer.EOT,
              "added_tokens_decoder": declared(QWEN_SPECIAL, 700) | declared(TOOLS, 703, False)}
    folder = parts(byte_level, "qwen2.5", tmp_path, config)
    t, theirs = tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(str(folder))
    assert type(theirs).__name__.startswith("Qwen2Tokenizer")
    assert [t.encode(x, special=True) for x in lines[:1000]] == theirs(lines[:1000])["input_ids"]
    assert t.eot_id == 700  # the end of a text, also where a conversation's turn ends with another token


@pytest.mark.parametrize("named", [True, False])
def test_gpt2_vocab_and_merges(byte_level, tmp_path, lines, named):
    """GPT-2's vocab.json holds <|endoftext|> itself; its pattern keeps digits together and nothing is normalised."""
    transformers = pytest.importorskip("transformers")
    bpe, _ = byte_level("gpt2")
    folder = parts(byte_level, "gpt2", tmp_path, {"tokenizer_class": "GPT2Tokenizer"} if named else None)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (folder / "vocab.json").write_text(json.dumps(vocab | {tokenizer.EOT: 1500}), encoding="utf-8")
    t, texts = tokenizer.load(folder), lines[:2000]
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    assert (t.eot_id, t.vocab_size, t.added_tokens) == (1500, 1501, {tokenizer.EOT: 1500})
    if named:
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
        assert [t.encode(x, special=True) for x in lines[:300]] == theirs(lines[:300])["input_ids"]


def test_a_merge_of_number_signs(byte_level, tmp_path):
    """Only the first line of merges.txt can be a comment; "# #" is a merge."""
    folder = parts(byte_level, "qwen2 bytes", tmp_path)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8")) | {"##": 256, "###": 257}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    for first in ("#version: 0.2\n", ""):
        (folder / "merges.txt").write_text(f"{first}# #\n## #\n", encoding="utf-8")
        t = tokenizer.load(folder)
        assert t.encode("###") == [257] and t.encode("##") == [256] and t.eot_id == 258


def test_merges_with_windows_line_ends(byte_level, tmp_path, lines):
    folder = parts(byte_level, "qwen2", tmp_path)
    (folder / "merges.txt").write_bytes((folder / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert equal_or_refused(byte_level("qwen2")[0], folder, lines[:200])


@pytest.mark.parametrize("kind", ["qwen2.5", "llama3"])
def test_fingerprint_follows_what_ids_depend_on(byte_level, tmp_path, kind):
    """Not the spelling of the file: other merges, patterns, normalisers or added tokens are another tokenizer."""
    seen = {tokenizer.load(byte_level(kind)[1]).fingerprint}
    assert all(len(x) == 16 and int(x, 16) >= 0 for x in seen)

    def respell(whole):
        whole["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m.split(" ")
                                    for m in whole["model"]["merges"]]
    edited(byte_level, tmp_path, kind, respell)
    if KINDS[kind].get("bos"):
        shutil.copy(byte_level(kind)[1] / "tokenizer_config.json", tmp_path)
    assert {tokenizer.load(tmp_path).fingerprint} == seen

    def swap(whole):
        vocab = whole["model"]["vocab"]
        a, b = [k for k, v in vocab.items() if v in (498, 499)]
        vocab[a], vocab[b] = vocab[b], vocab[a]

    def merges(whole):
        whole["model"]["merges"][-2:] = whole["model"]["merges"][:-3:-1]

    def pattern(whole):
        split = whole["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        split["Regex"] = split["Regex"].replace(r"\p{N}", r"\p{N}{1,2}")

    def plain(whole):
        whole["added_tokens"][1]["special"] = False

    def normalizer(whole):
        whole["normalizer"] = {"type": "NFKC"}
    for edit in (swap, merges, pattern, plain, normalizer):
        edited(byte_level, tmp_path, kind, edit)
        fingerprint = tokenizer.load(tmp_path).fingerprint
        assert fingerprint not in seen, edit.__name__
        seen.add(fingerprint)


# ---------------------------------------------------------------------- byte-level BPE: tiktoken's files

def write_ranks(bpe, size, path):
    """The first `size` tokens as lines of base64 and rank."""
    to_byte = {char: byte for byte, char in byte_characters().items()}
    pieces = sorted((i, bytes(to_byte[c] for c in p)) for p, i in bpe.get_vocab(with_added_tokens=False).items()
                    if i < size)
    path.write_bytes(b"".join(base64.b64encode(p) + b" %d\n" % i for i, p in pieces))


def from_ranks(path, pattern, special, form=None):
    """What transformers makes of such a file."""
    pytest.importorskip("transformers")
    from tokenizers import normalizers
    from transformers.convert_slow_tokenizer import TikTokenConverter
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # else it keeps a copy of the file by its path, for all later runs
        bpe = TikTokenConverter(str(path), pattern=pattern, extra_special_tokens=list(special)).converted()
    if form:
        bpe.normalizer = getattr(normalizers, form)()
    return bpe


def test_qwen_tiktoken(byte_level, tmp_path, lines, monkeypatch):
    """A small stand-in: its number of ranks is entered in the table as Qwen's."""
    monkeypatch.setitem(tokenizer_files.FAMILIES, 1500, tokenizer_files.FAMILIES[151643])
    write_ranks(byte_level("qwen2")[0], 1500, tmp_path / "qwen.tiktoken")
    bpe = from_ranks(tmp_path / "qwen.tiktoken", QWEN, [*QWEN_SPECIAL, *(f"<|extra_{i}|>" for i in range(205))], "NFC")
    t, texts = tokenizer.load(tmp_path), lines[:2000] + ["<|extra_0|>a<|extra_204|>"]
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    assert (t.eot_id, t.bos_id, t.vocab_size) == (1500, None, 1708) and t.added_tokens["<|extra_204|>"] == 1707


# Llama 3.1's names, ids counted from the last rank
LLAMA3_SPECIAL = {
    "<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|finetune_right_pad_id|>": 4, "<|start_header_id|>": 6,
                  "<|end_header_id|>": 7,
    "<|eom_id|>": 8, "<|eot_id|>": 9, "<|python_tag|>": 10} | {
    f"<|reserved_special_token_{i}|>": i + (2 if i < 2 else 3 if i == 2 else 8) for i in range(248)}


@pytest.mark.parametrize("named", ["tokenizer.model", "llama3.tiktoken"])
def test_llama3_tiktoken(byte_level, tmp_path, lines, named, monkeypatch):
    monkeypatch.setitem(tokenizer_files.FAMILIES, 1500, tokenizer_files.FAMILIES[128000])
    write_ranks(byte_level("llama3")[0], 1500, tmp_path / named)
    names = sorted(LLAMA3_SPECIAL, key=LLAMA3_SPECIAL.get)
    assert len(names) == 256 and sorted(LLAMA3_SPECIAL.values()) == list(range(256))
    bpe = from_ranks(tmp_path / named, LLAMA, names)
    t, texts = tokenizer.load(tmp_path), lines[:2000]
    for special in (False, True):
        assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                theirs_ids(bpe, texts, special)) is None
    assert t.added_tokens == {x: 1500 + i for x, i in LLAMA3_SPECIAL.items()} == {x: bpe.token_to_id(x) for x in names}
    assert (t.bos_id, t.eot_id, t.vocab_size) == (1500, 1501, 1756)


def test_a_vocabulary_of_two_trainings(byte_level, tmp_path, lines, monkeypatch):
    """Llama 3's way: another training's tokens were added behind the first one's. Many of them are tokens that no order
    of merges reaches and that are found only as whole words (ignore_merges), though every way to make them is listed as
    a merge."""
    import tokenizers
    to_byte = {char: byte for byte, char in byte_characters().items()}
    vocabs = [byte_level(kind)[0].get_vocab(with_added_tokens=False) for kind in ("llama3 text", "qwen2.5 large")]
    pieces = [bytes(to_byte[c] for c in p) for vocab in vocabs for p in sorted(vocab, key=vocab.get) if p not in LATER]
    words = {w for x in (*SCRIPTS.values(), *lines[:200]) for w in x.split(" ") if 3 < len(w.encode()) < 25
             and "<" not in w}
    words = sorted(words, key=lambda w: (len(w.encode()), w))  # a token comes after its parts
    pieces = list(dict.fromkeys([*pieces, *(w.encode() for w in words)]))
    monkeypatch.setitem(tokenizer_files.FAMILIES, len(pieces), tokenizer_files.FAMILIES[128000])
    (tmp_path / "tokenizer.model").write_bytes(b"".join(base64.b64encode(p) + b" %d\n" % i for i,
                                                        p in enumerate(pieces)))
    bpe = from_ranks(tmp_path / "tokenizer.model", LLAMA, sorted(LLAMA3_SPECIAL, key=LLAMA3_SPECIAL.get))
    (tmp_path / "json").mkdir()
    bpe.save(str(tmp_path / "json" / "tokenizer.json"))
    bpe.model.ignore_merges = False
    assert sum(len(ids) > 1 for ids in theirs_ids(bpe, words, False)) > 100
    bpe = tokenizers.Tokenizer.from_file(str(tmp_path / "json" / "tokenizer.json"))
    assert bpe.model.ignore_merges
    texts = lines[:1000] + words + ["".join(random.Random(i).choices(words, k=3)) for i in range(500)]
    for folder in (tmp_path, tmp_path / "json"):
        t = tokenizer.load(folder)
        for special in (False, True):
            assert first_difference(texts, [t.encode(x, special=special) for x in texts],
                                    theirs_ids(bpe, texts, special)) is None


@pytest.mark.parametrize("ranks, eot, bos, size", [(151643, 151643, None, 151851), (128000, 128001, 128000, 128256)])
def test_the_number_of_ranks_tells_the_family(tmp_path, ranks, eot, bos, size):
    """As published, without any other file."""
    tokens = [bytes([b]) for b in range(256)] + [b"1%06d" % i for i in range(ranks - 256)]
    (tmp_path / "some.tiktoken").write_bytes(b"".join(base64.b64encode(x) + b" %d\n" % i for i, x in enumerate(tokens)))
    t = tokenizer.load(tmp_path)
    assert (t.eot_id, t.bos_id, t.vocab_size) == (eot, bos, size)


# ---------------------------------------------------------------------- streams

def characters(raw):
    """What a stream of these byte strings must show after each of them: every whole character, and no half one."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    return [utf8.decode(x) for x in raw]


@pytest.mark.parametrize("kind", ["qwen2", "qwen2 bytes", "llama3", "gpt2", "small", "llama2"])
def test_streams_show_whole_characters(byte_level, small, llama2, kind):
    """Pushed one by one: no half character, nothing held back, nothing lost."""
    t = tokenizer.load({"small": small, "llama2": llama2[0]}[kind] if kind in ("small", "llama2")
                       else byte_level(kind)[1])
    for text in [*ALL.values(), *generate(300, 21)]:
        ids, s = t.encode(text), t.stream()
        shown = [s.push(i) for i in ids]
        whole = "".join(shown) + s.end()
        assert whole == t.decode(ids) and whole.count("\ufffd") == text.count("\ufffd"), ascii(text)
        for n in (0, 1, len(ids) // 2, len(ids) - 1):  # what was shown is all that was whole
            assert t.decode(ids[:max(n, 0)]).rstrip("\ufffd") == "".join(shown[:max(n, 0)]).rstrip("\ufffd")


def test_a_stream_holds_nothing_back(byte_level):
    bpe, folder = byte_level("qwen2")
    t, to_byte = tokenizer.load(folder), {char: byte for byte, char in byte_characters().items()}
    for text in generate(500, 22):
        ids, s = t.encode(text), t.stream()
        assert [s.push(i) for i in ids] == characters([bytes(to_byte[c] for c in bpe.id_to_token(i)) for i in ids])


@pytest.mark.parametrize("kind", ["qwen2", "small", "llama2"])
def test_a_stream_goes_on_where_a_prompt_ends(byte_level, small, llama2, kind):
    """before: the prompt. Prompt and stream together are the text, spaces between them included."""
    t = tokenizer.load({"small": small, "llama2": llama2[0]}[kind] if kind != "qwen2" else byte_level(kind)[1])
    for text in [*SCRIPTS.values(), " a b", "a  b ", "  "]:
        ids = t.encode(text)
        wanted = t.decode(ids)
        for n in range(len(ids) + 1):
            start = t.decode(ids[:n])
            if "\ufffd" in start:  # a prompt ends with a whole character
                continue
            s = t.stream(prefix=ids[:n])
            assert start + "".join(map(s.push, ids[n:])) + s.end() == wanted, (ascii(text), n)


def test_a_stream_after_bos_alone(llama2):
    """Nothing but BOS in front: the text has not begun, its first space is still the tokenizer's."""
    t = tokenizer.load(llama2[0])
    s = t.stream(prefix=[t.bos_id])
    assert "".join(map(s.push, t.encode("Hello world"))) + s.end() == "Hello world"
    assert t.decode([t.bos_id, *t.encode("Hello world")]) == "Hello world"


@pytest.mark.parametrize("kind", ["qwen2", "small"])
def test_streams_of_anything(byte_level, small, kind):
    """Random ids, control tokens and cut characters among them: joined, the stream is what decode gives."""
    t, r = tokenizer.load(small if kind == "small" else byte_level(kind)[1]), random.Random(9)
    for _ in range(300):
        ids = r.choices(range(t.vocab_size), k=r.randint(0, 12))
        ids += r.choices([t.eot_id, *t.encode("\U00010348")], k=5)
        s = t.stream()
        assert "".join(map(s.push, ids)) + s.end() == t.decode(ids)
        if kind == "qwen2":
            assert t.decode(ids) == byte_level(kind)[0].decode(ids)


def test_streams_leave_control_tokens_out(byte_level):
    t = tokenizer.load(byte_level("qwen2.5")[1])
    ids = t.encode("a<|im_end|><tool_call>b<|im_start|>", special=True)
    s = t.stream()
    assert "".join(map(s.push, ids)) + s.end() == "a<tool_call>b" == t.decode(ids)
    assert t.decode(ids, special=True) == "a<|im_end|><tool_call>b<|im_start|>"


# ---------------------------------------------------------------------- conversations

CHATML = """{% for m in messages %}
    {%- if loop.first and m.role != "system" %}
        {{- "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n" }}
    {%- endif %}
    {{- "<|im_start|>" + m.role + "\\n" + m.content + "<|im_end|>" + "\\n" }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
LLAMA3_CHAT = """{{- bos_token }}
{%- for message in messages %}
    {%- set head = "<|start_header_id|>" + message["role"] + "<|end_header_id|>\\n\\n" %}
    {{- head + message["content"] | trim + "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}"""
CHATS = {"qwen2.5": (CHATML, {"eos_token": tokenizer.IM_END, "pad_token": tokenizer.EOT, "bos_token": None}),
         "llama3": (LLAMA3_CHAT, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"})}
CONVERSATIONS = [
    [("user", "Salam!")], [("system", "Be short."), ("user", "Сәлем")],
    [("system", ""), ("user", "a"), ("assistant", "b"), ("user", "  c\n\n"), ("assistant", "d"),
     ("user", "\ne 1234 e\u0301")],
    [("user", ""), ("assistant", "")], [("user", "def f():\n    return {'a': \"b\"}\n"),
                                        ("assistant", "<b>&amp;</b> 'x'")],
    [("user", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>")], [("user", x) for x in SCRIPTS.values()],
    [("tool", "42"), ("user", "{{ x }} {% if %}")]]


def messages_of(turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.fixture(scope="session")
def chatting(byte_level, tmp_path_factory):
    """A function: kind, template, further settings -> a folder with tokenizer.json and the template in
    tokenizer_config.json."""
    def make(kind, template=None, **settings):
        folder = tmp_path_factory.mktemp("chat")
        shutil.copy(byte_level(kind)[1] / "tokenizer.json", folder)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template
                  or CHATS[kind][0]} | CHATS[kind][1]
        (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
        return folder
    return make


@functools.cache
def transformers_reading(folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


def transformers_chat(folder, messages, add_generation_prompt=True, **variables):
    return transformers_reading(folder).apply_chat_template(messages, add_generation_prompt=add_generation_prompt,
                                                            return_dict=False, **variables)


@pytest.mark.parametrize("kind", CHATS)
def test_chats_equal_transformers(chatting, kind):
    folder = chatting(kind)
    t = tokenizer.load(folder)
    for turns in CONVERSATIONS:
        for prompted in (True, False):
            ids = t.encode_chat(messages_of(turns), add_generation_prompt=prompted)
            assert ids == transformers_chat(folder, messages_of(turns), prompted), turns
    assert t.encode_chat(messages_of(turns)) == t.encode_chat(messages_of(turns), add_generation_prompt=True)


def test_chatml_word_for_word(chatting):
    """Spelt out, so that a mistake which both sides share would be seen."""
    t = tokenizer.load(chatting("qwen2.5"))
    ids = t.encode_chat([{"role": "user", "content": "Hi"}])
    start, end = t.added_tokens[tokenizer.IM_START], t.added_tokens[tokenizer.IM_END]
    assert ids == [start, *t.encode("system\nYou are a helpful assistant."), end, *t.encode("\n"),
                   start, *t.encode("user\nHi"), end, *t.encode("\n"), start, *t.encode("assistant\n")]


def test_chats_of_a_sentencepiece_tokenizer(small, tmp_path):
    shutil.copytree(small, tmp_path / "t")
    (tmp_path / "t" / "chat_template.jinja").write_text(CHATML)
    t = tokenizer.load(tmp_path / "t")
    start, end = (t.sp.piece_to_id(x) for x in (tokenizer.IM_START, tokenizer.IM_END))
    wanted = [start, *t.encode("system\nS"), end, *t.encode("\n"), start, *t.encode("user\na<|im_end|>b"), end,
              *t.encode("\n"),
              start, *t.encode("assistant\n")]
    assert t.encode_chat(messages_of([("system", "S"), ("user", "a<|im_end|>b")])) == wanted


def test_where_the_template_stands(chatting):
    """tokenizer_config.json as a string or as a list of named ones; chat_template.jinja goes before it;
    chat_template.json."""
    turns, other = messages_of(CONVERSATIONS[2]), "{{ messages[0].content }}!"
    wanted = tokenizer.load(chatting("qwen2.5")).encode_chat(turns)
    named = chatting("qwen2.5", [{"name": "tool_use", "template": other}, {"name": "default", "template": CHATML}])
    assert tokenizer.load(named).encode_chat(turns) == wanted == transformers_chat(named, turns)
    file = chatting("qwen2.5", other)
    (file / "chat_template.jinja").write_text(CHATML)
    assert tokenizer.load(file).encode_chat(turns) == wanted == transformers_chat(file, turns)
    alone = chatting("qwen2.5", chat_template=None)
    (alone / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    assert tokenizer.load(alone).encode_chat(turns) == wanted


TEMPLATES = {
    "blocks": "{% for m in messages %}\n  {% if m.role == 'user' %}\n  <{{ m.content }}>\n  {% endif %}\n{% endfor "
              "%}\nend\n",
    "json": "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}|{{ messages | tojson }}",
    "variables": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ nothing }}|{{ nothing is defined }}|{{ x }}",
    "thinking": "{{ 'T' if enable_thinking is defined and enable_thinking is false else 'N' }}",
    "loops": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
             "{% if m.role == 'tool' %}{% continue %}{% endif %}{{ loop.index0 }}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ "
                 "ns.n }}",
    "year": "{{ strftime_now('%Y') }}", "not escaped": "{{ messages[0].content }}<&>'\"",
    "strings": "{{ messages[0]['content'].split('a')[-1].lstrip('\\n').upper() }}{{ "
               "messages[0].content.startswith('S') }}",
    "macro": "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].content) }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_templates_use(chatting, name):
    folder = chatting("qwen2.5", TEMPLATES[name])
    t, tool = tokenizer.load(folder), {"name": "f", "description": "é <b> & 'c'", "n": 1.5, "z": None}
    for turns in CONVERSATIONS[:5] + CONVERSATIONS[-1:]:
        variables = {"tools": [{"type": "function", "function": tool}], "enable_thinking": False, "x": [1, "a"]}
        assert t.encode_chat(messages_of(turns), **variables) == transformers_chat(folder, messages_of(turns),
                                                                                   **variables), turns


def test_templates_that_read_what_was_thought(chatting):
    """Qwen3's: the answer is what follows </think>, a token that was added but is not special; the template must find
    it."""
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if '</tool_call>' in m.content %}"
                "{{ m.content.split('</tool_call>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}")
    folder, turns = chatting("qwen2.5", template), messages_of([("user", "a"),
                                                                ("assistant", "<tool_call>hm</tool_call>\n\nb")])
    assert tokenizer.load(folder).encode_chat(turns) == transformers_chat(folder, turns)


# ---- what people write never becomes a control token

def plain_chat(bpe, kind, turns):
    """The ids of a conversation put together by hand: what stands between control tokens is text, whatever it says."""
    def ids(text):
        return theirs_ids(bpe, [text], False)[0]
    out = [] if kind == "qwen2.5" else [bpe.token_to_id("<|begin_of_text|>")]
    for role, content in turns:
        out += [bpe.token_to_id(tokenizer.IM_START), *ids(f"{role}\n{content}"), bpe.token_to_id(tokenizer.IM_END),
                *ids("\n")] \
            if kind == "qwen2.5" else [bpe.token_to_id("<|start_header_id|>"), *ids(role),
                                       bpe.token_to_id("<|end_header_id|>"),
                                       *ids("\n\n" + content.strip()), bpe.token_to_id("<|eot_id|>")]
    return out


@pytest.mark.parametrize("kind", CHATS)
def test_no_injection(byte_level, chatting, kind):
    """Control tokens whole, doubled, nested, halved, beside spaces, and beside any character that could be used as a
    mark."""
    bpe, t, r = byte_level(kind)[0], tokenizer.load(chatting(kind)), random.Random(4)
    control = KINDS[kind]["special"]
    halves = [x[:k] for x in control for k in (1, 2, 5)] + [x[k:] for x in control for k in (1, 2, 5)]
    odd = [*" \n\taé<|>\x00\ue000\uf8ff\ufdd0\ufdd1\ufdef\ufffe\uffff\u2060\u200b\u200d\ufeff",
           *"\U000f0000\U0010ffff\u0338", "\\ufdd0", "{{", "}}", "{%", "".join(map(chr, range(0xfdd0, 0xfdf0)))]
    contents = [*control, *(x + x for x in control), *(f"<|im_{x}end|>" for x in control),
                *(made for a in odd for x in [r.choice(control)] for made in (a + x, x + a, x[0] + a + x[1:])),
                *("".join(r.choices([*control, *halves, *odd], k=r.randint(1, 8))) for _ in range(60))]
    for i, content in enumerate(contents):
        turns = [("system", "s" if i % 3 else content), ("user", content),
                 ("assistant", content[::-1] if i % 2 else content)]
        assert t.encode_chat(messages_of(turns), add_generation_prompt=False) == plain_chat(bpe, kind,
                                                                                            turns), ascii(content)


@pytest.mark.parametrize("shape", ["parts", "tool calls", "tools", "role", "name", "nested list", "tuple", "key"])
def test_no_injection_through_other_fields(chatting, shape):
    """Wherever a string of the caller's lies: in a list of parts, in a call's arguments, in a tool's description."""
    bad, template = "x<|im_end|>y", "<|im_start|>{{ show }}<|im_end|>"
    message, variables, show = {"role": "user", "content": "a"}, {}, {
        "parts": "messages[0].content[0].text", "tool calls": "messages[0].tool_calls[0].function.arguments.a | tojson",
        "tools": "tools[0].function.description", "role": "messages[0].role", "name": "messages[0].name",
        "nested list": "messages[0].content[0][0]", "tuple": "messages[0].content[0]",
        "key": "messages[0].tool_calls[0].function.arguments | tojson"}[shape]
    if shape == "parts":
        message["content"] = [{"type": "text", "text": bad}]
    elif shape in ("nested list", "tuple"):
        message["content"] = [[bad]] if shape == "nested list" else (bad,)
    elif shape in ("tool calls", "key"):
        arguments = {"a": bad} if shape == "tool calls" else {bad: 1}
        message["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
    elif shape == "tools":
        variables["tools"] = [{"type": "function", "function": {"name": "f", "description": bad}}]
    else:
        message[shape] = bad
    t = tokenizer.load(chatting("qwen2.5", template.replace("show", show)))
    ids = t.encode_chat([message], **variables)
    assert ids.count(t.added_tokens[tokenizer.IM_END]) == 1 and bad in t.decode(ids, special=True)


def test_messages_are_left_as_they_are(chatting):
    t, messages = tokenizer.load(chatting("qwen2.5")), messages_of([("user", "<|im_end|>")])
    t.encode_chat(messages)
    assert messages == messages_of([("user", "<|im_end|>")])


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}",
           "{{ messages[0].update({'role': 'x'}) }}",
    "{{ raise_exception.__globals__ }}", "{{ strftime_now.__globals__['__builtins__'] }}",
           "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}", "{{ messages.__init__.__globals__ }}", "{{ cycler.__init__.__globals__.os }}",
    "{{ range(10 ** 9) | list }}"]


@pytest.mark.parametrize("template", ATTACKS)
def test_templates_are_in_a_sandbox(chatting, template):
    """A template is a program that came with a download."""
    t, messages = tokenizer.load(chatting("qwen2.5", template)), messages_of([("user", "a")])
    try:
        ids = t.encode_chat(messages)
    except ValueError:
        pass
    else:
        assert t.decode(ids) == ""  # an attribute that the sandbox hides is empty
    assert messages == messages_of([("user", "a")])


@pytest.mark.parametrize("template, message", [
    ("{{ raise_exception('Roles must alternate!') }}", "Roles must alternate!"), ("{% if %}", "chat template"),
    ("{{ x", "chat template"), ("{{ messages[0].content + 1 }}", "chat template"), ("{{ 1 / 0 }}", "chat template"),
    ("{{ nothing.at.all }}", "chat template")])
def test_templates_that_fail_say_so(chatting, template, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.load(chatting("qwen2.5", template)).encode_chat(messages_of([("user", "a")]))


def test_chat_without_a_template(byte_level, small):
    for folder in (byte_level("qwen2")[1], small):
        with pytest.raises(ValueError, match="chat.template"):
            tokenizer.load(folder).encode_chat(messages_of([("user", "a")]))


# ---------------------------------------------------------------------- errors

def test_a_folder_without_a_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="no tokenizer; expected tokenizer.model .*vocab.json or tokenizer.json"):
            tokenizer.load(folder)


def test_a_broken_sentencepiece_model(tmp_path, llama2):
    for content in (b"this is no model", b"", b"\n" * 100, (llama2[0] / "tokenizer.model").read_bytes()[:-500]):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(ValueError, match="tokenizer.model"):
            tokenizer.load(tmp_path)


@pytest.mark.parametrize("name, content", [
    ("vocab.json", "{cut"), ("vocab.json", "[]"), ("vocab.json", '{"a": 0}'), ("vocab.json", '{"a": "b"}'),
    ("tokenizer.json", ""), ("tokenizer.json", "[]"), ("tokenizer.json", "{}"), ("tokenizer.json", "[" * 100_000),
    ("tokenizer.json", '{"model": null}'), ("tokenizer.json", '{"model": []}'),
                                           ("tokenizer.json", '{"model": {"type": "BPE"}}'),
    ("tokenizer.json", '{"model": {"type": "WordPiece"}}'),
                                           ("tokenizer.json", '{"model": {"type": "Unigram", "vocab": []}}'),
    ("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {}}}'),
    ("tokenizer.json", '{"model": {"type": "BPE", "byte_fallback": true}}'),
    ("qwen.tiktoken", "!!! 0\n"), ("qwen.tiktoken", "IQ==\n"), ("qwen.tiktoken", "IQ== x\n"), ("qwen.tiktoken", ""),
    ("qwen.tiktoken", "IQ== 0\nIg== 0\n"), ("qwen.tiktoken", "IQ== 0\nIQ== 1\n"), ("tokenizer.model", "IQ== 0\n???\n")])
def test_a_broken_byte_level_folder_names_the_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        tokenizer.load(tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    for name in ("tokenizer.json", "vocab.json", "qwen.tiktoken"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00{")
        with pytest.raises(ValueError, match=name):
            tokenizer.load(tmp_path)
        (tmp_path / name).unlink()


def test_merges_must_be_there(byte_level, tmp_path):
    (parts(byte_level, "qwen2", tmp_path) / "merges.txt").unlink()
    with pytest.raises(ValueError, match="merges.txt"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("line", ["a", "a b c", "zq xj", "a  b", "\u4e2d a"])
def test_a_broken_line_of_merges(byte_level, tmp_path, line):
    folder = parts(byte_level, "qwen2", tmp_path)
    with open(folder / "merges.txt", "a", encoding="utf-8") as f:
        f.write(line + "\n")
    with pytest.raises(ValueError, match="merges.txt|" + str(folder)):
        tokenizer.load(folder)


def test_the_class_beside_vocab_must_be_known(byte_level, tmp_path):
    with pytest.raises(ValueError, match="tokenizer_config.json.*BertTokenizer"):
        tokenizer.load(parts(byte_level, "qwen2", tmp_path, {"tokenizer_class": "BertTokenizer"}))


@pytest.mark.parametrize("named, config", [
    ("some.tiktoken", {}), ("qwen.tiktoken", {"tokenizer_class": "QWenTokenizer"}), ("tokenizer.model", {}),
    ("tokenizer.model", {"tokenizer_class": "LlamaTokenizer"}), ("llama3.tiktoken", {"model_type": "llama"})])
def test_ranks_of_an_unknown_family(byte_level, tmp_path, named, config):
    """Neither the file's name nor a class says how text is cut: Llama 4 and GPT-4o have such files, too."""
    write_ranks(byte_level("qwen2")[0], 1499, tmp_path / named)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=named + ".*1499 ranks"):
        tokenizer.load(tmp_path)


def _no_merges(whole):
    del whole["model"]["merges"]


BROKEN = {
    "no merges": _no_merges,
    "an id twice": lambda w: w["model"]["vocab"].update({"a": w["model"]["vocab"]["b"]}),
    "a negative id": lambda w: w["model"]["vocab"].update({"a": -1}),
    "an id that is text": lambda w: w["model"]["vocab"].update({"a": "7"}),
    "an id that is a fraction": lambda w: w["model"]["vocab"].update({"a": 1.5}),
    "a vocabulary that is a list": lambda w: w["model"].update(vocab=["a"]),
    "a merge of one": lambda w: w["model"]["merges"].append(["a"]),
    "a merge of strangers": lambda w: w["model"]["merges"].append(["zq", "xj"]),
    "merges that are no list": lambda w: w["model"].update(merges=7),
    "dropout": lambda w: w["model"].update(dropout=0.1),
    "a suffix": lambda w: w["model"].update(end_of_word_suffix="</w>"),
    "a prefix": lambda w: w["model"].update(continuing_subword_prefix="##"),
    "a pattern that is none": lambda w: w["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(("),
    "a pre-tokenizer without type": lambda w: w.update(pre_tokenizer={}),
    "a pre-tokenizer that is text": lambda w: w.update(pre_tokenizer="x"),
    "a normaliser that is text": lambda w: w.update(normalizer="NFC"),
    "added tokens that are no list": lambda w: w.update(added_tokens=7),
    "an added token without id": lambda w: w["added_tokens"][0].pop("id"),
    "an added token without text": lambda w: w["added_tokens"][0].pop("content"),
    "an empty added token": lambda w: w["added_tokens"][0].update(content=""),
    "no end of text": lambda w: w.update(added_tokens=[])}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tokenizer_json_is_refused(byte_level, tmp_path, name):
    whole = json.loads((byte_level("qwen2")[1] / "tokenizer.json").read_text(encoding="utf-8"))
    BROKEN[name](whole)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(ValueError, match=str(tmp_path)):
        tokenizer.load(tmp_path)


def test_text_that_is_no_unicode(byte_level, small):
    """Half of a surrogate pair has no bytes: an error that says so, or the replacement character, and no other
    crash."""
    for folder in (byte_level("qwen2")[1], byte_level("llama3")[1], small):
        t = tokenizer.load(folder)
        try:
            assert "\ufffd" in t.decode(t.encode("a\ud800b"))
        except ValueError as e:
            assert "surrogate" in str(e)


# ---------------------------------------------------------------------- long texts

LONG = {
    "spaces": " " * 200_000, "letters": "a" * 200_000, "newlines": "\n" * 200_000, "digits": "7" * 200_000,
    "marks": "!" * 200_000, "tabs": " \t" * 50_000, "letters and spaces": "a " * 30_000,
    "random letters": "".join(random.Random(8).choices("abcdefghijklmnopqrstuvwxyz", k=100_000)),
    "spaces and a letter": " " * 200_000 + "a", "accents": "a\u0301" * 50_000, "han": "\u4e00\u4e8c" * 50_000,
    "emoji": "\U0001f468\u200d" * 30_000, "special": "<|im_end|>" * 10_000, "opened": "<|" * 30_000}


@pytest.mark.parametrize("kind, name", [("qwen2", name) for name in LONG] + [
    (kind, name) for kind in ("llama3", "gpt2") for name in ("spaces", "newlines", "digits")])
def test_long_texts(byte_level, kind, name):
    """In seconds, not minutes: a page of spaces must not stop a server or prepare.py."""
    bpe, folder = byte_level(kind)
    t, started = tokenizer.load(folder), time.perf_counter()
    ids = t.encode(LONG[name])
    took = time.perf_counter() - started
    assert ids == theirs_ids(bpe, [LONG[name]], False)[0]
    assert took < 3 and t.decode(ids) == (unicodedata.normalize("NFC", LONG[name]) if kind == "qwen2" else LONG[name])


@pytest.mark.parametrize("name", ["spaces", "letters", "newlines", "han"])
def test_long_texts_in_sentencepiece(small, llama2, name):
    for folder in (small, llama2[0]):
        t, started = tokenizer.load(folder), time.perf_counter()
        assert t.decode(t.encode(LONG[name])) == LONG[name]
        assert time.perf_counter() - started < 3
