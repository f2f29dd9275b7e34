"""Data for a small Figure 7: sentence pairs, four in ten of them corrupted, filtered or not (filter_bitext=False)."""
from configs.tiny.data import *

_languages = ["en", "zh", "de", "es", "ru", "kk"]
raw, out = "out/figure7/raw", "out/figure7/filtered"
sources = [_s for _s in sources if _s["language"] in _languages and _s.get("target", "en") in _languages]
tokenizer, vocab_size = None, 4096
