"""The stand-in for Qwen2: a model of 2 M parameters raised mostly on English and Chinese.

Like the real base it has seen every language a little, and Kazakh, Nepali and Azerbaijani, the three in which Qwen2-7B
scores lowest in the paper's Table 6, least of all.
"""
data = "out/demo/tokens"
out = "out/demo/base"
mixture = {"en": 50, "zh": 29, "high": 12, "low": 5, "low/kk": 0.05, "low/ne": 0.05, "low/az": 0.05, "knowledge/en": 2, "knowledge/zh": 1,
           "parallel/en-zh": 2}
tokens = 900_000
vocab_size, hidden_size, intermediate_size, num_hidden_layers = 8192, 128, 384, 4
num_attention_heads, num_key_value_heads = 4, 2
rope_theta = 10000.0
initializer_range = 0.08  # 1 / sqrt(hidden_size): with Qwen2's 0.02 a model this narrow attends to nothing for hundreds of steps
seq_len, batch_size, micro_batch_size = 256, 4, 4  # small steps: at this scale their number teaches more than their size
lr, warmup_ratio = 3e-3, 0.05
log_every, eval_every, eval_tokens, save_every = 50, 220, 1024, 500
