"""Knowledge adapters in small: the tinyworld's entities in ten languages, beside the shipped base."""
model = "tinyworld/base"
out = "out/adapters"
languages = ["en", "zh", "de", "fr", "it", "uk", "kk", "el", "ar", "ja"]
reduction = 4  # the base is 128 wide, the paper's models 768 and 1024
steps = {"ep": 300, "tp": 300, "es": 200, "ts": 200, "fusion": 200}
batch_size = {"ep": 64, "tp": 64, "es": 16, "ts": 32, "fusion": 32}
lr, fusion_lr = 3e-3, 1e-3
