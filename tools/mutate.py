"""Mutation test of the losses and of the training step: change one token at a time and see whether a test fails.

    python tools/mutate.py [MODULE ...] [--workers 2] [--list]

From the syntax tree of each module it makes every single change of a sign, operator, factor, constant, target,
comparison, condition, reduction, detach, call, argument, keyword, name (real for fake, r for f, D for G ...), no_grad
or other context, term of a dict, and statement.  Each mutant runs in a fork of this process, which has imported torch,
and replaces the module through an import hook; no file is written.  A mutant is killed if a test fails, if it cannot
be imported, or if it runs too long.

Exit status 1 if a mutant survives that EQUIVALENT does not explain, or if an explanation is out of date.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ptarmigan"
TESTS = {
    "losses.adversarial": (
        "test_losses.py",
        "test_augment.py::test_signs_are_against_ds_best_logit_where_real_and_fake_are_alike",
        "test_game.py",
    ),
    "losses.conditioning": ("test_conditioning.py", "test_game.py"),
    "losses.penalties": ("test_penalties.py", "test_game.py", "test_conv.py"),
    "game.step": (
        "test_custom.py::test_the_context_is_what_the_step_has",
        "test_custom.py::test_lecam_is_its_formula_with_the_averages_of_the_step_before",
        "test_game.py",
        "test_micro_batch.py",
        "test_augment.py::test_penalties_are_at_the_image_before_augmentation_and_wgan_gps_at_ds_input",
        "test_augment.py::test_d_sees_nothing_but_augmented_images_each_half_of_each_update_by_its_own_draws",
        "test_conv.py::test_a_step_of_g_finds_no_gradient_of_ds_weights",
        "test_families.py::test_u_moves_once_an_update_of_d_and_by_nothing_else",
        "test_custom.py::test_a_fault_of_the_file_is_one_line_that_names_it",
    ),
}
SECONDS = 120  # of CPU time; a mutant that runs longer, or 10 times as long by the clock, counts as killed

LAST = "the same dimension, or index, counted from the other end"
SQUARED = "the square removes the sign"
EITHER = "type promotion is symmetric"
SUM = "a sum and a difference are both inf or nan exactly where either operand is"
TYPE = "for mypy; no effect at run time"
UNREAD = "the source logit uses neither the classes nor the labels"
EQUALITY = "labels are compared for equality only"

# Survivors that no test can kill, and why they compute the same.
EQUIVALENT: dict[str, str] = {
    "losses.adversarial: partial(least_squares_d, real_target=1.0, fake_target=-1.0) -> "
    "partial(least_squares_d, fake_target=-1.0)": "1 is the default; written out to show all three targets",
    "losses.conditioning.Head.forward: 1 -> -1": LAST,
    **{
        f"losses.conditioning.{name}.forward: 1 -> -1{n}": LAST
        for name, count in (("Projection", 2), ("ReACGAN", 2))
        for n in ("", " #2", " #3")[:count]
    },
    **{f"losses.conditioning.d2d_ce: 1 -> -1{n}": LAST for n in ("", " #2", " #3", " #4", " #5")},
    **{f"losses.conditioning.discriminative_g: 1 -> -1{n}": LAST for n in ("", " #2", " #3", " #4")},
    "losses.conditioning.discriminative_d: 1 -> -1": LAST,
    "losses.conditioning.discriminative_d: fake -> real": "both halves have as many logits",
    "losses.conditioning.d2d_ce: [attraction, repulsion] -> [repulsion, attraction]": "a sum",
    "losses.conditioning.ReACGAN.forward: F.normalize(self.embed(features), dim=1) -> "
    "F.normalize(self.embed(features))": "1 is the default; written out to show that it is each image's",
    "losses.conditioning.ReACGAN.forward: F.normalize(self.proxies(labels), dim=1) -> "
    "F.normalize(self.proxies(labels))": "1 is the default; written out to show that it is each image's",
    **{
        f"losses.conditioning.{name}.__init__: super().__init__(features, classes) -> "
        "super().__init__(features, -classes)": UNREAD
        for name in ("AuxiliaryClassifier", "Projection", "ReACGAN")
    },
    **{
        f"losses.conditioning.{name}.forward: super().forward(features, labels) -> "
        "super().forward(features, -labels)": UNREAD
        for name in ("AuxiliaryClassifier", "TwinClassifier", "ReACGAN")
    },
    **{
        f"losses.conditioning.{place}: known({half}.{output}) -> {half}.{output}": TYPE
        for place, given in {
            "AuxiliaryClassifier.d_term": ("real.class_logits", "fake.class_logits"),
            "AuxiliaryClassifier.g_term": ("fake.class_logits",),
            "TwinClassifier.d_term": ("real.class_logits", "fake.twin_logits"),
            "TwinClassifier.g_term": ("fake.class_logits", "fake.twin_logits"),
            "DiscriminativeClassifier.d_term": ("real.class_logits", "fake.class_logits"),
            "DiscriminativeClassifier.g_term": ("fake.class_logits",),
            "ReACGAN.d_term": ("real.embedding", "real.proxy"),
            "ReACGAN.g_term": ("fake.embedding", "fake.proxy"),
        }.items()
        for half, output in (name.split(".") for name in given)
    },
    "losses.conditioning.known: assert output is not None -> pass": TYPE,
    "losses.conditioning.AuxiliaryClassifier.d_term: classification_d(known(real.class_logits), "
    "known(fake.class_logits), "
    "real_labels=real_labels, fake_labels=fake_labels, fakes=loss.class_fake) -> "
    "classification_d(known(real.class_logits), known(fake.class_logits), real_labels=real_labels, "
    "fake_labels=fake_labels, fakes=-loss.class_fake)": "-True is true, -False is false",
    **{
        f"losses.conditioning.ReACGAN.{term}: d2d_ce(known({half}.embedding), known({half}.proxy), {half}_labels, "
        f"margin=loss.class_margin, temperature=loss.class_temperature) -> d2d_ce(known({half}.embedding), "
        f"known({half}.proxy), -{half}_labels, margin=loss.class_margin, temperature=loss.class_temperature)": EQUALITY
        for term, half in (("d_term", "real"), ("g_term", "fake"))
    },
    "losses.conditioning.ConditionalDiscriminator.forward: torch.promote_types(features.dtype, torch.float32) -> "
    "torch.promote_types(torch.float32, features.dtype)": EITHER,
    "losses.penalties.squared_gradient_norm: torch.promote_types(gradient.dtype, torch.float32) -> "
    "torch.promote_types(torch.float32, gradient.dtype)": EITHER,
    "losses.penalties.squared_gradient_norm: torch.autograd.grad(logits.sum(), images, create_graph=True) -> "
    "torch.autograd.grad(-logits.sum(), images, create_graph=True)": SQUARED,
    "losses.penalties.one_centred: squared_gradient_norm(logits, images) -> "
    "squared_gradient_norm(-logits, images)": SQUARED,
    "losses.penalties.one_centred: 1e-30 -> 2e-30": "any tiny floor above 0 keeps the slope finite",
    "game.step.d_terms: r1_r2(state, torch.cat([r.logits, f.logits]), images) -> "
    "r1_r2(state, -torch.cat([r.logits, f.logits]), images)": SQUARED,
    "game.step.d_terms: [r.logits, f.logits] -> [f.logits, r.logits]": "the gradient of their sum has no order",
    "game.step.backprop: len(gradient) -> len(-gradient)": "a count",
    "game.step.backprop: images.backward(gradient[part], inputs=list(state.G.parameters())) -> "
    "images.backward(gradient[part])": "the graph leads to G's weights alone",
    "game.step.backprop: list(state.G.parameters()) -> state.G.parameters()": "backward takes any iterable",
    "game.step.discriminate: 1 -> -1": LAST,
    "game.step.discriminate: masks[0] is not None and masks[1] is not None -> "
    "masks[0] is not None or masks[1] is not None": "both halves have masks, or neither has",
    "game.step.r1_r2: norms = torch.zeros(len(images), device=images.device) -> "
    "norms = -torch.zeros(len(images), device=images.device)": "-0 is 0",
    "game.step.r1_r2: torch.zeros(len(images), device=images.device) -> torch.zeros(len(images))": "tests run on a CPU",
    "game.step.r1_r2: len(images) -> len(-images)": "a count",
    "game.step.r1_r2: squared_gradient_norm(logits, images) -> squared_gradient_norm(-logits, images)": SQUARED,
    "game.step.r1_r2: zip(('r1', 'r2'), norms.chunk(2), strict=True) -> "
    "zip(('r1', 'r2'), norms.chunk(2))": "both have two parts",
    "game.step.r1_r2: True -> False": "both have two parts",
    "game.step.wgan_gp: logits = state.D(mixed, part.real.labels, part.draws.masks('real')).logits -> "
    "logits = -state.D(mixed, part.real.labels, part.draws.masks('real')).logits": SQUARED,
    "game.step.wgan_gp: one_centred(logits, mixed) -> one_centred(-logits, mixed)": SQUARED,
    "game.step.update: 'list[Tensor]' -> 'list[Tensor]_'": TYPE,
    "game.step.update: [*gradients, terms] -> [terms, *gradients]": "each is averaged by itself",
    "game.step.update: torch.isfinite(terms.sum() + norm) -> "
    "torch.isfinite(-(terms.sum() + norm))": "-x is finite where x is",
    "game.step.update: terms.sum() + norm -> terms.sum() - norm": SUM,
    "game.step.update: terms.sum() + norm -> -terms.sum() + norm": SUM,
    "game.step.update: terms.sum -> terms.mean": "a mean is finite where the sum is",
    "game.step.update: terms.unbind() -> terms": "a tensor is iterated over like its rows",
    "game.step.update: True -> False": "as many terms as values",
}

NAMES = {"real": "fake", "r": "f", "x": "g", "real_labels": "fake_labels", "real_target": "fake_target", "D": "G"}
ATTRIBUTES = {
    "r1": "r2", "opt_d": "opt_g", "D": "G", "d": "g", "mean": "sum", "square": "abs", "logits": "class_logits",
    "real": "fake", "grad": "data", "logical_or_": "logical_and_", "relu": "silu",
}  # fmt: skip
for table in (NAMES, ATTRIBUTES):
    table.update({b: a for a, b in list(table.items())})
OPERATORS: dict[type[ast.operator], Sequence[type[ast.operator]]] = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Sequence[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
}  # fmt: skip
NO_VALUES = ("annotation", "returns", "decorator_list", "bases", "msg", "type_comment", "ctx")

Steps = tuple[tuple[str, int | None], ...]  # the path from the module to a node: fields, with an index in a list


@dataclass(frozen=True)
class Mutant:
    module: str
    line: int
    key: str  # module.function: old -> new, with #n for a repeated one
    code: CodeType


def negated(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def numeric(node: ast.AST | None) -> bool:
    """Whether the node could be a number or a tensor."""
    return isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.BinOp | ast.Subscript)


def swapped(items: Sequence[ast.expr], i: int, j: int) -> list[ast.expr]:
    out = list(items)
    out[i], out[j] = out[j], out[i]
    return out


def without(items: Sequence[ast.AST], i: int) -> list[ast.AST]:
    return [*items[:i], *items[i + 1 :]]


def changed(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Every single change of this node itself, not of its children."""
    match node:
        case ast.BinOp(left, op, right):
            for other in OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            yield from (left, right)
            if isinstance(op, ast.Add | ast.Sub | ast.Mult | ast.Div):
                yield ast.BinOp(negated(left), op, right)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield from (ast.Constant(v) for v in dict.fromkeys((value + 1, 2 * value, -value, 0)) if v != value)
        case ast.Constant(str() as value):
            yield from (ast.Constant(v) for v in (("mean", "sum") if value == "none" else (value + "_",)))
        case ast.Compare(left, [op], right):
            yield from (ast.Compare(left, [other()], right) for other in COMPARISONS.get(type(op), ()))
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from values
        case ast.IfExp(test, body, orelse):
            yield from (body, orelse, ast.IfExp(test, orelse, body))
        case ast.If(test):
            for new in (ast.UnaryOp(ast.Not(), test), ast.Constant(True), ast.Constant(False)):
                yield changed(node, test=new)
        case ast.Call(function, arguments, keywords):
            yield from calls(node, function, arguments, keywords)
        case ast.Dict(keys, values):
            for i, value in enumerate(values):
                yield ast.Dict(without(keys, i), without(values, i))
                if numeric(value):
                    yield ast.Dict(keys, [*values[:i], negated(value), *values[i + 1 :]])
                if i:
                    yield ast.Dict(keys, swapped(values, i - 1, i))
        case ast.DictComp(_, value) if numeric(value):
            yield changed(node, value=negated(value))
        case ast.Tuple(elements, ast.Load()) | ast.List(elements, ast.Load()):
            for i in range(len(elements)):
                yield changed(node, elts=without(elements, i))
                if i:
                    yield changed(node, elts=swapped(elements, i - 1, i))
        case ast.Return(value) if numeric(value):
            yield ast.Return(negated(value))
        case ast.Name(name, ast.Load()) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Attribute(value, name, ast.Load()) if name in ATTRIBUTES:
            yield ast.Attribute(value, ATTRIBUTES[name], ast.Load())
        case ast.With(_, body):
            yield ast.If(ast.Constant(True), body, [])
        case ast.Assign(targets, value):
            if numeric(value):
                yield changed(node, value=negated(value))
            if not isinstance(targets[0], ast.Name | ast.Tuple):
                yield ast.Pass()
        case ast.Expr() | ast.Assert() | ast.For() | ast.AugAssign():
            yield ast.Pass()


def calls(
    node: ast.Call, function: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]
) -> Iterator[ast.AST]:
    """The call without its function, without an argument, with two arguments swapped, or with a sign flipped."""
    if arguments:
        yield arguments[0]
    if isinstance(function, ast.Attribute):
        yield function.value
    for i, argument in enumerate(arguments):
        if len(arguments) > 1:
            yield changed(node, args=without(arguments, i))
        for j in range(i):
            yield changed(node, args=swapped(arguments, i, j))
        if numeric(argument):
            yield changed(node, args=[*arguments[:i], negated(argument), *arguments[i + 1 :]])
    values = [keyword.value for keyword in keywords]

    def renamed(new: Sequence[ast.expr]) -> list[ast.keyword]:
        return [ast.keyword(old.arg, value) for old, value in zip(keywords, new, strict=True)]

    for i, value in enumerate(values):
        yield changed(node, keywords=without(keywords, i))
        for j in range(i):
            yield changed(node, keywords=renamed(swapped(values, i, j)))
        if numeric(value):
            yield changed(node, keywords=renamed([*values[:i], negated(value), *values[i + 1 :]]))


def nodes(node: ast.AST, path: Steps = (), scope: str = "") -> Iterator[tuple[ast.AST, Steps, str]]:
    """Every node that takes part in the computation, with the path to it and the name of its function."""
    if isinstance(node, ast.Import | ast.ImportFrom) or is_alias(node, path) or is_docstring(node):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}"
    yield node, path, scope
    for field, value in ast.iter_fields(node):
        if field in NO_VALUES:
            continue
        for i, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                yield from nodes(child, (*path, (field, i)), scope)


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_alias(node: ast.AST, path: Steps) -> bool:
    """Whether the node is a type alias at module level: X = A | None."""
    return len(path) == 1 and isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)


def replaced(tree: ast.Module, path: Steps, new: ast.AST) -> ast.Module:
    """A copy of the tree with the node at the end of the path replaced."""
    tree = copy.deepcopy(tree)
    at: ast.AST = tree
    for n, (field, i) in enumerate(path):
        held = getattr(at, field)
        if n == len(path) - 1:
            new = copy.deepcopy(new)
            if i is None:
                setattr(at, field, new)
            else:
                held[i] = new
        else:
            at = held if i is None else held[i]
    return ast.fix_missing_locations(tree)


def source(module: str) -> Path:
    return SOURCE / f"{module.replace('.', '/')}.py"


def is_of(key: str, module: str) -> bool:
    return key.startswith((f"{module}:", f"{module}."))


def short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 150 else f"{text[:147]}..."


def mutants(module: str) -> Iterator[Mutant]:
    path = source(module)
    tree = ast.parse(path.read_text())
    seen = {ast.unparse(tree)}
    repeats: Counter[str] = Counter()
    for node, at, scope in nodes(tree):
        for new in variants(node):
            if new is node or not at:
                continue
            mutated = replaced(tree, at, new)
            text = ast.unparse(mutated)
            if text in seen:
                continue
            seen.add(text)
            key = f"{module}{scope}: {short(node)} -> {short(new)}"
            repeats[key] += 1
            key += f" #{repeats[key]}" if repeats[key] > 1 else ""
            try:
                code = compile(mutated, str(path), "exec")
            except (SyntaxError, ValueError):  # not valid Python, such as f(*, a=1) without the default of a
                continue
            yield Mutant(module, getattr(node, "lineno", 0), key, code)


class CodeLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from given code instead of from its file."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None


def verdict(module: str, code: CodeType | None, quiet: bool) -> int:
    """In a fork: the exit status of pytest on the module's tests, with the module replaced by the code."""
    import pytest
    import torch

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)
    torch.set_num_threads(1)
    if quiet:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    if code is not None:
        loader = CodeLoader(f"ptarmigan.{module}", str(source(module)), code)
        sys.meta_path.insert(0, loader)  # type: ignore[arg-type]
    files = [str(ROOT / "tests" / name) for name in TESTS[module]]
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--rootdir", str(ROOT)]
    return int(pytest.main([*options, *files]))


def fork(module: str, code: CodeType | None, quiet: bool = True) -> int:
    pid = os.fork()
    if pid == 0:
        status = 70  # not an exit status of pytest
        try:
            status = verdict(module, code, quiet)
        finally:
            os._exit(status)
    return pid


def killed(status: int, mutant: Mutant) -> bool:
    """Status 0: all tests passed; 1: one failed; 2: a test file could not be imported; a signal: it ran too long."""
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in (0, 1, 2):
        raise SystemExit(f"pytest exited with status {os.WEXITSTATUS(status)} on {mutant.key}")
    return status != 0


def survivors_of(every: Sequence[Mutant], workers: int) -> list[Mutant]:
    running: dict[int, Mutant] = {}
    survivors: list[Mutant] = []
    done, began = 0, time.monotonic()
    waiting = iter(every)
    while True:
        while len(running) < workers and (mutant := next(waiting, None)):
            running[fork(mutant.module, mutant.code)] = mutant
        if not running:
            return survivors
        pid, status = os.wait()
        mutant = running.pop(pid)
        done += 1
        if not killed(status, mutant):
            survivors.append(mutant)
        if sys.stderr.isatty() or done % 100 == 0:
            print(
                f"{done}/{len(every)} mutants, {len(survivors)} alive, {time.monotonic() - began:.0f} s",
                end="\r" if sys.stderr.isatty() else "\n",
                file=sys.stderr,
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"some of {', '.join(TESTS)}; default: all")
    parser.add_argument("--workers", type=int, default=2, help="mutants to test at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants without testing them")
    given = parser.parse_args()
    chosen = given.modules or list(TESTS)
    if unknown := [name for name in chosen if name not in TESTS]:
        parser.error(f"unknown module {unknown[0]!r}: choose from {', '.join(TESTS)}")
    every = [mutant for module in chosen for mutant in mutants(module)]
    if given.list:
        print("\n".join(f"{m.module}:{m.line} {m.key}" for m in every))
        return 0

    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    for name in ("pytest", "torch", "torch._dynamo", "numpy"):  # before the forks, which share them
        importlib.import_module(name)
    gc.freeze()
    for module in chosen:
        if os.waitpid(fork(module, None, quiet=False), 0)[1]:
            raise SystemExit(f"the tests of {module} fail without a mutation: fix them first")

    began = time.monotonic()
    survivors = survivors_of(every, given.workers)
    for module in chosen:
        total = sum(m.module == module for m in every)
        alive = [m for m in survivors if m.module == module]
        explained = sum(m.key in EQUIVALENT for m in alive)
        dead = f"{total - len(alive)}/{total} killed"
        print(f"{module}: {dead}, {explained} equivalent, {len(alive) - explained} unexplained")
    for m in survivors:
        print(f"{m.module}:{m.line} {m.key}\n    {EQUIVALENT.get(m.key, 'UNEXPLAINED: no test notices')}")
    keys = {m.key for m in survivors}
    stale = [k for k in EQUIVALENT if k not in keys and any(is_of(k, module) for module in chosen)]
    for key in stale:
        print(f"out of date in EQUIVALENT (the mutant is killed or does not exist): {key}")
    unexplained = [m for m in survivors if m.key not in EQUIVALENT]
    score = f"killed {len(every) - len(survivors)}/{len(every)}"
    left = f"{len(survivors) - len(unexplained)} equivalent, {len(unexplained)} unexplained"
    print(f"{score}; {left}; {time.monotonic() - began:.0f} s with {given.workers} workers")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
