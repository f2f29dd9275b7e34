"""PolyLM's curriculum on the tinyworld: 85 % of the tokens with 30 % non-English text, 15 % with 60 %."""
out = "out/polylm"
model = "tinyworld/base"
languages = ["en", "zh", "de", "fr", "it", "uk", "kk", "el"]
tokens, curve_tokens = 400_000, 200_000
first = {"en": 70, "zh": 14, "high": 12, "low": 3, "parallel": 1}
second = {"en": 40, "zh": 14, "high": 22, "low": 14, "parallel": 10}
crawl = dict(web={"en": 2500, "zh": 1200, "high": 800, "low": 400}, junk=0.2, pairs=0, knowledge=0, synthetic=0,
             items=2, test=2, heldout=1)
library = dict(web={"en": 1200, "zh": 800, "high": 500, "low": 300}, junk=0.0, noise=0.0, pairs=300, knowledge=0,
               synthetic=0, items=2, test=48, heldout=32)
train = dict(seq_len=256, batch_size=4, micro_batch_size=4, lr=1e-3, warmup_ratio=0.03, threads=1, log_every=50,
             eval_every=10_000, save_every=10_000)
