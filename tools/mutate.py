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

from equivalent import EQUIVALENT
from mutations import nodes, replaced, variants

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ptarmigan"
TESTS = {
    "losses.adversarial": (
        "test_losses.py",
        "test_augment_steps.py::test_signs_are_against_ds_best_logit_where_real_and_fake_are_alike",
        "test_game.py",
    ),
    "losses.conditioning": ("test_conditioning.py", "test_game.py"),
    "losses.penalties": ("test_penalties.py", "test_game.py", "test_conv.py"),
    "game.step": (
        "test_custom.py::test_the_context_is_what_the_step_has",
        "test_custom.py::test_lecam_is_its_formula_with_the_averages_of_the_step_before",
        "test_game.py",
        "test_micro_batch.py",
        "test_augment_steps.py::test_penalties_are_at_the_image_before_augmentation_and_wgan_gps_at_ds_input",
        "test_augment_steps.py::test_d_sees_nothing_but_augmented_images_each_half_of_each_update_by_its_own_draws",
        "test_conv.py::test_a_step_of_g_finds_no_gradient_of_ds_weights",
        "test_families.py::test_u_moves_once_an_update_of_d_and_by_nothing_else",
        "test_custom.py::test_a_fault_of_the_file_is_one_line_that_names_it",
    ),
}
SECONDS = 120  # of CPU time; a mutant that runs longer, or 10 times as long by the clock, counts as killed


@dataclass(frozen=True)
class Mutant:
    module: str
    line: int
    key: str  # module.function: old -> new, with #n for a repeated one
    code: CodeType


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
    print(f"{time.monotonic() - began:.0f} s with {given.workers} workers")
    return report(chosen, every, survivors)


def report(chosen: Sequence[str], every: Sequence[Mutant], survivors: Sequence[Mutant]) -> int:
    """Print what survived of the mutants of the chosen modules; returns the exit status."""
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
    return 1 if stale or keys - EQUIVALENT.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
