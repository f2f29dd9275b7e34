"""Marco-1.5B, stage I, on 8 nodes: the paper's small model (its Figure 7).

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 train.py configs/marco/stage1_1b5.py
"""
from configs.marco.stage1 import *

init = "models/Qwen2-1.5B"
out = "runs/marco-1.5b-stage1"
micro_rows = 4      # 16,384 tokens a GPU: the states of 1.5 B parameters take 23 GiB over 8 GPUs, 3 GiB each
replicate = 8
