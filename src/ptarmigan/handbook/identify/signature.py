"""Stage 2 of source -> signature -> call -> measure -> diagnose -> answer: which role each parameter of a loss has.

The roles: real, fake and output are D's outputs, or images where a network D is given; target belongs to output,
real_target and fake_target to the halves; class, class_real, class_fake and twin_fake are class logits, with labels,
labels_real and labels_fake; embedding goes with proxy (one per image) or proxies (one per class); image_real and
image_fake stand beside D's outputs; D, G, latents and net are networks and their input; HARMLESS roles get a fixed
value.  A clear name or a clear use in the source decides; an unclear parameter is tried in each free role.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from ptarmigan.core.types import UserError

SCORES = ("real", "fake", "output")
CLASSES = ("class", "class_real", "class_fake", "twin_fake", "embedding")
LABEL_ROLES = ("labels", "labels_real", "labels_fake")
HARMLESS = {  # role -> the words of its names; the values are in call.py
    "weight": {
        "lam", "lambda", "lmbda", "weight", "weights", "coef", "coeff", "alpha", "beta", "gamma", "factor", "scale",
    },
    "zero": {"gp", "penalty", "r1", "reg", "regularizer", "regularization"},
    "one": {"epoch", "epochs", "step", "steps", "iter", "iteration", "margin", "idx", "i", "depth", "stage", "level"},
    "off": {"cuda", "ddp", "rank", "verbose", "debug", "distributed", "gpu", "gpus"},
    "config": {
        "cfg", "config", "param", "params", "conf", "opt", "opts", "args", "hparams", "hps", "hp", "flags", "gain",
        "sync", "phase",
    },
}  # fmt: skip
NAMED = ("criterion", "other_loss", "net")  # given a stand-in, and named in a note
FIXED = (*HARMLESS, *NAMED, "classes", "device", "width", "size", "image_real", "image_fake")

OUTPUTS = {
    "pred", "preds", "prediction", "predictions", "predicted", "logit", "logits", "output", "outputs", "out", "prob",
    "probs", "probability", "probabilities", "score", "scores", "validity", "hat", "yhat", "critic", "disc", "input",
    "inputs", "sigmoid",
}  # fmt: skip
LABELS = {"label", "labels", "lbl", "lbls", "y", "digits", "onehot", "hot", "lab"}
CLASS_WORDS = {
    "class", "classes", "cls", "clf", "aux", "auxiliary", "category", "c", "classifier", "condition", "conditions",
    "cond",
}  # fmt: skip
TARGETS = {"target", "targets", "true", "tgt", "gt", "ones", "zeros", "valid"}
EMBEDDINGS = {"embedding", "embeddings", "embed", "proxy", "proxies"}
WHOLE_NAMES = {  # without underscores, in lower case
    "classes": ("k", "numclasses", "nclasses", "nbclasses", "nclass"),
    "criterion": ("criterion", "lossfn", "advloss", "advcriterion", "criteriongan", "adversarialloss"),
    "device": ("device",),
    "width": ("zdim", "latentdim", "nz", "noisedim", "zsize", "codedim"),
    "size": ("batchsize", "numimages", "bs", "nimages", "bsize", "batchnum", "minibatch", "minibatchsize", "batchsz",
             "nbatch", "trainbatchsize", "curbatchsize", "currentbatchsize"),
}  # fmt: skip
LATENTS = {"z", "noise", "latent", "latents", "noises", "znoise"}
NETWORK_WORDS = {
    "D": {"d", "dis", "disc", "discriminator", "discriminators", "critic", "netd", "dnet", "msd", "mpd", "discrim"},
    "G": {"g", "gen", "generator", "generators", "netg", "gnet"},
}
BESIDE_NETWORK = {"net", "network", "a", "b", "ab", "ba", "x", "y", "s", "t", "1", "2", "ema", "patch", "mapping",
                  "synthesis", "local", "global", "multi", "scale", "model"}  # fmt: skip
NO_NETWORK = {"loss", "opt", "optim", "optimizer", "criterion", "scaler", "scheduler", "lr", "logits", "real", "fake"}
IMAGES = {"x", "image", "images", "img", "imgs", "data", "batch", "samples", "photo", "photos", "features", "feats",
          "feat", "fmap", "fmaps", "hr", "sr"}  # fmt: skip
CRITERIA = {"adversarial", "adv", "gan", "criterion", "crit", "bce", "mse", "loss", "fn", "objective"}
OTHER_LOSSES = {
    "l1", "l2", "kl", "kld", "tv", "perceptual", "percep", "vgg", "lpips", "matching", "fm", "recon", "reconstruction",
    "cycle", "identity", "idt", "id", "content", "style", "pixel", "pixelwise", "ssim", "gp", "penalty", "r1", "r2",
    "path", "feature", "features", "huber", "charbonnier", "dice", "mel", "spectral", "triplet", "vae", "elbo", "mmd",
    "regularize", "regularization", "regularizer", "continuous", "info", "variation", "gram", "ortho", "orthogonal",
}  # fmt: skip
PLAYERS = {
    "d": {"d", "disc", "discriminator", "critic", "dis", "lossd", "discrim", "msd", "mpd", "errd"},
    "g": {"g", "gen", "generator", "lossg", "errg"},
    "bce": {"bce", "binary", "criterion"},
    "class": {"class", "cls", "classification", "classifier", "aux", "auxiliary", "categorical"},
}
PROBABILITIES = {"prob", "probs", "probability", "probabilities"}


class LossError(UserError):
    """The callable is not a loss that can be identified; the caller adds its name to the message."""

    code = "loss-failed"


class Stops(LossError):
    """PyTorch stops the loss, and the user's own code is the cause; `code` is that of the fault."""


class SeveralLosses(LossError):
    """The callable returns several things, under these keys."""

    def __init__(self, out: tuple[Any, ...] | list[Any] | dict[Any, Any]) -> None:
        super().__init__(f"it returns a {type(out).__name__} of {len(out)}, and none of them could be identified")
        self.keys = list(out) if isinstance(out, dict) else list(range(len(out)))


# --- the source ---


@dataclass
class Uses:
    """What the source of a loss does with its names; an attribute of self is written "self.x"."""

    text: str = ""
    called: dict[str, list[ast.Call]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)  # tested, or compared with a number
    optional: set[str] = field(default_factory=set)  # compared with None
    sizes: set[str] = field(default_factory=set)  # of tensors that it makes
    listed: set[str] = field(default_factory=set)  # iterated over
    words: dict[str, list[str]] = field(default_factory=dict)  # compared with these strings
    ranks: dict[str, int] = field(default_factory=dict)  # how many sizes its shape is unpacked into
    aliases: dict[str, str] = field(default_factory=dict)  # of y = x, or y = x.to(device)
    unpacked: dict[str, int] = field(default_factory=dict)  # how many values a call's result is unpacked into
    returned: list[str] = field(default_factory=list)  # the names in the tuple that it returns

    def inputs_of(self, network: str) -> set[str]:
        """The names that are handed to a network."""
        found = {a.id for c in self.called.get(network, ()) for a in c.args if isinstance(a, ast.Name)}
        for name in list(found):
            while (name := self.aliases.get(name, "")) and name not in found:
                found.add(name)
        return found


def dotted(node: ast.AST | None) -> str:
    """a.b.c of a name or an attribute, else ""."""
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else ""
    return node.id if isinstance(node, ast.Name) else ""


def uses_of(node: ast.AST) -> Uses:
    """Read the uses of names in a function or a class."""
    uses, checked = Uses(ast.unparse(node)), set[str]()
    for n in ast.walk(node):
        if isinstance(n, ast.Call):
            name = dotted(n.func).removesuffix(".forward").removesuffix(".module")
            uses.called.setdefault(name, []).append(n)
            arguments = [dotted(argument) for argument in n.args]
            if name in ("zip", "enumerate", "len"):
                uses.listed |= {*arguments} if name != "len" else set()
            elif name.rsplit(".")[-1] in ("randn", "rand", "ones", "zeros", "randint", "normal"):
                parts = [part for argument in n.args for part in getattr(argument, "elts", [argument])]
                uses.sizes |= {part.id for part in parts if isinstance(part, ast.Name)}
            if name == "isinstance":
                checked |= {*arguments[:1]}
            elif name in ("float", "int", "bool") or name.rsplit(".")[-1] in ("full", "full_like", "new_full", "fill_"):
                given = [dotted(word.value) for word in n.keywords if word.arg == "fill_value"]
                uses.flags |= {*(given or arguments[-1:])}
        elif isinstance(n, ast.For | ast.comprehension):
            uses.listed.add(dotted(n.iter))
        elif isinstance(n, ast.Subscript) and isinstance(n.value, ast.Dict):
            uses.words.setdefault(dotted(n.slice), []).extend(_strings(n.value.keys))
        elif isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant | ast.UnaryOp):
            uses.listed.add(dotted(n.value))
        elif isinstance(n, ast.Compare):
            _read_comparison(uses, n)
        elif isinstance(n, ast.If | ast.IfExp | ast.Assert):
            tests = n.test.values if isinstance(n.test, ast.BoolOp) else [n.test]
            uses.flags |= {dotted(test.operand if isinstance(test, ast.UnaryOp) else test) for test in tests}
        elif isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Tuple) and dotted(n.value).endswith(".shape"):
            uses.ranks[dotted(n.value).removesuffix(".shape")] = len(n.targets[0].elts)
        elif isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Tuple) and isinstance(n.value, ast.Call):
            uses.unpacked[dotted(n.value.func)] = len(n.targets[0].elts)
        elif isinstance(n, ast.Assign) and dotted(n.targets[0]):
            value: ast.AST = n.value
            while isinstance(value, ast.Call):
                is_variable = dotted(value.func) == "Variable" and value.args
                value = value.args[0] if is_variable else getattr(value.func, "value", ast.Constant(None))
            if dotted(value) != dotted(n.targets[0]):
                uses.aliases[dotted(n.targets[0])] = dotted(value)
        elif isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple):
            uses.returned = [dotted(part).rsplit(".")[-1] for part in n.value.elts]
    uses.listed -= checked | {""}
    return uses


def _read_comparison(uses: Uses, n: ast.Compare) -> None:
    name, other = dotted(n.left), n.comparators[0]
    if isinstance(n.left, ast.Call) and isinstance(n.left.func, ast.Attribute):  # mode.lower() == "hinge"
        name = dotted(n.left.func.value)
    parts = other.elts if isinstance(other, ast.Tuple | ast.List | ast.Set) else [other]
    if words := _strings(parts):
        uses.words.setdefault(name, []).extend(words)
    elif isinstance(other, ast.Constant) and other.value is None:
        uses.optional.add(name)
    elif name and all(isinstance(part, ast.Constant) for part in parts):
        uses.flags.add(name)


def _strings(nodes: Any) -> list[str]:
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


# --- the parameters ---


@dataclass(frozen=True)
class Reading:
    """One way to read a signature: {parameter: role} for each parameter that gets a value."""

    roles: dict[str, str]
    guessed: bool = False  # the names do not show which parameter is which


def parameters_of(function: Callable[..., Any], also: tuple[str, ...] = ()) -> dict[str, bool]:
    """{required parameter, and those `also` given: whether it is keyword-only}; raises LossError if there is none."""
    try:
        signature = inspect.signature(getattr(function, "forward", function))  # nn.Module.__call__ takes anything
    except (TypeError, ValueError):
        raise LossError("its signature cannot be read; wrap it in a function of real and fake") from None
    named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    given = [p for p in named if p.default is p.empty or p.name in also] or [p for p in named if p.default is None]
    return {p.name: p.kind is p.KEYWORD_ONLY or p.default is not p.empty for p in given}


def player_of(name: str) -> str | None:
    """The kind of loss that a function's name suggests: d, g, bce or class; None where it suggests none or several."""
    words = words_of(name)
    players = [kind for word in words for kind in ("d", "g") if word in PLAYERS[kind]]
    if players:
        return players[0]  # g_negative_of_d is G's
    found = [kind for kind, known in PLAYERS.items() if known & set(words)]
    return found[0] if len(found) == 1 else None


def is_other_loss(name: str, parameters: list[str]) -> bool:
    """Whether its names show that a loss is not adversarial: a distance, a divergence, a penalty alone."""
    words, given = set(words_of(name)), {word for one in parameters for word in words_of(one)}
    if given & {"mu", "logvar", "sigma"}:
        return True
    return bool(words & OTHER_LOSSES) and not words & (PLAYERS["d"] | PLAYERS["g"] | {"gan", "adv", "adversarial"})


def names_probabilities(names: list[str]) -> bool:
    """Whether one of the names denotes a probability, and not its logarithm."""
    return any(PROBABILITIES & set(words_of(name)) and "log" not in words_of(name) for name in names)


def network_of(name: str, strict: bool = False) -> str | None:
    """D or G, if a name can be that of a network; `strict`: if it can be nothing else."""
    words = words_of(name.removeprefix("self.").removesuffix(".module"))
    if NO_NETWORK & set(words) or (strict and set(words) - NETWORK_WORDS["D"] - NETWORK_WORDS["G"] - BESIDE_NETWORK):
        return None
    return next((role for word in words for role, known in NETWORK_WORDS.items() if word in known), None)


def readings(parameters: list[str], function: str, kind: str | None, uses: Uses | None = None) -> list[Reading]:
    """The ways to read a signature, the most likely first; `kind` was declared or is suggested by the name.

    Raises LossError if a parameter's role cannot be determined.
    """
    uses = uses or Uses()
    fixed = _networks(parameters, uses)
    networks = bool({"D", "nets"} & {*fixed.values()})
    if "G" in fixed.values() and not networks:
        raise LossError("it takes a generator but no discriminator, so it is not a loss", "signature-unclear")
    sorts = {name: _sort(name) for name in parameters if name not in fixed}
    fakes = [name for name in sorts if side_of(name) == "fake"]
    for name, sort in sorts.items():
        words = set(words_of(name))
        has_other = len(sorts) > 1 and sort in ("score", "target", "labels") and not networks
        if name in uses.sizes and sort == "score":
            sorts[name] = "size"
        elif name in uses.flags and name not in uses.optional and has_other:
            sorts[name] = "is_real"
        elif networks and any(name in uses.inputs_of(net) for net, role in fixed.items() if role in ("D", "net")):
            sorts[name] = "score" if sort in ("target", "twin_fake") else sort
        elif (
            sort == "target"
            and "true" in words
            and fakes
            and not any("pred" in words_of(one) or side_of(one) == "real" for one in sorts)
        ):
            sorts[name] = "score"
    if kind in ("d", "g") and not {"labels", "target", "is_real"} & {*sorts.values()}:
        sorts |= {name: "score" for name, sort in sorts.items() if sort == "class" and LABELS & set(words_of(name))}
    if (
        not networks
        and not {"score", "class", "twin_fake", "embedding"} & {*sorts.values()}
        and {side_of(name) for name in sorts} >= {"real", "fake"}
    ):
        sorts |= {name: "score" for name, sort in sorts.items() if sort in ("labels", "target") and side_of(name)}
    pictures = [name for name, sort in sorts.items() if sort == "score" and (IMAGES - {"x"}) & set(words_of(name))]
    if not networks and len(pictures) < list(sorts.values()).count("score"):
        fixed |= {name: f"image_{side_of(name) or 'real'}" for name in pictures}
        sorts = {name: sort for name, sort in sorts.items() if name not in fixed}
    has_class = any(sort in ("class", "twin_fake", "embedding") for sort in sorts.values())
    has_target = any(sort in ("labels", "target", "is_real") for sort in sorts.values())
    one_score = list(sorts.values()).count("score") == 1 and not has_class
    unclear: list[str] = []
    for name, sort in sorts.items():
        side = "real" if set(words_of(name)) & {"true"} and sort == "score" else side_of(name)
        if sort == "class" and networks:
            fixed[name] = "labels"
        elif sort == "class":
            fixed[name] = f"class_{side}" if side and not (side == "fake" and kind == "class") else "class"
        elif sort == "labels" and (has_class or networks):
            fixed[name] = f"labels_{side}" if side else "labels"
        elif sort in ("labels", "target"):
            words = set(words_of(name))
            side = side or ("real" if words & {"ones", "valid"} else "fake" if "zeros" in words else None)
            fixed[name] = f"{side}_target" if side and not one_score else "target"
        elif sort != "score":
            fixed[name] = sort
        elif networks and not side and (IMAGES & set(words_of(name)) or "real" in fixed.values()):
            fixed[name] = "real"
        elif side and not (one_score and has_target and not networks):
            fixed[name] = side
        else:
            unclear.append(name)
    repeats = ("latents", "D", "G", *FIXED, *(("real", "fake", *LABEL_ROLES) if networks else ()))
    for role in fixed.values():
        alike = [name for name in fixed if fixed[name] == role and role not in repeats]
        if len(alike) > 1:
            raise LossError(
                f"{_listed(alike)} both look like {role}; bind what is not D's output with functools.partial",
                "signature-unclear",
            )
    if kind == "class" and not has_class and set(fixed.values()) & {"target", "is_real"} and len(unclear) == 1:
        return [Reading({n: {"target": "labels"}.get(fixed.get(n, ""), fixed.get(n, "class")) for n in parameters})]
    if "latents" in fixed.values() and not networks:
        raise LossError("it takes latents but no discriminator, so it is not a loss", "signature-unclear")
    ways = _complete(parameters, fixed, unclear, function, kind)
    as_targets = {"labels_real": "real_target", "labels_fake": "fake_target"}
    if networks and as_targets.keys() & {*fixed.values()}:
        ways += [Reading({name: as_targets.get(role, role) for name, role in way.roles.items()}) for way in ways]
    return ways


def _complete(
    parameters: list[str], fixed: dict[str, str], unclear: list[str], function: str, kind: str | None
) -> list[Reading]:
    """The readings in which the unclear parameters take the roles that are still free."""
    taken = set(fixed.values())

    def reading(*roles: str, guessed: bool = False) -> Reading:
        every = fixed | dict(zip(unclear, roles, strict=True))
        return Reading({name: every[name] for name in parameters}, guessed)

    free = [role for role in ("real", "fake") if role not in taken]
    if not unclear:
        return [reading()]
    if len(unclear) == 1 and taken & {"target", "is_real"} and len(free) == 2:
        if "target" not in taken or kind in ("d", "g", "bce"):
            return [reading("output")]
        as_class = {name: "labels" if role == "target" else role for name, role in reading("class").roles.items()}
        return [reading("output"), Reading(as_class)]
    if len(unclear) == 1 and "labels" in taken and not taken & {*CLASSES, "D"}:
        return [reading("class")]
    if len(unclear) == 1 and len(free) == 2:
        side = "real" if "D" in taken and "G" in taken else side_of(function)
        sides = [side] if side else ["fake", "real"] if kind == "d" else ["fake"]
        return [reading(half, guessed=len(sides) > 1 or kind is None) for half in sides]
    if len(unclear) != len(free):
        raise LossError(
            f"cannot tell what {_listed(unclear)} {'is' if len(unclear) == 1 else 'are'}; name the parameters real, "
            "fake, target, class_logits, labels, D, G or z, or bind the others with functools.partial",
            "signature-unclear",
        )
    ways = [reading(*way, guessed=len(unclear) > 1) for way in permutations(free)]
    if len(unclear) == 2 and not taken and kind not in ("d", "g"):
        pairs = permutations(("class", "labels") if kind == "class" else ("output", "target"))
        more = [reading(*pair, guessed=True) for pair in pairs]
        ways = more if kind else ways + more
    return ways


def _networks(parameters: list[str], uses: Uses) -> dict[str, str]:
    """The parameters that are called: D, G, criteria and other networks.

    Where the source is not known, or hands them on, their names decide; a lone lower-case d or g is then a logit.
    """
    found: dict[str, str] = {}
    for name in parameters:
        words = set(words_of(name.removeprefix("self.")))
        network, is_called = network_of(name), name in uses.called
        if any(network_of(one.removeprefix(f"{name}.")) for one in uses.called if one.startswith(f"{name}.")):
            found[name] = "nets"
            continue
        sure = name in ("D", "netD", "discriminator", "net_D", "disc_net", "self.D")
        sure |= network == "G" and name.lower() in ("g", "netg", "generator", "gen") and len(parameters) > 1
        if network and (is_called or (sure and len(parameters) > 1)):
            found[name] = network
        elif is_called and words & OTHER_LOSSES:
            found[name] = "other_loss"
        elif is_called and words & CRITERIA and any(len(c.args) + len(c.keywords) > 1 for c in uses.called[name]):
            found[name] = "criterion"
        elif is_called:
            found[name] = "net"
    if not {"D", "nets"} & {*found.values()}:
        beside = {*CRITERIA, *OTHER_LOSSES, "network", "encoder", "enc", "extractor", "augment", "aug", "transform",
                  "e", "noise", "mixing", "variable", "classifier", "inception", "sample", "to"}  # fmt: skip
        one = [name for name, role in found.items() if role == "net" and not beside & set(words_of(name))]
        found |= {one[0]: "D"} if len(one) == 1 else {}
    context = any(_sort(name) == "latents" or (IMAGES - {"x"}) & set(words_of(name)) for name in parameters)
    if "D" not in found.values() and (context or "G" in found.values()):
        found |= {name: "D" for name in parameters if network_of(name) == "D" and len(words_of(name)) == 1}
    found |= {name: "net" for name in parameters if {"buffer", "pool"} & set(words_of(name))}
    return found if "D" in found.values() or uses.called else {}


def _sort(name: str) -> str:
    """What a name stands for, without its side: a role, or class, labels, target or score."""
    name = name.removeprefix("self.")
    words = set(words_of(name))
    whole = name.lower().replace("_", "")
    if {"is", "real"} <= words or whole.startswith(("isreal", "realorfake", "targetisreal")):
        return "is_real"
    for role, names in WHOLE_NAMES.items():
        if whole in names or (role == "classes" and whole.endswith(("numclasses", "nclasses"))):
            return role
    if role := harmless_role(name):
        return role
    if words & LATENTS and not {"d", "g", "z"} <= words:
        return "latents"
    if words & EMBEDDINGS:
        return next((word for word in ("proxy", "proxies") if word in words), "embedding")
    if "twin" in words or name.lower().strip("_") in ("t_fake", "fake_t"):
        return "twin_fake"
    is_output, is_label, is_class = bool(words & OUTPUTS), bool(words & LABELS), bool(words & CLASS_WORDS)
    if words & TARGETS and not words & IMAGES:
        return "labels" if is_class else "target"
    if words & {"logprob", "logprobs"}:
        return "class"
    if is_label and not is_output:
        return "labels"
    return "class" if is_class or (is_label and words & {"label", "labels"}) else "score"


def is_batch_size(name: str) -> bool:
    return name.removeprefix("self.").lower().replace("_", "") in WHOLE_NAMES["size"]


def harmless_role(name: str) -> str:
    """The role of what stands beside D's outputs and gets a harmless value, or ""."""
    words = set(words_of(name))
    if words & {"real", "fake", "pred", "logits"}:
        return ""
    if name and (not words or words_of(name)[0] in ("use", "with", "enable")):
        return "off"
    return "device" if "device" in words else next((role for role, known in HARMLESS.items() if words & known), "")


def side_of(name: str) -> str | None:
    """Real or fake, if the name shows it."""
    words, low = set(words_of(name)), name.lower()
    fakes = {"gen", "generated", "generator", "neg", "negative", "synthetic", "f", "gz", "df", "pf", "xf", "yf", "sr"}
    if "fake" in low or words & fakes or {"d", "g", "z"} <= words:
        return "fake"
    reals = {"pos", "positive", "r", "dx", "dr", "pr", "xr", "yr", "hr"}
    return "real" if "real" in low or words & reals else None


def words_of(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case."""
    pattern = r"(?<![a-zA-Z])[lr][12](?!\d)|(?<![A-Z])[LR][12](?!\d)|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+"
    return [word.lower() for word in re.findall(pattern, name)]


def _listed(names: list[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} and {last}" if most else last


def describe_error(error: BaseException, function: Callable[..., Any]) -> str:
    """An exception of the user's code in one line: its type, its text, and the line of their file."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        place = frame.f_globals.get("__ptarmigan_place__")
        if place or (code is not None and frame.f_code.co_filename == code.co_filename):
            where = f" ({place(trace.tb_lineno) if place else f'line {trace.tb_lineno}'})"
        trace = trace.tb_next
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:160]}{where}" if text else f"{type(error).__name__}{where}"
