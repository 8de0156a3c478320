# Each target sets up the environment it needs (.venv, from requirements/*.txt) by itself.
# Another Python than python3: make PYTHON=python3.12 …
PYTHON ?= python3
full := @$(PYTHON) tools/environment.py full
digitcnn := .venv/bin/digitcnn

.DEFAULT_GOAL := help
.PHONY: help report preview data train demo test test-all quick submission clean

# As they were typed: make would carry out a $(…) in them.
override NAME := $(if $(filter command,$(origin NAME)),$(value NAME))
override ROLL := $(if $(filter command,$(origin ROLL)),$(value ROLL))
override DATE := $(if $(filter command,$(origin DATE)),$(value DATE))
override DRAFT := $(if $(filter command,$(origin DRAFT)),$(value DRAFT))
override ONE := $(if $(filter command,$(origin ONE)),$(value ONE))
export NAME ROLL DATE DRAFT ONE

help:     ## list these targets
	@sed -n 's/^\([a-z-]*\): *## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

report:   ## the whole report into _book/, HTML and PDF (CHAPTER=05: execute that one again first)
	@$(PYTHON) tools/report.py report $(CHAPTER)

preview:  ## the report in a browser, rendered again whenever a chapter is saved (needs Quarto)
	@$(PYTHON) tools/report.py preview

data:     ## download MNIST and SVHN, or verify what is there
	$(full)
	@$(digitcnn) data

train:    ## train every run that is missing or stale; Ctrl-C loses at most an epoch
	$(full)
	@$(digitcnn) train --all

demo:     ## the saved models at work, on a local web page; Ctrl-C ends it
	$(full)
	@$(digitcnn) demo

test:     ## ruff and all but the slow tests; of one file: make test ONE=tests/test_data.py
	$(full)
	@.venv/bin/ruff check .
	@.venv/bin/python -m pytest -m "not slow" $${ONE:+"$$ONE"}

test-all: ## every test, those that kill processes and run whole pools too
	$(full)
	-@.venv/bin/python -m pip install -q --no-deps --require-hashes -r requirements/axe.txt
	@.venv/bin/python -m pytest

quick:    ## everything from nothing on toy data, into _quick/, in minutes (CHAPTER=05: that alone)
	@$(PYTHON) tools/report.py quick $(CHAPTER)

ifneq ($(and $(filter submission,$(MAKECMDGOALS)),$(filter-out submission,$(MAKECMDGOALS))),)
$(error NAME and ROLL need quotes: make submission NAME="Ada Lovelace" ROLL=M23-001)
endif
submission: ## NAME.ROLL.zip to hand in: make submission NAME="Ada Lovelace" ROLL=M23-001
	$(full)
	@.venv/bin/python tools/submission.py "$$NAME" "$$ROLL" "$$DATE" "$$DRAFT"

clean:    ## remove what can be made again: _book, _quick, Python's caches
	@rm -rf _book _book.* _quick _freeze.new _render.log .quarto site_libs
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis chapters/*_files index_files
	@rm -f index.html index.typ index.pdf references.html chapters/*.html
	@find digitcnn tools tests -name __pycache__ -prune -exec rm -rf {} +
