"""pack: the same rows in few even files, in a shuffled order, for storage that is read from front to back.

Pieces of about a record batch, neighbours within, are dealt out in the order of a keyed permutation, split by split.
So a file is a sample of its whole split, and reading one batch of the input gives one batch of the output.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.rewrite.catalog import Catalog
from toto.shards.rewrite.copying import RowCopier
from toto.shards.rewrite.derive import DEFAULT, SHARD_BYTES, Options, Result, derive
from toto.shards.rewrite.opening import canary_of, derived_settings, open_inputs, places
from toto.shards.rewrite.pieces import cut_pieces, with_units
from toto.shards.rewrite.plan import Draft, Identity
from toto.shards.rewrite.proof import RowProof
from toto.shards.rewrite.tables import tables_of
from toto.shards.streaming.keyed import Permutation, key


def pack(uri: str, out: str, shard_bytes: int = SHARD_BYTES, seed: int = 0, options: Options = DEFAULT) -> Result:
    """Packs the last snapshot of a dataset into a new one; goes on where `out` holds an unfinished pack of it.

    `shard_bytes`: of a shard's ids and pixels before compression. UserError, UsageError.
    """
    opened = open_inputs(out, [uri], "pack")
    opened.tell(options.say)
    (taken,) = opened.inputs
    info = taken.dataset.info
    settings = derived_settings(info["settings"], "pack", [taken], seed=seed, shard_bytes=shard_bytes)
    identity = Identity(info["name"], taken.dataset.tokenizer, settings, places([taken]), canary_of([taken]))
    copier = RowCopier([taken])

    def draw() -> Draft:
        catalog = Catalog([taken])
        pieces = shuffled(cut_pieces(catalog, catalog.keep_splits()), seed)
        units = with_units(pieces, shard_bytes, identity.of_units())
        return Draft(units, tables_of(taken), catalog.sources)

    proof = RowProof([taken], copier, whole=True) if options.proof else None
    return derive(out, identity, draw, copier, proof, options)


def shuffled(pieces: pa.Table, seed: int) -> pa.Table:
    """The pieces of each split in the order of a permutation that seed and split decide; splits by name."""
    parts = [pieces.slice(0, 0)]
    for split in sorted(set(pieces["split"].to_pylist())):
        chosen = pieces.filter(pc.equal(pieces["split"], split))
        order = Permutation(len(chosen), key(seed, "pack", split))
        parts.append(chosen.take(pa.array(order.many(np.arange(len(chosen))))))
    return pa.concat_tables(parts)
