"""Stage I in small: the paper's mixture (Table 2) and its share of the tokens, 8 of 15."""
from configs.marco import paper

data = "out/demo/tokens"
init = "out/demo/base"
out = "out/demo/stage1"
mixture = paper.STAGE1
tokens = 640_000
seq_len, batch_size, micro_batch_size = 256, 4, 4
lr, warmup_ratio = 2e-3, 0.05  # the paper's 1e-5 is for a model 4,000 times as large
seed = 1
log_every, eval_every, eval_tokens, save_every = 50, 220, 1024, 500
