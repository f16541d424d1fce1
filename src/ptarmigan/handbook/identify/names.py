"""What a name stands for: a word of it shows a side, a player, a network, a class output or a batch size.

These tables are the only guesses about names; what the source does with a parameter is read in syntax.
"""

from __future__ import annotations

import re

HARMLESS = {  # role -> the words of its names; the values are in stand_ins
    "weight": {
        "lam", "lambda", "lmbda", "weight", "weights", "coef", "coeff", "alpha", "beta", "gamma", "factor", "scale",
        "lamb", "std", "min", "max", "rate", "ratio", "eps", "epsilon", "sigma",
    },
    "zero": {"gp", "penalty", "r1", "reg", "regularizer", "regularization"},
    "one": {"epoch", "epochs", "step", "steps", "iter", "iteration", "margin", "idx", "i", "depth", "stage", "level",
            "nimg", "kimg", "cur", "current"},
    "off": {"cuda", "ddp", "rank", "verbose", "debug", "distributed", "gpu", "gpus"},
    "config": {
        "cfg", "config", "param", "params", "conf", "opt", "opts", "args", "hparams", "hps", "hp", "flags", "gain",
        "sync", "phase", "embedding", "embeddings", "embed", "proxy", "proxies",
    },
}  # fmt: skip
OUTPUTS = {
    "pred", "preds", "prediction", "predictions", "predicted", "logit", "logits", "output", "outputs", "out", "prob",
    "probs", "probability", "probabilities", "score", "scores", "validity", "hat", "yhat", "critic", "disc", "input",
    "inputs", "sigmoid", "logprob", "logprobs",
}  # fmt: skip
LABELS = {"label", "labels", "lbl", "lbls", "y", "digits", "onehot", "hot", "lab"}
CLASS_WORDS = {
    "class", "classes", "cls", "clf", "aux", "auxiliary", "category", "c", "classifier", "condition", "conditions",
    "cond",
}  # fmt: skip
TARGETS = {"target", "targets", "true", "tgt", "gt", "ones", "zeros", "valid"}
WHOLE_NAMES = {  # without underscores, in lower case
    "classes": ("k", "numclasses", "nclasses", "nbclasses", "nclass"),
    "criterion": ("criterion", "lossfn", "advloss", "advcriterion", "criteriongan", "adversarialloss"),
    "width": ("zdim", "latentdim", "nz", "noisedim", "zsize", "codedim"),
    "size": ("batchsize", "numimages", "bs", "nimages", "bsize", "batchnum", "minibatch", "minibatchsize", "batchsz",
             "nbatch", "trainbatchsize", "curbatchsize", "currentbatchsize"),
}  # fmt: skip
LATENTS = {"z", "noise", "latent", "latents", "noises", "znoise"}
NETWORK_WORDS = {
    "D": {"d", "dis", "disc", "discriminator", "discriminators", "critic", "netd", "dnet", "msd", "mpd", "mrd",
          "discrim", "netc", "patchgan", "discriminate"},
    "G": {"g", "gen", "generator", "generators", "netg", "gnet", "generate"},
}  # fmt: skip
BESIDE_NETWORK = {"net", "network", "a", "b", "ab", "ba", "x", "y", "s", "t", "1", "2", "ema", "patch", "mapping",
                  "synthesis", "local", "global", "multi", "scale", "model", "infer", "forward",
                  "run", "apply"}  # fmt: skip
NO_NETWORK = {"loss", "opt", "optim", "optimizer", "criterion", "scaler", "scheduler", "lr", "logits", "real", "fake",
              "step", "update", "train", "backward", "params"}  # fmt: skip
IMAGES = {"x", "image", "images", "img", "imgs", "data", "batch", "samples", "photo", "photos", "features", "feats",
          "feat", "fmap", "fmaps", "hr", "sr"}  # fmt: skip
CRITERIA = {"adversarial", "adv", "gan", "criterion", "crit", "bce", "mse", "loss", "fn", "objective"}
PENALTIES = {"reg", "regularization"}
OTHER_LOSSES = {
    "l1", "l2", "kl", "kld", "tv", "perceptual", "percep", "vgg", "lpips", "matching", "fm", "recon", "reconstruction",
    "cycle", "pix", "stft", "identity", "idt", "id", "content", "style", "pixel", "pixelwise", "ssim", "gp", "penalty",
    "r1", "r2", "path", "feature", "features", "huber", "charbonnier", "dice", "mel", "spectral", "triplet", "vae",
    "elbo", "mmd", "regularize", "regularization", "regularizer", "continuous", "info", "variation", "gram", "ortho",
    "orthogonal",
}  # fmt: skip
PLAYERS = {
    "d": {"d", "disc", "discriminator", "critic", "dis", "lossd", "discrim", "msd", "mpd", "errd"},
    "g": {"g", "gen", "generator", "generated", "lossg", "errg"},
    "bce": {"bce", "binary", "criterion"},
    "class": {"class", "cls", "classification", "classifier", "aux", "auxiliary", "categorical"},
}
PROBABILITIES = {"prob", "probs", "probability", "probabilities"}
FAKES = {"gen", "generated", "generator", "neg", "negative", "negtive", "synthetic", "f", "gz", "df", "pf", "xf", "yf",
         "sr"}  # fmt: skip
REALS = {"pos", "positive", "r", "dx", "dr", "pr", "xr", "yr", "hr"}
LOSS_NAMES = re.compile(
    r"loss|criterion|bce|hinge|gan(?!ize)|adv|cross_?entropy|mse|critic|objective|cost|err[dg]?(_|$)|saturating|minimax|"
    r"wasserstein|least_?squares|relativistic|^discriminator_|^generator_|^(real|fake|generated)$|"
    r"(^|_)(d|g|class|cls|aux|ce)(_|$)",
    re.I,
)
ACTIONS = re.compile(
    r"(train|test|eval|fit|make|build|init|sample|update|run|main|define|create|get|weights|infer|unwrapped|need|n|"
    r"forward|reinit|copy)(_|$)|.*(forward|weights_init)$",
    re.I,
)
WORD = re.compile(r"(?<![a-zA-Z])[lr][12](?!\d)|(?<![A-Z])[LR][12](?!\d)|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def words_of(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case."""
    return [word.lower() for word in WORD.findall(re.sub(r"(MSE|BCE|LS)([DG])(?=Loss)", r"\1_\2_", name))]


def side_of(name: str) -> str | None:
    """Real or fake, if the name shows it."""
    words, low = set(words_of(name)), name.lower()
    if "fake" in low or words & FAKES or {"d", "g", "z"} <= words:
        return "fake"
    return "real" if "real" in low or words & REALS else None


def player_of(name: str) -> str | None:
    """The kind of loss that a function's name suggests: d, g, bce or class; None where it suggests none or several."""
    words = words_of(name)
    players = [kind for word in words for kind in ("d", "g") if word in PLAYERS[kind]]
    if players:
        return players[0]  # g_negative_of_d is G's
    found = [kind for kind, known in PLAYERS.items() if known & set(words)]
    return found[0] if len(found) == 1 else None


def network_of(name: str, strict: bool = False) -> str | None:
    """D or G, if a name can be that of a network; `strict`: if it can be nothing else."""
    name = re.sub(r"[123][dD](?![a-zA-Z])", "", name)  # Conv2d is no D
    words = words_of(name.removeprefix("self.").removesuffix(".module"))
    if words[-1:] == ["train"] and "model" in words:
        words.pop()  # D_model_train
    if NO_NETWORK & set(words) or (strict and set(words) - NETWORK_WORDS["D"] - NETWORK_WORDS["G"] - BESIDE_NETWORK):
        return None
    words.append("".join(words))
    return next((role for word in words for role, known in NETWORK_WORDS.items() if word in known), None)


def ends_network(name: str) -> bool:
    """Whether what a name stands for is no network, though it belongs to one: D.criterion."""
    beside = {"loss", "opt", "optim", "optimizer", "criterion", "scaler", "scheduler", "lr"}
    return bool(beside & {*words_of(name)[-1:]})


def harmless_role(name: str) -> str:
    """The role of what stands beside D's outputs and gets a harmless value, or ""."""
    words = words_of(name.removeprefix("self."))
    if {"real", "fake", "pred", "logits"} & {*words}:
        return ""
    if name and (not words or words[0] in ("use", "with", "enable")):
        return "off"
    return "device" if "device" in words else next((role for role, known in HARMLESS.items() if known & {*words}), "")


def is_batch_size(name: str) -> bool:
    return name.removeprefix("self.").lower().replace("_", "") in WHOLE_NAMES["size"]


def is_other_loss(name: str, parameters: list[str]) -> bool:
    """Whether its names show that a loss is not adversarial: a distance, a divergence, a penalty alone."""
    words, given = set(words_of(name)), {word for one in parameters for word in words_of(one)}
    players = PLAYERS["d"] | PLAYERS["g"] | {"gan", "adv", "adversarial"}
    if words & PENALTIES and not words & {"loss", "losses", "with"}:  # d_reg
        return True
    return bool((given & {"mu", "logvar", "sigma", "rec"} or words & OTHER_LOSSES) and not words & players)


def names_probabilities(names: list[str]) -> bool:
    """Whether one of the names denotes a probability, and not its logarithm."""
    return any(PROBABILITIES & set(words_of(name)) and "log" not in words_of(name) for name in names)


def is_loss_name(name: str) -> bool:
    """Whether a function or a class may be a loss, by its name."""
    is_named = bool(LOSS_NAMES.search(name)) or "penalty" in name.lower()
    is_action = bool(ACTIONS.match(name)) and "loss" not in name.lower()
    return is_named and not is_action and not re.match(r"_|(plot|show|save|load|log|print|viz|draw|record)_", name)


def is_loss_step(name: str) -> bool:
    """Whether a function that asks D may return a loss, by its name: train_D, _gen_step, compute_d_loss."""
    is_step = bool(re.match(r"_?(train|update|compute|get|calc|step|optimi[sz]e)|.*(step|pass)", name))
    bare = name.lstrip("_")
    is_private_penalty = bare != name and "penalty" in name
    return (is_loss_name(bare) or (is_step and player_of(name) in ("d", "g"))) and not is_private_penalty


def sort_of(name: str) -> str:
    """What a parameter's name stands for, without its side: a role, or class, labels, target or score."""
    name = name.removeprefix("self.")
    words, whole = set(words_of(name)), name.lower().replace("_", "")
    if {"is", "real"} <= words or whole.startswith(("isreal", "realorfake", "targetisreal")):
        return "is_real"
    is_batch = is_batch_size(name) or words & {"patch", "batch"}
    if words_of(name)[-1:] in (["size"], ["dim"], ["dims"]) and not is_batch:
        return "width"
    for role, names in WHOLE_NAMES.items():
        if whole in names or (role == "classes" and whole.endswith(("numclasses", "nclasses"))):
            return role
    if role := harmless_role(name):
        return role
    if words & LATENTS and not {"d", "g", "z"} <= words:
        return "latents"
    is_class = bool(words & CLASS_WORDS)
    if words & TARGETS and not words & IMAGES:
        return "labels" if is_class else "target"
    if words & LABELS and not words & OUTPUTS:
        return "labels"
    is_class |= bool(words & {"label", "labels", "logprob", "logprobs"})
    return "class" if is_class else "score"
