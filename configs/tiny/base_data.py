"""The shipped base's corpus and tokenizer: python prepare.py configs/tiny/base_data.py"""
from configs import language_table
from configs.thresholds import SHORT as _SHORT

raw, out = "out/base/raw", "out/base/tokens"
language_names = language_table.NAMES
sources = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k)
           for k in language_names]
sources += [dict(name=f"bitext-{p}-{k}", path=f"bitext/{p}-{k}.tsv", category="parallel", language=p, target=k)
            for p in ("en", "zh") for k in language_names if k not in ("en", p)]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}.jsonl", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in language_names]
thresholds = {"*": _SHORT, "th": {"full_stops": (0, 1), "ends": (0, 1), "short_lines": (0, 0.78)}}
near_dedup = False  # texts about so small a world are mostly near-duplicates
vocab_size = 8192
valid_fraction = 0.06
