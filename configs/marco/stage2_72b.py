"""Marco-72B, stage II.

    torchrun --nnodes 64 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage2_72b.py
"""
from configs.marco.stage2 import *

init = "runs/marco-72b-stage1"
out = "runs/marco-72b-stage2"
shape = "Qwen2-72B"
micro_batch_size, shard_size, activation_checkpointing = 2, 64, True  # as in stage I
