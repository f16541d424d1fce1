"""Findings: what is wrong with a run, each from a few columns of its log by one pure function.

docs/diagnosis.md states each statistic and its limit, and how often the limit is right.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ptarmigan.diagnosis.columns import SPIKE, WEAK, Log, Values

# Limits of the statistics
LARGE, LARGE_NORMED = 100.0, 1000.0  # the second for D's gradient with batch norm, which leaves its size free
JUMP, CALM_JUMP = 0.12, 0.2  # the second where the learning rates are usual ones
STRONG, WRONG = 0.035, 3.0
BLIND, POOR = 0.97, 1.0
POOR_IMAGES, POOR_UPDATES = 5000, 400  # before which a live score above POOR says nothing
SATURATED, VANISHED = 0.01, 1e-3
VARIETY, SAME = 0.5, 0.1
LABELLED, TOLD = 0.1, 0.3
GAP = 0.5
CLOSE = 0.6
SQUARES = 10.0
EASY = 0.03
TINT, EARLY_TINT = 0.1, 0.25
LATE_UPDATES, USUAL_RATE = 1000, 2e-3  # of G, before which good runs may look wrong; its rate
FAR = 5.0  # times the smaller learning rate: from here the larger one is the fault
NOISE, LATELY, WINDOW = 2.0, 2, 0.3  # standard errors; snapshots in the last share of the budget; that share
OFTEN = 50  # times that each training image was seen, from which more or augmented ones are advised


class Finding(NamedTuple):
    name: str
    severity: str  # error, warning or note
    evidence: str  # the statistic in words, with its value
    threshold: str  # the limit that it is beyond, as it stands behind "reported if"
    source: str  # the columns of the log that it is computed from
    remedy: str  # a command line, or in words where the log is not of a run of ptarmigan


def lower_d_rate(log: Log) -> str:
    return f"--d-lr {log.fields['d_lr'] / 4:.3g}" if log.fields else ""


def rates_apart(log: Log) -> bool:
    g, d = (log.fields.get(name, 0.0) for name in ("g_lr", "d_lr"))
    return bool(max(g, d) >= FAR * min(g, d) > 0)


def lower_rates(log: Log) -> str:
    """The larger learning rate down to the smaller where they are far apart; else both by 4, and to the usual rate."""
    if not log.fields:
        return ""
    g, d = log.fields["g_lr"], log.fields["d_lr"]
    if not rates_apart(log):
        return f"--g-lr {min(g / 4, USUAL_RATE):.3g} --d-lr {min(d / 4, USUAL_RATE):.3g}"
    return f"--g-lr {d:.3g}" if g > d else f"--d-lr {g:.3g}"


def calmer_rates(log: Log) -> str:
    """`lower_rates`, with penalties where nothing bounds D."""
    bound = [log.fields.get(name) for name in ("r1", "r2", "gradient_penalty")]
    free = not any(bound) and log.fields.get("d_norm") == "none"
    return f"{lower_rates(log)} {penalties(log)}" if free else lower_rates(log)


def weaker_d(log: Log) -> str:
    """A lower learning rate of D, by 4 or down to G's, and penalties; where G's is the far larger one, that one."""
    if rates_apart(log) and log.fields["g_lr"] > log.fields["d_lr"]:
        return lower_rates(log)
    return f"{lower_rates(log) if rates_apart(log) else lower_d_rate(log)} {penalties(log)}"


def penalties(log: Log) -> str:
    """Options that bound D's gradient at real and at generated images, or bound it more."""
    options = []
    for name in ("r1", "r2"):
        value = log.fields.get(name, 0.0)
        largest = max(value) if isinstance(value, list | tuple) else value
        options.append(f"--{name} {4 * largest or 0.2:.3g}")
    return " ".join([*options, *(["--d-norm none"] if log.fields.get("d_norm") == "batch" else [])])


def more_augmentation(log: Log, least: str = "gentle") -> str:
    """The next stronger augmentation, from `least` on; none after ada."""
    kinds, augment = ("none", "gentle", "diffaugment", "ada"), log.fields.get("augment", "ada")
    stronger = max(kinds.index(augment) + 1, kinds.index(least))
    return augmentation(log, kinds[stronger]) if augment != "ada" else ""


def augmentation(log: Log, kind: str) -> str:
    scheduled = log.fields["augment_p"] != 1.0  # which diffaugment alone takes
    return f"--augment {kind}{' --augment-p 1' if scheduled else ''}"


def diverged(log: Log) -> Finding | None:
    """A value was NaN or infinite, or D's loss or a gradient has left every usual size."""
    remedy = log.train(
        "use a checkpoint from before; lower both learning rates; compute penalties in 32 bits",
        f"{calmer_rates(log)} --precision fp32",
    )
    rollbacks = log.all("retry")
    if len(log.all("diverged")) or any(np.isinf(values).any() for values in log.columns.values()):
        return Finding("diverged", "error", "a value was NaN or infinite", "there is one", "diverged", remedy)
    if len(rollbacks):
        text = f"{rollbacks.max():.0f} rollbacks from a NaN or infinite value"
        return Finding("diverged", "warning", text, "there is one", "retry", remedy)
    if log.fields.get("loss") == "wasserstein" and not log.fields.get("gradient_penalty"):
        remedy = log.train("add the gradient penalty", "--gradient-penalty 10")
    large_d = LARGE_NORMED if log.fields.get("d_norm") == "batch" else LARGE
    for name, what, limit in (
        ("d_adv", "D's loss", LARGE), ("d_grad", "D's gradient", large_d), ("g_grad", "G's gradient", LARGE)
    ):  # fmt: skip
        values = log.recent(name)
        if len(values) and (size := float(np.median(np.abs(values)))) > limit:
            return Finding("diverged", "error", f"the size of {what} is {size:.3g}", f"above {limit:g}", name, remedy)
    share = log.d_share()
    if share is not None and share > WRONG:
        text = f"D's loss is {share:.3g} times that of a D that cannot decide"
        return Finding("diverged", "error", text, f"above {WRONG:g}", "d_adv", remedy)
    if (spike := log.spike()) is not None and not log.recovered(spike):
        text = f"D's loss rose to {log.columns['d_adv'][spike]:.3g} at {log.at[spike]:,.0f} {log.unit}"
        threshold = f"above {SPIKE:g} times that of a D that cannot decide"
        return Finding("diverged", "error", text, threshold, "d_adv", remedy)
    return None


def d_too_strong(log: Log) -> Finding | None:
    """D tells real from generated images almost without error, so that G learns little."""
    share = log.d_share()
    if share is None or share >= STRONG:
        return None
    return Finding(
        "d-too-strong", "error", f"D's loss is {max(share, 0):.2g} of the loss of a D that cannot decide",
        f"below {STRONG:g}", "d_adv", log.train(
            "lower D's learning rate; add R1 and R2, or a larger weight", weaker_d(log)
        ),
    )  # fmt: skip


def unstable(log: Log) -> Finding | None:
    """D's loss jumps up and down, as it does where a learning rate is too large for what bounds D."""
    jump = log.jump()
    if jump is None:
        return None
    limit = JUMP if rates_apart(log) or max(log.fields["g_lr"], log.fields["d_lr"]) > 2 * USUAL_RATE else CALM_JUMP
    if jump <= limit:
        return None
    return Finding(
        "unstable", "error", f"D's loss jumps up and down by {jump:.2g} of the loss of a D that cannot decide",
        f"above {limit:g}", "d_adv", log.train("lower the learning rates; add R1 and R2", calmer_rates(log)),
    )  # fmt: skip


def d_too_weak(log: Log) -> Finding | None:
    """D does not tell real from generated images, and is worse than one that answers every image alike, or the images
    are still far from real ones: G learns nothing true."""
    share, scores = log.d_share(), poor_scores(log)
    if share is None or share > WRONG or not (share > WEAK or (share > BLIND and len(scores))):
        return None
    evidence, limit = f"D's loss is {share:.3g} of the loss of a D that cannot decide", f"above {WEAK:g}"
    if share <= WEAK:
        evidence += f", while the live score is {scores.min():.3g} or more"
        limit = f"above {BLIND:g} with a live score above {POOR:g}"
    fields = log.fields
    if fields and rates_apart(log) and fields["g_lr"] > max(2 * USUAL_RATE, fields["d_lr"]):
        options = lower_rates(log)
    else:
        options = f"--d-lr {max(fields['g_lr'], min(1.0, 4 * fields['d_lr'])):.3g}" if fields else ""
    source = "d_adv" if share > WEAK else "d_adv, select_kid"
    return Finding(
        "d-too-weak", "error", evidence, limit, source, log.train("raise D's learning rate, or lower G's", options)
    )


def poor_scores(log: Log) -> Values:
    """The last live scores, if all are far above those that runs of recipe `auto` have after so many images."""
    enough = bool(log.fields) and log.at[-1] >= POOR_IMAGES
    scores = log.snapshots("select_kid", later(log, POOR_UPDATES)) if enough else np.empty(0)
    return scores if len(scores) and scores.min() > POOR else np.empty(0)


def far_from_real(log: Log) -> Finding | None:
    """The live score is far above those that other runs had after so many images, whatever the reason."""
    scores = poor_scores(log)
    if not len(scores):
        return None
    return Finding(
        "far-from-real", "note",
        f"the live score is {scores.min():.3g} or more; runs of recipe auto had less than {POOR:g} after "
        f"{POOR_IMAGES:,} images of garments, emoji or photos",
        f"above {POOR:g}", "select_kid",
        "look at the samples; leave out the options that you gave; train longer",
    )  # fmt: skip


def g_gradient_vanishes(log: Log) -> Finding | None:
    """G gets no signal: with the minimax loss its slope is below |g_adv|, since log(1 + e^f) exceeds sigmoid(f)."""
    remedy = log.train("use the non-saturating loss for G", "--loss non_saturating")
    values = log.recent("g_adv")
    if log.fields.get("loss") == "minimax" and len(values) and (slope := float(np.abs(values).mean())) < SATURATED:
        return Finding(
            "g-gradient-vanishes", "error", f"the mean slope of G's loss is at most {slope:.2g}",
            f"below {SATURATED:g}", "g_adv", remedy,
        )  # fmt: skip
    norms, early = log.recent("g_grad"), log.all("g_grad")[:10]
    if not len(norms) or not (first := float(np.median(early))) or (rest := float(np.median(norms)) / first) > VANISHED:
        return None
    return Finding(
        "g-gradient-vanishes", "error", f"the norm of G's gradient is {rest:.2g} of its first", f"below {VANISHED:g}",
        "g_grad", remedy if log.fields.get("loss") == "minimax" else log.train(
            "lower D's learning rate; add R1 and R2", weaker_d(log)
        ),
    )  # fmt: skip


def too_easy(log: Log) -> Finding | None:
    """G makes images that D's classifier recognises far better than real ones, as it does where lambda is too large."""
    fake, whole = log.recent("g_class"), log.recent("d_class")
    if log.fields.get("conditioning") != "auxiliary_classifier" or not (len(fake) and len(whole) and np.median(whole)):
        return None
    if (share := float(np.median(fake) / np.median(whole))) >= EASY:
        return None
    options = "--conditioning projection" + ("" if log.fields["class_fake"] else " --class-fake")
    return Finding(
        "too-easy", "error", f"G's class loss is {share:.2g} of D's",
        f"below {EASY:g}", "g_class, d_class", log.train("give D the class by projection", options),
    )  # fmt: skip


def collapse(log: Log) -> Finding | None:
    """The images of a class are far more alike than real ones."""
    values = log.snapshots("variety")
    if not len(values) or (variety := float(values.max())) >= VARIETY:
        return None
    if rates_apart(log):
        options = lower_rates(log)
    elif log.fields.get("conditioning") == "auxiliary_classifier":
        options = "--conditioning projection"
    elif log.fields.get("loss") == "relativistic":
        options = penalties(log)
    else:
        options = f"--loss relativistic --smoothing 1 {penalties(log)}"
    return Finding(
        "collapse", "error",
        f"two images of a class differ {variety:.2g} as much as two real ones do"
        + (", so the latent has almost no effect" if variety < SAME else ""),
        f"below {VARIETY:g}", "variety",
        log.train("use a relativistic loss with R1 and R2; a projection D in place of ACGAN's", options),
    )  # fmt: skip


def labels_random(log: Log) -> Finding | None:
    """Real images do not show their label."""
    real = log.snapshots("real_accuracy")
    if not len(real) or (known := float(real.max())) >= LABELLED:
        return None
    return Finding(
        "labels-random", "error",
        f"a classifier of real images is {max(known, 0):.0%} of the way from chance to no errors; check that the "
        "folders or labels are the classes that you mean",
        f"below {LABELLED:.0%}", "real_accuracy",
        log.train("mend the labels, or train without classes", "--conditioning none"),
    )  # fmt: skip


def later(log: Log, updates: int = LATE_UPDATES) -> int:
    """Updates of G before which its samples may only lack time; as many more as its learning rate is smaller."""
    return round(updates * max(1.0, USUAL_RATE / (log.fields.get("g_lr") or USUAL_RATE)))


def class_ignored(log: Log) -> Finding | None:
    """Real images show their class, and generated ones do not."""
    fake, real = log.snapshots("class_accuracy", later(log)), log.snapshots("real_accuracy")
    if not len(fake) or not len(real) or (known := float(real.max())) < LABELLED:
        return None
    if (share := float(fake.max()) / known) >= TOLD:
        return None
    projection = log.fields.get("conditioning") == "projection"
    plain = log.fields.get("network") == "dcgan" and not log.fields.get("g_modulation")
    options = "--conditioning projection" if not projection else "--g-modulation" if plain else "--class-dim 256"
    return Finding(
        "class-ignored", "error", f"generated images show their class {max(share, 0):.2g} as often as real ones",
        f"below {TOLD:g}", "class_accuracy, real_accuracy",
        log.train("check the labels; give D the class by projection, and G by its norms", options),
    )  # fmt: skip


def d_overfits(log: Log) -> Finding | None:
    """D has memorised its training images: it takes real images that it has not seen for generated ones."""
    gaps = log.snapshots("d_gap")
    if not len(gaps) or (gap := float(gaps.min())) <= GAP:
        return None
    return Finding(
        "d-overfits", "warning",
        f"D's mean output for new real images is {gap:.0%} of the way from training images to generated ones",
        f"above {GAP:.0%}", "d_gap", log.train(
            "augment the images that D sees; more images; an earlier checkpoint", more_augmentation(log, "diffaugment")
        ),
    )  # fmt: skip


def copies(log: Log) -> Finding | None:
    """Generated images lie closer to training images than unseen real images do."""
    values = log.snapshots("copying")
    if not len(values) or (ratio := float(values.max())) >= CLOSE:
        return None
    return Finding(
        "copies", "warning", f"generated images are {ratio:.2g} as far from training images as new real ones are",
        f"below {CLOSE:g}", "copying",
        log.train("augment; stop earlier; more images", more_augmentation(log, "diffaugment")),
    )  # fmt: skip


def checkerboard(log: Log) -> Finding | None:
    """A pattern that changes its sign at every pixel."""
    values = log.snapshots("nyquist", later(log))
    if not len(values) or (ratio := float(values.min())) <= SQUARES:
        return None
    strided = log.fields.get("network") == "dcgan" and log.fields.get("resampling") != "smooth"
    options = "--resampling smooth" if strided else lower_d_rate(log)
    return Finding(
        "checkerboard", "warning",
        f"generated images have {ratio:.3g} times as much of the finest pattern as real ones", f"above {SQUARES:g}",
        "nyquist", log.train("double maps by a smooth filter, and blur them before they are halved", options),
    )  # fmt: skip


def colour_shift(log: Log) -> Finding | None:
    """The colours or the contrast of generated images differ from those of real ones."""
    limit = TINT if log.trained(later(log)) else EARLY_TINT
    values = log.snapshots("colour_gap")
    if not len(values) or (gap := float(values.min())) <= limit:
        return None
    return Finding(
        "colour-shift", "warning", f"a channel's mean or deviation differs by {gap:.2g} on [-1, 1]",
        f"above {limit:g}", "colour_gap", log.train(
            "train longer; check that G's images and the real ones have the same scale, [-1, 1]",
            augmentation(log, "gentle") if log.fields.get("augment") in ("diffaugment", "ada") else "",
        ),
    )  # fmt: skip


def no_progress(log: Log) -> Finding | None:
    """The score has not improved beyond its noise for WINDOW of the budget, so that stopping loses nothing."""
    kids, errors = (log.columns.get(name, np.empty(0)) for name in ("select_kid", "select_kid_error"))
    if not len(kids) or not len(errors) or not log.end:
        return None
    scored = np.flatnonzero(~np.isnan(kids))
    lately = log.at[scored] > log.at[-1] - WINDOW * log.end
    if lately.all() or np.count_nonzero(lately) < LATELY:
        return None
    before, after = (part[int(np.argmin(kids[part]))] for part in (scored[~lately], scored[lately]))
    if kids[before] - kids[after] > NOISE * math.hypot(errors[before], errors[after]):
        return None
    best, often = min(before, after, key=lambda row: kids[row]), log.times_seen >= OFTEN
    evidence = (
        f"the least select_kid is {kids[after]:.3g} in the last {WINDOW:g} of the budget and {kids[before]:.3g} before "
        f"it; the best snapshot is that at {log.at[best]:,.0f} images"
    )
    if often:
        evidence += (
            f"; each training image was seen {log.times_seen:.0f} times, so more images would help, or --flip where "
            "mirrored ones are as good"
        )
    best_of = shlex.quote(f"{log.run}/best")
    use = "stop, and use the best generator" if log.run is None else f"ptarmigan sample {best_of}"
    return Finding(
        "no-progress", "note", evidence, f"the gain is below {NOISE:g} standard errors", "select_kid, select_kid_error",
        log.train(use, more_augmentation(log) if often else ""),
    )  # fmt: skip


# Name -> the function that finds it, in eight words at most what it means, and what it explains.  A cause comes before
# its effects.
class Kind(NamedTuple):
    find: Callable[[Log], Finding | None]
    verdict: str
    explains: tuple[str, ...] = ()


OF_SAMPLES = ("collapse", "class-ignored", "copies", "checkerboard", "colour-shift", "far-from-real", "no-progress")
OF_GAME = ("d-too-strong", "d-too-weak", "g-gradient-vanishes")
KINDS: dict[str, Kind] = {
    "diverged": Kind(diverged, "the losses have diverged", ("unstable", *OF_GAME, *OF_SAMPLES)),
    "unstable": Kind(unstable, "D's loss jumps up and down", (*OF_GAME, *OF_SAMPLES)),
    "labels-random": Kind(labels_random, "the labels do not describe the images", ("class-ignored",)),
    "g-gradient-vanishes": Kind(g_gradient_vanishes, "G gets almost no gradient", ("d-too-strong", *OF_SAMPLES)),
    "d-too-strong": Kind(d_too_strong, "D is too strong", OF_SAMPLES),
    "d-too-weak": Kind(d_too_weak, "D is too weak", OF_SAMPLES),
    "too-easy": Kind(
        too_easy, "generated images are easier to classify than real", ("collapse", "class-ignored", "far-from-real")
    ),
    "collapse": Kind(collapse, "images of a class are too alike", ("colour-shift", "checkerboard", "far-from-real")),
    "class-ignored": Kind(class_ignored, "images do not show their class"),
    "d-overfits": Kind(d_overfits, "D overfits its training images", ("copies", "no-progress")),
    "copies": Kind(copies, "images are copies of training images"),
    "colour-shift": Kind(colour_shift, "colours differ from the real ones"),
    "checkerboard": Kind(checkerboard, "images have a checkerboard pattern"),
    "far-from-real": Kind(far_from_real, "images are still far from real ones"),
    "no-progress": Kind(no_progress, "no progress lately: use best/"),
}
SEVERITIES = ("note", "warning", "error")


def findings(log: Log) -> list[Finding]:
    """What is wrong at the end of a log, the worst first; among equals a cause before what it explains."""
    found = [finding for kind in KINDS.values() if (finding := kind.find(log)) is not None]
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def is_wanted(finding: Finding, wanted: str) -> bool:
    """Whether a finding has this name, or this severity or a worse one."""
    if wanted in SEVERITIES:
        return SEVERITIES.index(finding.severity) >= SEVERITIES.index(wanted)
    return finding.name == wanted


def verdict(log: Log, found: list[Finding]) -> str:
    """The worst finding in at most eight words; else `healthy`, or what it takes to say so."""
    if found:
        return KINDS[found[0].name].verdict
    if not log.long_enough:
        return "no fault so far, too early to judge"
    return "healthy" if log.judged else "no fault in the losses"
