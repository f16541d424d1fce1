"""`ptarmigan losses`: each printed formula, line of code and number is compared with the functions that train."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan import losses
from ptarmigan.config import Config, Loss, Train, resolve
from ptarmigan.config.recipes import RECIPES
from ptarmigan.config.sections import LOSSES, TYPES
from ptarmigan.core.types import DiscriminatorOutput, UserError
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.features import EXTRACTORS
from ptarmigan.evaluation.features.inception import DIM
from ptarmigan.game.augment import INTERVAL, adapt
from ptarmigan.game.optim import ema_decay, update_ema
from ptarmigan.handbook.entries import ENTRIES, INDENT, Entry, Value, explain, read_handbook
from ptarmigan.losses import penalties
from ptarmigan.losses.adversarial import objective
from ptarmigan.losses.conditioning import (
    HEADS,
    Projection,
    classification_d,
    classification_g,
    d2d_ce,
    discriminative_d,
    discriminative_g,
    twin_g,
)
from test_metrics import frechet_bias

N, K, FEATURES = 6, 5, 7
OTHERS = (
    "smoothing", "auxiliary_classifier", "projection", "twin_classifier", "discriminative_classifier", "reacgan",
    "r1", "r2", "gradient_penalty", "ada", "dcgan", "acgan", "auto", "ema", "kid", "fid",
)  # fmt: skip
BASE = {"dcgan": "non_saturating", "acgan": "non_saturating", "auxiliary_classifier": "non_saturating"}
BASE |= dict.fromkeys(("twin_classifier", "discriminative_classifier", "reacgan"), "non_saturating")
BASE |= {"auto": "non_saturating", "smoothing": "non_saturating"}  # the objective that each of these stands on
PROBLEMS = read_handbook("en").problems
QUESTIONS = tuple(read_handbook("en").groups["questions"].values())
VARIABLES = read_handbook("en").texts["variables"]


def english(name: str | None = None) -> str:
    return explain(name, lang="en")


def given() -> dict[str, Any]:
    """A value in float64 for each name of VARIABLES; y_fake differs from y everywhere."""
    draw = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    x, x_fake, w = normal(N, 2, 3, 4).requires_grad_(), normal(N, 2, 3, 4).requires_grad_(), normal(24, 5)

    def D(images: Tensor) -> Tensor:  # noqa: N802
        return (images.flatten(1) @ w).tanh().sum(1)

    y = torch.arange(N) % K
    head = Projection(FEATURES, K).double()
    real, fake = D(x), D(x_fake)
    return {
        "real": real, "fake": fake, "D": D, "x": x, "x_fake": x_fake,
        "bce": F.binary_cross_entropy_with_logits, "ones": torch.ones_like(real), "zeros": torch.zeros_like(fake),
        "c_real": normal(N, K), "c_fake": normal(N, K), "y": y, "y_fake": (y + 2) % K, "lam": 0.7,
        "t_fake": normal(N, K), "b_real": normal(N, 2 * K), "b_fake": normal(N, 2 * K), "K": K,
        "e_real": F.normalize(normal(N, 3)), "e_fake": F.normalize(normal(N, 3)), "v": F.normalize(normal(K, 3)),
        "margin": 0.3, "tau": 0.4,
        "h_real": normal(N, FEATURES), "h_fake": normal(N, FEATURES),
        "source": head.source, "embedding": head.embedding,
        "u": torch.rand(N, 1, 1, 1, generator=draw, dtype=torch.float64), "gamma": 0.3, "weight": 9.0,
        "p": torch.tensor(0.3, dtype=torch.float64), "batch": 64,
        "half_life": 4e3, "average": normal(3, 4), "w": normal(3, 4), "A": normal(11, 4), "B": normal(9, 4) + 0.5,
        "R1": 0.15 * penalties.squared_gradient_norm(real, x).mean(),
        "R2": 0.15 * penalties.squared_gradient_norm(fake, x_fake).mean(), "head": head,
    }  # fmt: skip


def expected(name: str, n: dict[str, Any]) -> dict[str, Tensor]:
    """What the functions that train compute from the same values, by the name of the result in the text."""
    if name == "projection":
        r, f = n["head"](n["h_real"], n["y"]).logits, n["head"](n["h_fake"], n["y_fake"]).logits
        return {"real": r, "fake": f, "r": r, "f": f}
    if name in ("r1", "r2"):
        return {name.upper(): n[name.upper()]}
    if name == "ada":
        r_t = losses.OBJECTIVES["non_saturating"].signs(real=n["real"], fake=n["fake"]).mean()
        return {"r_t": r_t, "p": adapt(n["p"], r_t, n["batch"])}
    if name == "ema":
        beta, (average, live) = ema_decay(10**9, n["batch"], n["half_life"]), (nn.Linear(4, 3).double() for _ in "ab")
        average.weight.data, live.weight.data = n["average"].clone(), n["w"]
        update_ema(average, live, beta)
        return {"beta": torch.tensor(beta, dtype=torch.float64), "average": average.weight.data}
    if name == "kid":
        return {"KID": torch.tensor(metrics.kid(n["A"], n["B"]), dtype=torch.float64)}
    if name == "fid":
        found = metrics.frechet(*(metrics.gaussian(n[key]) for key in "AB"))
        return {"FID": torch.tensor(found, dtype=torch.float64)}
    if name == "gradient_penalty":
        m = penalties.between(n["x"], n["x_fake"], n["u"])
        return {"GP": n["weight"] * penalties.one_centred(n["D"](m), m).mean()}
    found = objective(Loss(loss=BASE.get(name, name), smoothing=0.9 if name == "smoothing" else 1.0))
    d = found.d(real=n["real"], fake=n["fake"]).mean()
    g = found.g(**({"real": n["real"]} if found.relativistic else {}), fake=n["fake"]).mean()
    if name in ("acgan", "auxiliary_classifier"):
        d = (
            d
            + n["lam"] * classification_d(n["c_real"], n["c_fake"], real_labels=n["y"], fake_labels=n["y_fake"]).mean()
        )
        g = g + n["lam"] * classification_g(n["c_fake"], fake_labels=n["y_fake"]).mean()
    if name in HEADS and name != "auxiliary_classifier":
        real, fake = (
            DiscriminatorOutput(n["h_real"], n["real"], **halves)
            for halves in {
                "twin_classifier": (
                    {"class_logits": n["c_real"]},
                    {"class_logits": n["c_fake"], "twin_logits": n["t_fake"]},
                ),
                "discriminative_classifier": ({"class_logits": n["b_real"]}, {"class_logits": n["b_fake"]}),
                "reacgan": (
                    {"embedding": n["e_real"], "proxy": n["v"][n["y"]]},
                    {"embedding": n["e_fake"], "proxy": n["v"][n["y_fake"]]},
                ),
            }[name]
        )
        loss = Loss(class_margin=n["margin"], class_temperature=n["tau"])
        d_term = HEADS[name].d_term(real, fake, real_labels=n["y"], fake_labels=n["y_fake"], loss=loss)
        g_term = HEADS[name].g_term(fake, fake_labels=n["y_fake"], loss=loss)
        assert d_term is not None
        assert g_term is not None
        d, g = d + n["lam"] * d_term.mean(), g + n["lam"] * g_term.mean()
    return {"L_D": d + n["R1"] + n["R2"] if name == "auto" else d, "L_G": g}


def printed(text: str, label: str) -> str:
    """The lines beside a label, without the margin."""
    match = re.search(rf"^{re.escape(label.ljust(INDENT))}(.*(?:\n {{{INDENT}}}.*)*)", text, re.MULTILINE)
    assert match, f"no {label!r} in {text}"
    return "\n".join([match[1].split("\n")[0], *(line[INDENT:] for line in match[1].split("\n")[1:])])


def run(code: str, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each assignment's name and value, in order; only the names in VARIABLES are defined."""
    scope = {key: names[key] for key in VARIABLES} | {"F": F, "torch": torch}
    for statement in ast.parse(code).body:
        assert isinstance(statement, ast.Assign)
        exec(compile(ast.Module([statement], []), "<printed>", "exec"), scope)
        if isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, scope[statement.targets[0].id]


class Mean:
    """`E ** t` has the precedence that E has on paper."""

    def __pow__(self, t: Tensor) -> Tensor:
        return t.mean()


def d2d(n: dict[str, Any], h: Tensor, y: Tensor) -> Tensor:
    """d as the entry reacgan describes it, one image at a time."""
    out = []
    for i in range(N):
        a = (h[i] @ n["v"][y[i]] - n["margin"]).clamp(max=0) / n["tau"]
        b = [(h[i] @ h[j] - 1 + n["margin"]).clamp(min=0) / n["tau"] for j in range(N) if y[j] != y[i]]
        out.append(torch.log(a.exp() + sum(b_j.exp() for b_j in b)) - a)
    return torch.stack(out)


def similarity(u: Tensor, v: Tensor | None) -> Tensor:
    """k of each feature of u with each of v; without v, with each other one of u."""
    each = (u @ (u if v is None else v).T / u.shape[1] + 1) ** 3
    return each if v is not None else each[~torch.eye(len(u), dtype=torch.bool)]


def matrix_root(square: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(square)
    return (vectors @ torch.diag(values.sqrt()) @ vectors.inverse()).real


def textbook_value(formula: str, n: dict[str, Any]) -> tuple[str, Tensor]:
    """The name and value of a formula as papers print it: D(x) is a probability, and P that of D's class head."""
    left, right = formula.split(" = ", 1)
    for printed_as, python in (
        ("P(y | x)", "c_real"), ("P(y' | G(z, y'))", "c_fake"), ("D(G(z, y'))", "fake"), ("D(G(z))", "fake"),
        ("D(x)", "real"),
    ):  # fmt: skip
        right = right.replace(printed_as, python)
    right = re.sub(r"\bE ", "E ** ", re.sub(r"\blog (\w+)", r"log(\1)", right))
    probabilities = {
        "real": n["real"].sigmoid(), "fake": n["fake"].sigmoid(),
        "c_real": n["c_real"].softmax(1).gather(1, n["y"][:, None]).squeeze(1),
        "c_fake": n["c_fake"].softmax(1).gather(1, n["y_fake"][:, None]).squeeze(1),
    }  # fmt: skip
    return left, eval(right, {"E": Mean(), "log": torch.log, "lam": n["lam"], **probabilities})


def formula_value(formula: str, n: dict[str, Any]) -> tuple[str, Tensor]:
    """A printed formula's name and value: only the notation is replaced by Python."""

    def gradient_norm(images: Tensor) -> Tensor:
        return torch.autograd.grad(n["D"](images).sum(), images, create_graph=True)[0].flatten(1).norm(dim=1)

    left, right = formula.split(" = ", 1)
    right = right.replace("|m_a - m_b|^2", "(m_a - m_b).square().sum()").replace("S_a S_b", "S_a @ S_b")
    right = right.replace("k(a, a')", "k(A, None)").replace("k(b, b')", "k(B, None)").replace("k(a, b)", "k(A, B)")
    right = re.sub(r"\|grad_\w D\((\w+|G\(z, y\))\)\|", r"gradient_norm(\1)", right)
    right = re.sub(r"\bE ", "E ** ", right.replace("y'", "y_fake").replace("^", "**"))
    scope = n | {
        "E": Mean(), "r": n["real"], "f": n["fake"], "s": losses.softplus, "max": lambda low, t: t.clamp_min(low),
        "G": lambda z, y: n["x_fake"], "z": None, "c": lambda images: n["c_real"] if images is n["x"] else n["c_fake"],
        "t": lambda images: n["t_fake"], "b": lambda images: n["b_real"] if images is n["x"] else n["b_fake"],
        "e": lambda images: n["e_real"] if images is n["x"] else n["e_fake"], "d": lambda h, y: d2d(n, h, y),
        "CE": lambda c, y: F.cross_entropy(c, y, reduction="none"), "gradient_norm": gradient_norm,
        "source": lambda h: n["source"](h).squeeze(1), "dot": lambda a, b: (a * b).sum(1), "sign": torch.sign,
        "k": similarity, "Tr": torch.trace, "sqrt": matrix_root,
        "m_a": n["A"].mean(0), "m_b": n["B"].mean(0), "S_a": n["A"].T.cov(), "S_b": n["B"].T.cov(),
        "beta": ema_decay(10**9, n["batch"], n["half_life"]),
        "m": penalties.between(n["x"], n["x_fake"], n["u"]),
    }  # fmt: skip
    return left, eval(right, scope)


@pytest.mark.parametrize("name", ENTRIES)
def test_printed_code_and_formulas_are_the_shipped_functions(name: str) -> None:
    n = given()
    want = expected(name, n)
    code = dict(run(printed(english(name), "PyTorch"), n))
    formulas = dict(formula_value(line, n) for line in printed(english(name), "formula").split("\n"))
    for found in (code, formulas):
        assert found.keys() & want.keys()
        for key in found.keys() & want.keys():
            value = torch.as_tensor(found[key], dtype=torch.float64)
            torch.testing.assert_close(value, want[key], rtol=1e-8, atol=1e-12)
    assert code.keys() | formulas.keys() >= want.keys()  # both players, where there are two


def test_the_answers_are_the_shipped_functions() -> None:
    n = given()
    ns, minimax, acgan = (expected(name, n) for name in ("dcgan", "minimax", "acgan"))
    one, two, three = (english().split(question.title)[1].split("\n\n")[1] for question in QUESTIONS)
    codes = [ns["L_D"], ns["L_D"], ns["L_G"], ns["L_G"], minimax["L_G"], acgan["L_D"], acgan["L_G"]]
    found = [item for page in (one, two, three) for item in run(printed(page, "PyTorch"), n)]
    assert [key for key, _ in found] == ["L_D", "L_D", "L_G", "L_G", "L_G", "L_D", "L_G"]
    for (_, value), want in zip(found, codes, strict=True):
        torch.testing.assert_close(value, want, rtol=1e-8, atol=1e-12)
    formulas = [formula_value(line, n) for page in (one, two, three) for line in printed(page, "formula").split("\n")]
    textbook = [
        textbook_value(line, n)
        for page in (one, two, three)
        for line in re.sub(r"\n {2,}", " ", printed(page, "textbook")).split("\n")
    ]
    for found in (formulas, textbook):
        assert [key for key, _ in found] == ["L_D", "L_G", "L_G", "L_D", "L_G"]
        for (_, value), want in zip(found, [codes[i] for i in (0, 2, 4, 5, 6)], strict=True):
            torch.testing.assert_close(value, want, rtol=1e-8, atol=1e-12)
    for page in (one, two, three):
        assert page.index("in words") < page.index("textbook") < page.index("formula")


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.slope])
def test_slope_is_the_gradient_of_the_generators_loss(name: str) -> None:
    formula, *limits = ENTRIES[name].slope or ()
    found = losses.OBJECTIVES[BASE.get(name, name)]
    f = torch.tensor([-1e9, 1e9, -1.3, 0.4], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([0.2, -0.5, 0.6, 1.1], dtype=torch.float64)
    loss = found.g(real=r, fake=f) if found.relativistic else found.g(fake=f)
    (gradient,) = torch.autograd.grad(loss.sum(), f)
    stated = eval(formula, {"sigmoid": torch.sigmoid, "f": f.detach(), "r": r})
    torch.testing.assert_close(gradient, stated * torch.ones_like(f), rtol=1e-12, atol=0)
    for found, limit in zip(gradient[:2].tolist(), limits, strict=True):
        assert found == pytest.approx(limit) or (math.isinf(limit) and found * limit > 0 and abs(found) > 1e8)
    low, high = (f"{limit:g}" for limit in limits)
    prose = " ".join(printed(english(name), "slope").split())
    assert prose.startswith(f"dL_G/df = {formula}: {low} at f = -inf, {high} at f = +inf")


EVEN = {"smoothing": math.log(0.9 / 1.1), "least_squares": 0.5}  # D's best logit at p = q; 0 for the others


def at_equilibrium(name: str) -> dict[str, float]:
    found = objective(Loss(loss=BASE.get(name, name), smoothing=0.9 if name == "smoothing" else 1.0))
    t = torch.tensor([EVEN.get(name, 0.0)], dtype=torch.float64, requires_grad=True)
    d = found.d(real=t, fake=t)
    (slope,) = torch.autograd.grad(d.sum(), t)
    assert abs(slope.item()) < 1e-12, "not an optimum of D"
    return {
        "L_D": d.item(),
        "L_G": (found.g(real=t, fake=t) if found.relativistic else found.g(fake=t)).item(),
        "r = f": t.item(),
    }


def averaged_over_both_halves() -> float:
    targets = torch.cat([torch.ones(4), torch.zeros(4)]).double()
    return F.binary_cross_entropy_with_logits(torch.zeros(8).double(), targets).item()


def class_terms(logits: Tensor) -> tuple[float, float]:
    y = torch.tensor([4])
    d = classification_d(logits, logits, real_labels=y, fake_labels=y)
    return d.item(), classification_g(logits, fake_labels=y).item()


def penalty(slope: float, of: Callable[[Tensor, Tensor], Tensor]) -> float:
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.5, -0.5, 0.5, 0.5], dtype=torch.float64) * slope  # |w| = slope
    return of(x.flatten(1) @ w, x).item()


def marks() -> dict[str, float]:
    """The other numbers, each computed by the functions that it is about."""
    t = torch.tensor([math.log(9)], dtype=torch.float64, requires_grad=True)
    floor = losses.cross_entropy_d(t, torch.tensor([-1e3], dtype=torch.float64), smoothing=0.9)
    assert torch.autograd.grad(floor.sum(), t)[0].abs().item() < 1e-12  # where there are no fakes, the optimum
    ignorant, even = class_terms(torch.zeros(1, 10, dtype=torch.float64)), at_equilibrium("non_saturating")
    sure = (1e3 * F.one_hot(torch.tensor([4]), 10)).double()
    assert class_terms(sure) == (0, 0)
    smoothed = objective(Loss(loss="non_saturating", smoothing=0.9))
    assert smoothed.equilibrium_logit is not None
    assert losses.OBJECTIVES["least_squares"].equilibrium_logit is not None
    per_image = adapt(torch.zeros(()).double(), torch.ones(()).double(), 1).item() / INTERVAL
    t0 = torch.zeros(4)
    r1, gp = penalties.squared_gradient_norm, penalties.one_centred
    return class_marks() | {
        "largest optimal logit": t.item(),
        "smallest L_D": floor.item(),
        "L_D at zero logits, 10 classes": even["L_D"] + ignorant[0],
        "L_G at zero logits, 10 classes": even["L_G"] + ignorant[1],
        "smallest CE after a softmax, 10 classes": class_terms(sure.softmax(1))[1],
        "r_t where D cannot tell real from fake": losses.OBJECTIVES["relativistic"]
        .signs(real=t0, fake=t0)
        .mean()
        .item(),
        "neutral logit in r_t, least_squares": losses.OBJECTIVES["least_squares"].equilibrium_logit,
        "neutral logit in r_t, smoothing 0.9": smoothed.equilibrium_logit,
        "images while p rises from 0 to 0.8, in thousands": 0.8 / per_image / 1e3,
        "R1 of a constant D": 0.1 * penalty(0, r1),
        "R2 of a constant D": 0.1 * penalty(0, r1),
        "R1 of a linear D of slope 1, gamma 0.2": 0.1 * penalty(1, r1),
        "R2 of a linear D of slope 1, gamma 0.2": 0.1 * penalty(1, r1),
        "GP of a constant D, weight 10": 10 * penalty(0, gp),
        "GP of a linear D of slope 1": 10 * penalty(1, gp),
        "beta at batch 64, half-life 44,000": ema_decay(10**9, 64, 44e3),
        "fewest images on each side": fewest(lambda x: metrics.kid(x, x)),
        "fewest images on each side, 2,048 features": fewest(frechet_of) - 3 + DIM,
        "FID of 2 sets of 50,000 from N(0, I), 2,048 features": frechet_bias(DIM, 50_000),
    }


def fewest(score: Callable[[Tensor], float]) -> int:
    """The smallest number of samples of 3 features of which a score can be computed."""
    for n in range(1, 9):
        with suppress(UserError):
            score(torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)))
            return n
    raise AssertionError


def frechet_of(x: Tensor) -> float:
    return metrics.frechet(metrics.gaussian(x), metrics.gaussian(x))


def class_marks() -> dict[str, float]:
    zero, y = torch.zeros(1, 10, dtype=torch.float64), torch.tensor([4])
    apart = torch.full((1, 20), -1e3, dtype=torch.float64)
    apart[0, [4, 14]] = 0  # of class 4, real or generated alike
    labels = torch.arange(32) // 4  # 28 of other classes beside each
    proxies = torch.eye(8, dtype=torch.float64)[labels]
    fields = {"margin": 0.98, "temperature": 0.5}
    resting = discriminative_d(apart, apart, real_labels=y, fake_labels=y).item()
    floor = d2d_ce(proxies, proxies, labels, **fields).max().item()
    of_g = {twin_g(zero, zero, fake_labels=y).item()}
    of_g |= {discriminative_g(logits, fake_labels=y).item() for logits in (torch.cat([zero, zero], 1), apart)}
    assert of_g == {0}
    return {
        "G's class term at zero logits": 0, "G's class term in both cases": 0,
        "D's class term at zero logits, 10 classes": class_terms(zero)[0],
        "D's class term at p = q, disjoint classes": resting,
        "smallest d, 28 images of other classes in the batch": floor,
        "d in a batch of one class": d2d_ce(proxies, proxies.flip(0), 0 * labels, **fields).abs().max().item(),
    }  # fmt: skip


def check_numbers(text: str, label: str, values: tuple[Value, ...], truth: dict[str, float]) -> None:
    """Each value equals the computed one and its own exact form, and so does its printed form."""
    lines = printed(text, label).split("\n")
    for value, line in zip(values, lines, strict=False):
        assert value.value == pytest.approx(truth[value.what], rel=1e-12, abs=1e-12)
        shown = re.fullmatch(re.escape(value.what) + r" = (\S+)(?: \((.+)\))?", line)
        assert shown
        assert float(shown[1]) == pytest.approx(value.value, rel=5e-4)
        assert shown[2] in (value.exact, None)
        if value.exact and "entropy" not in value.exact:
            exact = re.sub(r"(\d) log", r"\1 * log", re.sub(r"\blog (\d+)", r"log(\1)", value.exact))
            assert eval(exact, {"log": math.log, "e": math.e}) == pytest.approx(value.value, rel=1e-12)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_number_is_what_the_losses_give(name: str) -> None:
    entry = ENTRIES[name]
    if entry.values:
        check_numbers(english(name), "at p = q", entry.values, at_equilibrium(name))
    if entry.marks:
        nothing = "D's class term at zero logits, 10 classes"
        twice = {nothing: class_terms(torch.zeros(1, 20).double())[0]} if name == "discriminative_classifier" else {}
        check_numbers(english(name), "numbers", entry.marks, marks() | twice)
    assert entry.values or entry.marks or name == "projection"


def test_the_numbers_of_the_answers() -> None:
    ns = at_equilibrium("non_saturating")
    truths = (
        {"L_D": ns["L_D"], "averaged over the 2m images": averaged_over_both_halves()},
        {"non-saturating L_G": ns["L_G"], "minimax L_G": at_equilibrium("minimax")["L_G"]},
        ns,
    )
    for question, truth in zip(QUESTIONS, truths, strict=True):
        page = english().split(question.title)[1]
        check_numbers(page, "at p = q", question.values, truth)
        if question.marks:
            check_numbers(page, "numbers", question.marks, marks())


def test_acgan_settles_at_easy_samples_as_its_entry_says() -> None:
    """Solve the game with lam = .5 by quadrature: D and C are optimal, and G descends its own loss."""
    x = torch.linspace(-10, 10, 2001, dtype=torch.float64)

    def log_normal(mean: Tensor, sd: Tensor) -> Tensor:
        return -0.5 * ((x - mean) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)

    def both(mean: Tensor, sd: Tensor) -> Tensor:
        return torch.stack([log_normal(mean, sd), log_normal(-mean, sd)])  # [2, x]

    one = torch.ones((), dtype=torch.float64)
    real, theta = both(one, one), torch.stack([one, one])
    for _ in range(150):
        theta = theta.detach().requires_grad_()
        fake = both(theta[0], theta[1])
        best_d = (real.logsumexp(0) - fake.logsumexp(0)).detach()  # log(p/q)
        best_c = torch.logaddexp(real, fake).detach().T  # [x, 2], up to a constant at each x
        class_loss = torch.stack(
            [classification_g(best_c, fake_labels=torch.full((len(x),), k)) for k in (0, 1)]
        )  # [2, x]
        per_point = losses.minimax_g(best_d) + 0.5 * class_loss
        loss = (fake.exp() * per_point).mean(0).sum() * (x[1] - x[0])
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = theta - 0.3 * gradient
    assert gradient.abs().max() < 1e-4
    prose = " ".join(english("auxiliary_classifier").split())
    stated = re.search(r"settles at N\(\+-([\d.]+), ([\d.]+)\^2\)", prose)
    assert stated
    assert theta.tolist() == pytest.approx([float(stated[1]), float(stated[2])], abs=0.005)
    assert f"above {marks()['smallest CE after a softmax, 10 classes']:.3f} for ten classes" in prose


OF_SCORE = ("extractor",)  # an option of `ptarmigan score`, not a field of a run


def parse(flags: str) -> dict[str, Any]:
    """'--loss hinge --r1 0.2' -> fields, as the command line does."""
    given: dict[str, Any] = {}
    for flag, value in re.findall(r"--([a-z0-9-]+)(?: ([^-\s]\S*))?", flags):
        key = flag.replace("-", "_")
        given[key] = value or True
    return given


@pytest.mark.parametrize("name", ENTRIES)
def test_flags_choose_what_the_entry_describes(name: str) -> None:
    config = resolve({key: value for key, value in parse(ENTRIES[name].flags).items() if key not in OF_SCORE})
    chosen: dict[str, Callable[[Config], bool]] = {
        "smoothing": lambda c: c.loss.smoothing == 0.9,
        "auxiliary_classifier": lambda c: c.model.conditioning == "auxiliary_classifier" and c.loss.class_fake,
        "projection": lambda c: c.model.conditioning == "projection",
        "twin_classifier": lambda c: c.model.conditioning == "twin_classifier",
        "discriminative_classifier": lambda c: c.model.conditioning == "discriminative_classifier",
        "reacgan": lambda c: (
            (c.model.conditioning, c.loss.class_weight, c.loss.class_margin, c.loss.class_temperature)
            == ("reacgan", 0.5, 0.98, 0.5)
        ),
        "r1": lambda c: c.loss.r1 == 0.2,
        "r2": lambda c: c.loss.r2 == 0.2,
        "ada": lambda c: c.data.augment == "ada",
        "gradient_penalty": lambda c: c.loss.gradient_penalty == 10 and c.loss.r1 == c.loss.r2 == 0,
        "ema": lambda c: c.train.ema_half_life == Train().ema_half_life == 44e3,
        "kid": lambda c: c.train.live_images == Train().live_images == 250,
        "fid": lambda _: parse(ENTRIES["fid"].flags)["extractor"] in EXTRACTORS,
    }
    if name in LOSSES:
        assert config.loss.loss == name
    elif name in RECIPES:
        assert config.recipe == name
        assert config.loss.loss == BASE[name]
        meaning = " ".join(printed(english(name), "flags").split()).split(" equivalent to ")[1].split(",")[0]
        stated = resolve({"recipe": name} | parse(meaning))
        assert stated == config
        assert parse(meaning)["loss"] == BASE[name]
    else:
        assert chosen[name](config)
    for flag in re.findall(r"--([a-z0-9-]+)", english(name)):
        assert flag.removeprefix("no-").replace("-", "_") in {*TYPES, "recipe", *OF_SCORE}


def test_the_names() -> None:
    assert tuple(losses.OBJECTIVES) == LOSSES
    assert set(ENTRIES) == {*LOSSES, *OTHERS}
    assert set(RECIPES) <= set(ENTRIES)
    names = english().split("`ptarmigan losses NAME`:")[1]
    labels = {"losses", "class", "penalties", "images", "recipes", "averages", "scores", "problems"}
    assert set(re.findall(r"\w+", names)) - labels == {*ENTRIES, *PROBLEMS}
    assert not ENTRIES.keys() & PROBLEMS.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_complete(name: str) -> None:
    entry = ENTRIES[name]
    optional = {"textbook", "values", "values_note", "marks", "slope", "slope_note", "best", "rising"}
    for field in Entry.__dataclass_fields__:
        assert getattr(entry, field) or field in optional, field
    if name in (*LOSSES, *RECIPES, "smoothing", "auxiliary_classifier"):
        assert entry.best
        assert entry.rising
        assert entry.values
        assert entry.slope_note
    assert re.search(r"arXiv \d{4}\.\d{4,5}", entry.paper)
    for variable in re.findall(r"^(\w+) {2,}\S", english(name).split("\n\n")[-1], re.MULTILINE):
        assert variable in VARIABLES


def test_the_three_questions_are_answered() -> None:
    text = english()
    titles = [question.title for question in QUESTIONS]
    assert [re.sub(r"^\d\. What exactly is (.+?)\?.*", r"\1", title) for title in titles] == [
        "DCGAN's discriminator loss", "DCGAN's generator loss", "ACGAN's generator loss",
    ]  # fmt: skip
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    for title, after in zip(titles, [*titles[1:], "Ask for one"], strict=True):
        page = text.split(title)[1].split(after)[0]
        assert all(printed(page, label) for label in ("in words", "formula", "PyTorch", "at p = q", "pitfalls"))
    assert "rising L_G" in text


def test_neither_torch_nor_numpy_is_imported() -> None:
    code = (
        "import ptarmigan.handbook, sys\n"
        "from ptarmigan.handbook.entries import explain\n"
        "explain(), explain('hinge')\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
