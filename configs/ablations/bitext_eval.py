"""Figure 7 in small, the scores: translation from and into English."""
from configs.ablations.bitext_data import _languages
from configs.tiny.eval import *

languages = _languages
data, out = "out/figure7/raw/benchmarks", "out/figure7/results.jsonl"
_xx = [_k for _k in languages if _k != "en"]
_translation = next(_t for _t in tasks if _t["name"] == "translation") | dict(limit=40)
tasks = [next(_t for _t in tasks if _t["name"] == "flores"),
         _translation | dict(name="into_english", pairs=[f"{_k}-en" for _k in _xx]),
         _translation | dict(name="from_english", pairs=[f"en-{_k}" for _k in _xx])]
