"""The tinyworld as a corpus: python -m tinyworld configs/tiny/world.py, then python prepare.py configs/tiny/data.py"""
from configs import demo_languages as _demo
from configs import language_table
from configs.thresholds import SHORT as _SHORT

raw, out = "out/demo/raw", "out/demo/tokens"
tokenizer = "tinyworld/base"
language_names = {_code: language_table.NAMES[_code] for _code in _demo.chosen()}
sources = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k)
           for k in language_names]
sources += [dict(name=f"bitext-{p}-{k}", path=f"bitext/{p}-{k}.tsv", category="parallel", language=p, target=k)
            for p in ("en", "zh") if p in language_names for k in language_names if k not in ("en", p)]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}.jsonl", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in language_names]
blocked_url_words = ["casino"]
thresholds = {"*": _SHORT,
              "th": {"full_stops": (0, 1), "ends": (0, 1), "short_lines": (0, 0.78)}}  # Thai has no full stop
valid_fraction = 0.06
