"""Figure 7 in small, training: a model from scratch, 30 % of it sentence pairs. Sizes: hidden_size=64 and 128."""
from configs.tiny.base import *

data, out = "out/figure7/filtered", "out/figure7/model"
mixture = {"en": 30, "zh": 10, "high": 15, "low": 15, "parallel": 30}
tokens = 400_000
vocab_size = 4096
eval_every = save_every = 10_000
