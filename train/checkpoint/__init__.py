"""Checkpoints: a folder that is there whole or not at all, with a hash for every file in it.

    runs/large/step-000001000/checkpoint.json    what it is: model, tokenizer, recipe, step; sha256 of the files below
                              state/             tensors of model and optimiser (torch.distributed.checkpoint)

    tensors ─copied (tensors.py)─▶ written by all processes (writing.py), beside the training (saver.py)
            ─▶ .step-000001000.partial ─▶ step-000001000 (folder.py) and, with --out s3://…, the same there (mirror.py)
            ─▶ verified and read by any number of processes (reading.py)

kill -9 or a full disk, at any moment, leave the last good one.
"""

from toto.train.checkpoint.folder import (
    FACTS,
    STATE,
    clean,
    found,
    identity,
    name_of,
    read_facts,
    resolve,
    retain,
    verify,
)
from toto.train.checkpoint.reading import load
from toto.train.checkpoint.tensors import Tensors, tensors_of
from toto.train.checkpoint.writing import save

__all__ = [
    "FACTS",
    "STATE",
    "Tensors",
    "clean",
    "found",
    "identity",
    "load",
    "name_of",
    "read_facts",
    "resolve",
    "retain",
    "save",
    "tensors_of",
    "verify",
]
