"""The tinyworld as a corpus: python -m tinyworld out=out/demo/raw, then python prepare.py configs/tiny/data.py."""
from configs import language_table
from configs.thresholds import SHORT as _SHORT

raw, out = "out/demo/raw", "out/demo/tokens"
language_names = language_table.NAMES
sources = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k)
           for k in language_names]
for _pivot in ("en", "zh"):
    sources += [dict(name=f"bitext-{_pivot}-{k}", path=f"bitext/{_pivot}-{k}.tsv", category="parallel", language=_pivot,
                     target=k) for k in language_names if k not in ("en", _pivot)]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}.jsonl", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in language_names]
blocked_url_words = ["casino"]
thresholds = {"*": _SHORT,
              "th": {"full_stops": (0, 1), "ends": (0, 1), "short_lines": (0, 0.78)}}  # Thai has no full stop
vocab_size = 8192
valid_fraction = 0.06
