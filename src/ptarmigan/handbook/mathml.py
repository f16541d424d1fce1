"""A little of TeX's notation to MathML Core, which browsers set by themselves."""

from __future__ import annotations

import html
import re

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]|\d+(?:\.\d+)?|\s+|.")
LETTERS = {
    "alpha": "α", "gamma": "γ", "theta": "θ", "lambda": "λ", "mu": "μ", "sigma": "σ", "tau": "τ", "phi": "φ",
    "psi": "ψ", "infty": "∞", "E": "𝔼", "nabla": "∇", "partial": "∂",
}  # fmt: skip
OPERATORS = {
    "ne": "≠", "pm": "±", "cdot": "·", "to": "→", "otimes": "⊗", "parallel": "∥", "mid": "|", "iff": "⟺",
    "quad": "\u2003", "int": "∫", "sum": "∑",
}  # fmt: skip
THIN = '<mspace width="0.17em"/>'
SPACES = {",": "0.17em", ";": "0.28em"}
FENCES = {"abs": ("|", "|"), "norm": ("‖", "‖"), "paren": ("(", ")"), "bracket": ("[", "]"), "angle": ("⟨", "⟩")}


def mathml(tex: str, display: bool = False) -> str:
    r"""TeX -> a <math> element: letters, numbers, ^ _ ', { }, \frac \sqrt \hat \op{name} \text{words}, the names above.

    \abs \norm \paren \bracket \angle{...} are fences that grow with what they hold; & and \\ make a table of equations.
    Raises ValueError for a name or a brace that it does not know.
    """
    tokens: list[str] = TOKEN.findall(tex.strip())
    if "&" in tokens or r"\\" in tokens:
        body = "".join(f"<mtr>{_cells(line)}</mtr>" for line in _split(tokens, r"\\"))
        body = f'<mtable class="lines" displaystyle="true">{body}</mtable>'
    else:
        body = _all(tokens)
    kind = ' display="block"' if display else ""
    return f'<math{kind} alttext="{html.escape(" ".join(tex.split()))}">{body}</math>'


def of_handbook(formula: str) -> str:
    """A formula of the handbook, which a test runs as Python, as TeX; nothing but its look changes."""
    for pattern, tex in (
        (r"\|grad_(\w) D\((.+?)\)\|", r"\\norm{\\nabla_\1 D(\2)}"),
        (r"\bE ", r"\\E\\,"),
        (r"1/2 \* ", r"\\frac{1}{2} "),
        (r"gamma/2", r"\\frac{\\gamma}{2}"),
        (r"\blam \* ", r"\\lambda "),
        (r" \* ", r"\\,"),
        (r"sqrt\((\w+)\)", r"\\sqrt{\1}"),
        (r"\bh_(\w+)", r"h_{\\text{\1}}"),
        (r"\bR([12])\b", r"R_\1"),
        (r"\b(CE|GP|max|sign|dot|source|embedding|weight)\b", r"\\op{\1}"),
    ):
        formula = re.sub(pattern, tex, formula)
    return formula


def _cells(tokens: list[str]) -> str:
    return "".join(f"<mtd>{_all(cell, led=i > 0)}</mtd>" for i, cell in enumerate(_split(tokens, "&")))


def _split(tokens: list[str], at: str) -> list[list[str]]:
    """Tokens between the separators that stand in no braces."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"{": 1, "}": -1}.get(token, 0)
        if token == at and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _all(tokens: list[str], led: bool = False) -> str:
    items, rest = _row(tokens, led)
    if rest:
        raise ValueError(f"no brace is open before {''.join(rest)!r}")
    return items


def _row(tokens: list[str], led: bool = False) -> tuple[str, list[str]]:
    """Elements up to a closing brace, which is left; `led`: something stands before, so that + and - join."""
    out, operand = "", led
    while tokens and tokens[0] != "}":
        if tokens[0].isspace():
            tokens = tokens[1:]
            continue
        named = tokens[0] in (r"\log", r"\op")
        gap = THIN if named and operand else ""
        base, tokens = _atom(tokens, operand)
        operand = not base.startswith("<mo") or base in (_operator(")"), _operator("]"))
        scripts: dict[str, str] = {}
        primes = ""
        while tokens and tokens[0] in ("^", "_", "'"):
            kind, tokens = tokens[0], tokens[1:]
            if kind == "'":  # as a superscript it would be raised twice, but in fonts made for mathematics
                primes += '<mo lspace="0" rspace="0">′</mo>'
            else:
                scripts[kind], tokens = _argument(tokens)
        out += gap + _scripted(base, scripts) + primes
        if named and re.match(r"\s*[A-Za-z0-9\\]", "".join(tokens[:2])) and tokens[0] not in (r"\paren", r"\,"):
            out += THIN
    return out, tokens


def _scripted(base: str, scripts: dict[str, str]) -> str:
    low, high = scripts.get("_"), scripts.get("^")
    under = ">∑<" in base
    if low and high:
        return f"<munderover>{base}{low}{high}</munderover>" if under else f"<msubsup>{base}{low}{high}</msubsup>"
    if low:
        return f"<munder>{base}{low}</munder>" if under else f"<msub>{base}{low}</msub>"
    return f"<msup>{base}{high}</msup>" if high else base


def _argument(tokens: list[str]) -> tuple[str, list[str]]:
    """One element: what is in braces, or the next one."""
    while tokens and tokens[0].isspace():
        tokens = tokens[1:]
    if not tokens:
        raise ValueError("something is missing at the end")
    if tokens[0] != "{":
        return _atom(tokens, False)
    inner, rest = _row(tokens[1:])
    if not rest:
        raise ValueError("a brace is not closed")
    return f"<mrow>{inner}</mrow>", rest[1:]


def _raw(tokens: list[str]) -> tuple[str, list[str]]:
    """What stands in braces, as it is."""
    end = tokens.index("}")
    return "".join(tokens[1:end]), tokens[end + 1 :]


def _operator(sign: str, operand: bool = True) -> str:
    if sign in "()[]|‖":
        return f'<mo stretchy="false">{sign}</mo>'
    if sign == "/":
        return '<mo lspace="0" rspace="0">/</mo>'
    if sign in "∫∑" or (sign in "+−±" and not operand):
        return f'<mo form="prefix">{sign}</mo>'
    return f"<mo>{html.escape(sign)}</mo>"


def _atom(tokens: list[str], operand: bool) -> tuple[str, list[str]]:
    """The next element; `operand`: it follows one, so that a minus is a difference."""
    token, rest = tokens[0], tokens[1:]
    name = token[1:]
    if token == "{":
        return _argument(tokens)
    if token[0].isdigit():
        return f"<mn>{token}</mn>", rest
    if token.isalpha():
        return f"<mi>{token}</mi>", rest
    if not token.startswith("\\"):
        return _operator("−" if token == "-" else token, operand), rest
    if name in SPACES:
        return f'<mspace width="{SPACES[name]}"/>', rest
    if name in ("op", "text"):
        words, rest = _raw(rest)
        element = f'<mi mathvariant="normal">{words}</mi>' if name == "op" else f"<mtext>{html.escape(words)}</mtext>"
        return element, rest
    if name == "frac":
        above, rest = _argument(rest)
        below, rest = _argument(rest)
        return f"<mfrac>{above}{below}</mfrac>", rest
    if name == "sqrt":
        inner, rest = _argument(rest)
        return f"<msqrt>{inner}</msqrt>", rest
    if name == "hat":
        inner, rest = _argument(rest)
        return f'<mover accent="true">{inner}<mo>^</mo></mover>', rest
    if name in FENCES:
        inner, rest = _argument(rest)
        left, right = FENCES[name]
        fence = '<mo stretchy="true" form="{}">{}</mo>'
        return f"<mrow>{fence.format('prefix', left)}{inner}{fence.format('postfix', right)}</mrow>", rest
    if name == "log":
        return "<mi>log</mi>", rest
    if name in LETTERS:
        return f"<mi>{LETTERS[name]}</mi>", rest
    if name in OPERATORS:
        return _operator(OPERATORS[name], operand), rest
    raise ValueError(f"{token} is not known")
