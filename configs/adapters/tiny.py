"""Knowledge adapters in small: the tinyworld's entities in the two languages that the shipped base knows.

Of other languages it knows too little for a frozen model: adapters learn their labels by heart and nothing held out.
"""
model = "tinyworld/base"
out = "out/adapters"
languages = ["en", "zh"]
reduction = 4  # the base is 128 wide, the paper's models 768 and 1024
steps = {"ep": 150, "tp": 200, "es": 150, "ts": 150, "fusion": 200}
batch_size = {"ep": 64, "tp": 64, "es": 16, "ts": 32, "fusion": 32}
tau, pool = 0.3, "last"  # at seed 0 ep learned more of held-out labels than with 0.1, and tp than with the mean
lr, fusion_lr = 1e-2, 3e-3
