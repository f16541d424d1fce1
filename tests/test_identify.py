"""The identifier against a catalogue of losses as people write them, properties of it, and files that misbehave."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import ptarmigan
from ptarmigan.handbook.entries import ENTRIES
from ptarmigan.handbook.identify import child_process, diagnose, families, identify, verdicts
from ptarmigan.handbook.identify.answer import Identity, compare_players
from ptarmigan.handbook.identify.attempts import identify_callable, identify_code
from ptarmigan.handbook.identify.families import ON_PROBABILITIES, SHARED_D, SHARED_G
from ptarmigan.handbook.identify.names import player_of
from ptarmigan.handbook.identify.sentences import SENTENCES
from ptarmigan.handbook.identify.signature import readings
from ptarmigan.handbook.identify.source import Program
from ptarmigan.handbook.identify.terms import LOGITS, Term, fit_curve, sigmoid, softplus
from ptarmigan.handbook.identify.uses import Uses
from ptarmigan.losses.adversarial import OBJECTIVES, cross_entropy_d
from support import call, raises
from variants_files import FILES
from variants_losses import CROSS_ENTROPY, VARIANTS, Variant, d_loss, g_loss

REMEDIES = [line for entry in ENTRIES.values() for line in entry.code.splitlines()]
REMEDIES += ["F.binary_cross_entropy_with_logits(output, target)", "F.cross_entropy(class_logits, labels)"]
REMEDIES += [*ON_PROBABILITIES.values(), *families.REMEDIES.values()]


def one(function: Any, name: str | None = None, **told: Any) -> Identity:
    if name is not None:
        function.__name__ = name
    (found,) = identify(function, **told)
    return found


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.label for variant in VARIANTS])
def test_each_variant_is_known_for_what_it_is_and_no_right_one_is_accused(variant: Variant) -> None:
    (found,) = identify_callable(variant.function, variant.label, variant.kind, variant.told_on)
    assert found.faults == ((variant.fault,) if variant.fault else ())
    assert found.right == (not variant.fault)
    assert len(found.wrong) == len(found.faults)
    assert all(fact in " ".join(found.wrong) for fact in variant.facts)
    assert found.name == variant.name
    assert found.player == variant.player
    assert found.reduction == variant.reduction
    assert found.on == variant.on
    if "unknown" not in found.name:
        assert found.scale == pytest.approx(variant.scale, rel=1e-3)
        assert found.offset == pytest.approx(variant.offset, abs=1e-3)
    for mine, theirs in ((found.smoothing, variant.smoothing), (found.class_weight, variant.class_weight)):
        assert mine == theirs if theirs is None else mine == pytest.approx(theirs, abs=0.01)
    lines = str(found).splitlines()
    assert max(map(len, lines)) < 120
    assert lines[0].startswith(variant.label + ": ")
    assert ("  want   " in str(found)) == ("WRONG" in lines[0]) == bool(variant.fault)
    assert all(line in REMEDIES for line in found.code.splitlines())


def shipped(name: str) -> tuple[tuple[str, Any, str], ...]:
    objective = OBJECTIVES[name]
    d = SHARED_D if objective.d is cross_entropy_d else name
    g = SHARED_G if name in ("hinge", "wasserstein") else name
    return ("d", objective.d, d), ("g", objective.g, g)


CASES = [(name, *case) for name in OBJECTIVES for case in shipped(name)]


@pytest.mark.parametrize(("objective", "kind", "function", "name"), CASES)
@settings(max_examples=4, deadline=None)
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100), reduce=st.sampled_from(["mean", "none"]))
def test_any_positive_scale_and_any_offset_of_a_shipped_loss_give_its_name(
    objective: str, kind: str, function: Any, name: str, scale: float, offset: float, reduce: str
) -> None:
    def loss(fake: torch.Tensor) -> torch.Tensor:
        value = scale * function(fake) + offset
        return value.mean() if reduce == "mean" else value

    def pair(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        value = scale * function(real=real, fake=fake) + offset
        return value.mean() if reduce == "mean" else value

    found = one(pair if kind == "d" or OBJECTIVES[objective].relativistic else loss, kind=kind)
    assert (found.name, found.right, found.player) == (name, True, kind.upper())
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert found.offset == pytest.approx(offset, abs=1e-4 * scale + 1e-6)
    assert found.reduction == reduce


@settings(max_examples=5, deadline=None)
@given(alpha=st.floats(0.55, 0.99), scale=st.floats(0.1, 10))
def test_any_one_sided_smoothing_is_found_with_its_target(alpha: float, scale: float) -> None:
    found = one(lambda real, fake: scale * cross_entropy_d(real, fake, smoothing=alpha).mean(), "d_loss")
    assert (found.name, found.right) == ("smoothing", True)
    assert found.smoothing == pytest.approx(alpha, abs=1e-5)
    assert found.scale == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize(
    "order", list(permutations(["real", "fake", "c_real", "c_fake", "y", "y_fake"], 6))[::7], ids="-".join
)
def test_a_signature_is_read_in_any_order(order: tuple[str, ...]) -> None:
    (way,) = readings(list(order), "d_loss", "d", Uses())
    assert way.roles == {
        "real": "real", "fake": "fake", "c_real": "class_real", "c_fake": "class_fake",
        "y": "labels", "y_fake": "labels_fake",
    }  # fmt: skip
    assert not way.guessed


@pytest.mark.parametrize("order", list(permutations(["fake", "class_logits", "labels"])), ids="-".join)
def test_a_loss_is_found_whatever_the_order_of_its_arguments(order: tuple[str, ...]) -> None:
    scope: dict[str, Any] = {"F": F}
    body = "F.softplus(-fake).mean() + F.cross_entropy(class_logits, labels)"
    exec(f"def g_loss({', '.join(order)}): return {body}", scope)
    found = one(scope["g_loss"])
    assert (found.name, found.right, found.scale) == ("non_saturating + auxiliary_classifier", True, pytest.approx(1))


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_names_that_say_nothing_are_tried_in_both_orders(order: tuple[str, str]) -> None:
    scope: dict[str, Any] = {"F": F}
    exec(f"def d_loss({', '.join(order)}): return F.softplus(-a).mean() + F.softplus(b).mean()", scope)
    found = one(scope["d_loss"])
    assert (found.name, found.right) == (CROSS_ENTROPY, True)
    assert (
        SENTENCES["guessed"].format(roles=", ".join(f"{p} = {'real' if p == 'a' else 'fake'}" for p in order))
        in found.notes
    )


@pytest.mark.parametrize(
    ("name", "player"),
    [
        ("d_loss", "d"), ("lossD", "d"), ("loss_G", "g"), ("generator_loss", "g"), ("critic_loss", "d"),
        ("adversarial", None), ("hinge_g", "g"), ("bce", "bce"), ("aux_loss", "class"), ("g_negative_of_d", "g"),
    ],
)  # fmt: skip
def test_a_functions_name_says_whose_it_is(name: str, player: str | None) -> None:
    assert player_of(name) == player


@settings(max_examples=40, deadline=None)
@given(
    weight=st.floats(-50, 50).filter(lambda w: abs(w) > 1e-2), target=st.floats(-1, 2), offset=st.floats(-100, 100),
    family=st.sampled_from(["cross_entropy", "least_squares", "hinge", "hinge_down", "linear"]),
)  # fmt: skip
def test_a_curve_gives_back_its_family_weight_target_and_offset(
    weight: float, target: float, offset: float, family: str
) -> None:
    shape = {
        "cross_entropy": target * softplus(-LOGITS) + (1 - target) * softplus(LOGITS),
        "least_squares": (LOGITS - target) ** 2, "hinge": np.maximum(0, target - LOGITS),
        "hinge_down": np.maximum(0, LOGITS - target), "linear": LOGITS,
    }[family]  # fmt: skip
    found = fit_curve(weight * shape + offset)
    assert found is not None
    assert (found.shape, found.behind_sigmoid) == (family, False)
    assert found.weight == pytest.approx(weight, rel=1e-4)
    if family != "linear":
        assert found.target == pytest.approx(target, abs=1e-4)
    if family != "least_squares":
        assert found.offset == pytest.approx(offset, abs=1e-3)
    assert found(LOGITS) == pytest.approx(weight * shape + offset, abs=1e-3)


@pytest.mark.parametrize(
    ("term", "direction"),
    [
        (Term("cross_entropy", 1, 1), 1), (Term("cross_entropy", 2, 0), -1), (Term("cross_entropy", -1, 0), 1),
        (Term("cross_entropy", 1, 0.5), 0), (Term("least_squares", 1, 1), 1), (Term("least_squares", 1, 0), 0),
        (Term("hinge", 1, 1), 1), (Term("hinge", -1, 1), -1), (Term("hinge_down", 1, -1), -1), (Term("linear", 1), -1),
        (Term("linear", -1), 1), (Term("flat"), 0),
    ],
)  # fmt: skip
def test_the_direction_in_which_a_term_pushes_a_logit(term: Term, direction: int) -> None:
    assert term.direction == direction


def test_curves_of_no_family_have_none() -> None:
    for curve in (np.arctan(LOGITS), np.exp(LOGITS), np.sin(LOGITS), np.abs(LOGITS), sigmoid(LOGITS) ** 3):
        assert fit_curve(curve) is None
    assert (
        fit_curve(softplus(-sigmoid(LOGITS)) - 5 * sigmoid(LOGITS)) is None
    )  # a cross-entropy of target 6, were it one


def test_the_code_that_is_wanted_is_on_probabilities_where_the_users_is() -> None:
    def g_loss(c_fake: torch.Tensor, prob_fake: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -(1 - prob_fake).log().mean() + F.cross_entropy(c_fake, y)

    found = one(g_loss)
    assert found.faults == ("other-player",)
    assert found.code == ON_PROBABILITIES["G"]


def test_a_sum_over_the_batch_is_said_and_not_accused() -> None:
    found = one(lambda fake: F.softplus(-fake).sum(), "g_loss")
    assert (found.right, found.reduction) == (True, "sum")
    assert SENTENCES["sum"] in found.notes


def test_the_value_at_the_equilibrium_is_scaled_with_the_loss() -> None:
    found = one(lambda real, fake: 3 * cross_entropy_d(real, fake).mean() + 1, "d_loss")
    assert found.equilibrium_value == pytest.approx(6 * np.log(2) + 1)
    assert "5.159 at equilibrium" in str(found)


def test_each_finding_has_a_sentence_with_its_facts() -> None:
    trees = [ast.parse(inspect.getsource(module)) for module in (diagnose, verdicts)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    findings = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr in ("fault", "note")]
    assert len(findings) > 40
    for node in findings:
        if isinstance(node.args[0], ast.JoinedStr):
            continue
        branches = [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else node.args
        for branch in branches:
            assert isinstance(branch, ast.Constant)
            placeholders = set(re.findall(r"{(\w+)", SENTENCES[str(branch.value)]))
            assert placeholders == {keyword.arg for keyword in node.keywords}, branch.value


def test_what_only_a_pair_shows() -> None:
    def d_squares(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()

    def g_squares(fake: torch.Tensor) -> torch.Tensor:
        return 0.5 * fake.square().mean()

    assert one(g_squares).right
    d, g = identify(d_squares, g_squares)
    assert d.right
    assert g.faults == ("other-player",)

    def d_turned(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return F.softplus(real).mean() + F.softplus(-fake).mean()

    def g_turned(fake: torch.Tensor) -> torch.Tensor:
        return F.softplus(fake).mean()

    assert not one(d_turned).right
    assert not one(g_turned).right
    pair = identify(d_turned, g_turned)
    assert all(found.right and found.notes[0] == SENTENCES["both-swapped"] for found in pair)
    assert not any(found.right for found in (identify(d_loss, g_turned)[1], identify(d_turned, g_loss)[0]))


def test_a_half_that_stands_alone_is_said() -> None:
    def d_fake(fake: torch.Tensor) -> torch.Tensor:
        return F.softplus(fake).mean()

    def d_real(real: torch.Tensor) -> torch.Tensor:
        return F.softplus(-real).mean()

    (alone,) = identify(d_fake)
    assert any("real half" in note for note in alone.notes)
    assert alone.what.startswith("only the fake half")
    assert not any("half alone" in note for one in identify(d_fake, d_real) for note in one.notes)


def test_several_losses_that_one_function_returns_are_each_answered() -> None:
    def losses(real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"d": d_loss(real, fake), "g": F.softplus(fake).mean()}

    d, g = identify(losses)
    assert (d.function, d.right, d.player) == ("losses['d']", True, "D")
    assert (g.function, g.right, g.player) == ("losses['g']", False, "G")
    first, second = identify(lambda real, fake: (d_loss(real, fake), -fake.mean()))
    assert (first.player, second.player) == ("D", "G")
    halves = identify(lambda real, fake: (F.relu(1 - real).mean(), F.relu(1 + fake).mean()))
    assert [(half.name, half.right) for half in halves] == [("hinge", True)] * 2


@pytest.mark.parametrize(("sign", "targets"), [(1, "-1 real, 1 fake"), (-1, "1 real, -1 fake")])
def test_a_product_with_the_target_is_right_with_the_targets_that_it_names(sign: int, targets: str) -> None:
    found = one(lambda y_true, y_pred: sign * (y_true * y_pred).mean(), "wasserstein_loss")
    assert found.right
    assert targets in found.what


def test_a_class_is_made_without_arguments() -> None:
    class HingeLoss(torch.nn.Module):
        def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    assert one(HingeLoss).name == one(HingeLoss()).name == "hinge"


def test_what_was_borrowed_is_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    def g_noisy(fake: torch.Tensor) -> torch.Tensor:
        print("garbage")
        np.random.rand()
        return F.softplus(-fake).mean() + 0 * torch.rand(())

    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_default_dtype()  # type: ignore[index]
    assert one(g_noisy).right
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert torch.get_default_dtype() == before[2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "code", "fact"),
    [
        (lambda real, fake: torch.full((), float("nan")), "loss-failed", "nan at logit -5 of real"),
        (lambda real, fake: real.unsqueeze(1) - fake, "loss-failed", "[8, 8] for a batch of 8"),
        (lambda real, fake: "loss", "loss-failed", "str"),
        (lambda real, fake: real.no_such_thing, "loss-failed", "AttributeError"),
        (lambda: 0.0, "loss-failed", "<lambda>"),
        (lambda real, fake: None, "loss-failed", "it returns None,"),
        (3, "loss-failed", "int"),
        (lambda a, b, e: a, "signature-unclear", "'a', 'b' and 'e'"),
        (lambda real, z: real.mean(), "signature-unclear", "latents"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_line(function: Any, code: str, fact: str) -> None:
    with raises(code, fact) as caught:
        identify(function)
    assert "\n" not in str(caught.value)


def test_an_option_that_is_not_valid_is_refused() -> None:
    with raises("unknown-name", "kind 'e'", "d, g, bce, class"):
        identify(d_loss, kind="e")
    with raises("unknown-name", "'logit'", "'logits'"):
        identify(d_loss, on="logit")
    with raises("no-loss"):
        identify()


# --- files ---


@pytest.mark.parametrize("case", FILES)
def test_the_losses_of_a_file_are_found_and_judged(case: str) -> None:
    text, wanted = FILES[case]
    header = "import numpy as np, torch, torch.nn as nn, torch.nn.functional as F" if "import" not in text else ""
    program = Program(Path("mine.py"), header + text if text.startswith("\n") else f"{header}\n{text}")
    codes = [code for _, make in program.losses([]) for code in make()]
    answers = compare_players([one for code in codes for one in identify_code(code, None, None)])
    found = {
        one.function: "unknown" if one.right and one.name.startswith("unknown") else (*one.faults, "")[0]
        for one in answers
    }
    assert found == wanted
    assert not Path("made_by_the_script").exists()


@pytest.mark.parametrize("maker", ["Wizard()", "losses.get('binary_crossentropy')"])
@pytest.mark.parametrize("place", ["w", "self.w"])
def test_nothing_is_accused_because_of_a_module_that_is_not_installed(maker: str, place: str) -> None:
    made = f"{place} = {maker}"
    start = f"class A:\n def __init__(self):\n  {made}\n" if "self" in place else f"{made}\nclass A:\n"
    loss = f"{place}(torch.ones_like(real), real) + {place}(torch.zeros_like(fake), fake)"
    text = f"import torch\nfrom keras import losses\nfrom gadgets import Wizard\n{start} def d_loss(self, real, fake):"
    program = Program(Path("mine.py"), f"{text}\n  return {loss}\n")
    ((_, make),) = program.losses([])
    with raises("loss-failed", "not installed"):
        identify_code(make()[0], None, None)


LIGHTNING = """
import torch, lightning
class Model(lightning.LightningModule):
    def __init__(self):
        self.mse_loss = torch.nn.MSELoss()
    def training_step(self, images):
        loss = self.mse_loss(self.{d}(images), torch.ones(8)) + self.mse_loss(self.{d}(self.decoder(images)), 0)
        a, b = 1, 2
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""


@pytest.mark.parametrize(("d", "reason"), [("discriminator", "one optimiser"), ("encoder", "no call of a disc")])
def test_a_loss_in_all_parameters_or_without_d_is_refused_with_the_reason(d: str, reason: str) -> None:
    ((_, make),) = Program(Path("mine.py"), LIGHTNING.format(d=d)).losses([])
    with raises("loss-failed", reason):
        make()


@pytest.mark.parametrize(("target", "weight", "value"), [(1.0, 1.0, "0.5"), (0.9, 1.0, ""), (1.0, 0.5, "")])
def test_the_value_at_the_equilibrium_is_said_of_the_standard_formula_alone(
    target: float, weight: float, value: str
) -> None:
    def d_squares(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return weight * (real - target).square().mean() + fake.square().mean()

    assert str(one(d_squares)).partition("; ")[2].partition(" at")[0] == value


def test_images_named_as_ds_output_is_are_refused_in_words() -> None:
    text = "def gen_loss(fake_im, fake_output, label, real_im):\n  return ((fake_output - label) ** 2).mean() + "
    ((_, make),) = Program(Path("mine.py"), text + "(fake_im - real_im).abs().mean()").losses([])
    with raises("signature-unclear", "'fake_im', 'fake_output'"):
        identify_code(make()[0], None, None)


def test_a_criterion_that_is_a_parameter_is_not_called_absent() -> None:
    text = "def d_loss(D, criterion, real):\n  return criterion(D(real), torch.ones_like(D(real)))"
    ((_, make),) = Program(Path("mine.py"), text).losses([])
    assert any("criterion is a parameter" in note for note in identify_code(make()[0], None, None)[0].notes)


def test_a_notebook_and_standard_input_are_read_as_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["%matplotlib inline\n!pip install x\nimport torch", "def g_loss(fake):\n    return -fake.mean()", "a b"]
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [cell]} for cell in cells]}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(cells[1:2])))
    for target in (path, "-"):
        (found,) = identify(str(target))
        assert (found.function, found.right) == ("g_loss", True)


def test_arrays_of_other_libraries_are_read_through_numpy(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import numpy as np\nclass Eager:\n    def __init__(self, x): self.x = x\n"
        "    def __array__(self, dtype=None, copy=None): return np.asarray(self.x, dtype)\n"
        "def softplus(x): return np.logaddexp(0, x.astype(float))\ndef reduce_mean(x): return Eager(np.mean(x))\n"
    )
    text = "import tensorflow as tf\ndef g_loss(fake): return tf.reduce_mean(tf.softplus(-fake))"
    (found,) = identify(files(tmp_path, text))
    assert (found.name, found.right) == ("non_saturating", True)


def test_what_ends_one_loss_leaves_the_others(tmp_path: Path) -> None:
    text = "import os\ndef d_loss(real, fake): os._exit(3)\ndef g_loss(fake): return -fake.mean()"
    answers = identify(files(tmp_path, text))
    assert [(one.function, one.right) for one in answers] == [("g_loss", True)]
    assert "d_loss ended the process (status 3)" in repr(answers)


@pytest.mark.slow
def test_a_loss_that_takes_long_is_named_while_it_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import time\ndef d_loss(real, fake): time.sleep(4)\ndef g_loss(fake): return -fake.mean()"
    (found,) = identify(files(tmp_path, text))
    assert found.function == "g_loss"
    assert "still at d_loss, " in capsys.readouterr().err


GOOD = """
import torch.nn.functional as F
from torch import nn

def d_loss(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake).mean()

g_loss = lambda fake: F.softplus(fake).mean()

class HingeLoss(nn.Module):
    def d_loss(self, real, fake):
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

class Generator(nn.Module):
    def forward(self, z):
        return z

def train_d(epochs, lr):
    raise SystemExit

def d_odd(epochs, lr, beta):
    return epochs
"""


def files(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_run_in_a_child_and_all_that_could_be_losses_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(tmp_path, GOOD)
    status, out, err = call(monkeypatch, capsys, "losses", "identify", path)
    assert status == 1
    assert err.startswith(f"reading {path}\n")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == ["d_loss", "g_loss", "HingeLoss.d_loss", "not identified"]
    assert ["WRONG" in head for head in heads] == [False, True, False, False]
    assert "d_odd" in heads[-1]
    assert "want   L_G = F.softplus(-fake).mean()" in out
    assert "mine" not in sys.modules
    status, out, _ = call(monkeypatch, capsys, "losses", "identify", f"{path}:d_loss,HingeLoss.d_loss")
    assert (status, out.count(": Right: ")) == (0, 2)


HOSTILE = {
    "syntax": ("def d_loss(real, fake) return", ":d_loss", "import-failed", "SyntaxError"),
    "import": ("import no_such as n\ndef g_loss(fake): return n.f(fake)", ":g_loss", "loss-failed", "no_such"),
    "raises": ("def g_loss(fake): raise RuntimeError('a\\nb')", ":g_loss", "loss-failed", "RuntimeError: a b (line 1)"),
    "exits": ("import sys\ndef g_loss(fake): sys.exit(3)", ":g_loss", "loss-failed", "SystemExit: 3"),
    "dies": ("import os\ndef g_loss(fake): os._exit(5)", ":g_loss", "child-died", "g_loss ended the process"),
    "hangs": ("import time\ndef g_loss(fake): time.sleep(600)", ":g_loss", "child-timeout", "not finish in"),
    "garbage": ("print('x' * 100000)\ndef g_loss(fake):\n    return 'garbage'", ":g_loss", "loss-failed", "str"),
    "line": ("def g_loss(fake):\n\n    return 1 / 0", ":g_loss", "loss-failed", "division by zero (line 3)"),
    "misspelt": ("def g_loss(fake):\n    criterion = abs\n    return criterian(fake)", ":g_loss", "loss-failed",
                 "criterion is assigned and never used"),
    "library": ("import jax\ndef g_loss(fake): return jax.f(fake)", "", "no-loss", "install jax"),
    "nothing": ("x = 1", "", "no-loss", "mine.py"),
    "no such": ("def g_loss(fake): return fake", ":d_loss", "unknown-name", "choose one of g_loss"),
    "hidden": ("def g_loss(fake): return -fake.mean()", ":os.system", "unknown-name", "os.system"),
    "class": ("class Loss:\n    def __init__(self, a): ...", ":Loss", "loss-failed", "Loss"),
    "escapes": ("def g_loss(fake): raise RuntimeError('\\x1b[2J' + 'a' * 999)", ":g_loss", "loss-failed", "?[2Jaaa"),
    "memory": ("import numpy as np\ndef g_loss(fake): np.empty(6 << 30, np.uint8)", ":g_loss", "loss-failed", "Memory"),
    "report": ("import gc, io\ndef g_loss(fake):\n  for f in gc.get_objects():\n"
               "    if isinstance(f, io.TextIOWrapper) and str(f.name).endswith('report'): f.write('a\\n'); f.flush()",
               "", "report-damaged", "mine.py"),
    "notebook": ("x = 1", ".ipynb", "file-unreadable", "mine.py.ipynb"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_misbehaves_is_refused_in_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, name, code, fact = HOSTILE[case]
    if case == "memory" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux bounds it")
    if case == "hangs":
        monkeypatch.setattr(child_process, "SECONDS_EACH", 1)
    path = files(tmp_path, text)
    if case == "notebook":
        path.rename(f"{path}.ipynb")
    with raises(code, fact) as caught:
        identify(f"{path}{name}")
    assert "\n" not in str(caught.value)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith(("reading ", "still at ", "not identified: ")) for line in err.splitlines())


@pytest.mark.parametrize("target", ["nowhere.py", "nowhere.py:d_loss", "."])
def test_a_file_that_is_not_there_is_said(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with raises("file-unreadable", target.split(":")[0]):
        identify(target)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_what_a_file_starts_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import subprocess\nfrom pathlib import Path\ndef g_loss(fake):\n"
    text += "    p = subprocess.Popen(['sleep', '600'])\n"
    path = files(tmp_path, text + f"    Path({str(tmp_path / 'pid')!r}).write_text(str(p.pid))\n    raise ValueError\n")
    with raises("no-loss", path):
        identify(str(path))
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_the_childs_folder_is_the_files_and_its_answer_that_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "sibling.py").write_text("import torch.nn.functional as F\nsoft = F.softplus\n")
    path = files(tmp_path, "from sibling import soft\ndef g_loss(fake): return soft(-fake).mean() / 2\n")
    (found,) = identify(path)
    assert found == one(lambda fake: F.softplus(-fake).mean() / 2, "g_loss")


def test_where_the_command_is_given_nothing_is_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path / "here")
    with raises("no-loss"):
        identify(files(tmp_path, "x = 1"))


def test_the_readme_shows_what_it_prints() -> None:
    def mine(fake: torch.Tensor) -> torch.Tensor:
        return F.softplus(fake).mean()

    mine.__name__ = "g_loss"
    printed = "\n".join(map(str, identify(d_loss, mine)))
    assert printed in (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_help_says_what_the_status_means() -> None:
    command = [sys.executable, "-m", "ptarmigan", "losses", "identify", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "exit status 1 if" in " ".join(out.split())
    assert ptarmigan.identify is identify
