"""The shipped base, and the base after 0.9 M tokens with verdicts: python recipes/probing.py configs/probing/tiny.py

The base was trained only on true statements, mostly in English and Chinese, so it has no reason to encode truth. It is
therefore trained further on documents in which "True." or "False." follows each statement, each language with about
its share of the base's mixture.
"""
models = ["tinyworld/base"]
out = "out/probing"
languages = ["en", "zh", "it", "uk", "kk", "el"]
splits = 5
documents = {"en": (1000, 4500), "zh": (1000, 6500), "low": (200, 250)}
verdicts = dict(
    tokens=900_000, lr=1.5e-3, warmup_ratio=0.03, seq_len=256, batch_size=2, micro_batch_size=2, threads=1,
    mixture={"en": 10, "zh": 8, "low": 6, "verdicts/en": 36, "verdicts/zh": 36, "verdicts": 4},
    log_every=400, eval_every=100_000, save_every=100_000)
