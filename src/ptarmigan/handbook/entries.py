"""Every loss in words, a formula and a line of PyTorch: what `ptarmigan losses [NAME]` prints; no torch needed.

The entries are data.  tests/test_handbook.py runs each formula, line of code and number below against losses.py,
conditioning.py and penalties.py, so that the text cannot say what the program does not do.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from math import e, exp, inf, log, log1p
from pathlib import Path

from ptarmigan.config import RECIPES, resolve
from ptarmigan.core.types import UserError, unknown

WIDTH = 80
INDENT = 10


@dataclass(frozen=True)
class Value:
    """A number to hold against one's own run, printed as 'what = value (exact)'."""

    what: str
    value: float
    exact: str = ""


@dataclass(frozen=True)
class Entry:
    """What there is to say about one loss; empty fields are not printed."""

    title: str
    paper: str = ""
    flags: str = ""  # the command-line flags that choose it, as one would type them
    words: str = ""
    formulas: tuple[str, ...] = ()  # Python but for ^ and "E x", the mean of x
    code: str = ""  # PyTorch on the names in VARIABLES
    best: str = ""  # the optimal D, point by point, and what its loss is then
    values: tuple[Value, ...] = ()  # at the equilibrium p = q, against the optimal D
    values_note: str = ""
    marks: tuple[Value, ...] = ()  # other numbers worth knowing by sight
    slope: tuple[str, float, float] | None = None  # dL_G/df, and its limits at f = -inf and +inf
    slope_note: str = ""
    rising: str = ""
    use: str = ""
    wrong: tuple[str, ...] = ()


VARIABLES = {
    "real": "D(x) on real images, logits [N]: raw scores, no sigmoid",
    "fake": "D(G(z, y)) on generated images, logits [N]; in D's step G's output is detached",
    "bce": "F.binary_cross_entropy_with_logits",
    "ones": "torch.ones_like(real): the source target 'real', one per image",
    "zeros": "torch.zeros_like(fake): the source target 'generated', one per image",
    "c_real": "c(x), D's class logits on real images [N, K]",
    "c_fake": "c(G(z, y')), D's class logits on generated images [N, K]",
    "t_fake": "t(G(z, y')), the twin's class logits on generated images [N, K]",
    "b_real": "b(x), class logits on real images [N, 2K]: K real classes, then the same K as generated ones",
    "b_fake": "b(G(z, y')), the same on generated images [N, 2K]",
    "K": "the number of classes",
    "e_real": "e(x), embeddings of real images [N, E], each of length 1",
    "v": "the proxies of the classes [K, E], each of length 1",
    "margin": "the cosine that --class-margin gives",
    "tau": "the temperature that --class-temperature gives",
    "y": "the labels of the real images [N], int64",
    "y_fake": "y', the classes that G was asked for [N], int64",
    "lam": "lambda, the weight of the class term",
    "h_real": "D's features of real images [N, F]",
    "h_fake": "D's features of generated images [N, F]",
    "source": "nn.Linear(F, 1)",
    "embedding": "nn.Embedding(K, F)",
    "x": "real images [N, C, H, W], requiring grad",
    "x_fake": "generated images [N, C, H, W], detached from G, requiring grad",
    "D": "the discriminator: images -> logits [N]",
    "u": "uniform on [0, 1], one for each pair [N, 1, 1, 1]",
    "gamma": "the weight that --r1 or --r2 gives",
    "weight": "the weight that --gradient-penalty gives, 10 in the paper",
    "p": "the probability of each transform",
    "batch": "real images a step",
    "R1": "the penalty on real images: see `ptarmigan losses r1`",
    "R2": "the penalty on generated images: see `ptarmigan losses r2`",
}

NOTATION = (
    "r = D(x) and f = D(G(z, y)) are logits: raw scores, no sigmoid. s(t) = log(1 + e^t) is softplus. "
    "E is a mean over the batch, p the density of the data, q of the generator. Both losses are minimised."
)


def _softplus(t: float) -> float:
    return log1p(exp(t))


ALPHA = 0.9  # the smoothed target
EVEN = log(ALPHA / (2 - ALPHA))  # D's best logit at p = q under it
SOFTMAX_FLOOR = log(1 + 9 / e)  # of a cross-entropy over ten classes behind a softmax

CROSS_ENTROPY_D = "L_D = E s(-r) + E s(f)"
CROSS_ENTROPY_CODE = "L_D = F.softplus(-real).mean() + F.softplus(fake).mean()"
NON_SATURATING_CODE = "L_G = F.softplus(-fake).mean()"
GOODFELLOW = "Goodfellow et al. 2014, arXiv 1406.2661"
EQUILIBRIUM = (Value("L_D", 2 * log(2), "2 log 2"), Value("L_G", log(2), "log 2"))
IGNORANT = (
    Value("L_D of a D that knows nothing, 10 classes", 2 * log(2) + 2 * log(10), "2 log 2 + 2 log 10"),
    Value("L_G against it", log(2) + log(10), "log 2 + log 10"),
)
NON_SATURATING_RISING = (
    "L_G rises when D tells fakes from real images better than before. That is news about D against G, not about "
    "the images: in a healthy run it often climbs to 1, 2 or 3 while the samples improve."
)
ACGAN_FORMULAS = (
    "L_D = E s(-r) + E s(f) + lam * E (CE(c(x), y) + CE(c(G(z, y')), y'))",
    "L_G = E s(-f) + lam * E CE(c(G(z, y')), y')",
)
ACGAN_CODE = """\
L_D = (F.softplus(-real).mean() + F.softplus(fake).mean()
       + lam * F.cross_entropy(c_real, y)
       + lam * F.cross_entropy(c_fake, y_fake))
L_G = F.softplus(-fake).mean() + lam * F.cross_entropy(c_fake, y_fake)"""

LOSS_ENTRIES = {
    "minimax": Entry(
        title="the zero-sum game of the theory; its generator saturates",
        paper=GOODFELLOW,
        flags="--loss minimax",
        words="D is a classifier trained with cross-entropy, real against generated. G maximises that same loss.",
        formulas=(CROSS_ENTROPY_D, "L_G = -E s(f)"),
        code=CROSS_ENTROPY_CODE + "\nL_G = -F.softplus(fake).mean()",
        best="log(p/q); there L_D = 2 log 2 - 2 JSD(p, q), and G descends 2 JSD",
        values=(Value("L_D", 2 * log(2), "2 log 2"), Value("L_G", -log(2), "-log 2")),
        slope=("-sigmoid(f)", 0.0, -1.0),
        slope_note="it vanishes where D is sure of a fake, so where G has the most to learn.",
        rising="L_G rises towards 0, its largest value, as D rejects everything and G's gradient dies. That is no "
        "convergence.",
        use="to study the theory. To train, take non_saturating: the same D, a gradient where it is needed.",
        wrong=(
            "'G minimises the negative of D's loss' is this loss, and no other here. Only the term of the fakes "
            "counts for G: E s(-r) does not depend on it.",
            "A generator loss near 0 looks like success and is total defeat.",
        ),
    ),
    "non_saturating": Entry(
        title="what everyone trains a DCGAN with",
        paper=GOODFELLOW + ", section 3",
        flags="--loss non_saturating",
        words="D is the same classifier. G wants its images classified as real: cross-entropy of D's answer on "
        "the fakes against the target 'real'.",
        formulas=(CROSS_ENTROPY_D, "L_G = E s(-f)"),
        code=CROSS_ENTROPY_CODE + "\n" + NON_SATURATING_CODE,
        best="log(p/q); there L_D = 2 log 2 - 2 JSD(p, q). Against it G's gradient is that of KL(q|p) - 2 JSD: "
        "it punishes unlikely images much more than missing kinds of images",
        values=EQUILIBRIUM,
        slope=("-sigmoid(-f)", -1.0, 0.0),
        slope_note="strongest where D is sure of a fake.",
        rising=NON_SATURATING_RISING,
        use="with batch norm in D, as DCGAN and ACGAN do. Without it prefer relativistic with R1 and R2.",
        wrong=(
            "It is not the negative of D's loss, which is -s(f): where D is sure of a fake the slopes are -1 here and "
            "0 there. The game is not zero-sum.",
            "L_D near 0 is not 'D has learned': it is a D so strong that little is left to learn from.",
        ),
    ),
    "least_squares": Entry(
        title="LSGAN, targets (fake, real, G's) = (0, 1, 1)",
        paper="Mao et al. 2017, arXiv 1611.04076",
        flags="--loss least_squares",
        words="D regresses 1 for real and 0 for generated. G wants 1.",
        formulas=("L_D = 1/2 * E (r - 1)^2 + 1/2 * E f^2", "L_G = 1/2 * E (f - 1)^2"),
        code="L_D = (real - 1).square().mean() / 2 + fake.square().mean() / 2\nL_G = (fake - 1).square().mean() / 2",
        best="p/(p+q), itself between 0 and 1; there L_D is half the integral of pq/(p+q)",
        values=(Value("L_D", 1 / 4, "1/4"), Value("L_G", 1 / 8, "1/8"), Value("r = f", 1 / 2, "1/2")),
        slope=("f - 1", -inf, inf),
        slope_note="the further off, the stronger, on both sides: an image scored above 1 is pulled back.",
        rising="L_G rises as fakes are scored further from 1: D is ahead. At 1/2, f is near 0, D's own target.",
        use="where cross-entropy's D grows too sure. Not in fp16, where squares overflow.",
        wrong=(
            "There is no sigmoid: D's output is a raw score. With one, the slope dies at both ends again.",
            "The Pearson divergence of the title belongs to other targets: least_squares_pearson.",
            "Leaving out the factors 1/2 doubles both losses and their weight against every penalty.",
        ),
    ),
    "least_squares_pearson": Entry(
        title="LSGAN, targets (fake, real, G's) = (-1, 1, 0)",
        paper="Mao et al. 2017, arXiv 1611.04076",
        flags="--loss least_squares_pearson",
        words="D regresses 1 for real and -1 for generated. G wants 0, the score of an image that could be either.",
        formulas=("L_D = 1/2 * E (r - 1)^2 + 1/2 * E (f + 1)^2", "L_G = 1/2 * E f^2"),
        code="L_D = (real - 1).square().mean() / 2 + (fake + 1).square().mean() / 2\nL_G = fake.square().mean() / 2",
        best="D* = (p-q)/(p+q); there L_D is the integral of 2pq/(p+q). E_p D*^2 + E_q D*^2 is the integral of "
        "(p-q)^2/(p+q), the Pearson chi-squared between p+q and 2q",
        values=(Value("L_D", 1.0, "1"), Value("L_G", 0.0, "0"), Value("r = f", 0.0, "0")),
        slope=("f", -inf, inf),
        slope_note="0 at the equilibrium itself.",
        rising="L_G rises as fakes are scored further from 0, on either side.",
        use="for comparison with the paper; the (0, 1, 1) form is the usual one.",
        wrong=(
            "G sees only half of that divergence: E_p D*^2 is a function of the real images and gives it no gradient.",
            "G does not want 'real' (1) here. An image that D likes too well is pushed back to 0.",
        ),
    ),
    "hinge": Entry(
        title="margins for D, a straight line for G",
        paper="Lim and Ye 2017, arXiv 1705.02894",
        flags="--loss hinge",
        words="D wants real images above 1 and fakes below -1, and cares no more once they are. G raises f.",
        formulas=("L_D = E max(0, 1 - r) + E max(0, 1 + f)", "L_G = -E f"),
        code="L_D = F.relu(1 - real).mean() + F.relu(1 + fake).mean()\nL_G = -fake.mean()",
        best="sign(p - q), and anything in [-1, 1] where p = q; there L_D = 2 (1 - TV(p, q)), TV total variation",
        values=(Value("L_D", 2.0, "2"),),
        values_note="L_G is wherever D happens to lie, in [-1, 1]",
        slope=("-1", -1.0, -1.0),
        slope_note="the same pull on every image.",
        rising="L_G rises as D scores fakes lower. Above 1 their mean is past D's margin, where it learns no more from "
        "them.",
        use="with projection and a D held by spectral norm, as published, or by R1.",
        wrong=(
            "G has no hinge. relu(1 - f) for G drops the gradient of images past the margin: another loss.",
            "L_G is not a distance and may be negative. L_D near 0 means that all margins are kept: D too strong.",
        ),
    ),
    "wasserstein": Entry(
        title="a critic instead of a classifier; needs a penalty",
        paper="Arjovsky et al. 2017, arXiv 1701.07875; penalty: Gulrajani et al. 2017, arXiv 1704.00028",
        flags="--loss wasserstein --gradient-penalty 10 --r1 0 --r2 0 --d-steps 5",
        words="D, with slope at most 1, scores real images as far above generated ones as it can. G raises f.",
        formulas=("L_D = E f - E r", "L_G = -E f"),
        code="L_D = fake.mean() - real.mean()\nL_G = -fake.mean()",
        best="the Kantorovich potential; there -L_D is the distance W_1(p, q), if D is exactly 1-Lipschitz. The "
        "penalty only asks for it: a linear D and means that lie m apart give slope 1 + m/20 at weight 10",
        values=(Value("L_D", 0.0, "0"),),
        values_note="L_G can be any number",
        slope=("-1", -1.0, -1.0),
        slope_note="the same pull on every image; D's own slope carries the information.",
        rising="L_G means nothing by itself: a constant added to D moves it, and nothing else. Watch the gap, -L_D.",
        use="where -L_D should be readable as a distance, and five updates of D for one of G are affordable.",
        wrong=(
            "Without a penalty it has no minimum: doubling D doubles the gap.",
            "The papers have D maximise E r - E f. Minimised without the change of sign, it trains D to help G.",
            "Batch norm in D voids the penalty, and absolute logits mean nothing.",
        ),
    ),
    "relativistic": Entry(
        title="each fake against a real image of its class (RpGAN); the default",
        paper="Jolicoeur-Martineau 2018, arXiv 1807.00734; Huang et al. 2024, arXiv 2501.05441",
        flags="--loss relativistic --r1 0.2 --r2 0.2",
        words="D wants the real image of a pair scored above the fake one. G wants the reverse.",
        formulas=("L_D = E s(-(r - f))", "L_G = E s(-(f - r))"),
        code="L_D = F.softplus(fake - real).mean()\nL_G = F.softplus(real - fake).mean()",
        best="log(p/q) within each class, plus any constant of that class; there L_D is log 2 less the "
        "Jensen-Shannon divergence between the pairs (real, fake) and (fake, real)",
        values=(Value("L_D", log(2), "log 2"), Value("L_G", log(2), "log 2")),
        slope=("-sigmoid(r - f)", -1.0, 0.0),
        slope_note="strongest where the fake loses its pair by most.",
        rising="L_G rises as D ranks real above fake by a wider margin. Exactly: L_G - L_D = E r - E f.",
        use="first, together with R1 and R2. Without them nothing damps the game near its equilibrium.",
        wrong=(
            "sigmoid(r) is not a probability here: a constant added to D changes neither loss. Only r - f can be read.",
            "The relativistic average loss, r against the mean of f, is another loss.",
            "Real logits do reach G's loss, through r - f, but no gradient flows to G through them.",
        ),
    ),
    "smoothing": Entry(
        title="one-sided label smoothing: target 0.9 for real, 0 for generated",
        paper="Salimans et al. 2016, arXiv 1606.03498, section 3.4",
        flags="--loss non_saturating --smoothing 0.9",
        words="D's target for a real image is 0.9 instead of 1. The target for fakes and G's loss stay as they are.",
        formulas=("L_D = E (0.9 * s(-r) + 0.1 * s(r)) + E s(f)", "L_G = E s(-f)"),
        code="L_D = bce(real, 0.9 * ones) + bce(fake, zeros)\nL_G = bce(fake, ones)",
        best="log[0.9 p / (0.1 p + q)]: bounded above, so D cannot become endlessly sure of real images",
        values=(
            Value("r = f", EVEN, "log(0.9 / 1.1)"),
            Value("L_D", ALPHA * _softplus(-EVEN) + (1 - ALPHA) * _softplus(EVEN) + _softplus(EVEN)),
            Value("L_G", _softplus(-EVEN)),
        ),
        marks=(
            Value("largest optimal logit", log(ALPHA / (1 - ALPHA)), "log 9"),
            Value("least L_D", -ALPHA * log(ALPHA) - (1 - ALPHA) * log(1 - ALPHA), "the entropy of 0.9"),
        ),
        slope=("-sigmoid(-f)", -1.0, 0.0),
        slope_note="as non_saturating.",
        rising="As for non_saturating, from a higher equilibrium.",
        use="where a cross-entropy D overwhelms G. Against the best D, G's gradient is exactly what it was.",
        wrong=(
            "0.9 is the target of real images, not one y_true = 0.9 for the whole batch in y_true log D(x) + "
            "(1 - y_true) log(1 - D(G(z))): that weights real by 0.9 and fake by 0.1, and its optimum log(9 p/q) "
            "is unbounded.",
            "Smoothing the fakes as well (two-sided) puts q into the numerator of D's optimum: where there are no data "
            "D is then flat, and bad samples have no reason to move.",
            "L_D cannot reach 0 any more, and the even answer is not a logit of 0.",
        ),
    ),
}

CONDITIONING_ENTRIES = {
    "auxiliary_classifier": Entry(
        title="ACGAN's second head: D also names the class",
        paper="Odena et al. 2017, arXiv 1610.09585",
        flags="--conditioning auxiliary_classifier --class-weight 1 --class-fake",
        words="D has two heads on its features: source (real or generated) and class. Both players want the class "
        "named rightly, D on real and generated images, G on its own. Written here on the non-saturating source "
        "loss; any other can stand in its place.",
        formulas=ACGAN_FORMULAS,
        code=ACGAN_CODE,
        best="source as its loss says; class: the posterior of the mixture, (p(x,y) + q(x,y)) / (p(x) + q(x)), or "
        "p(y|x) with --no-class-fake",
        values=EQUILIBRIUM,
        values_note="for classes that do not overlap: the class terms are 0. Where they do, p = q is no equilibrium",
        marks=(
            *IGNORANT,
            Value("least CE behind a softmax, 10 classes", SOFTMAX_FLOOR, "log(1 + 9/e)"),
        ),
        slope_note="softmax(c) - onehot(y'), on the class logits of a fake: it fades as D's head grows sure of y'.",
        rising="Read its two terms apart. Source: see non_saturating. Class: it rises as D's head sees the class asked "
        "for less often; falling far below that of real images is no success either.",
        use="where a class loss is wanted for its own sake, or to repeat ACGAN. Else projection, "
        "twin_classifier or discriminative_classifier, without its fault.",
        wrong=(
            "Its fault: G's class term is a KL divergence of q(y|x) plus H_q(Y|X), the entropy of the class given G's "
            "image. G lowers that by making only easy samples, far from the other classes. On two overlapping classes "
            "N(+-1, 1) with lam = 0.5 the game settles at N(+-1.29, 0.76^2): further apart, less varied. Class "
            "accuracy above that of real images is its symptom.",
            "cross_entropy takes logits. A softmax before it, as in the most copied ACGAN, keeps the class loss above "
            f"{SOFTMAX_FLOOR:.3f} for ten classes however right D is, and starves its gradient.",
            "The sign of the class term is the same for both players; only the source term is a contest.",
            "For a generated image the target is the class that was asked for. The prediction comes from D's "
            "head, never from G.",
        ),
    ),
    "projection": Entry(
        title="D scores image and label together",
        paper="Miyato and Koyama 2018, arXiv 1802.05637",
        flags="--conditioning projection",
        words="One logit: how real is this image as a member of this class? A linear score of D's features h, plus "
        "the inner product of h with a learned vector of the class. Then any adversarial loss, on this logit.",
        formulas=(
            "r = source(h_real) + dot(embedding(y), h_real)",
            "f = source(h_fake) + dot(embedding(y'), h_fake)",
        ),
        code="""\
real = source(h_real).flatten() + (embedding(y) * h_real).sum(1)
fake = source(h_fake).flatten() + (embedding(y_fake) * h_fake).sum(1)""",
        best="with a cross-entropy loss log[p(x,y) / q(x,y)]: at q = p both losses are those of the adversarial "
        "loss alone, for overlapping classes too",
        rising="As the adversarial loss says.",
        use="by default. No weight to tune, and at q = p nothing to gain for G by easier samples.",
        wrong=(
            "Nothing is added to either loss: no class cross-entropy, no lambda.",
            "The label beside a fake is the one asked for, not one that D predicts. ptarmigan gives fakes the "
            "labels of the real batch, so that a gap between label frequencies cannot betray them.",
            "Unlike in attention, nothing is divided by sqrt(F): Adam moves each weight by its rate whatever "
            "its gradient's size, and a class vector that counts sqrt(F) times less is learnt that much later.",
        ),
    ),
    "twin_classifier": Entry(
        title="TAC: a second classifier takes ACGAN's fault out of G's loss",
        paper="Gong et al. 2019, arXiv 1907.02690",
        flags="--conditioning twin_classifier --class-weight 1",
        words="Two classifiers on D's features: C learns the classes of real images, its twin T those of generated "
        "ones. G wants its class seen by C and not by T. Written here on the non-saturating source loss; any other "
        "can stand in its place.",
        formulas=(
            "L_D = E s(-r) + E s(f) + lam * E (CE(c(x), y) + CE(t(G(z, y')), y'))",
            "L_G = E s(-f) + lam * E (CE(c(G(z, y')), y') - CE(t(G(z, y')), y'))",
        ),
        code="""\
L_D = (F.softplus(-real).mean() + F.softplus(fake).mean()
       + lam * F.cross_entropy(c_real, y)
       + lam * F.cross_entropy(t_fake, y_fake))
L_G = (F.softplus(-fake).mean()
       + lam * F.cross_entropy(c_fake, y_fake)
       - lam * F.cross_entropy(t_fake, y_fake))""",
        best="source as its loss says; C = p(y|x), T = q(y|x). There G's class term is KL(q(y|x) | p(y|x)) and nothing "
        "else: ACGAN's entropy H_q(Y|X) is what T takes away",
        values=EQUILIBRIUM,
        values_note="of the source; G's class term is 0 and at rest, and D's is lam times twice the entropy of the "
        "class given the image, 0 for classes that do not overlap",
        marks=(
            Value("class term of a D that knows nothing, 10 classes", 2 * log(10), "2 log 10"),
            Value("class term of G against it", 0.0, "0"),
        ),
        slope_note="softmax(c) - onehot(y') on C's logits of a fake, onehot(y') - softmax(t) on T's.",
        rising="G's class term rises as T tells G's classes better than C does. Below 0, the two lag behind G.",
        use="for ACGAN's class loss without its fault: at q = p on overlapping classes nothing pulls G away.",
        wrong=(
            "C learns from real images alone and T from generated ones alone. A C that learned from fakes too "
            "would follow G half the way. So --no-class-fake, which is auxiliary_classifier's, has no place here.",
            "Both players do not share the sign: D minimises CE(T), G maximises it. G minimising it is ACGAN twice.",
            "It compares classes given the image. That the images themselves are right is for the source loss.",
        ),
    ),
    "discriminative_classifier": Entry(
        title="ADC: each class twice, once real and once generated",
        paper="Hou et al. 2022, arXiv 2107.10060",
        flags="--conditioning discriminative_classifier --class-weight 1",
        words="One classifier of 2K classes on D's features: y for a real image of class y, K + y for a generated one. "
        "G wants its image called the real one of the two. Written here on the non-saturating source loss; any other "
        "can stand in its place.",
        formulas=(
            "L_D = E s(-r) + E s(f) + lam * E (CE(b(x), y) + CE(b(G(z,y')), K+y'))",
            "L_G = E s(-f) + lam * E (CE(b(G(z, y')), y') - CE(b(G(z, y')), K+y'))",
        ),
        code="""\
L_D = (F.softplus(-real).mean() + F.softplus(fake).mean()
       + lam * F.cross_entropy(b_real, y)
       + lam * F.cross_entropy(b_fake, K + y_fake))
L_G = (F.softplus(-fake).mean()
       + lam * F.cross_entropy(b_fake, y_fake)
       - lam * F.cross_entropy(b_fake, K + y_fake))""",
        best="source as its loss says; class p(x,y) / (p(x) + q(x)) for y and q(x,y) / (p(x) + q(x)) for K + y. There "
        "G's class term is KL(q(x,y) | p(x,y)), images and classes together",
        values=EQUILIBRIUM,
        values_note="of the source; G's class term is 0 and at rest, and D's is lam times 2 log 2 plus twice the "
        "entropy of the class given the image",
        marks=(
            Value("class term of a D that knows nothing, 10 classes", 2 * log(20), "2 log 20"),
            Value("class term of D at p = q, classes apart", 2 * log(2), "2 log 2"),
            Value("class term of G against either", 0.0, "0"),
        ),
        slope_note="-1 on the logit of y' and 1 on that of K + y', on every fake: the softmax's sums cancel.",
        rising="G's class term rises as D tells real from generated within a class. It has no floor.",
        use="for a class loss that also tells real from generated; at q = p nothing pulls G away.",
        wrong=(
            "For D a generated image has the label K + y', never y': y' is what G asks for.",
            "G needs both terms. CE(b, y') alone pushes a perfect G as ACGAN's term does.",
            "2K logits of one softmax, not two softmaxes of K: those are the twins of twin_classifier.",
        ),
    ),
    "reacgan": Entry(
        title="D2D-CE: each image near its class's proxy, far from other classes",
        paper="Kang et al. 2021, arXiv 2111.01118",
        flags="--conditioning reacgan --class-weight 0.5 --class-margin 0.98 --class-temperature 0.5",
        words="D embeds an image in a vector h of length 1. d(h, y) = log(e^a + sum_j e^b_j) - a: a = min(h.v_y - "
        "margin, 0) / tau draws it to v_y, the proxy of its class, b_j = max(h.h_j - 1 + margin, 0) / tau drives it "
        "from each image j of another class in the batch. D pays it on real images, G on its own. Margin 0.98, tau "
        "0.5 and lam 0.5 are the paper's for CIFAR-10; --class-weight is 1 unless it is given.",
        formulas=(
            "L_D = E s(-r) + E s(f) + lam * E d(e(x), y)",
            "L_G = E s(-f) + lam * E d(e(G(z, y')), y')",
        ),
        code="""\
a = ((e_real * v[y]).sum(1) - margin).clamp(max=0) / tau
b = (e_real @ e_real.T - 1 + margin).clamp(min=0) / tau
b = b.masked_fill(y[:, None] == y, -torch.inf)
d = torch.cat([a[:, None], b], 1).logsumexp(1) - a
L_D = (F.softplus(-real).mean() + F.softplus(fake).mean()
       + lam * d.mean())  # L_G: the same d, of G's images and y_fake""",
        best="no closed form: embeddings within the margins, where d is flat",
        marks=(
            Value("least d, 28 images of other classes in the batch", log(29), "log 29"),
            Value("d in a batch of one class", 0.0, "0"),
        ),
        slope_note="0 within the margins: an image that is near enough to its proxy is not made easier still.",
        rising="Read it against its floor log(1 + n), n images of other classes: another batch size is another floor.",
        use="with many classes, where its paper saw a plain classifier's gradients explode early. It needs the whole "
        "batch in memory.",
        wrong=(
            "Take the logarithm by logsumexp. A well-known implementation subtracts the maximum from the negatives "
            "alone, not from a, and does not put it back: another loss.",
            "The sum leaves out images of the same class, not only the image itself.",
            "The contrast is over the global batch. Ranks exchange embeddings for it; --micro-batch is refused.",
            "Its margins soften ACGAN's fault. Unlike twin_classifier and discriminative_classifier, it has no proof "
            "that G rests at q = p.",
        ),
    ),
}

PENALTY_ENTRIES = {
    "r1": Entry(
        title="D's squared slope at real images",
        paper="Mescheder et al. 2018, arXiv 1801.04406, eq. 9",
        flags="--r1 0.2",
        words="Added to D's loss; G's is left alone. D pays for every slope at real images, so that "
        "it lies still there once q = p, and the game comes to rest instead of circling.",
        formulas=("R1 = gamma/2 * E |grad_x D(x)|^2",),
        code="""\
(slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
R1 = gamma / 2 * slope.square().sum(dim=(1, 2, 3)).mean()""",
        marks=(
            Value("R1 of a flat D", 0.0, "0"),
            Value("R1 of a linear D of slope 1, gamma 0.2", 0.1, "0.2 / 2"),
        ),
        use="with every loss but wasserstein. Best gamma: search. 0.2 beat 0.05 on small networks at 32x32, "
        "batch 64; StyleGAN2-ADA starts from 2e-4 * pixels / batch.",
        wrong=(
            "The gradient is with respect to the image, not to D's weights, and of the logit, not of its sigmoid.",
            "Squares are summed over the pixels of an image, then averaged over images. A mean over pixels makes "
            "it thousands of times weaker. gamma counts half: gamma/2.",
            "Batch norm in D is refused beside it: samples that share statistics have no gradient of "
            "their own, and R1 of a linear D behind batch norm is 0.",
            "Take it before augmentation.",
        ),
    ),
    "r2": Entry(
        title="D's squared slope at generated images",
        paper="Mescheder et al. 2018, arXiv 1801.04406; with R1: Huang et al. 2024, arXiv 2501.05441",
        flags="--r2 0.2",
        words="R1's twin on fakes: added to D's loss, and no part of G's.",
        formulas=("R2 = gamma/2 * E |grad_x D(G(z, y))|^2",),
        code="""\
(slope,) = torch.autograd.grad(fake.sum(), x_fake, create_graph=True)
R2 = gamma / 2 * slope.square().sum(dim=(1, 2, 3)).mean()""",
        marks=(
            Value("R2 of a flat D", 0.0, "0"),
            Value("R2 of a linear D of slope 1, gamma 0.2", 0.1, "0.2 / 2"),
        ),
        use="with R1, at the same gamma, under the relativistic loss: early on real and fake are far "
        "apart, and R1 alone leaves D free to be steep where the fakes are.",
        wrong=(
            "The images are detached from G and then require grad themselves: R2 trains D, not G.",
            "All that is said of R1 holds: image gradient, sum over pixels, no batch norm in D.",
        ),
    ),
    "gradient_penalty": Entry(
        title="D's slope held at 1 between real and fake (WGAN-GP)",
        paper="Gulrajani et al. 2017, arXiv 1704.00028, eq. 3",
        flags="--loss wasserstein --gradient-penalty 10 --r1 0 --r2 0",
        words="Added to D's loss; G's is left alone. m is a random point between a real image and a fake.",
        formulas=("GP = weight * E (|grad_m D(m)| - 1)^2",),
        code="""\
m = (u * x + (1 - u) * x_fake).detach().requires_grad_()
(slope,) = torch.autograd.grad(D(m).sum(), m, create_graph=True)
GP = weight * (slope.flatten(1).norm(dim=1) - 1).square().mean()""",
        marks=(
            Value("GP of a flat D, weight 10", 10.0, "10"),
            Value("GP of a linear D of slope 1", 0.0, "0"),
        ),
        use="with the Wasserstein loss, weight 10, to keep D near 1-Lipschitz.",
        wrong=(
            "It is two-sided: slopes below 1 cost as well, so D does not flatten when q = p, and the game need "
            "not come to rest. R1 does that.",
            "One u for each pair of images, not one for each pixel or for the batch.",
            "The norm is taken over the whole image before 1 is subtracted. Batch norm in D is refused.",
        ),
    ),
}

AUGMENTATION_ENTRIES = {
    "ada": Entry(
        title="what D sees of few images, changed as often as D overfits",
        paper="Karras et al. 2020, arXiv 2006.06676; DiffAugment: Zhao et al. 2020, arXiv 2006.10738",
        flags="--augment ada",
        words="No loss. Every image on its way to D, real or fake, in D's update and in G's, has brightness, contrast, "
        "saturation, hue, place and a cut-out box changed, each with probability p. r_t says how much D overfits, "
        "and p follows it every 4 batches. --augment diffaugment changes every image, without hue; --augment gentle "
        "makes each change to half of them, within .3 of its ranges, without cutting out.",
        formulas=("r_t = E sign(r)",),
        code="r_t = torch.sign(real).mean()  # over 4 batches\n"
        "p = (p + torch.sign(r_t - 0.6) * 4 * batch / 500e3).clamp(0, 0.8)",
        marks=(
            Value("r_t where D cannot tell", 0.0, "0"),
            Value("logit that takes 0's place in r_t, least_squares", 0.5, "1/2"),
            Value("logit that takes 0's place in r_t, smoothing 0.9", EVEN, "log(9/11)"),
            Value("images in which p can go from 0 to 0.8, in thousands", 400.0, "0.8 * 500"),
        ),
        rising="p rises while r_t, augment_r in the log, is above 0.6. At rest r_t is 0.6 in a healthy run; p at 0.8 "
        "with r_t above says that there are too few images.",
        use="with few images and a long budget: p needs time to rise, and 60,000 images seen of 1,000 left the "
        "distance as it was (30 for 29), with less copying. diffaugment, which acts from the first step, tripled it; "
        "gentle, which auto takes on a CPU, brought it from 7.1 to 4.8 after some 210,000.",
        wrong=(
            "Augmenting real images alone teaches G the augmentation.",
            "relativistic and wasserstein take sign(r - f): their logits mean nothing by themselves.",
            "p = 1 would leak: if every hue is turned, no hue is wrong. Up to 0.8 each of the transforms can be undone "
            "as a map of distributions, so D sees the same images only if G makes the same.",
            "No mirror images: they are for the data to allow, by --flip.",
        ),
    ),
}

RECIPE_ENTRIES = {
    "dcgan": Entry(
        title="the recipe of DCGAN, unconditional",
        paper="Radford et al. 2016, arXiv 1511.06434; losses: " + GOODFELLOW,
        flags="--recipe dcgan",
        words="D: cross-entropy, real against generated. G: cross-entropy of D's answer on the fakes against 'real' "
        "(non-saturating). No class label enters. For the other reading of the text, --recipe dcgan --loss minimax.",
        formulas=(CROSS_ENTROPY_D, "L_G = E s(-f)"),
        code="L_D = bce(real, ones) + bce(fake, zeros)\nL_G = bce(fake, ones)",
        best="log(p/q), the logit of p/(p+q)",
        values=EQUILIBRIUM,
        values_note="averaging D's over the 2m images of both halves gives log 2: say which",
        slope=("-sigmoid(-f)", -1.0, 0.0),
        slope_note="strongest where D is sure of a fake.",
        rising=NON_SATURATING_RISING,
        use="to repeat the paper, or as a rival. For results take auto.",
        wrong=(
            "DCGAN is an architecture with a recipe. Its losses are those of 2014.",
            "Adam's beta1 is 0.5, images are scaled to [-1, 1] and not normalised otherwise, and z is uniform.",
        ),
    ),
    "acgan": Entry(
        title="the recipe of ACGAN",
        paper="Odena et al. 2017, arXiv 1610.09585",
        flags="--recipe acgan",
        words="DCGAN's losses plus a class cross-entropy, with the same sign for both players, lam = 1. The paper has "
        "G maximise L_C - L_S, whose source part is minimax: --recipe acgan --loss minimax is the letter.",
        formulas=ACGAN_FORMULAS,
        code=ACGAN_CODE,
        best="source log(p/q), class the posterior of the mixture of p and q",
        values=EQUILIBRIUM,
        values_note="for classes that do not overlap: the class terms are 0",
        marks=IGNORANT,
        slope=("-sigmoid(-f)", -1.0, 0.0),
        slope_note="of the source term.",
        rising="Read source and class apart: see auxiliary_classifier.",
        use="to repeat the paper, or as a rival. For results take auto.",
        wrong=(
            "A 1/2 before the adversarial part doubles lam's relative weight. There is none here.",
            "G makes its samples too easy: see `ptarmigan losses auxiliary_classifier`.",
        ),
    ),
    "auto": Entry(
        title="the default recipe",
        paper=f"losses: {GOODFELLOW}; R1 and R2: Huang et al. 2024, arXiv 2501.05441; projection: Miyato and Koyama "
        "2018, arXiv 1802.05637",
        flags="--recipe auto",
        words="The non-saturating loss on projection's logits, R1 and R2, no norm in D, learning rate annealed to 0. "
        "A long budget has both penalties at 0.1, few images seen often at 0.4: `ptarmigan train` says what it takes, "
        "and why.",
        formulas=(f"{CROSS_ENTROPY_D} + R1 + R2", "L_G = E s(-f)"),
        code="L_D = F.softplus(-real).mean() + F.softplus(fake).mean() + R1 + R2\n" + NON_SATURATING_CODE,
        best="less steep than log(p_y/q_y), for the penalties; flat at p = q, where R1 = R2 = 0",
        values=EQUILIBRIUM,
        slope=("-sigmoid(-f)", -1.0, 0.0),
        slope_note="strongest where D is sure of a fake.",
        rising=NON_SATURATING_RISING,
        use="first. Let its budget end: much of the quality comes as the learning rate falls to 0.",
        wrong=("Without R1 and R2 the same losses end 25 times as far from the data (studies/search.md).",),
    ),
}

ENTRIES: dict[str, Entry] = (
    LOSS_ENTRIES | CONDITIONING_ENTRIES | PENALTY_ENTRIES | AUGMENTATION_ENTRIES | RECIPE_ENTRIES
)

QUESTIONS = (
    Entry(
        title="1. What exactly is DCGAN's discriminator loss?",
        words="Binary cross-entropy on logits: the source target is 1 for a real image, 0 for a generated one.",
        formulas=(CROSS_ENTROPY_D,),
        code=CROSS_ENTROPY_CODE + "\nL_D = bce(real, ones) + bce(fake, zeros)",
        values=(Value("L_D", 2 * log(2), "2 log 2"), Value("averaged over the 2m images", log(2), "log 2")),
        wrong=(
            "Often printed as -(1/m) sum[y_true log D(x) + (1 - y_true) log(1 - D(G(z)))] with y_true = 1 for the "
            "batch: its second term is then zero. Each image has its own source target; no vector serves both halves.",
            "y_true = 0.9 in that formula weights real by 0.9 and fake by 0.1. It is not label smoothing.",
        ),
    ),
    Entry(
        title="2. What exactly is DCGAN's generator loss?",
        words="Two losses hide in the usual text. 'As real as possible' is non-saturating, the cross-entropy of D's "
        "answer on the fake against 'real': what everyone trains with. 'The negative of D's loss' is minimax.",
        formulas=("L_G = E s(-f)", "L_G = -E s(f)"),
        code=NON_SATURATING_CODE + "  # non-saturating\n"
        "L_G = bce(fake, ones)  # the same\n"
        "L_G = -F.softplus(fake).mean()  # minimax: slope 0 for a sure fake",
        values=(Value("non-saturating L_G", log(2), "log 2"), Value("minimax L_G", -log(2), "-log 2")),
        rising="A rising L_G says that D beats G by more than before, not that the images got worse: D moves too, and "
        "1 to 3 is common in good runs. Minimax rises to 0 as G loses its gradient.",
        wrong=(
            "The two are often called one loss. They share an equilibrium, not a gradient: where D is sure of a fake "
            "the slope is -1 for the first, 0 for minimax.",
            "Nothing is compared with a real image, and no class label enters.",
        ),
    ),
    Entry(
        title="3. What exactly is ACGAN's generator loss? And its discriminator's?",
        words="The source losses above plus lam (1) times the cross-entropy of D's class head, with the same sign "
        "for both players.",
        formulas=ACGAN_FORMULAS,
        code=ACGAN_CODE,
        values=EQUILIBRIUM,
        values_note="for classes that do not overlap: the class terms are 0",
        marks=IGNORANT,
        rising="Read source and class apart. The class term rises as D's head sees the class asked for less often.",
        wrong=(
            "Often printed with D's source loss for G. Minimising that would help D, and its first term has no "
            "gradient for G.",
            "The predicted class comes from D's head, never from G; the target of a generated image is the class "
            "that was asked for. A 1/2 before the source loss doubles lam.",
            f"cross_entropy takes logits. Behind a softmax it stays above {SOFTMAX_FLOOR:.3f} for ten classes.",
            "The class term also rewards easy samples: see `ptarmigan losses auxiliary_classifier`.",
        ),
    ),
)


def explain(name: str | None = None, *, plot: str | Path | None = None, page: str | Path | None = None) -> str:
    """What a loss, conditioning, penalty or recipe is, in words, formulas and PyTorch; None: DCGAN's and ACGAN's.

    Returns plain ASCII text of at most 80 columns; or draws it into `plot`, X.svg or X.png, or writes all there is
    into `page`, X.html, and returns the paths.  Raises UserError, with the names there are, for another name, and for
    a file that exists: nothing is overwritten.
    """
    if plot or page:
        return _written(name, plot, page)
    notation = textwrap.fill(NOTATION, WIDTH)
    if name is None:
        code = "\n".join(question.code for question in QUESTIONS)
        pages = [notation]
        pages += [f"{question.title}\n\n{_render(question)}" for question in QUESTIONS]
        pages += [_variables(code), _names()]
    elif name in ENTRIES:
        entry = ENTRIES[name]
        pages = [f"{name}: {entry.title}\n" + textwrap.fill(entry.paper, WIDTH)]
        pages += [_render(entry, _meaning(name)), notation, _variables(entry.code)]
    else:
        raise unknown("loss", name, ENTRIES)
    return "\n\n".join(pages)


def _written(name: str | None, plot: str | Path | None, page: str | Path | None) -> str:
    """The paths of what was asked for, a line each."""
    from ptarmigan.handbook import figures as plotting
    from ptarmigan.handbook import page as pages  # they take torch, which the text does without

    if page and name:
        raise UserError(f"page: it holds every loss, so {name!r} has no place beside it: leave one of them out")
    written = [plotting.plot(name, plot)] if plot else []
    if page:
        code = {f"question{i}": question.code for i, question in enumerate(QUESTIONS, 1)}
        written += [pages.write(page, {name: entry.formulas for name, entry in ENTRIES.items()}, code)]
    return "\n".join(map(str, written))


def _render(entry: Entry, meaning: str = "") -> str:
    """The fields of an entry, each beside its label; empty ones are left out."""
    slope = ""
    if entry.slope:
        formula, low, high = entry.slope
        slope = f"dL_G/df = {formula}: {low:g} at f = -inf, {high:g} at f = +inf; "
    sections = {
        "in words": _wrap(entry.words),
        "formula": list(entry.formulas),
        "PyTorch": entry.code.splitlines(),
        "best D": _wrap(entry.best),
        "at p = q": [_number(value) for value in entry.values] + _wrap(entry.values_note),
        "numbers": [_number(value) for value in entry.marks],
        "slope": _wrap(slope + entry.slope_note),
        "rising": _wrap(entry.rising),
        "use it": _wrap(entry.use),
        "beware": [line for text in entry.wrong for line in _wrap(text, bullet="- ")],
        "flags": _wrap(entry.flags) + _wrap(meaning),
    }
    return "\n".join(_beside(label, lines) for label, lines in sections.items() if lines)


def _number(value: Value) -> str:
    shown = f"{value.value:.4g}"
    return f"{value.what} = {shown}" + (f" ({value.exact})" if value.exact not in ("", shown) else "")


def _wrap(text: str, bullet: str = "") -> list[str]:
    """Lines that fit beside a label."""
    indent = " " * len(bullet)
    return textwrap.wrap(text, WIDTH - INDENT, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)


def _beside(label: str, lines: list[str]) -> str:
    """Lines indented by the margin, with the label in it."""
    margins = [label.ljust(INDENT), *[" " * INDENT] * (len(lines) - 1)]
    return "\n".join(margin + line for margin, line in zip(margins, lines, strict=True))


def _variables(code: str) -> str:
    """The names that the code takes as given, with their meaning."""
    names = set(re.findall(r"\w+", code)) - set(re.findall(r"^(\w+) =", code, re.MULTILINE))
    return "\n".join(_beside(name, _wrap(text)) for name, text in VARIABLES.items() if name in names)


def _names() -> str:
    groups = {
        "losses": LOSS_ENTRIES,
        "class": CONDITIONING_ENTRIES,
        "penalties": PENALTY_ENTRIES,
        "images": AUGMENTATION_ENTRIES,
        "recipes": RECIPE_ENTRIES,
    }
    lines = [_beside(label, _wrap(", ".join(entries))) for label, entries in groups.items()]
    own = "A loss of your own is a file, `ptarmigan train --loss FILE.py`: README.md says what it holds."
    return "\n".join([textwrap.fill(own, WIDTH), "Ask for one with `ptarmigan losses NAME`:", *lines])


def _meaning(name: str) -> str:
    """The loss flags that a recipe stands for, from the recipe itself."""
    if name not in RECIPES:
        return ""
    flat = resolve({"recipe": name}).flat()
    keys = ["loss", "conditioning", "r1", "r2"]
    keys += ["class_weight"] if flat["conditioning"] == "auxiliary_classifier" else []
    values = [f"{flat[key]:g}" if isinstance(flat[key], float) else str(flat[key]) for key in keys]
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in zip(keys, values, strict=True))
    return (
        f"stands for {flags}, with that recipe's networks and optimizers" if name != "auto" else f"stands for {flags}"
    )
