"""LDP on the tinyworld: examples in eight languages; Italian and Ukrainian are in no training prompt."""
out = "out/ldp"
model = "tinyworld/base"
high = ["zh", "ar", "de", "es", "fr", "ja", "ko", "pt"]
low = ["it", "uk"]
world = dict(web={"en": 800, "zh": 1, "high": 1, "low": 800}, pairs={"zh": 1200, "high": 1200, "low": 1500}, noise=0.0,
             junk=0.0, knowledge=0, synthetic=0, items=2, test=96, heldout=32)
# `count` few-shot prompts, then train.py's settings
episodes = dict(count=6000, tokens=500_000, mixture={"episodes": 55, "parallel": 30, "low": 8, "en": 7}, seq_len=512,
                batch_size=2, micro_batch_size=2, lr=1.2e-3, warmup_ratio=0.03, threads=1, log_every=50,
                eval_every=10_000, save_every=10_000)
