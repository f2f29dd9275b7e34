"""recipes/: new words for a new language. What changes is what should, to the byte; what is learned is what a slow
trainer learns; ids are those that transformers reads from the folder written.

The tokenizers are trained and the models made here, by the tokenizers package and transformers, in the shapes that
Qwen2 and Llama 3 are published in. The new language is a generated one of real stems and endings, in a script the
tokenizer has not seen.
"""
import base64
import contextlib
import gzip
import io
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

import tokenizer
import train
from hf.folder import list_tokenizer_files
from model import ModelConfig, Qwen2
from recipes import extend_vocabulary as recipe

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

OLD_TEXT = ["The quick brown fox jumps over the lazy dog.", "In 1987 it cost 65,536 coins, don't you know?",
            "the other thing then went there", "function(x) { return x * 2; }",
            "Съешь ещё этих мягких французских булок, да выпей чаю.", "le cœur déçu mais l'âme plutôt naïve"] * 3

# stems, endings, and what stands between words
LANGUAGES = {
    "kazakh": ("бала кітап мектеп үй дала жол өзен тау қала сөз ағаш әке", "лар дар ым ға дан ның мен да ларымыз ңіз",
               " "),
    "thai": ("ครู บ้าน โรงเรียน น้ำ เด็ก หนังสือ รถไฟ ต้นไม้ ผู้หญิง", "ดี ใหญ่ ของ ที่ กำลัง แล้ว ไม่", ""),
    "amharic": ("ቤት ልጅ መጽሐፍ መንገድ ተማሪ ከተማ ወንዝ ሰው ዛፍ", "ኦች ን ው ዎች ኣችን ም ኣቸው", " "),
    "georgian": ("სახლ წიგნ ბავშვ ქალაქ გზა მდინარ სიტყვ ხე", "ი ის ს ში ზე ები ებს ებში მა", " "),
    "tamil": ("வீடு மரம் நீர் புத்தகம் பள்ளி தெரு மனிதன்", "கள் ஐ இல் க்கு உடன் களின்", " "),
}


def sentences(language, count, seed=1):
    """Lines of a language: some words are frequent, every sentence has its number and its full stop."""
    stems, ends, gap = (x.split() if x.strip() else x for x in LANGUAGES[language])
    r = random.Random(f"{language} {seed}")
    common = [1 / (1 + i) for i in range(len(stems))]

    def word():
        return r.choices(stems, common)[0] + "".join(r.choice(ends) for _ in range(r.choice((0, 1, 1, 2))))
    return [(gap or "").join(word() for _ in range(r.randint(3, 9))) + f" {r.randrange(1000)}." for _ in range(count)]


# ---------------------------------------------------------------------- folders, as the makers of models publish them

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TOOLS = ("<tool_call>", "</tool_call>")  # added, not special
PRINTABLE = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
OTHERS = [b for b in range(256) if b not in PRINTABLE]
STAND_IN = {b: chr(b) for b in PRINTABLE} | {b: chr(256 + i) for i, b in enumerate(OTHERS)}  # GPT-2's


def train_bpe(size, pattern=QWEN, form="NFC"):
    """A byte-level BPE of the old text."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.normalizer = getattr(normalizers, form)() if form else None
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(OLD_TEXT, trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                                          initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    assert bpe.get_vocab_size() == size
    return bpe


def all_merges(vocab):
    """Every way to make a token of two others, as transformers writes Llama 3's ranks: 280,147 merges for 128,000
    tokens."""
    out = []
    for t in sorted(vocab, key=vocab.get):
        pairs = [[t[:k], t[k:]] for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab]
        out += sorted(pairs, key=lambda p: (vocab[p[0]], vocab[p[1]]))
    return out


def write_tokenizer(folder, size, family="qwen2", files="json", merges="pairs", named=True, plain=(), words=()):
    """A folder with a tokenizer. files: json (tokenizer.json), parts (vocab.json and merges.txt) or both; merges:
    pairs, text or all; named: whether tokenizer_config.json is there; words: tokens that no merge makes."""
    qwen = family == "qwen2"
    special = QWEN_SPECIAL if qwen else LLAMA_SPECIAL
    whole = json.loads((train_bpe(size) if qwen else train_bpe(size, LLAMA, None)).to_str())
    whole["model"]["vocab"] |= {w: size + i for i, w in enumerate(words)}
    if not qwen:
        whole["model"]["ignore_merges"] = True
    if merges == "all":
        whole["model"]["merges"] = all_merges(whole["model"]["vocab"])
        assert len(whole["model"]["merges"]) > size - 256
    bpe = tokenizers.Tokenizer.from_str(json.dumps(whole))
    if files != "json":
        bpe.model.save(str(folder))
    bpe.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in special])
    bpe.add_tokens([AddedToken(x, normalized=False) for x in plain])
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": special[0], "pad_token": special[0],
              "chat_template": "{{ messages }}"}
    if qwen:
        config["added_tokens_decoder"] = {
            str(bpe.token_to_id(x)): {"content": x, "lstrip": False, "normalized": False, "rstrip": False,
                                      "single_word": False,
                                      "special": x in special} for x in (*special, *plain)}
    else:
        bos = special[0]
        bpe.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                  processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bpe.token_to_id(bos))])])
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": special[1]}
    if files != "parts":
        whole = json.loads(bpe.to_str())
        if merges == "text":  # as files were written before tokenizers 0.20
            whole["model"]["merges"] = [" ".join(m) for m in whole["model"]["merges"]]
        (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    if named:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return bpe


def write_model(folder, rows, family="qwen2", tie=True, dtype=torch.float32, eos=None):
    name = "Qwen2" if family == "qwen2" else "Llama"
    config = getattr(transformers, f"{name}Config")(
        vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                                    num_key_value_heads=2,
        max_position_embeddings=4096, tie_word_embeddings=tie, initializer_range=0.3, bos_token_id=eos,
                                                    eos_token_id=eos,
        pad_token_id=None)
    torch.manual_seed(rows)
    getattr(transformers, f"{name}ForCausalLM")(config).to(dtype).save_pretrained(folder)


def extend(folder, text, out, **settings):
    """Run the recipe; returns what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        recipe.main([f"model={folder}", f"text={text}", f"out={out}", *(f"{k}={v}" for k, v in settings.items())])
    return said.getvalue()


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# Every kind of tokenizer folder with every shape of model at least once. padding: rows beyond the tokenizer's ids; 60
# tokens are added, so that 0 and 25 do not hold them and 90 does.
CASES = {
    "qwen2": dict(size=400, language="kazakh", padding=90),
    "qwen2 small, grown": dict(size=300, language="thai", padding=0, merges="text", tie=False, dtype=torch.bfloat16),
    "qwen2.5, overflowing": dict(size=350, language="amharic", padding=25, plain=TOOLS, dtype=torch.bfloat16),
    "qwen2 bytes alone": dict(size=256, language="georgian", padding=90, tie=False),
    "qwen2 in parts": dict(size=400, language="georgian", padding=0, files="parts", plain=TOOLS),
    "qwen2 in parts, unnamed": dict(size=320, language="tamil", padding=25, files="parts", named=False, tie=False),
    "qwen2 in both": dict(size=350, language="tamil", padding=60, files="both", tie=False, dtype=torch.bfloat16),
    "llama3": dict(size=400, family="llama", language="amharic", padding=0, tie=False, dtype=torch.bfloat16),
    "llama3 as text, padded": dict(size=300, family="llama", language="thai", padding=61, merges="text", tie=False),
    "llama3, all merges": dict(size=430, family="llama", language="kazakh", padding=25, merges="all"),
}
PIECES = 60


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A function: case -> its model folder before and after 60 new tokens, and what both sides read there."""
    made = {}

    def get(name):
        if name not in made:
            case, base = CASES[name], tmp_path_factory.mktemp("case")
            (base / "before").mkdir()
            kind = {k: v for k, v in case.items() if k not in ("language", "padding", "tie", "dtype")}
            bpe = write_tokenizer(base / "before", **kind)
            model = {k: v for k, v in case.items() if k in ("family", "tie", "dtype")} | {"eos": case["size"]}
            write_model(base / "before", bpe.get_vocab_size() + case["padding"], **model)
            lines = sentences(case["language"], 200)
            said = extend(base / "before", write_lines(base / "text.txt", lines), base / "after", pieces=PIECES)
            made[name] = SimpleNamespace(
                **{"family": "qwen2", "files": "json", "named": True, "plain": (), "tie": True, "merges": "pairs"}
                                         | case,
                before=base / "before", after=base / "after", bpe=bpe, ids=bpe.get_vocab_size(), lines=lines, said=said,
                special=LLAMA_SPECIAL if case.get("family") == "llama" else QWEN_SPECIAL)
        return made[name]
    return get


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(a small model folder, its tokenizer)"""
    folder = tmp_path_factory.mktemp("small")
    bpe = write_tokenizer(folder, 300)
    write_model(folder, 303)
    return folder, bpe


@pytest.fixture(params=CASES)
def case(extended, request):
    return extended(request.param)


def vocab_and_merges(folder):
    """[(vocab, merges as tuples)] of each form in which a folder holds them."""
    found = []
    if (folder / "tokenizer.json").exists():
        m = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        found.append((m["vocab"], [tuple(p.split(" ") if isinstance(p, str) else p) for p in m["merges"]]))
    if (folder / "vocab.json").exists():
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        assert lines[0].startswith("#version") and lines[-1] == ""
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        found.append((vocab, [tuple(x.split(" ")) for x in lines[1:-1]]))
    return found


def new_merges(case):
    """The merges that were added behind the old ones, as pairs of pieces in stand-in characters."""
    (_, old), (_, new) = vocab_and_merges(case.before)[0], vocab_and_merges(case.after)[0]
    assert new[:len(old)] == old
    return new[len(old):]


def new_pieces(case):
    """The tokens that were added, in the order of their ids, which have no gap."""
    (old, _), (new, _) = vocab_and_merges(case.before)[0], vocab_and_merges(case.after)[0]
    by_id = {i: piece for piece, i in new.items() if i >= case.ids}
    assert sorted(by_id) == list(range(case.ids, case.ids + len(by_id))) and not set(by_id.values()) & set(old)
    return [by_id[i] for i in sorted(by_id)]


def weights(folder):
    """{name: tensor}, read without our code."""
    with safe_open(folder / "model.safetensors", "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


# ---------------------------------------------------------------------- the tokenizer

def texts_of(case):
    """Old and new language, other text, and the tokenizer's own control tokens between them."""
    fresh, others = sentences(case.language, 30, seed=2), [sentences(x, 3, seed=3) for x in LANGUAGES]
    # without its file transformers knows no more
    control = (*case.special, *case.plain) if case.named else case.special[:1]
    mixed = [a + token + b for token in control for a, b in zip(fresh[:4], OLD_TEXT)]
    mixed += ["".join(control), " ".join(control) + fresh[0], f"{control[0]}{control[-1]} {fresh[1]}\n\n{OLD_TEXT[0]}"]
    edges = ["", " ", "   a  \n\n b\r\n\t", "👩‍👩‍👧 e\u0301 é 0123456789", "<|im_end", "a\x00b", fresh[0] * 30,
             fresh[2][:7] + OLD_TEXT[4]]
    return OLD_TEXT[:6] + fresh + list(itertools.chain(*others)) + mixed + edges


def test_ids_equal_transformers(case):
    t, texts = tokenizer.load(case.after), texts_of(case)
    theirs = transformers.AutoTokenizer.from_pretrained(str(case.after))
    used = set()
    for text in texts:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert t.encode(text, special=True) == ids, text
        used |= set(ids)
    assert len(used & set(range(case.ids, case.ids + PIECES))) > PIECES / 2
    assert theirs(OLD_TEXT[0])["input_ids"] == [t.bos_id][:case.family == "llama"] + t.encode(OLD_TEXT[0])


def test_ids_equal_the_tokenizers_package(case):
    if case.files == "parts":  # no tokenizer.json: the old one with the new merges, and its added tokens kept by name
        theirs, new = json.loads(case.bpe.to_str()), {a + b: case.ids + k for k, (a, b) in enumerate(new_merges(case))}
        theirs["model"]["vocab"] |= {x["content"]: x["id"] for x in theirs["added_tokens"]} | new
        theirs["model"]["merges"] += [list(p) for p in new_merges(case)]
        theirs = tokenizers.Tokenizer.from_str(json.dumps(theirs))
    else:
        theirs = tokenizers.Tokenizer.from_file(str(case.after / "tokenizer.json"))
    t = tokenizer.load(case.after)
    for special in (True, False):
        theirs.encode_special_tokens = not special
        for text in texts_of(case):
            ids = theirs.encode(text, add_special_tokens=False).ids
            assert t.encode(text, special=special) == ids, text
            assert t.decode(ids) == theirs.decode(ids)
    assert t.vocab_size == case.ids + PIECES


def test_text_survives(case):
    t = tokenizer.load(case.after)
    for text in texts_of(case):
        if "e\u0301" not in text:  # NFC composes it
            assert t.decode(t.encode(text)) == text
            assert t.decode(t.encode(text, special=True), special=True) == text


def test_old_ids_stay(case):
    """Pieces, specials, and every text in which no new token is found."""
    old, new = tokenizer.load(case.before), tokenizer.load(case.after)
    assert new.added_tokens == old.added_tokens and new.control_ids == old.control_ids and (new.bos_id,
                                                                                            new.eot_id) == (old.bos_id,
                                                                                                            old.eot_id)
    assert all(new.decode([i], special=True) == old.decode([i], special=True) for i in range(case.ids))
    apart = 0
    for text in texts_of(case):
        ids = new.encode(text, special=True)
        same = ids == old.encode(text, special=True)
        assert same == all(i < case.ids for i in ids), text
        apart += not same
    assert apart >= 30
    assert all(new.encode(text) == old.encode(text) for text in OLD_TEXT)


def test_the_files_hold_the_old_ones(case):
    old, new = vocab_and_merges(case.before), vocab_and_merges(case.after)
    assert len(old) == len(new) == 1 + (case.files == "both") and all(form == new[0] for form in new[1:])
    assert len(new_pieces(case)) == PIECES
    for (vocab, merges), (more, longer) in zip(old, new):
        assert vocab.items() <= more.items()
        assert set(more.values()) - set(vocab.values()) <= set(range(len(vocab), case.ids + PIECES))
        assert len(set(longer)) == len(longer) and all(a in more and b in more and a + b in more for a, b in longer)
        if case.merges == "all":  # every way to make a token of two others, also of the new ones
            assert set(merges) <= set(longer) and {a + b for a, b in longer} - {a + b for a,
                                                                                b in merges} == set(new_pieces(case))
        else:
            assert longer[:len(merges)] == merges and [a + b for a, b in longer[len(merges):]] == new_pieces(case)
    if case.files != "parts":
        before, after = (json.loads((x / "tokenizer.json").read_text(encoding="utf-8"))
                         for x in (case.before, case.after))
        assert {type(m) for m in before["model"]["merges"]} in ({type(m) for m in after["model"]["merges"]}, set())
        for whole in (before, after):
            del whole["model"]["vocab"], whole["model"]["merges"]
        assert before == after
    assert not list(case.after.glob("*.tmp"))


def test_the_rest_of_the_folder(case):
    """config.json but for the size, generation settings, chat template; transformers finds the tokenizer's class."""
    before, after = (json.loads((x / "config.json").read_text()) for x in (case.before, case.after))
    rows = max(before["vocab_size"], case.ids + PIECES)
    assert after == before | {"vocab_size": rows}
    for name in ("generation_config.json", "tokenizer_config.json"):
        if (case.before / name).exists():
            assert json.loads((case.after / name).read_text()) == json.loads((case.before / name).read_text())
    left = {p.name for p in case.before.iterdir()} - {p.name for p in case.after.iterdir()}
    assert not left


def test_both_forms_are_one_tokenizer(extended, tmp_path):
    """A reader of vocab.json and merges.txt sees what a reader of tokenizer.json sees."""
    case = extended("qwen2 in both")
    shutil.copytree(case.after, tmp_path / "parts")
    (tmp_path / "parts" / "tokenizer.json").unlink()
    whole, parts = tokenizer.load(case.after), tokenizer.load(tmp_path / "parts")
    assert parts.fingerprint == whole.fingerprint != tokenizer.load(case.before).fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "parts"))
    for text in texts_of(case):
        assert whole.encode(text, special=True) == parts.encode(text, special=True) == theirs(text)["input_ids"], text


# ---------------------------------------------------------------------- the weights

def test_a_new_row_is_the_mean_of_those_it_replaces(case):
    """Of the old tokenizer's tokens for the same bytes, found here by the tokenizers package; in float32, rounded
    once."""
    before, after = weights(case.before), weights(case.after)
    rows = max(case.ids + case.padding, case.ids + PIECES)
    names = {"model.embed_tokens.weight"} | ({"lm_head.weight"} if not case.tie else set())
    assert before.keys() == after.keys() and names <= before.keys() and ("lm_head.weight" in before) == (not case.tie)
    replaced = [[x.id for x in case.bpe.model.tokenize(piece)] for piece in new_pieces(case)]
    assert max(map(len, replaced)) > 4 and min(map(len, replaced)) == 2
    for name in names:
        old, new = before[name], after[name]
        assert old.shape == (case.ids + case.padding, 32) and new.shape == (rows, 32) and new.dtype == old.dtype
        for k, ids in enumerate(replaced):
            mean = torch.stack([old[i].float() for i in ids]).mean(0).to(old.dtype)
            assert raw(new[case.ids + k]) == raw(mean), (name, k)
        assert raw(new[:case.ids]) == raw(old[:case.ids])
        assert raw(new[case.ids + PIECES:]) == raw(old[case.ids + PIECES:])  # padding beyond the new tokens


def test_other_tensors_keep_every_byte(case):
    before, after = weights(case.before), weights(case.after)
    others = [name for name in before if name not in ("model.embed_tokens.weight", "lm_head.weight")]
    assert len(others) > 15
    for name in others:
        assert before[name].dtype == after[name].dtype and before[name].shape == after[name].shape, name
        assert raw(before[name]) == raw(after[name]), name


@torch.no_grad()
def test_logits_of_old_ids_stay(case):
    old, new = (Qwen2.from_pretrained(x).eval() for x in (case.before, case.after))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(case.after, dtype=torch.float32).eval()
    t = tokenizer.load(case.after)
    texts = [x for x in [*OLD_TEXT[:6], *sentences("georgian" if case.language == "thai" else "thai", 4, seed=3)]
             if max(t.encode(x)) < case.ids]
    assert len(texts) > 5
    ids = torch.tensor([t.encode(sentences(case.language, 1, seed=4)[0])])
    assert ids.max() >= case.ids
    wanted = theirs(ids).logits[:, -1]
    assert wanted.shape[1] == ModelConfig.from_pretrained(case.after).vocab_size
    assert (new.logits(ids) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    # how many rows a matrix has decides how its products round; with as many as before the bits are equal
    new.lm_head.weight = torch.nn.Parameter(new.lm_head.weight[:case.ids + case.padding].clone())
    for text in texts:
        ids = torch.tensor([t.encode(text)])
        assert torch.equal(new.logits(ids)[:, :case.ids], old.logits(ids)[:, :case.ids])


def test_several_files_of_weights(extended, tmp_path):
    """A sharded source: the result is that of the whole one."""
    case = extended("llama3")
    shutil.copytree(case.before, tmp_path / "parts")
    (tmp_path / "parts" / "model.safetensors").unlink()
    model = transformers.AutoModelForCausalLM.from_pretrained(case.before, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    extend(tmp_path / "parts", write_lines(tmp_path / "text.txt", case.lines), tmp_path / "out", pieces=PIECES)
    ours, theirs = weights(tmp_path / "out"), weights(case.after)
    assert ours.keys() == theirs.keys() and all(raw(ours[k]) == raw(theirs[k]) for k in ours)


def test_training_the_new_rows_as_the_recipe_says(extended, write_source, tmp_path):
    """From text in the new language to a model of which only the new rows have changed."""
    case = extended("qwen2 small, grown")
    t, first = tokenizer.load(case.after), int(re.search(r"first_new_id=(\d+)", case.said)[1])
    write_source(tmp_path / "data" / "th", [t.encode(x) for x in case.lines], eot=t.eot_id, vocab_size=t.vocab_size,
                 tokenizer=t.fingerprint)
    (tmp_path / "data" / "tokenizer").mkdir()
    for file in list_tokenizer_files(case.after):
        shutil.copy(file, tmp_path / "data" / "tokenizer")
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)}
    train.main([f"data={tmp_path / 'data'}", f"out={tmp_path / 'out'}", f"init={case.after}", f"first_new_id={first}",
                "mixture={'en': 1}", "tokens=640", "seq_len=32", "batch_size=4", "micro_batch_size=4", "dtype=float32",
                "threads=1"])
    for s, handler in handlers.items():
        signal.signal(s, handler)
    before, start, after = weights(case.before), weights(case.after), weights(tmp_path / "out")
    for name, old in before.items():
        words = name in ("model.embed_tokens.weight", "lm_head.weight")
        same = first if words else len(old)
        assert raw(after[name][:same]) == raw(old[:same].float()), name
        assert not words or (after[name][same:] != start[name][same:].float()).any(-1).sum() > PIECES / 2, name
    assert first == case.ids and tokenizer.load(tmp_path / "out").fingerprint == t.fingerprint
    assert ModelConfig.from_pretrained(tmp_path / "out") == ModelConfig.from_pretrained(case.after)


# ---------------------------------------------------------------------- what is learned

def slow_merges(counts, order, pieces, min_count=2):
    """BPE training as one would explain it: count every pair in every word, join the most frequent, count everything
    again. counts: {word as a tuple of pieces: how often}; order: {piece: rank}, of equals the pair of smaller ranks is
    taken."""
    order, merges = dict(order), []
    while len(merges) < pieces:
        pairs = Counter()
        for word, n in counts.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], order[p[0]], order[p[1]]), default=None)
        if best is None or pairs[best] < min_count:
            break
        a, b = best
        assert a + b not in order
        order[a + b] = len(order)
        merges.append(best)
        joined = Counter()
        for word, n in counts.items():
            out = []
            for piece in word:
                if piece == b and out and out[-1] == a:
                    out[-1] = a + b
                else:
                    out.append(piece)
            joined[tuple(out)] += n
        counts = joined
    return merges


def words_of(bpe, texts):
    """{word as the pieces of a tokenizer: count}, cut and merged by the tokenizers package."""
    counts = Counter()
    for text in texts:
        text = bpe.normalizer.normalize_str(text) if bpe.normalizer else text
        counts.update(word for word, _ in bpe.pre_tokenizer.pre_tokenize_str(text))
    return {tuple(x.value for x in bpe.model.tokenize(word)): n for word, n in counts.items()}


def ranks_of(bpe):
    added = set(bpe.get_added_tokens_decoder())
    return {piece: i for piece, i in bpe.get_vocab().items() if i not in added}


def ranks_file(bpe):
    """The same tokens as lines of base64 and rank, tiktoken's form."""
    byte, ranks = {c: b for b, c in STAND_IN.items()}, ranks_of(bpe)
    return b"".join(base64.b64encode(bytes(byte[c] for c in piece)) + f" {ranks[piece]}\n".encode()
                    for piece in sorted(ranks, key=ranks.get))


def test_what_is_learned_equals_a_slow_trainer(case):
    """The tenth documents are held out."""
    wanted = slow_merges(words_of(case.bpe, [x for i, x in enumerate(case.lines) if i % 10]), ranks_of(case.bpe),
                         PIECES)
    assert new_pieces(case) == [a + b for a, b in wanted]
    if case.merges == "all":
        assert set(wanted) <= set(vocab_and_merges(case.after)[0][1])
    else:
        assert new_merges(case) == wanted


LETTERS = [b"\xf1", b"\xf2", b"\xf3", b"\xf4"]  # bytes that no old merge joins


@pytest.mark.parametrize("letters, words, longest", [(1, 3, 40), (2, 6, 12), (3, 20, 9), (4, 60, 6), (4, 4, 9)])
def test_learn_equals_a_slow_trainer_on_any_words(small, letters, words, longest):
    """Few letters: pairs overlap (aaaa), fall and rise in number, and tie."""
    t, ends = tokenizer.load(small[0]), Counter()
    ranks = {t.tokens.index(x): x for x in LETTERS[:letters]}
    for seed in range(60):
        r = random.Random(seed)
        counts = {tuple(r.choice(list(ranks)) for _ in range(r.randint(2, longest))): r.randint(1, 5)
                  for _ in range(words)}
        pieces, least = r.choice((3, 10, 1000)), r.choice((1, 2, 2, 6))
        got, made = recipe.learn_merges(t, dict(counts), pieces, least), list(t.tokens)
        for a, b in got:
            made.append(made[a] + made[b])
        by_name = {tuple(ranks[i] for i in word): n for word, n in counts.items()}
        wanted = slow_merges(by_name, {x: i for i, x in enumerate(t.tokens)}, pieces, least)
        assert [(made[a], made[b]) for a, b in got] == wanted, seed
        ends[len(got) == pieces] += 1
    assert len(ends) == 2  # both are met: enough pieces, and no more pairs


def test_learn_leaves_its_input_alone(small):
    t = tokenizer.load(small[0])
    a, b = (t.tokens.index(x) for x in LETTERS[:2])
    counts, tokens, first = {(a, b, a, b): 3, (a, b): 2}, list(t.tokens), len(t.tokens)
    assert recipe.learn_merges(t, counts, 9, 2) == [(a, b), (first, first)]
    assert t.tokens == tokens and counts == {(a, b, a, b): 3, (a, b): 2}


@pytest.mark.parametrize("pattern", [QWEN, QWEN.replace("(?i:", "(").replace(r"\p{N}|", r"(\p{N})|")])
def test_words_are_cut_as_the_tokenizer_cuts_them(tmp_path, pattern):
    """Also by a pattern with groups, of which findall would give the groups alone; composed first, as the tokenizer
    does."""
    bpe = train_bpe(300, pattern)
    bpe.add_special_tokens(list(QWEN_SPECIAL))
    bpe.save(str(tmp_path / "tokenizer.json"))
    texts = ["cafe\u0301 don't  stop 1987\n\n na\u0131\u0308ve", "caf\u00e9 don't", *sentences("thai", 5)]
    t = tokenizer.load(tmp_path)
    ours = recipe.count_words(t, texts)
    ids = bpe.get_vocab()
    wanted = {tuple(ids[x] for x in word): n for word, n in words_of(bpe, texts).items()}
    assert {word: n for word, n in ours.items() if len(word) > 1} == {word: n for word, n in wanted.items()
                                                                      if len(word) > 1}


# ---------------------------------------------------------------------- what is printed

def table(said):
    """{before, after: (tokens per word, per 1000 bytes, documents, bytes)}"""
    rows = re.findall(r"(before|after): ([\d.]+) tokens per word, ([\d.]+) per 1000 bytes "
                      r"\((\d+) held-out documents, ([\d,]+) bytes\)", said)
    assert [r[0] for r in rows] == ["before", "after"]
    return {name: (float(a), float(b), int(n), int(size.replace(",", ""))) for name, a, b, n, size in rows}


def counted(folder, texts):
    """The same numbers, of ids that transformers finds."""
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokens, size = sum(map(len, theirs(texts, add_special_tokens=False)["input_ids"])), sum(len(x.encode())
                                                                                            for x in texts)
    words = sum(len(x.split()) for x in texts)
    return round(tokens / words, 3), round(1000 * tokens / size, 1), len(texts), size


def test_fertility_falls_and_is_what_was_counted(case):
    rows, held_out = table(case.said), case.lines[::10]
    assert rows == {"before": counted(case.before, held_out), "after": counted(case.after, held_out)}
    assert rows["after"][0] < 0.6 * rows["before"][0] and rows["after"][1] < 0.6 * rows["before"][1]


def test_the_ids_to_train_are_named(case):
    assert f"{PIECES} new tokens, ids {case.ids} to {case.ids + PIECES - 1}; " in case.said
    assert f"first_new_id={case.ids}\n" in case.said
    assert "pairs occur" not in case.said


def test_held_out_text_is_measured_and_not_learned(extended, tmp_path):
    case = extended("qwen2")
    text = write_lines(tmp_path / "text.txt", case.lines)
    other = write_lines(tmp_path / "other.txt", sentences("kazakh", 20, seed=5))
    said = extend(case.before, text, tmp_path / "out", pieces=PIECES, held_out=other)
    assert table(said)["before"] == counted(case.before, other.read_text(encoding="utf-8").splitlines())
    assert table(said)["after"] == counted(tmp_path / "out", other.read_text(encoding="utf-8").splitlines())
    found = SimpleNamespace(before=case.before, after=tmp_path / "out")
    # all of the text
    assert new_merges(found) == slow_merges(words_of(case.bpe, case.lines), ranks_of(case.bpe), PIECES)


# ---------------------------------------------------------------------- settings

@pytest.mark.parametrize("min_count", [1, 2, 30, 200])
def test_min_count(small, tmp_path, min_count):
    """More pieces than pairs: it ends where no pair occurs so often, and says so."""
    (folder, bpe), lines = small, sentences("amharic", 60)
    text, held_out = write_lines(tmp_path / "text.txt", lines), write_lines(tmp_path / "held.txt", lines[:3])
    said = extend(folder, text, tmp_path / "out", pieces=5000, min_count=min_count, held_out=held_out)
    wanted = slow_merges(words_of(bpe, lines), ranks_of(bpe), 5000, min_count)
    assert new_merges(SimpleNamespace(before=folder, after=tmp_path / "out")) == wanted and 0 < len(wanted) < 5000
    assert f"\n{len(wanted)} new tokens" in f"\n{said}" and f"pairs occur {min_count} times" in said
    rows = ModelConfig.from_pretrained(tmp_path / "out").vocab_size
    assert rows == tokenizer.load(tmp_path / "out").vocab_size == 303 + len(wanted)
    if min_count == 1:  # every word of the text is one token
        t = tokenizer.load(tmp_path / "out")
        words = [word for line in lines for word, _ in bpe.pre_tokenizer.pre_tokenize_str(line)]
        assert len(t.encode("".join(lines[:1]))) == sum(w in words for w,
                                                        _ in bpe.pre_tokenizer.pre_tokenize_str(lines[0]))


def test_text_that_repeats_nothing(small, tmp_path):
    """No token is added; the model is the old one."""
    folder, _ = small
    said = extend(folder, write_lines(tmp_path / "text.txt", sentences("thai", 20)), tmp_path / "out",
                  min_count=10 ** 6)
    assert "pairs occur 1000000 times" in said and table(said)["before"] == table(said)["after"]
    ours, theirs = weights(tmp_path / "out"), weights(folder)
    assert all(raw(ours[k]) == raw(theirs[k]) for k in theirs)
    assert vocab_and_merges(tmp_path / "out")[0][1] == vocab_and_merges(folder)[0][1] and "first_new_id" not in said


@pytest.mark.parametrize("form", ["jsonl", "gz", "pattern", "nested pattern", "max_bytes"])
def test_where_text_comes_from(small, tmp_path, form):
    (folder, bpe), lines = small, sentences("georgian", 60)
    rows = "".join(json.dumps({"text": x}) + "\n" for x in lines)
    text, settings = tmp_path / "text.jsonl", {}
    if form == "jsonl":
        text.write_text(rows)
    elif form == "gz":
        text = tmp_path / "text.jsonl.gz"
        text.write_bytes(gzip.compress(rows.encode()))
    elif form == "max_bytes":
        write_lines(text := tmp_path / "text.txt", lines)
        settings["max_bytes"] = sum(len(x.encode()) for x in lines[:29]) + 1
        lines = lines[:30]
    else:  # files in the order of their names
        (tmp_path / "a" / "b").mkdir(parents=True)
        for k in (2, 0, 1):
            write_lines(tmp_path / "a" / ("b" if "nested" in form else "") / f"{k}.txt", lines[20 * k:20 * k + 20])
        text = tmp_path / ("**" if "nested" in form else "a") / "*.txt"
    said = extend(folder, text, tmp_path / "out", pieces=20, **settings)
    found = SimpleNamespace(before=folder, after=tmp_path / "out")
    assert new_merges(found) == slow_merges(words_of(bpe, [x for i, x in enumerate(lines) if i % 10]), ranks_of(bpe),
                                            20)
    assert table(said)["after"] == counted(tmp_path / "out", lines[::10])


def test_a_file_name_with_brackets(small, tmp_path):
    """glob reads brackets as a choice of characters; a file of that very name is meant."""
    text = write_lines(tmp_path / "text[kk].txt", sentences("kazakh", 20))
    assert "5 new tokens" in extend(small[0], text, tmp_path / "out", pieces=5)


def test_a_single_document(small, tmp_path, monkeypatch):
    """Nothing would be left to learn from, unless other text is there to measure on."""
    folder, text = small[0], write_lines(tmp_path / "text.txt",
                                         ["бала балалар балаға балаларға мектеп мектепке мектептер"])
    line = stopped(monkeypatch, folder, text, tmp_path / "out")
    assert str(text) in line and "single document" in line and "held_out=" in line and not (tmp_path / "out").exists()
    said = extend(folder, text, tmp_path / "out", pieces=5, held_out=text)
    assert table(said)["after"][0] < table(said)["before"][0] and table(said)["after"][2] == 1


def test_two_documents(small, tmp_path):
    """The first is held out, the second learned from."""
    text = write_lines(tmp_path / "text.txt", ["бала балалар", "мектеп мектепке мектептер"])
    said = extend(small[0], text, tmp_path / "out", pieces=5)
    assert table(said)["after"][2:] == (1, len("бала балалар".encode()))
    assert tokenizer.load(tmp_path / "out").encode("мектеп") != tokenizer.load(small[0]).encode("мектеп")


# ---------------------------------------------------------------------- again, and again the same

@pytest.mark.parametrize("name", ["qwen2.5, overflowing", "qwen2 in parts", "qwen2 in both", "llama3",
                                  "llama3, all merges"])
def test_extending_twice(extended, tmp_path, name):
    """A second language on top: the first one's tokens are old ones now, and a piece may be made of them."""
    case, more = extended(name), sentences("georgian" if extended(name).language != "georgian" else "thai", 15, seed=7)
    both = case.lines + more
    extend(case.after, write_lines(tmp_path / "text.txt", both), tmp_path / "twice", pieces=PIECES)
    t, before, first = tokenizer.load(tmp_path / "twice"), tokenizer.load(case.before), case.ids + PIECES
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "twice"))
    again = SimpleNamespace(**vars(case) | {"before": case.after, "after": tmp_path / "twice", "ids": first})
    texts = texts_of(case) + both[-15:]
    for text in texts:
        assert t.encode(text, special=True) == theirs(text, add_special_tokens=False)["input_ids"], text
    assert t.added_tokens == before.added_tokens and t.vocab_size == first + PIECES
    middle, old, new = tokenizer.load(case.after), weights(case.after), weights(tmp_path / "twice")
    embedding = "model.embed_tokens.weight"
    alone = tokenizers.Tokenizer.from_str(json.dumps({  # the pieces of the first extension, from its own files
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
                                                      "decoder": None,
        "model": {"type": "BPE", "vocab": (v := vocab_and_merges(case.after)[0])[0],
                  "merges": [list(p) for p in v[1]]}}))
    replaced = [[x.id for x in alone.model.tokenize(piece)] for piece in new_pieces(again)]
    assert len(replaced) == PIECES
    assert len({max(ids) >= case.ids for ids in replaced}) == 2  # some are made of the first one's tokens, some are not
    for k, ids in enumerate(replaced):
        mean = torch.stack([old[embedding][i].float() for i in ids]).mean(0).to(old[embedding].dtype)
        assert raw(new[embedding][first + k]) == raw(mean)
    assert raw(new[embedding][:first]) == raw(old[embedding][:first])
    for text in texts:
        ids = t.encode(text, special=True)
        assert (ids == middle.encode(text, special=True)) == (max(ids, default=0) < first)


@pytest.mark.parametrize("pieces", [15, 400])
@pytest.mark.parametrize("ignore", [True, False])
def test_words_that_no_merge_makes(tmp_path, ignore, pieces):
    """A vocabulary may hold words that no merge leads to; new merges may. The id stays, and ours stays transformers'
    reading."""
    known = ["სახლი", "ქალაქში", "წიგნები", "გზა"]
    words = ["".join(STAND_IN[b] for b in x.encode()) for x in known]
    (tmp_path / "before").mkdir()
    bpe = write_tokenizer(tmp_path / "before", 300, "llama", words=words)
    if not ignore:
        whole = json.loads((tmp_path / "before" / "tokenizer.json").read_text(encoding="utf-8"))
        whole["model"]["ignore_merges"] = False
        (tmp_path / "before" / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    write_model(tmp_path / "before", bpe.get_vocab_size(), "llama")
    lines = sentences("georgian", 200)
    extend(tmp_path / "before", write_lines(tmp_path / "text.txt", lines), tmp_path / "after", pieces=pieces)
    vocab, _ = vocab_and_merges(tmp_path / "after")[0]
    assert [vocab[w] for w in words] == [300, 301, 302, 303] and len(set(vocab.values())) == len(vocab)
    for folder in ("before", "after"):
        t = tokenizer.load(tmp_path / folder)
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / folder / "tokenizer.json"))
        differ = [x for x in [*known, *(f"{x} {x}ს {x}ებ" for x in known), *lines, *sentences("georgian", 200, seed=2)]
                  if t.encode(x) != theirs.encode(x, add_special_tokens=False).ids]
        assert not differ, (folder, len(differ), differ[:2])
        assert [t.decode([i]) for i in range(300, 304)] == known


def test_other_tokenizer_files_do_not_outlive_the_old_ids(tmp_path):
    """Llama 3 is published with its tiktoken file under tokenizer.model too: left as it is, it would hide the new
    tokens."""
    (tmp_path / "before").mkdir()
    bpe = write_tokenizer(tmp_path / "before", 430, "llama", merges="all")
    (tmp_path / "before" / "tokenizer.model").write_bytes(ranks_file(bpe))
    config = json.loads((tmp_path / "before" / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(bpe.token_to_id(x)): {"content": x, "special": True} for x in LLAMA_SPECIAL}
    (tmp_path / "before" / "tokenizer_config.json").write_text(json.dumps(config))
    write_model(tmp_path / "before", bpe.get_vocab_size(), "llama")
    text = write_lines(tmp_path / "text.txt", lines := sentences("kazakh", 100))
    try:
        extend(tmp_path / "before", text, tmp_path / "after", pieces=20)
    except ValueError as e:
        assert "tokenizer.model" in str(e)  # saying what stands in the way is as good
        return
    new = tokenizer.load(tmp_path / "after")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "after"))
    assert all(new.encode(x) == theirs(x, add_special_tokens=False)["input_ids"] for x in lines)
    assert new.vocab_size == 455 == ModelConfig.from_pretrained(tmp_path / "after").vocab_size


def test_two_runs_write_the_same_bytes(root, extended, tmp_path):
    """In processes of their own, with other hash seeds: no set or dict may decide."""
    case, runs = extended("qwen2 in both"), []
    text = write_lines(tmp_path / "text.txt", case.lines)
    for seed in ("1", "2"):
        command = [sys.executable, str(root / "recipes" / "extend_vocabulary.py"), f"model={case.before}",
                   f"text={text}",
                   f"pieces={PIECES}", f"out={tmp_path / seed}"]
        runs.append(subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, cwd=tmp_path))
    for run in runs:
        said = run.communicate(timeout=120)[0]
        assert run.returncode == 0 and said == case.said, said
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2") == snapshot(case.after)


# ---------------------------------------------------------------------- what is refused

def stopped(monkeypatch, folder, text, out, **settings):
    """Run the recipe as the shell does and return the one line it stops with."""
    arguments = [f"model={folder}", f"text={text}", f"out={out}", *(f"{k}={v}" for k, v in settings.items())]
    monkeypatch.setattr(sys, "argv", ["extend_vocabulary.py", *arguments])
    with pytest.raises(SystemExit) as e:
        runpy.run_path(recipe.__file__, run_name="__main__")
    assert isinstance(e.value.code, str) and "\n" not in e.value.code and e.value.code.startswith("ValueError: ")
    return e.value.code


@pytest.fixture
def text(tmp_path):
    return write_lines(tmp_path / "text.txt", sentences("kazakh", 30))


def snapshot(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


@pytest.mark.parametrize("name", ["text", "held_out"])
def test_a_missing_file(small, tmp_path, monkeypatch, text, name):
    missing = tmp_path / "missing*.txt"
    files = {"text": text} | {name: missing}
    line = stopped(monkeypatch, small[0], out=tmp_path / "out", **files)
    assert str(missing) in line and "no such file" in line and not (tmp_path / "out").exists()


def test_text_without_text(small, tmp_path, monkeypatch):
    (tmp_path / "blank.txt").write_text("\n \n\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\n\xff\n")
    for name in ("blank", "bytes"):
        line = stopped(monkeypatch, small[0], tmp_path / f"{name}.txt", tmp_path / "out")
        assert f"{name}.txt" in line and "no text" in line and not (tmp_path / "out").exists()


def test_a_format_nobody_reads(small, tmp_path, monkeypatch):
    (tmp_path / "text.pdf").write_bytes(b"%PDF")
    assert "text.pdf" in stopped(monkeypatch, small[0], tmp_path / "text.pdf", tmp_path / "out")


def test_a_folder_that_is_no_model(tmp_path, monkeypatch, text, small):
    assert "nowhere" in stopped(monkeypatch, tmp_path / "nowhere", text, tmp_path / "out")
    (tmp_path / "half").mkdir()
    shutil.copy(small[0] / "tokenizer.json", tmp_path / "half")
    shutil.copy(small[0] / "config.json", tmp_path / "half")
    assert "safetensors" in stopped(monkeypatch, tmp_path / "half", text, tmp_path / "out")
    shutil.copy(small[0] / "model.safetensors", tmp_path / "half")
    (tmp_path / "half" / "config.json").unlink()
    assert "config.json" in stopped(monkeypatch, tmp_path / "half", text, tmp_path / "out")


@pytest.mark.parametrize("left", ["tokenizer.model", "tokenizer.json"])
def test_sentencepiece_is_refused(tmp_path, monkeypatch, text, left):
    folder = tmp_path / "model"
    tokenizer.train(OLD_TEXT * 4, 400, folder)
    write_model(folder, 400)
    for name in {"tokenizer.model", "tokenizer.json"} - {left}:
        (folder / name).unlink()
    line = stopped(monkeypatch, folder, text, tmp_path / "out")
    assert str(folder) in line and "byte-level BPE" in line and not (tmp_path / "out").exists()


def test_tiktoken_alone_is_refused(tmp_path, monkeypatch, text, small):
    folder = tmp_path / "model"
    shutil.copytree(small[0], folder)
    (folder / "tokenizer.json").unlink()
    (folder / "qwen.tiktoken").write_bytes(ranks_file(small[1]))
    line = stopped(monkeypatch, folder, text, tmp_path / "out")
    assert "tokenizer.json" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../model", "relative", "link"])
def test_the_model_is_not_overwritten(tmp_path, monkeypatch, text, small, spelling):
    folder = tmp_path / "model"
    shutil.copytree(small[0], folder)
    out, before = spelling.format(folder), snapshot(folder)
    if spelling == "relative":
        monkeypatch.chdir(tmp_path)
        out = "model"
    elif spelling == "link":
        out = tmp_path / "link"
        out.symlink_to(folder)
    line = stopped(monkeypatch, folder, text, out)
    assert "out=" in line and "another folder" in line and snapshot(folder) == before


@pytest.mark.parametrize("settings, needles", [
    (dict(pieces="many"), ("pieces must be int", "many")), (dict(pieces=0), ("pieces", "0")),
                                               (dict(pieces=-5), ("pieces", "-5")),
    (dict(min_count=0), ("min_count", "0")), (dict(max_bytes=0), ("max_bytes", "0")),
    (dict(piece=5), ("did you mean 'pieces'",))])
def test_settings_that_mean_nothing(small, tmp_path, monkeypatch, text, settings, needles):
    line = stopped(monkeypatch, small[0], text, tmp_path / "out", **settings)
    assert all(n in line for n in needles) and not (tmp_path / "out").exists()


def test_a_model_with_fewer_rows_than_its_tokenizer(tmp_path, monkeypatch, text, small):
    """Control tokens without a row: rows of zeros between the old and the new would be made up."""
    folder = tmp_path / "model"
    shutil.copytree(small[0], folder)
    write_model(folder, 301)
    line = stopped(monkeypatch, folder, text, tmp_path / "out")
    assert "301" in line and "303" in line


def test_the_source_is_left_alone(small, tmp_path, text):
    before = snapshot(small[0])
    extend(small[0], text, tmp_path / "out", pieces=20)
    assert snapshot(small[0]) == before


def test_a_second_run_into_the_same_folder(small, tmp_path, text):
    """What an earlier run left there does not mix with this one's."""
    extend(small[0], text, tmp_path / "out", pieces=30)
    extend(small[0], text, tmp_path / "out", pieces=20)
    extend(small[0], text, tmp_path / "fresh", pieces=20)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("kind", ["parts", "sentencepiece"])
def test_another_tokenizer_in_the_folder_written_to(small, tmp_path, text, kind):
    """A tokenizer of another kind left there would be read first, or beside the new one: it goes, or the run is
    refused."""
    out = tmp_path / "out"
    if kind == "parts":
        (tmp_path / "other").mkdir()
        write_tokenizer(tmp_path / "other", 350, files="parts")
        write_model(tmp_path / "other", 353)
        extend(tmp_path / "other", text, out, pieces=20)
    else:
        tokenizer.train(OLD_TEXT * 4, 400, out)
    before = snapshot(out)
    try:
        extend(small[0], text, out, pieces=20)
    except ValueError as e:
        assert str(out) in str(e) and snapshot(out) == before
        return
    extend(small[0], text, tmp_path / "fresh", pieces=20)
    assert snapshot(out) == snapshot(tmp_path / "fresh")
