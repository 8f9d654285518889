"""open_process.py SIDE FOLDER DONE: prints the seconds from opening a dataset to its next batch after DONE samples, by
the clock and of CPU time.

Imports are not counted, nor is that of pandas, which pyarrow imports when it needs it and finds it.
"""

import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
from first_batch import BATCH

side, folder, done = importlib.import_module(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if importlib.util.find_spec("pandas"):
    importlib.import_module("pandas")
started, worked = time.perf_counter(), time.process_time()
if side.__name__ == "ours":
    first = done // 16
    stream = side.resumed_stream(folder) if done else side.open_stream(folder)
    ids = stream.sequences(range(first, first + BATCH // 16)).tokens
else:
    done -= done % BATCH
    ids = next(side.resumed(folder, done, BATCH) if done else side.shuffled(folder, 0, range(1), BATCH))
assert np.asarray(ids).size >= BATCH * 256
print(json.dumps([time.perf_counter() - started, time.process_time() - worked]), flush=True)
