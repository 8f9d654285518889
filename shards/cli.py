"""toto-shards: look at a token dataset and prove that it is whole. Needs no video library and no torch.

The commands are in commands/, by topic; each topic is imported when one of its commands is called.
"""

import click

from toto import __version__, command

COMMANDS = {  # name -> module:function in commands/, and the first line of its help
    "info": (
        "summary:info",
        "What a dataset holds; of several, a table with the columns of the paper's Table 2 and their total.",
    ),
    "verify": ("verify:verify", "Prove that a dataset is as it was sealed; exit code 1 when it is not."),
    "view": (
        "look:view",
        "Decode tokens back to pictures; a few rows when none are named. `seen` shows what a training step read.",
    ),
    "seen": ("look:seen", "What a training step read: sources, frame numbers, times and pictures of its batch."),
    "stats": (
        "statistics:show_stats",
        "What the codes are like: codebook use, entropy, what stands still, sources that stand out, bytes and bounds.",
    ),
    "ngrams": (
        "statistics:ngrams",
        "How codes follow one another: figures 3, 12 and 13 of the paper, for any datasets and tokenizers.",
    ),
    "diff": (
        "statistics:show_diff",
        "How two datasets differ, and what they share: sources, rows, runs of the same frames. Two splits of one, too.",
    ),
    "pack": (
        "rewrite:pack_command",
        "The same rows in even files, shuffled by pieces: for storage that is read from front to back.",
    ),
    "split": ("rewrite:split_command", "Divide sources into splits by a keyed hash of their group."),
    "merge": (
        "rewrite:merge_command",
        "Several datasets of one tokenizer and one way of sampling as one; splits are joined by name.",
    ),
    "import": (
        "rewrite:import_command",
        "Tokens that somebody else made: a folder of .npy files, or 1X's video.bin. Bad files are quarantined.",
    ),
    "export": ("export:export", "Windows or rows for WebDataset, Hugging Face datasets, LitData, NumPy or nanoGPT."),
    "card": ("summary:card", "The dataset card again, as a seal writes it; with figures of `stats`, or for the Hub."),
}


@click.group(cls=command.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Token datasets: what they hold, whether they are whole, what they look like.

    \b
    Example:
      toto-shards info data/demo/dct-512-64
      toto-shards verify --deep data/demo/dct-512-64
      toto-shards view data/demo/dct-512-64 --out sheet.png
    """


for name, (place, first_line) in COMMANDS.items():
    cli.add_command(command.Later(name, f"toto.shards.commands.{place}", first_line))


def main() -> None:
    """The console script."""
    command.run(cli)
