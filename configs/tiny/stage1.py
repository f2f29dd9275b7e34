"""Stage I at toy scale: the paper's mixture (Table 2), replayed pairs, and its share of the tokens, 8 of 15."""
from configs import demo_languages as _demo
from configs.marco import paper

data = "out/demo/tokens"
init = "tinyworld/base"
out = "out/demo/stage1"
mixture = _demo.present(paper.STAGE1 | _demo.REPLAYED_PAIRS)
tokens = 2_000_000
seq_len, batch_size, micro_batch_size = 256, 8, 4
lr, warmup_ratio = 1.5e-3, 0.03  # the paper's 1e-5 is for a model 4,000 times as large
threads = 1
seed = 1
log_every, eval_every, eval_tokens, save_every = 50, 10_000, 1024, 5000
