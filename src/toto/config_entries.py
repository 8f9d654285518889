"""What the entries of pipelines.yaml hold: a frozen dataclass for each section, every key with its rule beside it.

A dataset says where videos are and how frames are taken; a tokenizer makes codes of them; a model is a size; a
recipe is how it is trained; a task is how it is judged. Figures marked with a § or Table are the paper's.
"""

from dataclasses import MISSING, dataclass

from toto.config_rules import choice, mapping, name_of, names, number, text, whole, whole_or, yes_no

LAYOUTS = (  # the readers of toto.tokenize.sources
    "folder", "webdataset", "howto100m", "kinetics", "ego4d", "imagenet", "imagenet21k",
    "davis", "ucf101", "hmdb51", "cater", "ego4d-sta", "demo",
)  # fmt: skip
THREE_VIEWS = 3


@dataclass(frozen=True)
class DatasetConfig:
    """One entry of `datasets:`: where sources are and how frames are taken from them (paper §3.4)."""

    name: str  # its key in pipelines.yaml
    layout: str = choice(MISSING, *LAYOUTS)
    root: str = text()  # path or fsspec URI
    annotations: str | None = text(None)  # where the official lists are, if not under root
    variant: str | None = text(None)  # which of a layout's renditions, such as ego4d's video_540ss or davis' 480p
    fold: int | None = whole(None, 1, 3)  # which of the official train/test divisions: ucf101, hmdb51
    split: tuple[str, ...] = names()  # none: every split that the layout has
    stride: int | None = whole(None, 1, 65_535)  # every n-th frame; 4 (the paper's) when none is set
    fps: float | None = number(None, 0.001, 1000)  # the grid of presentation times
    uniform: int | None = whole(None, 1, 65_535)  # that many frames, evenly over the video
    crop: str = choice("random", "random", "center", "three", "full", "squash")
    resolution: int = whole(128, 8, 4096, multiple=8)  # pixels of the short side
    views: int = whole(1, 1, 256)  # random crops of each run; `three` has 3
    flips: bool = yes_no(False)  # every view once more, mirrored
    protocols: tuple[str, ...] = names()  # evaluation views whose frames are stored too, beside the grid's
    run_frames: int | str = whole_or(64, "all", 1, 65_000)  # kept frames of a row
    most_frames: int | None = whole(None, 1, 65_535)  # kept frames after which a video is read no further
    min_frames: int = whole(16, 1, 65_535)  # kept frames below which a video goes to quarantine
    max_bad_fraction: float = number(0.02, 0, 1)
    seed: int = whole(0, 0, 2**63 - 1)
    labels: str = choice("none", "none", "folders")  # folder layout: the first sub-folder is the class
    held_out: float = number(0.0, 0, 0.9)  # folder, webdataset: the share of sources that goes to split val, not train
    keep_pixels: int | None = whole(None, 8, 1024)  # pixels of the short side stored beside the codes
    decode_timeout_s: float = number(60.0, 0.01, 86_400)  # seconds without a decoded frame
    decode_memory_mb: int = whole(4096, 64, 2**20)  # of the decoding child
    tokenizer: str = text("dct")  # a key of `tokenizers:`
    published_tokens: int | None = whole(None, 1, 2**62)  # as the paper counts them, for plans made before shards are
    homepage: str = text("")  # where people get the data

    def __post_init__(self) -> None:
        if self.stride is None and self.fps is None and self.uniform is None:
            object.__setattr__(self, "stride", 4)
        if self.crop == "three":
            object.__setattr__(self, "views", THREE_VIEWS)


@dataclass(frozen=True)
class TokenizerConfig:
    """One entry of `tokenizers:`: what makes codes of pictures, where its weights are, and how it is run."""

    name: str  # its key in pipelines.yaml
    backend: str = name_of("a tokenizer")  # dct, dvae, vqgan, sdvae, none, or a plug-in's name (toto.tokenizers)
    vocab_size: int | None = whole(None, 2, 1 << 20)  # codes (ids are uint16 up to 65,532); none: the backend's own
    seed: int = whole(0, 0, 2**63 - 1)  # of a random codebook: dct, sdvae
    luma_coefficients: int = whole(3, 1, 6)  # dct: of the 64 of an 8×8 patch, lowest first
    weights: str | None = text(None)  # path or URI: dvae's encoder, vqgan's checkpoint, sdvae's folder or file
    weights_sha256: str | None = text(None)  # none: recorded at the first use, and a later change is refused
    decoder: str | None = text(None)  # dvae: decoder.pkl, for pictures back from codes
    decoder_sha256: str | None = text(None)
    model_config: str | None = text(None)  # vqgan: the yaml beside the checkpoint
    trained_with: str = text("")  # what else went into the weights; a footnote on every result
    precision: str = choice("auto", "auto", "fp32", "bf16")  # auto: fp32, the exact mode, on a CPU; bf16 on a GPU
    compile: str = choice("auto", "auto", "on", "off")
    device: str = choice("auto", "auto", "cpu", "cuda")
    options: dict[str, str | int | float | bool] = mapping()  # handed to a plug-in as they stand


@dataclass(frozen=True)
class ModelConfig:
    """One entry of `models:`: an architecture of Table 6 and its shape (Table 1); the vocabulary is the shards'."""

    name: str  # its key in pipelines.yaml
    dim: int = whole(MISSING, 8, 65_536)
    layers: int = whole(MISSING, 1, 1024)
    arch: str = choice("llama", "llama", "gpt2", "mamba")
    heads: int = whole(0, 0, 1024)  # of attention; llama and gpt2 need it
    mlp_hidden: int = whole(0, 0, 1_048_576)  # of the MLP, which has three matrices in llama, two in gpt2
    expand: int = whole(2, 1, 64)  # mamba: inner channels, in widths
    states: int = whole(16, 1, 1024)  # mamba: of each inner channel
    conv_window: int = whole(4, 2, 64)  # mamba: positions that its convolution sees
    rope_theta: float = number(10_000.0, 1, 1e9)
    norm_eps: float = number(1e-5, 1e-12, 0.1)
    init_std: float = number(0.02, 1e-9, 10)  # of matrices; what is added to the residual state: / sqrt(2 layers)
    # Standard deviation of one vector that every row of the table starts with. Queries and keys then depend on
    # positions from the first step, and attention to "the same cell, one frame ago" is found in hundreds of steps.
    table_mean_std: float = number(0.0, 0, 10)


@dataclass(frozen=True)
class RecipeConfig:
    """One entry of `recipes:`: which sequences a model is trained on, how, and for how long (§3.2, §3.4)."""

    name: str  # its key in pipelines.yaml
    mixture: str = text(MISSING)  # a key of `mixtures:`, or of `datasets:` for that one alone
    kinds: str = choice("all", "all", "video", "image")  # which rows of the datasets are used
    frames: int = whole(16, 1, 65_535)  # of a window, and pictures of an image sequence
    stride: int | None = whole(None, 1, 65_535)  # source frames from one to the next; none: as stored
    hop: int | None = whole(None, 1, 65_535)  # frames from one window's start to the next; none: `frames`, no overlap
    batch_tokens: int = whole(2**20, 1, 2**40)  # visual tokens a step, over all processes
    steps: int = whole(10**6, 1, 10**9)
    learning_rate: float = number(3e-4, 0, 10)
    warmup_steps: int = whole(2000, 0, 10**9)
    schedule: str = choice("cosine", "cosine", "wsd")  # wsd: warm-up, stable, decay
    decay_share: float = number(0.1, 0, 1)  # wsd: of the steps, at the end
    min_learning_rate: float = number(0.1, 0, 1)  # where it ends, as a share of the peak
    beta1: float = number(0.9, 0, 0.999999)
    beta2: float = number(0.95, 0, 0.999999)
    weight_decay: float = number(0.1, 0, 10)  # on matrices, not on gains
    clip: float = number(1.0, 0, 1e9)  # of the gradient's norm; 0: none
    spike_sigmas: float = number(6.0, 0, 1e9)  # a step whose loss or gradient leaps so far is skipped; 0: none is
    predict_end: bool = yes_no(False)  # train the end id too
    precision: str = choice("auto", "auto", "bf16", "fp32")  # of the compute; weights and moments are fp32
    seed: int = whole(0, 0, 2**63 - 1)  # of weights and of the order of sequences
    micro_sequences: int | None = whole(None, 1, 2**20)  # of one forward pass on one process; none: chosen from memory
    compile: str = choice("auto", "auto", "on", "off")  # torch.compile of each block; auto: on a GPU
    sharding: str = choice("none", "none", "fsdp")  # of weights, gradients and moments among the processes (FSDP2)
    recompute: bool = yes_no(False)  # activation checkpointing: less memory, a third more compute
    loader_workers: int = whole(2, 0, 64)  # processes that read shards, for each process that trains
    log_every: int = whole(10, 1, 10**6)  # steps between two lines of the log
    validate_every: int = whole(1000, 0, 10**9)  # steps; 0: never
    validation_sequences: int = whole(512, 1, 10**7)
    sample_every: int = whole(5000, 0, 10**9)  # steps between clips that the model makes; 0: never
    checkpoint_every: int = whole(1000, 1, 10**9)  # steps; the end and every stop are saved too
    checkpoint_async: str = choice("auto", "auto", "on", "off")  # training goes on while one is written
    keep_checkpoints: int = whole(3, 1, 10**6)  # the newest ones
    keep_every: int = whole(0, 0, 10**9)  # steps; checkpoints at multiples of it stay for good; 0: none does
    wandb: str | None = text(None)  # a project of Weights & Biases that is told too; none: it is not


@dataclass(frozen=True)
class TaskConfig:
    """One entry of `tasks:`: what an evaluation reads when the command line does not say."""

    name: str  # its key in pipelines.yaml
    data: str = text(MISSING)  # a key of `datasets:`
    labels: str = text("labels")  # the annotation table
    frames: int = whole(16, 1, 65_535)
    stride: int | None = whole(None, 1, 65_535)  # source frames; none: as stored
