"""Marco-1.5B, stage II.

    torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/stage2_1b5.py
"""
from configs.marco.stage2 import *

init = "runs/marco-1.5b-stage1"
out = "runs/marco-1.5b-stage2"
shape = "Qwen2-1.5B"
micro_batch_size, gpus = 4, 64
