"""Stage I on a published checkpoint of 0.1 to 8 B parameters; configs/own/stage1.py is for the tiny base.

    python prepare.py configs/own/data.py tokenizer=models/SmolLM2-135M-Instruct
    python train.py configs/own/checkpoint_stage1.py init=models/SmolLM2-135M-Instruct
"""
from configs.own.data import sources as _sources

data, out = "out/own/tokens", "out/own/stage1"
# Table 2 is for 29 languages; reduced to English, Kazakh and translations, its shares would be 68, 19 and 13 %. Here a
# fifth is English, replayed against forgetting, and a fifth translations, themselves half English. SmolLM2-135M,
# after 163,840 tokens: Kazakh 2.47 -> 1.46 bits per byte, English 1.15 -> 1.11 (results/afternoon.json).
_shares = {"en": 20, "parallel": 20, "zh": 60, "high": 60, "low": 60}
mixture = {_k: _v for _k, _v in _shares.items() if _k in {_s["category"] for _s in _sources}}
tokens = 300_000    # an afternoon on one core for 135 M parameters; on a GPU, 100 M
seq_len, batch_size, micro_batch_size = 512, 4, 4  # from 10 M tokens on: seq_len=2048 batch_size=64
lr, warmup_ratio, min_lr_ratio = 1e-4, 0.05, 0.1   # up to 0.5 B parameters; 5e-5 for 1.5 B, 2e-5 for 7 B
dtype = "bfloat16"  # of the computation; master weights and moments are float32
log_every, eval_every, eval_tokens, save_every = 1, 1000, 1024, 50  # a step takes seconds on a CPU
