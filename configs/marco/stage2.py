"""Marco-7B, stage II: from stage I, 140 B tokens in the mixture of Table 3, peak learning rate 6e-6.

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage2.py
"""
from configs.marco.stage1 import *

init = "runs/marco-7b-stage1"
shape = "Qwen2-7B"  # stage I's model, for estimate=True before it exists
out = "runs/marco-7b-stage2"
mixture = paper.STAGE2
tokens = paper.STAGE2_TOKENS
lr = paper.STAGE2_LR
seed = 1  # another order of the same sources
