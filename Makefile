# Each target sets up the environment it needs (.venv, from requirements/*.txt) by itself.
# Another Python than python3: make PYTHON=python3.12 …
PYTHON ?= python3
full := @$(PYTHON) tools/environment.py full
digitcnn := .venv/bin/digitcnn

.DEFAULT_GOAL := help
.PHONY: help report preview data train test quick clean

help:     ## list these targets
	@sed -n 's/^\([a-z]*\): *## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

report:   ## the whole report into _book/, HTML and PDF, from the frozen results
	@$(PYTHON) tools/report.py

preview:  ## the report in a browser, rendered again whenever a chapter is saved (needs Quarto)
	@$(PYTHON) tools/report.py preview

data:     ## download MNIST and SVHN, or verify what is there
	$(full)
	@$(digitcnn) data

train:    ## train every run that is missing or stale; Ctrl-C loses at most an epoch
	$(full)
	@$(digitcnn) train --all

test:     ## ruff and the whole test suite
	$(full)
	@.venv/bin/ruff check .
	@.venv/bin/python -m pytest

quick:    ## everything from nothing on small embedded data, into _quick/, in minutes
	@$(PYTHON) tools/report.py quick

clean:    ## remove what can be made again: _book, _quick and Python's caches
	@rm -rf _book _book.new _book.old _quick _freeze.new _render.log .quarto site_libs
	@rm -rf .pytest_cache .ruff_cache .hypothesis chapters/*_files index_files
	@find digitcnn tools tests -name __pycache__ -prune -exec rm -rf {} +
