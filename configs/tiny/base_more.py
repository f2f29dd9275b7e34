"""The shipped base's second phase: 8 M more tokens after the first, from a lower peak learning rate, in another order.

English begins to answer reading questions only now; copying in Chinese, whose words are shorter, appears at 7 M tokens.
"""
from configs.tiny.base import *

init = "out/base/model"
out = "out/base/more"
tokens = 8_000_000
lr, warmup_ratio = 1e-3, 0.02
lr_schedule = "linear"
seed = 1
del vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads  # noqa: F821
del rope_theta, initializer_range  # noqa: F821
