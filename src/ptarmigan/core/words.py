"""Words of other papers, libraries and tools, and what they are called here.

`--loss`, `--recipe`, `--conditioning` and `ptarmigan losses` share the words for losses.  A word is compared without
case, spaces, hyphens and underscores, and without "loss" at its end.
"""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

# Other names of the losses.  BCE is non_saturating, as in almost all code: G's target is "real".
LOSS_NAMES = {
    "bce": "non_saturating", "binarycrossentropy": "non_saturating", "bcewithlogits": "non_saturating",
    "crossentropy": "non_saturating", "dcgan": "non_saturating", "gan": "non_saturating", "logistic": "non_saturating",
    "logisticnonsaturating": "non_saturating", "ns": "non_saturating", "nsgan": "non_saturating",
    "nonsaturatinggan": "non_saturating", "nonsaturatinglogistic": "non_saturating", "original": "non_saturating",
    "softplus": "non_saturating", "standard": "non_saturating", "vanilla": "non_saturating",
    "vanillagan": "non_saturating",
    "minmax": "minimax", "mm": "minimax", "mmgan": "minimax", "minimaxgan": "minimax", "saturating": "minimax",
    "saturatinggan": "minimax", "zerosum": "minimax",
    "l2": "least_squares", "leastsquare": "least_squares", "leastsquaresgan": "least_squares", "ls": "least_squares",
    "lsgan": "least_squares", "mse": "least_squares", "msegan": "least_squares",
    "pearson": "least_squares_pearson",
    "geometricgan": "hinge", "hingegan": "hinge",
    "critic": "wasserstein", "earthmover": "wasserstein", "emd": "wasserstein", "w1": "wasserstein",
    "wass": "wasserstein", "wassersteingan": "wasserstein", "wgan": "wasserstein",
    "relativisticgan": "relativistic", "relativisticpaired": "relativistic", "relativisticpairing": "relativistic",
    "rgan": "relativistic", "rpgan": "relativistic", "rsgan": "relativistic",
}  # fmt: skip


class Other(NamedTuple):
    """A word that is not the name of one loss."""

    entry: str  # of `ptarmigan losses`
    text: str  # what the word is, and the options to use


WGAN_GP = Other(
    "gradient_penalty",
    "WGAN-GP is a loss with a penalty: use --loss wasserstein --gradient-penalty 10 --r1 0 --r2 0",
)
PENALTY = Other(
    "gradient_penalty",
    "a gradient penalty is added to a loss: use --r1 0.2 for real images, --r2 0.2 for generated ones, or "
    "--gradient-penalty 10 for WGAN-GP's",
)
R1 = Other("r1", "R1 is a gradient penalty that is added to a loss: use --r1 0.2")
R2 = Other("r2", "R2 is a gradient penalty that is added to a loss: use --r2 0.2")
SMOOTHING = Other(
    "smoothing", "label smoothing changes the target of a cross-entropy loss: use --loss non_saturating --smoothing 0.9"
)
CGAN = Other(
    "projection", "every loss here works with classes: use --conditioning projection, or another of its values"
)
PROJECTION = Other("projection", "projection is how D uses the class: use --conditioning projection, with any loss")
ACGAN = Other(
    "acgan", "ACGAN is a recipe: use --recipe acgan, or --conditioning auxiliary_classifier with another recipe"
)
TAC = Other("twin_classifier", "TAC-GAN is a conditioning: use --conditioning twin_classifier, with any loss")
ADC = Other(
    "discriminative_classifier",
    "ADC-GAN is a conditioning: use --conditioning discriminative_classifier, with any loss",
)
REACGAN = Other("reacgan", "ReACGAN is a conditioning: use --conditioning reacgan --loss hinge")
CONTRAGAN = Other("reacgan", "ContraGAN is not here; ReACGAN is the nearest: use --conditioning reacgan --loss hinge")
RAGAN = Other(
    "relativistic",
    "relativistic average losses are not here; the nearest compares each real image with one generated image: use "
    "--loss relativistic",
)
SPECTRAL = Other("hinge", "spectral norm is used with the hinge loss: use --loss hinge --d-norm spectral")
SNGAN = Other("hinge", "SNGAN, SAGAN and BigGAN use hinge: use --loss hinge --d-norm spectral --network resnet")
STYLEGAN = Other("non_saturating", "StyleGAN's loss is non_saturating with R1: use --loss non_saturating --r1 1 --r2 0")
R3GAN = Other("relativistic", "R3GAN is a loss and a network: use --loss relativistic --network r3gan")
DRAGAN = Other(
    "gradient_penalty", "DRAGAN and WGAN-div are not here; WGAN-GP's penalty is the nearest: use --gradient-penalty 10"
)
AUGMENTATION = Other("ada", "augmentation changes the images that D sees: use --augment ada or --augment diffaugment")

OTHERS = {
    "wgangp": WGAN_GP, "wassersteingp": WGAN_GP, "wgangradientpenalty": WGAN_GP,
    "gradientpenalty": PENALTY, "gp": PENALTY,
    "r1": R1, "r1gp": R1, "r1penalty": R1, "r1regularization": R1, "r1regularisation": R1,
    "r2": R2, "r2penalty": R2, "r1r2": PENALTY,
    "smoothing": SMOOTHING, "labelsmoothing": SMOOTHING, "onesidedlabelsmoothing": SMOOTHING,
    "cgan": CGAN, "conditional": CGAN, "conditionalgan": CGAN,
    "projection": PROJECTION, "projectiongan": PROJECTION, "projectiondiscriminator": PROJECTION,
    "ac": ACGAN, "acgan": ACGAN, "auxiliaryclassifier": ACGAN, "auxiliaryclassifiergan": ACGAN,
    "tac": TAC, "tacgan": TAC, "twinclassifier": TAC,
    "adc": ADC, "adcgan": ADC, "discriminativeclassifier": ADC,
    "reacgan": REACGAN, "d2dce": REACGAN, "contragan": CONTRAGAN, "2c": CONTRAGAN,
    "ragan": RAGAN, "relativisticaverage": RAGAN, "ralsgan": RAGAN, "rahinge": RAGAN, "rahingegan": RAGAN,
    "spectralnorm": SPECTRAL, "spectralnormalization": SPECTRAL, "spectralnormalisation": SPECTRAL,
    "sngan": SNGAN, "sagan": SNGAN, "biggan": SNGAN,
    "stylegan": STYLEGAN, "stylegan2": STYLEGAN, "stylegan3": STYLEGAN, "r3gan": R3GAN,
    "dragan": DRAGAN, "wgandiv": DRAGAN,
    "ada": AUGMENTATION, "diffaug": AUGMENTATION, "diffaugment": AUGMENTATION,
}  # fmt: skip


def plain(word: str) -> str:
    """The word as the tables have it: 'WGAN-GP' -> 'wgangp', 'hinge loss' -> 'hinge'."""
    return re.sub(r"[\s_.-]+", "", word[:100].casefold()).removesuffix("loss")


# Options of other tools: (commands that get the advice, spellings, what to use here).  {RUN} is the value that was
# given, or RUN itself; {N:10} is the number that was given, or 10, and {N:10:32} 32 times that.
OTHER_OPTIONS = (
    # training
    ("train", "batch-size batchsize bs b train-batch-size minibatch mini-batch minibatch-size", "use --batch {N}"),
    (
        "train", "epochs epoch num-epochs n-epochs max-epochs nepochs e",
        "use --time or --images: {N:10} epochs of 10,000 images are --images {N:10:10000}",
    ),
    (
        "train",
        "steps step iterations iteration iters iter num-iters n-iters n-iter niter max-iter max-iters total-iters "
        "num-steps max-steps total-steps train-steps num-iterations n-iterations",
        "use --time or --images: {N:1000} steps of batch 32 are --images {N:1000:32}",
    ),
    ("train", "kimg total-kimg", "use --images {N:1000:1000}"),
    ("train", "max-time time-limit duration hours minutes", "use --time, as in --time 90s, 10m or 1h30m"),
    ("train", "lr learning-rate", "use --g-lr {RATE} --d-lr {RATE}"),
    ("train", "glr lr-g lrg g-learning-rate generator-lr gen-lr", "use --g-lr {RATE}"),
    ("train", "dlr lr-d lrd d-learning-rate discriminator-lr disc-lr", "use --d-lr {RATE}"),
    ("train", "beta1 b1 adam-beta1", "use --g-betas {BETA} 0.999 --d-betas {BETA} 0.999"),
    ("train", "beta2 b2 adam-beta2", "use --g-betas 0.5 {BETA} --d-betas 0.5 {BETA}"),
    ("train", "betas adam-betas", "use --g-betas 0.5 0.999 --d-betas 0.5 0.999"),
    (
        "train", "lr-decay decay-epoch lr-schedule lr-scheduler scheduler lr-policy warmup",
        "use --anneal, the last fraction of the budget over which the learning rates fall, as in --anneal 0.5",
    ),
    (
        "train", "resume continue continue-train resume-from resume-training resume-from-checkpoint auto-resume",
        "use --out {RUN} and the options of that run: an existing run is resumed",
    ),
    (
        "train",
        "checkpoint ckpt load load-from load-checkpoint pretrained finetune init init-from weights network-pkl",
        "use --out RUN to resume a run, or --from {MODEL} to start from its weights",
    ),
    (
        "train", "data dataset data-dir datadir dataroot data-root data-path dataset-path dataset-dir input d i",
        "give the images without an option: ptarmigan train {DATA}",
    ),
    (
        "train",
        "outdir output output-dir o outf save save-dir savedir log-dir logdir result-dir results-dir run-dir workdir "
        "work-dir checkpoint-dir",
        "use --out {RUN}",
    ),
    ("train", "name exp exp-name experiment run-name", "use --out runs/{NAME}"),
    (
        "train", "cfg preset config-file opt",
        "use --recipe auto, dcgan or acgan, or --config FILE.yaml for options of your own",
    ),
    (
        "train",
        "save-every save-interval save-freq save-steps save-epoch-freq snap snapshot-every snapshot-interval "
        "sample-every sample-interval sample-freq checkpoint-every checkpoint-interval ckpt-every eval-every",
        "use --snapshots, how many there are over the whole run, as in --snapshots 20",
    ),
    ("train", "save-total-limit keep-last keep-checkpoints max-checkpoints", "use --keep {N}"),
    (
        "train", "gpus num-gpus ngpu ngpus n-gpu n-gpus gpu-ids distributed ddp multi-gpu nproc-per-node",
        "use --device cuda for one GPU, or torchrun --nproc-per-node {N:2} -m ptarmigan train for several",
    ),
    ("train", "amp fp16 half bf16 mixed-precision autocast", "use --precision bf16"),
    ("train", "fp32 no-amp float32", "use --precision fp32"),
    (
        "train", "workers num-workers n-workers nworkers j n-cpu dataloader-workers threads num-threads pin-memory",
        "leave it out: the images are decoded once, before training",
    ),
    (
        "train", "batch-gpu grad-accum gradient-accumulation-steps accumulate",
        "use --micro-batch, the images computed at once",
    ),
    # the images
    ("train", "img-size image-size imagesize imsize resolution res crop-size load-size", "use --size {SIDE}"),
    (
        "train", "csv csv-file metadata metadata-csv annotations annotation-file label-file labels-file labels-csv df",
        "use --labels {FILE}",
    ),
    ("train", "x-col path-col image-col image-column file-column filename-column", "use --path-column {NAME}"),
    ("train", "y-col label-col class-col class-column target target-column label-key", "use --label-column {NAME}"),
    (
        "train",
        "class-balance class-balanced balanced balance-classes balanced-sampling weighted-sampler oversample",
        "use --balance",
    ),
    ("train", "mirror xflip hflip horizontal-flip random-flip", "use --flip"),
    ("train", "nc num-channels n-channels in-channels img-channels", "use --channels {N}"),
    ("train", "gray grey grayscale greyscale", "use --channels 1"),
    ("train", "num-classes n-classes nclasses n-class classes", "leave it out: each folder of images is a class"),
    (
        "train", "cond conditional class-cond class-conditional cgan",
        "leave it out: classes are always used; --conditioning none trains without them",
    ),
    ("train", "aug augmentation augmentations data-augmentation", "use --augment gentle, diffaugment or ada"),
    ("train", "ada", "use --augment ada"),
    ("train", "diffaug diffaugment diff-augment", "use --augment diffaugment"),
    # the networks and losses
    ("train", "arch architecture model net backbone", "use --network dcgan, r3gan or resnet"),
    ("train", "nz z-dim zdim dim-z latent-size noise-dim noise-size z-size", "use --latent-dim {N}"),
    ("train", "ngf ndf nf ch base-channels base-width filters num-filters hidden-dim", "use --width {N}"),
    ("train", "spectral-norm sn use-sn", "use --d-norm spectral"),
    ("train", "batch-norm bn use-bn", "use --d-norm batch"),
    ("train", "gan-mode gan-loss gan-type adv-loss loss-type loss-fn criterion objective", "use --loss {NAME}"),
    ("train", "n-critic ncritic critic-iters d-iters n-dis num-d-steps", "use --d-steps {N}"),
    ("train", "lambda-gp gp-weight gp-lambda lambda gp", "use --gradient-penalty {WEIGHT}"),
    ("train", "gamma r1-gamma r1-weight lambda-r1", "use --r1 {GAMMA}"),
    ("train", "label-smoothing smooth-labels", "use --smoothing 0.9, D's target for real images"),
    (
        "train", "ema ema-decay ema-beta ema-rate ema-kimg",
        "use --ema-half-life, in images: a decay of 0.999 at batch 32 is --ema-half-life 22000",
    ),
    # commands on a model
    (
        "sample score info replay",
        "model model-path checkpoint ckpt network network-pkl generator run run-dir load resume pretrained m",
        "give it without an option: ptarmigan {COMMAND} {MODEL}",
    ),
    (
        "sample",
        "num number num-samples n-samples nsamples samples num-images n-images images count batch batch-size bs b k",
        "use -n {N}, the number of images of each class",
    ),
    (
        "sample", "label labels classes class-name class-names class-id class-idx cls category c y",
        "use --class {NAME}, and repeat it for each class",
    ),
    ("sample score replay", "output outdir output-dir o save save-dir savedir outfile file outf", "use --out {PATH}"),
    ("sample", "seeds", "use --seed N: one seed gives all the images of -n"),
    ("sample", "trunc truncation-psi psi", "use --truncation {0.7}"),
    (
        "sample", "size img-size image-size resolution res",
        "leave it out: the images have the size that the generator was trained at",
    ),
    ("sample info", "step steps iteration epoch kimg", "use --at, the images seen at one of the run's checkpoints"),
    ("replay", "step steps iteration images kimg", "use --at, the images seen at the step"),
    ("score", "data dataset data-dir real reference", "give it after the model: ptarmigan score MODEL {DATA}"),
    ("score", "num number num-samples n-samples samples num-images n-images images count", "use -n {N}"),
    ("score", "fid metric metrics inception", "use --extractor inception for the FID"),
    ("score", "seed", "use --seeds N, the number of sets of images"),
    (
        "score", "batch batch-size bs workers num-workers j",
        "leave it out: the images are computed in parts that fit in memory",
    ),
    ("losses", "loss name", "give it without an option: ptarmigan losses {NAME}"),
    ("losses", "language locale", "use --lang en or zh"),
    ("losses", "out output o svg html", "use --plot X.svg or --page X.html"),
    # every command that has the option
    ("train sample", "manual-seed manualseed random-seed", "use --seed {N}"),
    (
        "train sample score replay", "gpu gpu-id cuda use-cuda use-gpu",
        "use --device cuda; the variable CUDA_VISIBLE_DEVICES chooses among several GPUs",
    ),
    ("train sample score replay", "cpu no-cuda no-gpu", "use --device cpu"),
)  # fmt: skip


def other_option(command: str, name: str, value: object = None) -> str | None:
    """What to use in place of an option of another tool, with its value converted; None if it is not known.

    `name` may have dashes in front, and underscores.
    """
    name = name.strip("-").replace("_", "-").casefold()
    for commands, spellings, text in OTHER_OPTIONS:
        if command in commands.split() and name in spellings.split():
            given = "" if value is None or isinstance(value, bool) else str(value)[:100]
            return re.sub(r"\{(\w+)(?::(\d+))?(?::(\d+))?\}", partial(filled, command, given), text)
    return None


def filled(command: str, given: str, found: re.Match[str]) -> str:
    """The text for one pair of braces in a row of OTHER_OPTIONS."""
    what, example, factor = found.groups()
    if what == "COMMAND":
        return command
    if example is None:
        return given or what
    number = int(given) if re.fullmatch(r"\d{1,12}", given) else int(example)
    if factor is None:
        return f"{number:,}"
    number *= int(factor)
    unit = "M" if number % 10**6 == 0 else "k" if number % 1000 == 0 else ""
    return f"{number // {'M': 10**6, 'k': 1000, '': 1}[unit]}{unit}"
