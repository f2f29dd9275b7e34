"""tokenizer.py: text survives the round trip, text never becomes a control token, and byte-level BPE gives Qwen2's ids."""
import json
import shutil
import unicodedata

import pytest

import tokenizer

CORPUS = ["The quick brown fox jumps over the lazy dog.", "Сәлем, әлем! Бұл қысқа мәтін.", "这是一个很短的句子。", "これは短い文です。",
          "नमस्ते दुनिया, यह एक छोटा वाक्य है।", "سلام دنیا، یہ ایک چھوٹا جملہ ہے۔", "Γειά σου Κόσμε!", "שלום עולם", "안녕하세요 세계",
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
    "kazakh": "Қазақ тілі: әіңғүұқөһ", "arabic": "اللُّغَةُ العَرَبِيَّة", "urdu": "اُردو زبان ۔", "hebrew": "שָׁלוֹם עוֹלָם",
    "bengali": "আমার সোনার বাংলা", "nepali": "नेपाली भाषा क्ष त्र ज्ञ", "thai": "น้ำใจไมตรีกำลัง", "chinese": "天地玄黄，宇宙洪荒。",
    "japanese": "ひらがな、カタカナ、漢字。ガ", "korean": "다람쥐 헌 쳇바퀴에", "georgian": "საქართველო", "armenian": "Հայաստան", "amharic": "አማርኛ",
    "tamil": "தமிழ் மொழி", "burmese": "မြန်မာဘာသာ", "khmer": "ភាសាខ្មែរ", "tibetan": "བོད་སྐད་", "cherokee": "ᏣᎳᎩ",
    "gothic": "𐌲𐌿𐍄𐌹𐍃𐌺",
    "emoji": "😀 👍🏽 🇰🇿", "joined emoji": "👨‍👩‍👧‍👦 🏳️‍🌈", "joiners": "क्‍ष می‌خواهم", "combining": "z̷a̴l̵g̶o e\u0301 \u0301",
    "right to left": "a\u200fb\u202ec\u202c",
}
EDGES = {
    "empty": "", "space": " ", "spaces": "   a    b  ", "tabs": "\ta\t\tb", "newlines": "\n\na\n\n\nb\n", "windows": "a\r\nb\r",
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
    assert len(control) == 4 and t.eot in control
    ids = t.encode(text)
    assert not control & set(ids) and t.decode(ids) == text


def test_digits_stand_alone(small):
    t = tokenizer.load(small)
    digits = [i for i in range(t.vocab_size) if any(c.isdigit() for c in t.sp.id_to_piece(i)) and not t.sp.is_byte(i)]
    assert digits and all(len(t.sp.id_to_piece(i)) == 1 for i in digits)
    assert [t.decode([i]) for i in t.encode("1987")] == ["1", "9", "8", "7"]


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


def test_hugging_face_reads_the_folder_alike(small, tmp_path):
    """transformers converts tokenizer.model with the settings beside it; its ids are ours."""
    pytest.importorskip("google.protobuf", reason="transformers needs protobuf to read tokenizer.model")
    transformers = pytest.importorskip("transformers")
    t, theirs = tokenizer.load(small), transformers.AutoTokenizer.from_pretrained(str(small))
    for name in ("english", "kazakh", "chinese", "digits", "newlines", "emoji", "spaces"):
        assert theirs(ALL[name], add_special_tokens=False)["input_ids"] == t.encode(ALL[name]), name
    assert theirs.eos_token_id == t.eot


# ---------------------------------------------------------------------- byte-level BPE

@pytest.fixture(scope="session")
def oracle(tmp_path_factory):
    """A tiny BPE of the tokenizers package, set up as Qwen2's: (it, a folder with tokenizer.json, one with vocab.json)."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                 pre_tokenizers.ByteLevel(False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500,
                                                        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                                        show_progress=False))
    base = tmp_path_factory.mktemp("bpe")
    assert bpe.get_vocab_size() == 500
    bpe.add_special_tokens([tokenizers.AddedToken(x, special=True, normalized=False)
                            for x in (tokenizer.EOT, tokenizer.IM_START, tokenizer.IM_END)])
    whole, parts = base / "whole", base / "parts"
    whole.mkdir()
    parts.mkdir()
    bpe.save(str(whole / "tokenizer.json"))
    bpe.model.save(str(parts))
    assert {p.name for p in parts.iterdir()} == {"vocab.json", "merges.txt"}
    return bpe, whole, parts


@pytest.mark.parametrize("name", [n for n in ALL if n != "fallback spelt"])
def test_byte_level_ids_equal_the_tokenizers_package(oracle, name):
    bpe, whole, parts = oracle
    text = ALL[name]
    wanted = bpe.encode(text, add_special_tokens=False).ids
    for folder in (whole, parts):
        t = tokenizer.load(folder)
        assert t.encode(text) == wanted
        assert t.decode(wanted) == unicodedata.normalize("NFC", text)
        assert (t.vocab_size, t.eot) == (503, 500)


def test_byte_level_never_makes_control_tokens(oracle):
    _, whole, parts = oracle
    for folder in (whole, parts):
        t, text = tokenizer.load(folder), "a<|endoftext|>b<|im_start|>c"
        assert max(t.encode(text)) < 500 and t.decode(t.encode(text)) == text
        assert t.decode([t.eot]) == "" and t.decode([*t.encode("a"), t.eot, 501]) == "a"


def test_byte_characters_are_those_of_the_tokenizers_package():
    pytest.importorskip("tokenizers")
    from tokenizers.pre_tokenizers import ByteLevel
    ours = tokenizer.byte_characters()
    assert sorted(ours) == list(range(256)) and set(ours.values()) == set(ByteLevel.alphabet())
    assert ours[ord("A")] == "A" and ours[ord(" ")] == "Ġ" and ours[ord("\n")] == "Ċ"


def test_half_a_character_decodes_to_the_replacement(oracle):
    t = tokenizer.load(oracle[1])
    ids = t.encode("\U00010348")  # four bytes, none of them merged
    assert len(ids) == 4 and t.decode(ids[:2]) == "\ufffd"


def test_normalisation_composes(oracle):
    t = tokenizer.load(oracle[1])
    assert t.encode("e\u0301") == t.encode("\u00e9") and t.encode("가") == t.encode("\u1100\u1161")


def test_byte_level_fingerprint_follows_the_files(oracle, tmp_path):
    """Another vocabulary or other merges are another tokenizer."""
    _, whole, parts = oracle
    assert tokenizer.load(whole).fingerprint == tokenizer.load(whole).fingerprint
    changed = tmp_path / "parts"
    shutil.copytree(parts, changed)
    vocab = json.loads((changed / "vocab.json").read_text(encoding="utf-8"))
    a, b = [k for k, v in vocab.items() if v in (498, 499)]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (changed / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    assert tokenizer.load(changed).fingerprint != tokenizer.load(parts).fingerprint


def test_another_pre_tokenizer_is_used_or_refused(oracle, tmp_path):
    """tokenizer.json says how text is split (Llama 3 keeps three digits together); Qwen2's way must not be taken for granted."""
    bpe, whole, _ = oracle
    changed = json.loads((whole / "tokenizer.json").read_text(encoding="utf-8"))
    split = changed["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    split["Regex"] = split["Regex"].replace(r"|\p{N}|", r"|\p{N}{1,3}|")
    assert split["Regex"] != tokenizer.QWEN2_PATTERN
    a, b = changed["model"]["vocab"]["1"], changed["model"]["vocab"]["9"]
    assert a != b
    changed["model"]["vocab"]["19"], changed["model"]["merges"] = 503, [*changed["model"]["merges"], ["1", "9"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    theirs = type(bpe).from_file(str(tmp_path / "tokenizer.json")).encode("in 1987", add_special_tokens=False).ids
    assert 503 in theirs
    try:
        t = tokenizer.load(tmp_path)
    except ValueError as e:
        assert "tokenizer.json" in str(e)
    else:
        assert t.encode("in 1987") == theirs


# ---------------------------------------------------------------------- errors

def test_a_folder_without_a_tokenizer(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="no tokenizer; expected tokenizer.model .*vocab.json or tokenizer.json"):
            tokenizer.load(folder)


def test_a_broken_sentencepiece_model(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"this is no model")
    with pytest.raises(ValueError, match="tokenizer.model: not a sentencepiece model"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("name, content",
                                           [("vocab.json", "{cut"), ("tokenizer.json", '{"model": {"type": "WordPiece"}}'),
                                               ("tokenizer.json", "[]")])
def test_a_broken_byte_level_folder_names_the_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        tokenizer.load(tmp_path)
