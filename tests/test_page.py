"""The page of `ptarmigan losses --page`: its numbers, its script, its two languages, and what it claims in words.

The page is committed as assets/losses.html; `make page` builds it with tools/losses_page.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from math_core import LatexError
from torch import nn

from densities import GRID, SPREAD, P, Q, integral, jsd, kl, pair_jsd, w1
from ptarmigan.config import Loss
from ptarmigan.handbook.entries import ENTRIES, explain
from ptarmigan.handbook.figures import NAMES, objective_named, rows, split_d
from ptarmigan.losses.adversarial import OBJECTIVES, cross_entropy_d
from ptarmigan.losses.conditioning import classification_g
from support import raises

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import solved_games as games
from losses_page import build, computed

ROOT = Path(__file__).parents[1]
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "losses.html"
    assert explain(page=path) == str(path)
    return path.read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_builder_makes(built: str) -> None:
    assert built == build.build(), "the losses page is out of date: run `make page` and commit the result"


@pytest.fixture(scope="module")
def numbers() -> dict[str, float]:
    return computed.numbers()


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return computed.tables()


def part(built: str, language: str) -> str:
    return built.split(f'<main id="{language}"')[1].split("</main>")[0]


# ---------------------------------------------------------------------------- the file


def test_one_small_file_that_asks_for_nothing(built: str) -> None:
    assert len(built.encode()) < 800_000
    assert not re.search(
        r"<(img|iframe|object|embed|video|audio|source)\b|\bsrc=|url\(|@import|\bfetch\(|XMLHttp", built
    )
    assert re.findall(r'<link [^>]*href="([^"]{5})', built) == ["data:"]
    assert "default-src 'none'" in built
    addresses = set(re.findall(r'https?://[^"\' <)]+', built)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set(re.findall(r'<a href="(https://arxiv\.org/abs/\d{4}\.\d{4,5})"', built))
    assert "/work/" not in built
    assert "/home/" not in built


WORDS = ("mrow", "mi", "mo", "math", "em", "span", "code", "polyline", "text")  # their order follows the sentence


class Skeleton(HTMLParser):
    """Elements that are not part of a sentence, with the attributes that are not text; `wrong`: not closed."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.language, self.found, self.open, self.wrong = language, [], [], []
        self.ids: list[str] = []
        self.targets: list[str] = []

    found: list[tuple[object, ...]]
    open: list[str]
    wrong: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: (value or "").replace(f"{self.language}-", "") for key, value in attrs}
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.targets += [value[1:] for key, value in attrs if key == "href" and (value or "").startswith("#")]
        kept = {k: v for k, v in given.items() if k not in ("aria-label", "alttext", "data-words", "x", "points")}
        if "math" not in self.open and tag not in WORDS:
            self.found.append((tag, tuple(sorted(kept.items()))))
        if tag not in ("input", "br", "wbr", "meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_both_languages_have_the_same_sections_formulas_numbers_and_controls(built: str) -> None:
    skeletons = {}
    for language in build.LANGUAGES:
        skeletons[language] = Skeleton(language)
        skeletons[language].feed(f'<main id="{language}"' + part(built, language) + "</main>")
        assert not skeletons[language].open
        assert not skeletons[language].wrong
        assert len(set(skeletons[language].ids)) == len(skeletons[language].ids)
        assert set(skeletons[language].targets) <= set(skeletons[language].ids)
    for one, other in zip(*(skeletons[language].found for language in build.LANGUAGES), strict=True):
        assert one[0] == other[0]
        if one[0] != "main":
            assert one == other
    blocks = [re.split(r"<(?:section|article|h3|tr|dt)\b", build.asset(f"{name}.html")) for name in build.LANGUAGES]
    for en, zh in zip(*blocks, strict=True):
        for pattern in (r"\[\[.+?\]\]", r"\$\$?[^$]+\$\$?"):
            found = [re.findall(pattern, re.sub(r"\\text\{.*?\}", "", text)) for text in (en, zh)]
            one, other = (sorted(mark for mark in marks if len(mark) > 4) for marks in found)  # $D$ may be a plain D
            assert one == other


def test_the_chinese_gives_the_other_word_for_discriminator_once() -> None:
    text = build.asset("zh.html")
    assert text.count("鉴别器") == 1
    assert text.index("判别器（又称鉴别器）") == text.index("判别器")


def test_the_chinese_is_chinese_and_the_english_has_none(built: str) -> None:
    han = re.compile(r"[\u4e00-\u9fff]")
    assert not han.search(part(built, "en"))
    for paragraph in re.findall(
        r"<(?:p|h1|h2|h3|li|dt)(?: [^>]*)?>(.*?)</(?:p|h1|h2|h3|li|dt)>", part(built, "zh"), re.DOTALL
    ):
        words = re.sub(r"<math.*?</math>|<code.*?</code>|<[^>]+>", "", paragraph, flags=re.DOTALL)
        if len(re.findall(r"[A-Za-z]+", words)) > 6:
            assert len(han.findall(words)) > len(re.findall(r"[A-Za-z]+", words)), words
    zh = build.asset("zh.html")
    assert not re.search(r"[\u4e00-\u9fff][,;:?!](?!\d)", re.sub(r"<[^>]+>|\$[^$]*\$", "", zh))  # full-width in Chinese
    assert not re.search(r"[\u4e00-\u9fff][A-Za-z$]|[A-Za-z][\u4e00-\u9fff]", re.sub(r"<[^>]+>", " ", zh))


def test_every_function_and_test_that_is_named_exists(built: str) -> None:
    text = part(built, "en").replace("<wbr>", "")
    cited = re.findall(r'<li><code>([\w/.]+)</code> ((?:<code class="name">\w+</code> ?)+)</li>', text)
    assert len(cited) > 50
    defined: dict[str, set[str]] = {}
    for path, names in cited:
        if path not in defined:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            defined[path] = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        for name in re.findall(r'"name">(\w+)<', names):
            assert name in defined[path], f"{path} has no {name}"
            assert name.startswith("test_") == path.startswith("tests/")
    for proof in re.findall(r'<ul class="proof">(.*?)</ul>', text, re.DOTALL):
        assert "test_" in proof
    for section in re.findall(r"<article id.*?</article>", text, re.DOTALL):
        assert 'class="proof"' in section
        assert "src/ptarmigan/" in section


def test_no_number_that_can_be_computed_is_typed() -> None:
    """The prose has no decimals, except in the names of papers and sections, and no percentages."""
    for language in build.LANGUAGES:
        text = re.sub(r"\[\[.*?\]\]", "", build.asset(f"{language}.html"))
        text = re.sub(r"arxiv\.org/abs/[\d.]+|arXiv [\d.]+|section [\d.]+|[\d.]+ 节|Apache-2\.0", "", text)
        text = re.sub(r'(min|max|step|value)="[\d.]+"|<code>--.*?</code>', "", text)
        assert re.findall(r"\d*\.\d+", text) == []
        assert "%" not in text


def test_loss_formulas_and_code_are_the_handbooks(built: str) -> None:
    source = build.asset("en.html")
    named = re.findall(r"\[\[formula (\w+)\]\]", source)
    assert {
        *OBJECTIVES,
        "acgan",
        "auxiliary_classifier",
        "twin_classifier",
        "discriminative_classifier",
        "reacgan",
    } == {*named}
    shown = [" ".join(tex.split()) for tex in re.findall(r'alttext="([^"]*)"', part(built, "en"))]
    plain = [re.sub(r"[&\\ ,]|amp;|#x27;", "", tex).replace("'", "") for tex in shown]
    for name in named:
        for formula in ENTRIES[name].formulas:
            wanted = re.sub(r"[&\\ ,]", "", build.handbook_tex(formula)).replace("'", "")
            assert any(wanted in tex for tex in plain), formula
    for line in ("L_D = bce(real, ones) + bce(fake, zeros)", "L_G = bce(fake, ones)  # the same"):
        assert part(built, "en").count(line) == part(built, "zh").count(line) == 1


def test_every_formula_is_well_formed(built: str) -> None:
    found = re.findall(r"<math.*?</math>", built, re.DOTALL)
    assert len(found) > 300
    for formula in set(found):
        ET.fromstring(formula.replace("&ApplyFunction;", "\u2061"))
    assert "$" not in re.sub(r"<script.*?</script>", "", built, flags=re.DOTALL)
    assert "[[" not in re.sub(r"<script.*?</script>", "", built, flags=re.DOTALL)


def test_every_control_has_a_name_and_every_figure_a_label(built: str) -> None:
    for language in build.LANGUAGES:
        text = part(built, language)
        for label in re.findall(r"<label>(.*?)</label>", text, re.DOTALL):
            assert re.sub(r"<select.*", "", label, flags=re.DOTALL).strip()
        assert text.count("<label>") == len(re.findall(r"<select|<input", text))
        assert all(re.findall(r'<figure role="img" aria-label="(.+?)"', text))
        for words in re.findall(r"data-words='(.*?)'", text):
            assert all(json.loads(words).values())
        options = [re.findall(r"<option>(\w+)</option>", found) for found in re.findall(r"<select.*?</select>", text)]
        assert options == [[*computed.ADVERSARIAL], [*computed.DIRAC]]


def test_figures_speak_both_languages(built: str) -> None:
    words = json.loads(build.asset("figures.zh.json"))
    used = {
        "loss",
        "loss and slope",
        "x",
        "data",
        "where G converges",
        "C learns from both",
        "C learns from real images",
        "D",
        "G",
        "losses and KID over a run",
        "images seen, in thousands",
        "KID of the samples",
    }
    for row in [row for name in (None, *NAMES) for row in rows(name)]:
        used |= {row.axis, *(player.label for player in row.players)}
    used |= {"its slope, d loss / d logit", "its slope, d loss / d cosine"}
    assert set(words) == used
    for english, chinese in words.items():
        if english not in (chinese, "r - f", "loss and slope", "losses and KID over a run"):  # two are read aloud
            assert not re.search(f">{re.escape(english)}</(text|span)>", part(built, "zh"))
            assert re.search(f">{re.escape(chinese)}</(text|span)>", part(built, "zh"))


def test_the_page_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "x.html"
    out.write_text("mine")
    with raises("file-exists", "page", out):
        explain(page=out)
    assert out.read_text() == "mine"
    with raises("value-invalid", "page", "x.pdf", "X.html"):
        explain(page=tmp_path / "x.pdf")
    with raises("options-conflict", "page", "'hinge'"):
        explain("hinge", page=tmp_path / "y.html")
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


# ---------------------------------------------------------------------------- the numbers

CLOSED = {
    "non_saturating.d": 2 * math.log(2), "half": math.log(2), "non_saturating.g": math.log(2),
    "minimax.d": 2 * math.log(2), "minimax.g": -math.log(2), "least_squares.d": 1 / 4, "least_squares.g": 1 / 8,
    "least_squares.logit": 1 / 2, "least_squares_pearson.d": 1, "least_squares_pearson.g": 0, "hinge.d": 2,
    "wasserstein.d": 0, "relativistic.d": math.log(2), "relativistic.g": math.log(2),
    "smoothing.logit": math.log(0.9 / 1.1), "smoothing.most": math.log(9),
    "smoothing.floor": -0.9 * math.log(0.9) - 0.1 * math.log(0.1),
    "softmax": math.log(1 + 9 / math.e), "ignorant": math.log(10), "ignorant.d": 2 * math.log(2) + 2 * math.log(10),
    "ignorant.g": math.log(2) + math.log(10), "contrast": math.log(29), "ratio": 9, "beta": 0.1,
    "minimax.low": 0, "minimax.high": -1, "non_saturating.low": -1, "non_saturating.high": 0, "smoothing.low": -1,
    "smoothing.high": 0, "hinge.low": -1, "hinge.high": -1, "wasserstein.low": -1, "wasserstein.high": -1,
    "relativistic.low": -1, "relativistic.high": 0, "least_squares.low": -math.inf, "least_squares.high": math.inf,
    "least_squares_pearson.low": -math.inf, "least_squares_pearson.high": math.inf,
    "non_saturating.turn": 1 / 2, "minimax.turn": 1 / 2, "relativistic.turn": 1 / 2, "hinge.turn": 1,
    "wasserstein.turn": 1, "accuracy": (1 + math.erf(1 / math.sqrt(2))) / 2,
    "twin_classifier.mean": 0, "twin_classifier.log_sd": 0, "twin_classifier.shift": 0,
    "discriminative_classifier.mean": 0, "discriminative_classifier.log_sd": 0, "discriminative_classifier.shift": 0,
}  # fmt: skip
STATED = {  # to as many places as LOSSES.md and the papers' arithmetic give
    "smoothing.d": (1.3763, 5e-5), "smoothing.g": (0.7985, 5e-5),
    "auxiliary_classifier.mean": (-0.4496, 5e-5), "auxiliary_classifier.log_sd": (0.4496, 5e-5),
    "auxiliary_classifier.shift": (0, 1e-12),
    "of_real.mean": (1.298, 5e-4), "of_real.sd": (0.785, 5e-4), "of_both.mean": (1.290, 5e-4),
    "of_both.sd": (0.759, 5e-4), "of_sum.mean": (1.285, 5e-4), "of_sum.sd": (0.745, 5e-4),
}  # fmt: skip


def test_the_numbers_are_their_closed_forms(numbers: dict[str, float]) -> None:
    for key, value in CLOSED.items():
        assert numbers[key] == pytest.approx(value, abs=1e-9), key
    for key, (value, near) in STATED.items():
        assert numbers[key] == pytest.approx(value, abs=near), key
    used = set(re.findall(r"\[\[n (\S+?)[ \]]", build.asset("en.html")))
    examples = {f"{name}.example" for name in computed.ADVERSARIAL}
    settings = {"alpha", "example.mean", "example.sd", "K", "others", "margin", "temperature"}
    free = {"minimax.logit", "non_saturating.logit", "least_squares_pearson.logit", "entropy", "accuracy.settled"}
    free |= {
        "runs.images",
        "runs.data",
        *(f"{name}.{score}" for name in computed.recorded_runs() for score in ("kid", "recall")),
    }
    assert used - examples - settings - free <= {*CLOSED, *STATED}  # nothing on the page is unproven
    for key in ("minimax.logit", "non_saturating.logit", "least_squares_pearson.logit"):
        assert numbers[key] == 0


def test_the_entropy_of_overlapping_classes(numbers: dict[str, float]) -> None:
    """E log(1 + exp(-2x)), x from N(1, 1): H(Y|X) of classes N(+-1, 1); and how often the nearer mean is right."""
    x = torch.linspace(-11, 13, 4801, dtype=torch.float64)
    density = torch.exp(-0.5 * (x - 1) ** 2) / math.sqrt(2 * math.pi)
    assert numbers["entropy"] == pytest.approx((density * F.softplus(-2 * x)).sum().item() * 24 / 4800, abs=1e-8)
    reach = numbers["of_both.mean"] / numbers["of_both.sd"]
    assert numbers["accuracy.settled"] == pytest.approx((1 + math.erf(reach / math.sqrt(2))) / 2)
    assert numbers["accuracy.settled"] > numbers["accuracy"]


def test_acgans_fault_fades_where_classes_are_apart() -> None:
    def pushed(distance: float) -> float:
        """|d/d log sd| of G's class term at q = p, classes N(+-distance, 1), through samples and C = p(y|x)."""
        z = torch.linspace(-9, 9, 721, dtype=torch.float64)
        weight = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * 18 / 720
        log_sd = torch.zeros((), dtype=torch.float64, requires_grad=True)
        x = distance + log_sd.exp() * z
        logits = torch.stack([-distance * x, distance * x], 1)
        loss = (weight * classification_g(logits, fake_labels=torch.ones(len(z), dtype=torch.int64))).sum()
        return torch.autograd.grad(loss, log_sd)[0].item()

    found = [pushed(distance) for distance in (1.0, 2.0, 3.0, 5.0)]
    assert found[0] == pytest.approx(0.4496, abs=5e-5)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-4


def test_the_examples_are_the_divergences(numbers: dict[str, float]) -> None:
    """L_D at the optimal D of N(0, 1) and N(0.7, 1.3^2), computed from the losses, equals the divergence of each."""
    assert pytest.approx((0.7, math.exp(SPREAD))) == computed.EXAMPLE
    share = 0.9 * P / (P + Q)
    stated = {
        "minimax": 2 * math.log(2) - 2 * jsd(P, Q), "non_saturating": 2 * math.log(2) - 2 * jsd(P, Q),
        "smoothing": -integral((P + Q) * (torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))),
        "least_squares": integral(P * Q / (P + Q)) / 2, "least_squares_pearson": 2 * integral(P * Q / (P + Q)),
        "hinge": 2 - integral((P - Q).abs()), "wasserstein": -w1(Q, torch.tensor(0.7), torch.tensor(SPREAD)),
        "relativistic": math.log(2) - pair_jsd(P, Q),
    }  # fmt: skip
    for name, value in stated.items():
        near = 2e-3 if name == "wasserstein" else 1e-3 if name == "hinge" else 1e-9
        assert numbers[f"{name}.example"] == pytest.approx(float(value), abs=near)
    assert len(GRID) == 241


@pytest.mark.parametrize("name", [name for name in computed.ADVERSARIAL if name != "wasserstein"])
def test_the_best_logit_is_the_stated_optimum(name: str) -> None:
    """Bisection of p a' + q b' finds it; computed.py does not contain it."""
    t = torch.tensor([-18.0, -3.1, -0.4, 0.0, 0.2, 1.7, 17.0], dtype=torch.float64)
    p, q = t.sigmoid(), (-t).sigmoid()
    stated = {
        "minimax": t, "non_saturating": t, "relativistic": t, "smoothing": (0.9 * p / (0.1 * p + q)).log(),
        "least_squares": p / (p + q), "least_squares_pearson": (p - q) / (p + q), "hinge": torch.sign(t),
    }[name]  # fmt: skip
    torch.testing.assert_close(computed.best_logit(name, t), stated, rtol=0, atol=1e-6)


def test_how_figures_are_printed() -> None:
    assert [build.shown(value) for value in (1.38629, -0.70199, -0.0, -1e-9, math.inf, -math.inf)] == [
        "1.386", "−0.702", "0.000", "0.000", "∞", "−∞",
    ]  # fmt: skip
    assert build.shown(0.95535, ".1%") == "95.5%"
    assert build.shown(0.4496, "+.4f") == "+0.4496"
    assert build.shown(-1.0, ".0f") == "−1"


# ---------------------------------------------------------------------------- the script

BEGINNINGS = [(0.6, -0.4), (1.1, 0.3)]  # |psi theta| stays in the middle of every table, without a kink


def reading(tables: dict[str, Any], name: str, key: str, x: float) -> float:
    """What the script reads: linear interpolation between the table's values."""
    values = tables["losses"][name][key]
    place = (x - tables["from"]) / tables["step"]
    i = max(0, min(len(values) - 2, math.floor(place)))
    return float(values[i] + (values[i + 1] - values[i]) * (place - i))


@pytest.mark.parametrize("name", computed.DIRAC)
def test_the_tables_hold_what_the_shipped_steps_play(name: str, tables: dict[str, Any]) -> None:
    """psi and theta updated by the tables' slopes equal those of d_step and g_step at every step."""
    for (theta, psi), gamma in zip(BEGINNINGS, (0.0, 0.5), strict=True):
        path = games.Plane(Loss(loss=name, r1=gamma / 2, r2=gamma / 2), 0.2).path(psi, theta, 12)
        for at in path[1:]:
            psi -= 0.2 * (reading(tables, name, "fake_slope", psi * theta) * theta + gamma * psi)
            theta -= 0.2 * reading(tables, name, "g_slope", psi * theta) * psi
            assert (psi, theta) == pytest.approx(at, abs=2e-3)


def test_the_tables_are_the_losses(tables: dict[str, Any]) -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    for name in computed.ADVERSARIAL:
        found, table = objective_named(name), tables["losses"][name]
        g = found.g(real=0 * x, fake=x) if found.relativistic else found.g(fake=x)
        assert table["g"] == pytest.approx(g.tolist(), rel=1e-6, abs=1e-12)
        real, fake = (torch.tensor(table[key], dtype=torch.float64) for key in ("real", "fake"))
        if found.relativistic:
            torch.testing.assert_close(real, found.d(real=x, fake=0 * x), rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(fake, found.d(real=0 * x, fake=x), rtol=1e-6, atol=1e-12)
        else:
            torch.testing.assert_close(real + fake.flip(0), found.d(real=x, fake=x.flip(0)), rtol=1e-6, atol=1e-12)
        for key in ("real", "fake", "g"):
            middle = (torch.tensor(table[key][2:]) - torch.tensor(table[key][:-2])) / 0.2
            apart = (torch.tensor(table[f"{key}_slope"][1:-1]) - middle).abs()
            assert (apart > 2e-3).sum() <= 3  # by the difference of the values, but at a hinge's corner
    assert [name for name, table in tables["losses"].items() if "best" not in table] == ["wasserstein"]


def run_script(tables: dict[str, Any], code: str) -> Any:
    """The JSON value of `code`, evaluated by node with the page's own functions."""
    program = (
        build.asset("maths.js") + f"\nconst TABLES = {json.dumps(tables)};\nconsole.log(JSON.stringify({code}));\n"
    )
    assert NODE
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="needs node; the tables that it reads are tested without it")
def test_the_script_computes_what_the_functions_do(tables: dict[str, Any], numbers: dict[str, float]) -> None:
    """L_D, L_G, its slopes in q's mean and log width, and the push on a sample, in two worlds."""
    worlds = [((0.0, 1.0), (0.7, 1.3)), ((-0.5, 0.8), (1.5, 0.6))]
    names = json.dumps(computed.ADVERSARIAL)
    got = run_script(
        tables,
        f"{json.dumps(worlds)}.map(([p, q]) => {names}.map(n => {{ const c = contest(TABLES, n, p, q);"
        " return [c.d, c.g, c.mean, c.width, c.push]; }))",
    )
    x = torch.linspace(-16, 16, 1281, dtype=torch.float64)
    cell = 32 / 1280
    for (p_at, q_at), values in zip(worlds, got, strict=True):
        p = computed.normal(*p_at, x).exp()
        log_ratio = computed.normal(*p_at, x) - computed.normal(*q_at, x)
        for name, (*found, push) in zip(computed.ADVERSARIAL, values, strict=True):
            theta = torch.tensor([q_at[0], math.log(q_at[1])], dtype=torch.float64, requires_grad=True)
            q = computed.normal(theta[0], theta[1].exp(), x).exp()
            case = objective_named(name)
            if name == "wasserstein":
                continue
            D = computed.best_logit(name, log_ratio)
            if case.relativistic:
                real, fake = torch.broadcast_tensors(D[:, None], D)
                d = (p[:, None] * q * case.d(real=real, fake=fake)).sum() * cell**2
                g = (p[:, None] * q * case.g(real=real, fake=fake)).sum() * cell**2
            else:
                a, b = split_d(case)
                d, g = (p * a(D) + q * b(D)).sum() * cell, (q * case.g(fake=D)).sum() * cell
            slopes = torch.autograd.grad(g, theta)[0].tolist()
            if name in ("minimax", "non_saturating", "smoothing", "least_squares", "least_squares_pearson"):
                cost = case.g(fake=D)[520:765:2]  # from x = -3 to 3, each second point being one of the script's
                downhill = (cost[:-2] - cost[2:]) / (4 * cell)
                torch.testing.assert_close(torch.tensor(push[261:382]).double(), downhill, rtol=0.01, atol=0.01)
            near = 0.02 if name == "hinge" else 2e-3  # its D jumps
            assert found == pytest.approx([d.item(), g.item(), *slopes], abs=near), name
            if p_at == (0.0, 1.0) and name != "hinge":  # the figure and the table above it agree as printed
                assert f"{found[0]:.3f}" == f"{numbers[f'{name}.example']:.3f}"
    wasserstein = got[0][computed.ADVERSARIAL.index("wasserstein")]
    assert wasserstein[0] == pytest.approx(numbers["wasserstein.example"], abs=2e-3)


@pytest.mark.skipif(NODE is None, reason="needs node; the tables that it reads are tested without it")
@pytest.mark.parametrize("name", computed.DIRAC)
def test_the_script_plays_the_dirac_gan_as_the_shipped_steps_do(name: str, tables: dict[str, Any]) -> None:
    for start, (r1, r2) in zip(BEGINNINGS, ((0.0, 0.0), (0.4, 0.3)), strict=True):
        settings = json.dumps({"rate": 0.2, "r1": r1, "r2": r2})
        path = run_script(tables, f"trajectory(TABLES, '{name}', {json.dumps(start)}, {settings}, 12)")
        shipped = games.Plane(Loss(loss=name, r1=r1, r2=r2), 0.2).path(start[1], start[0], 12)
        for (theta, psi), at in zip(path, shipped, strict=True):
            assert (psi, theta) == pytest.approx(at, abs=2e-3)


# ---------------------------------------------------------------------------- what is claimed in words


def test_the_training_loop_takes_the_steps_of_the_shipped_losses() -> None:
    """The loop of the page, executed, and the same loop with the functions that train: equal weights at the end."""
    printed: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(build.training_loop(), printed)
    torch.manual_seed(0)
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (G, D))
    for x in torch.randn(10, 8, 3):
        with torch.no_grad():
            fake = G(z := torch.randn(8, 2))
        for adam, net in ((d_adam, D), (g_adam, G)):
            loss = cross_entropy_d(D(x), D(fake)) if net is D else OBJECTIVES["non_saturating"].g(fake=D(G(z)))
            gradients = torch.autograd.grad(loss.mean(), [*net.parameters()])
            for weight, gradient in zip(net.parameters(), gradients, strict=True):
                weight.grad = gradient
            adam.step()
    for ours, theirs in ((G, printed["G"]), (D, printed["D"])):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    assert len(build.training_loop().splitlines()) <= 20
    with pytest.raises(RuntimeError, match="second time"):  # what the page says of a loop without detach
        exec(build.training_loop().replace("fake.detach()", "fake"), {})


def test_the_library_calls_are_the_cross_entropy() -> None:
    """Of both halves, D's loss; the call of Keras is only parsed, because Keras is not installed here."""
    for language in build.LANGUAGES:
        lines = re.findall(r"^(?:<pre><code>)?(loss = .*?)(?:</code></pre>)?$", build.asset(f"{language}.html"), re.M)
        calls = [ast.unparse(ast.parse(line)) for line in lines]
        assert len(calls) == 3
        assert calls[2] == "loss = keras.losses.BinaryCrossentropy(from_logits=True)(target, logit)"
        r, f = (torch.tensor(values, dtype=torch.float64) for values in ([0.3, -1.2], [0.8, 0.1]))
        for call in calls[:2]:
            halves = []
            for logit, target in ((r, torch.ones_like(r)), (f, torch.zeros_like(f))):
                scope = {"nn": nn, "logit": logit, "target": target, "probability": logit.sigmoid()}
                exec(call, scope)
                halves.append(scope["loss"])
            torch.testing.assert_close(halves[0] + halves[1], cross_entropy_d(r, f).mean())
    assert torch.tensor(17.0).sigmoid() == 1  # what the page says of float32


def test_the_runs_show_what_the_page_says() -> None:
    runs = computed.recorded_runs()
    healthy, lost, collapsed = (runs[name] for name in ("healthy", "dwins", "collapse"))
    late = {name: slice(len(run["d_adv"]) // 5, None) for name, run in runs.items()}
    assert all(1.1 < loss < 2 * math.log(2) for loss in healthy["d_adv"][late["healthy"]])
    assert all(math.log(2) < loss < 1.3 for loss in healthy["g_adv"][late["healthy"]])
    assert healthy["kid"][-1] == min(healthy["kid"]) < 0.1
    won = [at for at, d, g in zip(lost["images"], lost["d_adv"], lost["g_adv"], strict=True) if d < 0.03 and g > -0.01]
    assert len([at for at in lost["images"] if at > 2.1 and at not in won]) == 1  # the jump
    assert min(lost["kid"]) > 20 * healthy["kid"][-1]
    assert min(collapsed["kid"]) > 5 * healthy["kid"][-1]
    assert all(loss > 0.1 for loss in collapsed["d_adv"])
    assert collapsed["recall"][-1] < healthy["recall"][-1] / 10
    for run in runs.values():
        assert run["kid_images"][-1] == healthy["kid_images"][-1]


def test_one_y_true_for_both_halves() -> None:
    """-(1/m) sum [y log D(x) + (1 - y) log(1 - D(G))] ignores fakes if y = 1; if y = .9 its optimum is log(9 p/q)."""
    real, fake = (torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in ([0.3, -1.2], [0.8, 0.1]))

    def usual(y: float, r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return -(y * r.sigmoid().log() + (1 - y) * (1 - f.sigmoid()).log())

    assert torch.autograd.grad(usual(1.0, real, fake).sum(), fake)[0].tolist() == [0, 0]
    slopes = torch.autograd.grad(usual(0.9, real, fake).sum(), (real, fake))
    plain = torch.autograd.grad(cross_entropy_d(real, fake).sum(), (real, fake))
    for weight, found, whole in zip((0.9, 0.1), slopes, plain, strict=True):
        torch.testing.assert_close(found, weight * whole)
    for p, q in ((0.3, 0.2), (0.5, 1e-9)):  # unbounded as q falls
        D = torch.tensor(math.log(9 * p / q), dtype=torch.float64, requires_grad=True)
        rest = -(0.9 * p * D.sigmoid().log() + 0.1 * q * torch.nn.functional.logsigmoid(-D))
        assert torch.autograd.grad(rest, D)[0].abs() < 1e-12


def test_a_generator_that_minimises_ds_loss_helps_d() -> None:
    """Its slope on a fake's logit is +sigmoid(f), so descent lowers f and D's loss; s(-r) has no gradient for G."""
    real = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([-0.7, 1.5], dtype=torch.float64, requires_grad=True)
    loss = cross_entropy_d(real, fake)
    (slope,) = torch.autograd.grad(loss.sum(), fake)
    torch.testing.assert_close(slope, fake.sigmoid())
    with torch.no_grad():
        assert (cross_entropy_d(real, fake - 0.1 * slope) < loss).all()
    alone = cross_entropy_d(real, torch.full_like(fake, -1e3))  # the term of the real images
    assert torch.autograd.grad(alone.sum() + 0 * fake.sum(), fake)[0].tolist() == [0, 0]


def test_least_squares_overflows_in_fp16() -> None:
    far = torch.tensor(1e3, dtype=torch.float16)
    for loss in (OBJECTIVES["least_squares"].d(real=far, fake=far), OBJECTIVES["least_squares"].g(fake=far)):
        assert loss.isinf()


def test_a_half_before_the_source_doubles_lambda() -> None:
    f = torch.tensor([-0.7, 1.5], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([[0.2, 1.0, -0.3], [0.0, 0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    source = OBJECTIVES["non_saturating"].g(fake=f).sum()
    of_class = classification_g(c, fake_labels=torch.tensor([2, 0])).sum()
    halved = torch.autograd.grad(source / 2 + of_class, (f, c), retain_graph=True)
    doubled = torch.autograd.grad(source + 2 * of_class, (f, c))
    for a, b in zip(halved, doubled, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_what_the_non_saturating_generator_descends_is_a_divergence() -> None:
    """KL(q | p) - 2 JSD = 2 KL(m | p), m = (p + q)/2."""
    for p, q in ((P, Q), (Q, P)):
        assert (kl(q, p) - 2 * jsd(p, q)).item() == pytest.approx(2 * kl((p + q) / 2, p).item(), abs=1e-12)


# ---------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("name", ENTRIES)
def test_a_formula_of_the_handbook_changes_its_look_alone(name: str) -> None:
    """Converted back from TeX by other code, it is the formula that the handbook's test executes."""
    for formula in ENTRIES[name].formulas:
        tex = build.handbook_tex(formula)
        for look, plain in (
            (r"\E\,", "E "), (r"\frac{1}{2} ", "1/2 * "), (r"\frac{\gamma}{2}", "gamma/2"), (r"\lambda ", "lam * "),
            (r"\norm{\nabla_", "|grad_"), ("}^2", "|^2"), ("} - 1)", "| - 1)"), (r"\,", " * "),
            (r"\sqrt{F}", "sqrt(F)"), (r"{\text{real}}", "real"), (r"{\text{fake}}", "fake"), ("R_1", "R1"),
            ("R_2", "R2"),
        ):  # fmt: skip
            tex = tex.replace(look, plain)
        assert re.sub(r"\\op\{(\w+)\}", r"\1", tex) == formula


def test_equations_stand_in_a_table() -> None:
    text = build.mathml(r"a &= b \\ & + c", display=True)
    assert re.match('<math [^>]*display="block"', text)
    assert text.count("<mtr>") == 2
    assert text.count("<mtd>") == 4
    assert "<mtd><mo>=</mo><mi>b</mi></mtd>" in text
    assert "<mtd><mrow></mrow><mo>+</mo><mi>c</mi></mtd>" in text  # a sum that continues, not a sign


@pytest.mark.parametrize("tex", [r"\unknown", "a}", r"\frac{1}", "{a", "x^"])
def test_unknown_tex_is_refused(tex: str) -> None:
    with pytest.raises(LatexError):
        build.mathml(tex)
