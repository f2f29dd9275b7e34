"""SFT of a published checkpoint on own/chat, from stage II. A base model needs template=; a chat model has its own.

    python prepare.py configs/own/chats.py tokenizer=models/SmolLM2-135M-Instruct   # a base model: also template=chatml
    python train.py configs/own/checkpoint_sft.py init=out/own/stage2
"""
from configs.own.checkpoint_stage1 import *

data, init, out = ["out/own/chats", "out/own/tokens"], "out/own/stage2", "out/own/sft"
# two fifths replay text: without it, SFT undoes what stage II taught
mixture = {"chat": 60} | {_k: 0.4 * _v for _k, _v in mixture.items()}
tokens = 100_000
lr = 5e-5
seed = 2
