"""Marco-72B, stage III, on 16 nodes of 8 GPUs.

    torchrun --nnodes 16 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/marco/sft_72b.py
"""
from configs.marco.sft import *

init = "runs/marco-72b-stage2"
out = "runs/marco-72b-sft"
lr = 5e-6  # half of the 7B's: chosen, since larger models need lower rates
micro_batch_size = 1
shard_size = 64  # two copies: 1,083 GiB of weights, gradients and moments / 64 = 17 GiB each
shape, gpu, gpus = "Qwen2-72B", "A100", 128  # for estimate=True
