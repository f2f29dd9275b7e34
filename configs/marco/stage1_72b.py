"""Marco-72B, stage I, on 64 nodes of 8 GPUs.

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 train.py configs/marco/stage1_72b.py
"""
from configs.marco.stage1 import *

init = "models/Qwen2-72B"
out = "runs/marco-72b-stage1"
rows = 1024
micro_rows = 2      # 8,192 tokens a GPU: 24 s of work against 17 s of traffic, hidden (the floor is about 6,000 tokens)
replicate = 8       # shards over 64 GPUs: 1,083 GiB of states / 64 = 17 GiB each
