# Each target is a command or two you could type yourself; see README.md.
PY := .venv/bin/python

demo: .venv/ok  ## raw text to a model that speaks more languages, on the embedded corpus
	rm -rf out/demo && mkdir -p out/demo
	$(PY) -m tinyworld out=out/demo/raw
	$(PY) prepare.py configs/tiny/data.py
	$(PY) train.py configs/tiny/base.py
	$(PY) train.py configs/tiny/stage1.py
	$(PY) train.py configs/tiny/stage2.py
	$(PY) prepare.py configs/tiny/chats.py
	$(PY) train.py configs/tiny/sft.py
	$(PY) train.py configs/tiny/dpo.py
	for model in base stage1 stage2 sft dpo; do $(PY) eval.py configs/tiny/eval.py model=out/demo/$$model || exit 1; done
	for model in sft dpo; do $(PY) eval.py configs/tiny/chat_eval.py model=out/demo/$$model out=out/demo/answers/$$model || exit 1; done
	$(PY) -m tinyworld judge raw=out/demo/raw a=out/demo/answers/sft/samples.jsonl out=out/demo/results.jsonl
	$(PY) -m tinyworld judge raw=out/demo/raw a=out/demo/answers/dpo/samples.jsonl b=out/demo/answers/sft/samples.jsonl \
	  out=out/demo/results.jsonl
	$(PY) report.py datacard data=out/demo/tokens
	$(PY) report.py demo run=out/demo
	for model in stage2 sft dpo; do echo "== $$model" && $(PY) generate.py configs/tiny/ask.py model=out/demo/$$model || exit 1; done

test: .venv/dev  ## the default suite
	.venv/bin/python -m pytest -n 2

test-slow: .venv/dev  ## kills, resumes and many processes
	.venv/bin/python -m pytest -m slow

claims: .venv/ok  ## the demo's experiment over three seeds, the paper's Figure 7, and BayLing 2's question
	PY=$(PY) bash recipes/claims.sh
	PY=$(PY) bash recipes/figure7.sh
	PY=$(PY) bash recipes/bayling.sh

quality: .venv/ok  ## what the cascade does to the tinyworld's planted junk (after make demo), and to GOOD=FOLDER of published text
	$(PY) -m bench.quality $(if $(GOOD),good=$(GOOD))

bench: .venv/dev  ## ours beside transformers and tokenizers, on this machine
	$(PY) -m bench.speed

.venv/ok: requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install -q "$$(grep '^torch==' requirements.txt)"
	.venv/bin/pip install -q -r requirements.txt
	touch $@

.venv/dev: .venv/ok requirements-dev.txt
	.venv/bin/pip install -q -r requirements-dev.txt
	touch $@

.PHONY: demo test test-slow claims quality bench
