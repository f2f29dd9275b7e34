"""The tinyworld's questions of two turns, answered; what fine-tuning costs in bits per byte; translation it was not shown."""
from configs.tiny.eval import *

data, out = "out/bayling/raw", "out/bayling/results.jsonl"
_far = ["kk", "uk", "th", "ro"]  # no two of them stand in one instruction
tasks = [dict(name="chat", kind="chat", path="eval/chat/{lang}.jsonl", max_new=48, limit=12),
         dict(name="heldout", kind="bpb", path="benchmarks/heldout/{lang}.jsonl"),
         next(_t for _t in tasks if _t["name"] == "translation") | dict(
             name="xx_yy", path="benchmarks/flores/{lang}.txt", pairs=[f"{_a}-{_b}" for _a in _far for _b in _far if _a != _b])]
