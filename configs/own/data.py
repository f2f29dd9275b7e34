"""Your own text, in any languages. Put (or link) it under own/ like this, then run the five commands below:

    own/text/kk/*.txt           running text, one document per file (also .jsonl, .gz, .xz ...)
    own/bitext/en-kk.tsv        sentence, tab, translation; or two aligned files en-kk.en and en-kk.kk
    own/test/kk.txt             held-out sentences, one per line: bits per byte before and after
    own/flores/kk.txt, en.txt   held-out sentences, translations line by line: chrF++ in both directions
    own/chat/kk.jsonl           instructions (configs/own/chats.py)

    python prepare.py configs/own/data.py
    python train.py configs/own/stage1.py
    python train.py configs/own/stage2.py
    for m in tinyworld/base out/own/stage1 out/own/stage2; do python eval.py configs/own/eval.py model=$m; done
    python report.py tables run=out/own

The tokenizer must be that of the model you start from: here the tiny base of `make demo`, which has seen none of this.
A published checkpoint takes configs/own/checkpoint_*.py in place of stage1 and stage2.
"""
from pathlib import Path as _Path

from configs.thresholds import SHORT as _SHORT

# edit here: every language of your text, its English name, and its mixture category ("en", "zh", "high" or "low")
_languages = {
    "en": ("English", "en"), "zh": ("Chinese", "zh"), "ar": ("Arabic", "high"), "de": ("German", "high"),
    "es": ("Spanish", "high"), "fr": ("French", "high"), "ja": ("Japanese", "high"), "ko": ("Korean", "high"),
    "pt": ("Portuguese", "high"), "tr": ("Turkish", "high"), "bn": ("Bengali", "low"), "id": ("Indonesian", "low"),
    "kk": ("Kazakh", "low"), "ne": ("Nepali", "low"), "ru": ("Russian", "low"), "th": ("Thai", "low"),
    "sw": ("Swahili", "low")}  # not one of Marco-LLM's 29: a new language is a new entry

raw, out = "own", "out/own/tokens"
tokenizer = "tinyworld/base"
unit = "file"
language_names = {_k: _v[0] for _k, _v in _languages.items()}
sources = []
for _p in sorted(_Path(raw, "text").glob("*/")):
    if _p.name in _languages:
        sources.append(dict(name=f"text-{_p.name}", path=f"text/{_p.name}/*", category=_languages[_p.name][1],
                            language=_p.name))
    else:
        print(f"note: {_p} is not read: add its language to _languages in configs/own/data.py")
for _p in sorted(_Path(raw, "bitext").glob("*")):
    _a, _, _b = _p.name.split(".")[0].partition("-")
    if not _b and not {".tsv", ".jsonl", ".json", ".tmx", ".parquet"} & set(_p.suffixes):
        continue  # a README, say
    if not _b or "-" in _b:
        raise ValueError(f"{_p}: name it after its two languages, like en-kk.tsv")
    if not {_a, _b} <= set(_languages):
        print(f"note: {_p} is not read: add its languages to _languages in configs/own/data.py")
        continue
    if f".{_b}" in _p.suffixes:
        continue  # the second of two aligned files comes with the first
    _path = f"bitext/{_p.name}"
    if f".{_a}" in _p.suffixes:
        _path += "|" + _path.replace(f".{_a}", f".{_b}")
    sources.append(dict(name=f"bitext-{_a}-{_b}", path=_path, category="parallel", language=_a, target=_b))
if not sources:
    print(f"note: {raw}/text and {raw}/bitext hold no text yet; the top of configs/own/data.py says what goes there")
langid = False      # the folder names the language
# curated text: only length, symbols and repetition are checked
thresholds = {"*": _SHORT | {"full_stops": (0, 1), "ends": (0, 1)}}
valid_fraction = 0.0
