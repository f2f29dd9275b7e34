"""SFT at toy scale, from stage II: native and cross-lingual instructions, and replayed text, mostly knowledge."""
from configs import demo_languages as _demo
from configs.marco import paper

data = ["out/demo/chats", "out/demo/tokens"]
init = "out/demo/stage2"
out = "out/demo/sft"
# "chat" is shared by the languages other than English and Chinese
_chats = {"chat/en": 5, "chat/zh": 20, "chat": 56}
_text = {_k: 0.2 * _v for _k, _v in _demo.present(paper.STAGE2).items()}
# knowledge is questions with answers: the more of it, the more facts outside the instructions are answered correctly
_text_again = _demo.present(_text | {"knowledge": 20} | _demo.REPLAYED_PAIRS)
mixture = {_k: _v for _k, _v in _chats.items() if _demo.has_chats(_k)} | {"crosslingual": 8} | _text_again
tokens = 3_000_000
seq_len, batch_size, micro_batch_size = 256, 8, 4
lr, warmup_ratio = 7e-4, 0.05
threads = 1
seed = 3
log_every, eval_every, eval_tokens, save_every = 50, 10_000, 1024, 5000
