# toto in one page: every target is a line that you could type by hand. `make` lists them.
#
#   DATASET=  a dataset of pipelines.yaml          VIDEOS=  your own folder of videos and images, for demo
#   SIZE=     a model size                         TASK= CKPT=  what to evaluate, and which checkpoint
#   ARGS=     anything else, handed on as it is:   make tokenize DATASET=demo ARGS="--workers 2"
#
#   PYTHON=       the Python 3.11-3.13 that .venv is made of (default: the first that is found)
#   TORCH_INDEX=  where setup takes torch from; empty: where pip looks by itself. Not given: PyTorch's CPU
#                 index on a Linux machine without an NVIDIA GPU, else where pip looks by itself (CUDA, macOS)

# The folders have the targets' names: without this line make would say "'tokenize' is up to date".
.PHONY: help setup demo test lint bench drill fuzz tokenize pretrain eval

SHELL := /bin/sh
BIN := .venv/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in $(BIN)/python python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; break; }; done)
NO_PYTHON := found no Python 3.11 to 3.13 that can make environments. Install one (Debian and Ubuntu: \
	apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.12
TORCH_FROM = $(if $(filter undefined,$(origin TORCH_INDEX)),,--torch-index="$(TORCH_INDEX)")

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup:  ## .venv with everything; nothing to do, and instant, when nothing changed
	@$(or $(PYTHON),$(error $(NO_PYTHON))) tools/setup_venv.py $(TORCH_FROM)

demo: setup  ## a made-up world of videos -> tokens -> a page to look at (VIDEOS=/path: your own files)
	@$(BIN)/python -m toto.demo $(if $(VIDEOS),--videos "$(VIDEOS)") $(ARGS)

test: setup  ## the whole suite, a process more than there are cores (at most four)
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: setup  ## ruff, mypy, and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup  ## every benchmark in bench/ (ARGS=--json)
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; done

drill: setup  ## the proofs that take longer than a test may: random kill -9, the large model
	@$(BIN)/python tests/drill.py $(ARGS)

fuzz: setup  ## damaged and hostile datasets, for ten minutes (ARGS="--minutes 60")
	@$(BIN)/python tests/fuzz_shards.py $(ARGS)

tokenize: setup  ## videos -> shards: DATASET=demo
	@$(BIN)/toto-tokenize run $(or $(DATASET),$(error which dataset? make tokenize DATASET=demo)) $(ARGS)

pretrain: setup  ## shards -> a checkpoint: SIZE=large
	@$(BIN)/toto-train pretrain $(if $(SIZE),--size $(SIZE)) $(ARGS)

eval: setup  ## checkpoint + shards -> numbers: TASK=probe CKPT=path
	@$(BIN)/toto-eval $(or $(TASK),$(error which task? make eval TASK=probe CKPT=path)) $(if $(CKPT),--ckpt "$(CKPT)") $(ARGS)
