"""Every setting a person may change: one commented line per field. `conf.load` merges files and the
command line into this shape.

The comment behind a field is its help text; `choice(...)` lists what a string may be, `number(...)`
how far a number may go. `conf.load` checks both. A value `MISSING` ("???" in YAML) must be given by
the person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.fields import choice, number

__all__ = [
    "MISSING",
    "Backbone",
    "Data",
    "Evaluation",
    "Gate",
    "Masks",
    "Method",
    "Run",
    "Separate",
    "Subjects",
    "Sweep",
    "Trainer",
    "Weights",
    "choice",
    "number",
]


@dataclass
class Backbone:
    name: str = "embedded"  # short name for tables and MLflow
    path: str = "embedded"  # "embedded", a diffusers folder, or a hub id
    revision: str | None = None  # hub revision (commit), so that a run can be repeated
    dtype: str = choice("float32", "bfloat16", "float16")  # dtype of the frozen weights
    resolution: int = number(64, minimum=8)  # image side in pixels
    channels_last: bool = (
        False  # planes in the order height, width, channels: faster on GPUs in half precision
    )
    compile: bool = (
        False  # torch.compile of the transformer blocks: minutes at first, then faster steps
    )


@dataclass
class Gate:
    threshold: float = number(
        0.5, above=0, below=1
    )  # gate is open where sigmoid(logit) > threshold
    mode: str = choice(
        "hard", "soft", "learned", "topk"
    )  # hard: 0 or 1; soft: the probability; learned: hard, threshold trained
    keep: float = number(
        0.5, above=0, maximum=1
    )  # mode topk: share of the free tokens that stays open at a location
    apply_at: str = choice(
        "logit", "post_softmax", "post_softmax_renormalised"
    )  # where the gate acts in the attention
    gradient: str = choice(
        "finite_difference", "exact", "released"
    )  # gradient of a gate at the logits: of a flip, exact, dead if closed
    head: str = choice(
        "mlp", "conv1x1", "conv3x3", "film", "concat"
    )  # what looks at a location and a token
    width: int = number(128, minimum=1)  # width of the gate head
    depth: int = number(
        2, minimum=1
    )  # linear layers in each branch of the head (not of a conv head)
    sharing: str = choice(
        "stage", "layer"
    )  # one head for all layers of a stage, or one for each layer
    stage: str = choice(
        "mid", "all", "high", "low"
    )  # which levels are gated; of a transformer, thirds of its depth
    placement: str = choice(
        "both", "encoder", "decoder"
    )  # which side of the UNet is gated, or half of a transformer
    attention: str = choice("cross", "self", "both")  # which attention layers are gated
    bias: float = 2.0  # logit at the start; positive starts open
    protect: str = choice(
        "bos", "none", "specials"
    )  # tokens never gated (specials: BOS, EOS, padding; T5 has no BOS)
    padding_gate: str = choice(
        "gated", "open", "closed"
    )  # padding: like other tokens, never gated, or taken out (PixArt's is)
    if_all_closed: str = choice(
        "strongest", "all"
    )  # what opens where every gate is closed: likeliest token, or all
    denoising_weight: float = number(
        1.0, minimum=0
    )  # weight of the denoising loss; 0 trains on the signal alone
    supervision: str = choice(
        "none", "density", "masks", "separate_enhance", "oracle"
    )  # reason to close, too; oracle: upper bound
    supervision_weight: float = number(1.0, minimum=0)  # weight of that loss at the start
    supervision_anneal: str = choice(
        "none", "linear", "cosine"
    )  # how the weight falls to zero over training
    supervision_timesteps: str = choice(
        "all", "noisier", "cleaner"
    )  # training timesteps that it acts on: all, or one half of them
    supervision_density: float = number(
        0.8, minimum=0, maximum=1
    )  # signal density: wanted share of open gates
    supervision_target: str = choice(
        "own", "others"
    )  # signal masks: open in the own mask alone, or outside the others'


@dataclass
class Weights:
    trainable: str = choice(
        "attn2", "q", "k", "v", "kv", "qkv", "model", "none"
    )  # which weights of the UNet; attn2: all of cross-attention
    rank: int = number(0, minimum=0)  # 0 trains them whole, else low-rank updates of that rank
    text_encoder: bool = False  # train the text encoders, too


@dataclass
class Subjects:
    tokens: list[str] = field(
        default_factory=list
    )  # placeholders, <asset0> … where empty; the scene says how many
    classes: list[str] = field(
        default_factory=list
    )  # a word for each that its embedding starts from; the scene's own where empty
    schedule: str = choice(
        "two_phase", "joint", "tokens_only", "unet_only"
    )  # tokens alone, then all; all at once; one part alone
    first_phase: float = number(
        0.5, minimum=0, maximum=1
    )  # share of the steps that trains the tokens alone
    token_lr: float = number(2e-2, above=0)  # learning rate of the tokens, but in a second phase
    masked_loss: bool = True  # denoising loss inside the subjects' masks alone
    normalise: str = choice(
        "area", "all"
    )  # divide that loss by the masks' area, or by the whole plane as the released code
    attention_weight: float = number(
        0.01, minimum=0
    )  # weight of the squared distance between a token's map and its mask
    union_sampling: bool = True  # each step shows some of the subjects; else all of them
    prior_weight: float = number(1.0, minimum=0)  # weight of the loss on class images; 0 takes none
    prior_images: int = number(
        32, minimum=1
    )  # class images, drawn by the untouched backbone before the training
    prior_prompt: str = "a photo of a blue square"  # what they show


@dataclass
class Masks:
    encoder: str = choice("per_mask", "union", "merged", "conv")  # how masks become tokens
    trained: bool = True  # train the encoder; else it stays as it was drawn
    text_binding: str = choice(
        "text", "none"
    )  # add the state of the phrase's words to its mask's token, or not
    mask_scope: str = choice(
        "inside", "everywhere"
    )  # a mask token acts inside its mask alone, or wherever attention goes
    lambda_m: float = number(
        0.05, minimum=0
    )  # weight of the squared distance between a mask token's map and the mask
    lr: float = number(2e-3, above=0)  # learning rate of the encoder
    dropout: float = number(0.3, minimum=0, maximum=1)  # share of samples trained with blank masks
    distillation_weight: float = number(
        1.0, minimum=0
    )  # weight of the drift from the backbone where masks are blank (no scene)
    timesteps: str = choice(
        "noisier", "all"
    )  # training timesteps: the noisier half, where the layout is open, or all
    slots: str = choice(
        "drawn", "fixed", "fixed_one", "first_one"
    )  # on a scene: which mask stands in which slot when few are drawn
    token_scale: float = number(
        24.0, minimum=0
    )  # how many words a mask token counts as; not of merged ones


@dataclass
class Separate:
    separate_weight: float = number(1.0, minimum=0)  # weight of the overlap of the objects' maps
    enhance_weight: float = number(0.5, minimum=0)  # weight of the weakness of the weakest object
    distillation_weight: float = number(
        1.0, minimum=0
    )  # weight of the drift from the backbone on prompts of one object
    inputs: str = choice(
        "noise", "images"
    )  # what the UNet is shown: noised noise, or noised images
    timesteps: str = choice("all", "noisier")  # training timesteps: all, or the noisier half
    objects: str = choice(
        "linked", "nouns"
    )  # what is an object: words that the dataset links to one, or any noun phrase
    tokens: str = choice(
        "phrase", "last", "released"
    )  # what stands for an object: its words, their last, or positions 6 and 9
    heads: str = choice("each", "mean")  # the losses look at each head's map, or at their mean
    kernel: int = number(
        3, minimum=1
    )  # side of the smoothing kernel in map locations, odd; 1 smoothes nothing
    sigma: float = number(
        0.5, above=0
    )  # of the kernel, read as the released code does: exp(-(x/2σ)²)
    side: int = number(16, minimum=1)  # wanted side of the maps in locations; the nearest there is
    control: str = choice(
        "none", "denoising", "permuted"
    )  # the denoising loss alone; or the trained change, its entries permuted
    scale: float = number(
        1.0, minimum=0
    )  # how much of the trained change is used; 0 is the untouched backbone
    test_time: int = number(
        0, minimum=0
    )  # steps of training on each prompt before it is drawn, instead of any before


@dataclass
class Method:
    name: str = choice(
        "maskattn", "untouched", "break_a_scene", "mcgm", "separate_enhance"
    )  # which LightningModule
    init: str | None = None  # adapter folder that training starts from, e.g. of the 512-pixel phase
    gate: Gate = field(default_factory=Gate)  # MaskAttn's gates
    weights: Weights = field(
        default_factory=Weights
    )  # which of the backbone's weights Break-A-Scene and MCGM train
    subjects: Subjects = field(
        default_factory=Subjects
    )  # Break-A-Scene's placeholder tokens, on data=scene
    masks: Masks = field(default_factory=Masks)  # MCGM's target masks
    separate: Separate = field(default_factory=Separate)  # Separate-and-Enhance's losses


@dataclass
class Data:
    name: str = choice("shapes", "coco", "flickr30k", "scene", "prompts")  # which DataModule
    root: str = (
        "auto"  # folder of the dataset; "auto" renders the embedded world below <output>/cache
    )
    layout: str = "auto"  # coco, flickr30k, prompts: how its files are laid out; auto finds out
    train_split: str = "train"  # split the adapter is trained on
    split_by: str = choice("karpathy", "entities", "all")  # flickr30k: whose splits
    train_images: int = number(2048, minimum=1)  # how many training images are used (and rendered)
    eval_images: int = number(512, minimum=1)  # how many images each evaluation split holds
    min_phrases: int = number(0, minimum=0)  # train on captions of at least so many noun phrases
    detokenise: bool = (
        False  # flickr30k: write captions as English is written ("a dog ." becomes "a dog.")
    )
    on_error: str = choice(
        "skip", "raise"
    )  # a file that cannot be used: left out, counted and listed, or the end of the run
    verify: str = choice("header", "full")  # images are checked by header and end, or decoded once
    mask_share: float = number(
        0.5, minimum=0, maximum=1
    )  # share of a location that a mask must cover to be there; 0: any
    workers: int = number(0, minimum=0)  # DataLoader worker processes
    concepts: list[str] = field(
        default_factory=list
    )  # train on prompts made of these words, without images; empty: on the captions
    objects: int = number(2, minimum=1)  # how many concepts a prompt names
    subjects: int = number(
        2, minimum=1, maximum=3
    )  # scene, root=auto: how many subjects the rendered scene has
    drop_captions: float = number(
        0.0, minimum=0, maximum=1
    )  # share of training captions left out, for classifier-free guidance
    cache: str = choice(
        "latents", "all", "none"
    )  # encode before training: images; captions, too; or each anew in every step
    flip: bool = False  # mirror half of the samples, but where the caption says left or right


@dataclass
class Trainer:
    steps: int = number(40, minimum=1)  # optimiser steps
    batch: int = number(16, minimum=1)  # samples per device and step
    devices: int = number(
        1, minimum=1
    )  # devices (and processes) that one trial trains and samples on
    accumulate: int = number(1, minimum=1)  # batches per optimiser step
    lr: float = number(2e-3, above=0)  # peak learning rate
    weight_decay: float = number(0.01, minimum=0)  # AdamW
    warmup: int = number(5, minimum=0)  # steps of linear warm-up
    schedule: str = choice(
        "cosine", "constant"
    )  # learning rate after the warm-up: falling to zero, or as it is
    clip: float = number(1.0, above=0)  # largest gradient norm
    precision: str = choice("32-true", "bf16-mixed", "16-mixed")  # Lightning's precision
    accelerator: str = choice("auto", "cpu", "gpu")  # Lightning's accelerator
    gradient_checkpointing: bool = (
        False  # blocks run a second time in the backward pass: less memory, more time
    )
    log_every: int = number(10, minimum=1)  # steps between logged training metrics
    checkpoint_every: int = number(
        500, minimum=1
    )  # steps between checkpoints that an interrupted training goes on from


@dataclass
class Evaluation:
    splits: list[str] = field(
        default_factory=lambda: ["val", "heldout"]
    )  # whose captions are the prompts
    prompts: int = number(56, minimum=0)  # prompts per split; 0 trains only
    noise_seeds: int = number(1, minimum=1)  # images per prompt, each of another noise
    steps: int = number(8, minimum=1)  # sampler steps
    guidance: float = number(3.0, minimum=0)  # classifier-free guidance
    batch: int = number(16, minimum=1)  # images per sampling batch
    detector: str = "judge"  # success: judge, none, a model's hub id or folder, or a .jsonl
    colorist: str = "none"  # names a model's detections' colours: mean, a CLIP, or none
    extractor: str = "judge"  # features of FID …: judge, inception, vgg16, a hub id, none
    extractor_weights: str = ""  # their file (inception, vgg16); a revision of a hub id
    aligners: list[str] = field(
        default_factory=list
    )  # CLIP and BLIP models that compare images with prompts
    precision_recall_k: int = number(3, minimum=1)  # neighbour that sets the radius
    image_format: str = choice(
        "png", "webp"
    )  # how all images are kept, below <output>/images; both lossless
    keep_images: int = number(8, minimum=0)  # images per split kept for the report
    follow_masks: bool = False  # measure how well objects fill the masks that they should
    attention: bool = False  # measure and draw the attention maps of the prompts' objects
    costs: bool = False  # measure how much slower a method samples, and what it took
    masks: str = choice(
        "target", "blank", "none", "wrong"
    )  # what a method steered by masks is given; wrong: elsewhere
    turn: float = number(
        0.0, minimum=-360, maximum=360
    )  # degrees that each target mask is turned about its centre
    mirror: bool = False  # mirror each target mask, left to right


@dataclass
class Run:
    """One trial: what `python -m lightning_modules.train run.yaml` reads."""

    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    data: Data = field(default_factory=Data)
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    evaluate_with: dict[str, Any] = field(
        default_factory=dict
    )  # settings changed after training, e.g. {method.gate.threshold: 0.7}
    seed: int = number(0, minimum=0)  # training seed and noise seed (of a sweep: the first)
    fresh: str = ""  # a mark of your own: nothing made under another mark is used
    output: str = "runs"  # everything lands below this folder


@dataclass
class Sweep(Run):
    """A whole sweep: what `python -m sweeps.<name> key=value …` takes."""

    seeds: int = number(3, minimum=1)  # so many seeds from `seed` on, the same for every cell
    retries: int = number(1, minimum=0)  # how often a failed trial is tried again
    when: str = choice(
        "train", "evaluate"
    )  # does the factor act in training too, or only when one trained adapter is evaluated
    mode: str = choice(
        "grid", "one_factor", "list", "search"
    )  # all combinations; one factor off the baseline at a time; `cells`; search
    cells: list[str] = field(
        default_factory=list
    )  # mode=list: names of cells as --plan prints them; the baseline cell comes along
    levels: list[Any] | None = None  # other levels for the sweep's (single) factor
    headline: str | None = None  # metric that the answer is about, in the place of the sweep's own
    candidates: int = number(
        20, minimum=1
    )  # mode=search: how many settings are tried between the lowest and highest level
    sampler: str = choice(
        "tpe", "random", "nsga2"
    )  # mode=search: Optuna's sampler that proposes them
    sampler_seed: int = number(
        0, minimum=0
    )  # mode=search: of the sampler; with one worker the same settings are proposed again
    objectives: list[str] = field(
        default_factory=list
    )  # mode=search: metrics to be good at, several for a Pareto front; or the headline
    prune: str = choice(
        "none", "seeds", "training"
    )  # mode=search: drop a setting after a seed that is no match, or while it trains
    workers: str = (
        "auto"  # trials at once: a number, or auto (GPUs // trainer.devices; one on a CPU)
    )
    devices: str = (
        "auto"  # GPUs for this command: auto (all that are visible), or their numbers, 0,1,3
    )
    launcher: str = choice(
        "auto", "inline", "process"
    )  # trials in this process, or in others; auto: others on GPUs and with workers
    launch: str | None = (
        None  # command that starts a trial's processes instead of torchrun, e.g. "srun torchrun …"
    )
    storage: str | None = (
        None  # queue: the journal below output, or postgresql://…, for machines without a shared folder
    )
    tracking_uri: str | None = None  # MLflow server; default is <output>/mlflow.db
