"""SFT in small, from stage II: native and cross-lingual instructions, and stage II's text replayed in two fifths."""
from configs import demo_languages as _demo
from configs.marco import paper

data = ["out/demo/chats", "out/demo/tokens"]
init = "out/demo/stage2"
out = "out/demo/sft"
_native = {"chat/en": 8, "chat/zh": 6, "chat": 12}
_text = {_k: 0.4 * _v for _k, _v in _demo.present(paper.STAGE2).items()}
mixture = {_k: _v for _k, _v in _native.items() if _demo.has_chats(_k)} | {"crosslingual": 34} | _text
tokens = 700_000
seq_len, batch_size, micro_batch_size = 256, 4, 4
lr, warmup_ratio = 5e-4, 0.05
threads = 1
seed = 3
log_every, eval_every, eval_tokens, save_every = 50, 10_000, 1024, 5000
