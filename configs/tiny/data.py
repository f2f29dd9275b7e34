"""The tinyworld as a corpus: python -m tinyworld out=out/demo/raw, then python prepare.py configs/tiny/data.py."""
from configs import language_table

raw, out = "out/demo/raw", "out/demo/tokens"
names = language_table.NAMES
sources = [dict(name=f"web-{k}", path=f"web/{k}.jsonl", category=language_table.group(k), language=k) for k in names]
sources += [dict(name=f"bitext-en-{k}", path=f"bitext/en-{k}.tsv", category="parallel", language="en", target=k) for k in names if k != "en"]
sources += [dict(name=f"bitext-zh-{k}", path=f"bitext/zh-{k}.tsv", category="parallel", language="zh", target=k)
            for k in names if k not in ("en", "zh")]
sources += [dict(name=f"{kind}-{k}", path=f"{kind}/{k}.jsonl", category=kind, language=k, clean=True)
            for kind in ("knowledge", "synthetic") for k in names]
blocked = ["casino"]
thresholds = {"th": {"full_stops": (0, 1), "ends": (0, 1), "short_lines": (0, 0.78)}}  # Thai has no full stop to tell a menu by
vocab_size = 8192
valid = 0.06
