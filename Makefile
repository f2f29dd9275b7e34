# Each target is a command or two you could type yourself; see README.md.
PY := .venv/bin/python

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/ok  ## the shipped base learns eight languages, answers in them, and is measured; LANGUAGES=all for the 29
	$(PY) recipes/demo.py

base: .venv/ok  ## train the shipped base anew, in out/base (two hours on one core)
	$(PY) -m tinyworld configs/tiny/base_world.py
	$(PY) prepare.py configs/tiny/base_data.py
	$(PY) train.py configs/tiny/base.py resume=True
	$(PY) train.py configs/tiny/base_more.py resume=True
	$(PY) model.py export out/base/more out/base/exported dtype=bfloat16

test: .venv/dev  ## the default suite
	.venv/bin/python -m pytest -n 2

test-slow: .venv/dev  ## kills, resumes, many processes, Triton's interpreter at length
	.venv/bin/python -m pytest -m slow

lint: .venv/dev  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/mypy

torture: .venv/dev  ## kill every program at every point of a save, damage their files, compare: 40 minutes
	$(PY) tests/torture.py minutes=40

mutate: .venv/dev  ## change a line of what saves and locks; does a test fail?
	$(PY) tests/mutate.py

claims: .venv/ok  ## the papers' claims over three seeds: the stages, their ablations, BayLing 2; about three hours
	$(PY) recipes/claims.py
	for seed in 0 1 2; do $(PY) recipes/bayling.py seed=$$seed out=out/bayling/seed$$seed || exit 1; done

ladder: .venv/ok  ## after or during make base: after how many tokens of the base each ability appears
	$(PY) recipes/ladder.py

quality: .venv/ok  ## what the cascade does to planted junk (after make demo), and to GOOD=FOLDER of published text
	$(PY) -m bench.quality $(if $(GOOD),good=$(GOOD))

bench: .venv/dev  ## ours beside transformers, tokenizers, lm-eval and datatrove, on this machine
	$(PY) -m bench.speed

gpu: .venv/dev  ## one GPU: check the kernels there, then time them; results in out/gpu.jsonl
	$(PY) -m bench.gpu_report

interop: .venv/dev  ## an export in transformers and, where they are installed, llama.cpp: the same logits, ids and text
	$(PY) -m bench.interop

.venv/ok: requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install -q "$$(grep '^torch==' requirements.txt)"
	.venv/bin/pip install -q -r requirements.txt
	touch $@

.venv/dev: .venv/ok requirements-dev.txt
	.venv/bin/pip install -q -r requirements-dev.txt
	touch $@

.PHONY: help demo base test test-slow lint claims ladder quality bench gpu torture mutate interop
