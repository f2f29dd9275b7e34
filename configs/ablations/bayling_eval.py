"""What fine-tuning costs in bits per byte, and translation between languages that no instruction pairs."""
from configs.tiny.eval import *

data, out = "out/bayling/raw/benchmarks", "out/bayling/results.jsonl"
_pivoted = ["it", "uk", "kk", "el"]
tasks = [dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl"),
         next(_t for _t in tasks if _t["name"] == "translation") | dict(
             name="xx_yy", pairs=[f"{_a}-{_b}" for _a in _pivoted for _b in _pivoted if _a != _b])]
