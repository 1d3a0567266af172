r"""Which symbols some LaTeX uses, by their base: `\mathcal{M}_{t-1}` uses M, `\theta_i` theta.

Subscripts tell symbols of one base apart and are not looked into; superscripts are, unless they
are a transposition, a star, a number or stand in parentheses. Words in `\text`, `\mathrm` and
`\operatorname` are no symbols, nor is what a sum or product counts with.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[A-Za-z]|[0-9.]+|\s+|.", re.DOTALL)

_WORDS = frozenset({
    "\\text", "\\mathrm", "\\operatorname", "\\operatorname*", "\\textbf", "\\textit", "\\textrm",
    "\\mathbb", "\\tag", "\\label", "\\ref", "\\textsc", "\\textsf", "\\texttt", "\\mbox",
    "\\hspace", "\\vspace", "\\color", "\\mathtt", "\\mathsf",
})  # fmt: skip
_COUNTS = frozenset({
    "\\sum", "\\prod", "\\bigcup", "\\bigoplus", "\\max", "\\min", "\\sup", "\\inf", "\\lim",
    "\\int", "\\argmin", "\\argmax",
})  # fmt: skip
_ALIASES = {
    "ell": ("l", "ell"),
    "varepsilon": ("epsilon", "eps"),
    "epsilon": ("epsilon", "eps"),
    "varphi": ("phi",),
    "vartheta": ("theta",),
    "varsigma": ("sigma",),
    "varrho": ("rho",),
    "lambda": ("lambda", "lam"),
}
# Every other command is layout, a relation, an operator or an accent, and names nothing; a command
# that is not in this list is taken for a symbol, so that none goes unseen.
_LAYOUT = """
    left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle quad qquad
    displaystyle textstyle scriptstyle limits nolimits substack nonumber notag hline
    frac dfrac tfrac sqrt binom overset underset overbrace underbrace overline underline stackrel
    hat tilde bar vec dot ddot check breve widehat widetilde acute grave mathring
    mathbf mathcal mathit mathfrak mathscr boldsymbol bm pmb mathnormal
    sum prod int lim max min sup inf argmin argmax arg bigcup bigcap bigoplus bigotimes coprod
    exp log ln sin cos tan tanh sinh cosh det dim ker deg gcd Pr tr rank diag sign sgn softmax
    sigmoid
    cdot cdots ldots dots vdots ddots times otimes oplus odot ominus circ bullet star ast div pm mp
    leq le geq ge neq ne lt gt ll gg approx equiv sim simeq cong propto in notin ni subset subseteq
    supset supseteq cup cap setminus mid parallel perp to gets mapsto rightarrow leftarrow
    Rightarrow Leftarrow leftrightarrow Leftrightarrow longrightarrow implies iff coloneqq triangleq
    nabla partial infty forall exists land lor neg top prime dagger intercal emptyset varnothing
    langle rangle lvert rvert lVert rVert vert Vert lfloor rfloor lceil rceil lbrace rbrace lbrack
    rbrack backslash colon wedge vee bmod pmod mod angle
"""
_NOT_SYMBOLS = frozenset(_LAYOUT.split())


def symbols(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each symbol once, in order: as it is written, and the bases by which it may be declared."""
    reader = _Reader(_TOKEN.findall(text))
    reader.read(0, len(reader.tokens))
    return [(shown, bases) for shown, bases in reader.found.items() if shown not in reader.counted]


def base_of(name: str) -> str:
    """The base of a declared name: `M_{t-1}` → `M`, `x_tilde` → `x`."""
    return re.split(r"[_']", name, maxsplit=1)[0]


class _Reader:
    """Walks over the tokens; `found` are symbols, `counted` letters that sums count with."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.found: dict[str, tuple[str, ...]] = {}
        self.counted: set[str] = set()

    def read(self, at: int, end: int) -> None:
        """Look at the tokens of a range."""
        before = ""
        while at < end:
            token = self.tokens[at]
            at += 1
            if token.isspace():
                continue
            if token in _WORDS or token in ("\\begin", "\\end"):
                at = self._past(at, end)
                if token == "\\begin" and at < end and self.tokens[at] == "{":
                    at = self._past(at, end)  # the columns of an array
            elif token == "_":
                after = self._past(at, end)
                if before in _COUNTS:
                    self._counted(at, after)
                at = after
                continue  # `before` stays: \sum_i^n
            elif token == "^":
                after = self._past(at, end)
                if not self._is_mark(at, after):
                    self.read(at, after)
                at = after
                continue
            else:
                self._symbol(token)
            before = token

    def _symbol(self, token: str) -> None:
        if token.isascii() and token.isalpha():
            self.found.setdefault(token, (token,))
        elif token[0] == "\\" and token[1:].isalpha() and token[1:] not in _NOT_SYMBOLS:
            name = token[1:]
            self.found.setdefault(token, _ALIASES.get(name, (name,)))

    def _past(self, at: int, end: int) -> int:
        """The place after the next group, or after the next token where there are no braces."""
        while at < end and self.tokens[at].isspace():
            at += 1
        if at >= end or self.tokens[at] != "{":
            after = at + 1
            if (
                at < end
                and self.tokens[at][0] == "\\"
                and after < end
                and self.tokens[after] == "{"
            ):
                return min(self._past(after, end), end)  # x_\text{out}
            return min(after, end)
        depth = 0
        for place in range(at, end):
            depth += {"{": 1, "}": -1}.get(self.tokens[place], 0)
            if depth == 0:
                return place + 1
        return end

    def _is_mark(self, at: int, end: int) -> bool:
        """Whether a superscript is a transposition, a star, a number or in parentheses."""
        inner = "".join(self.tokens[at:end]).strip().removeprefix("{").removesuffix("}").strip()
        return (
            inner in ("T", "\\top", "\\intercal", "*", "\\ast", "\\star", "\\prime", "\\dagger")
            or inner.startswith(("(", "\\text", "\\mathrm"))
            or not re.search(r"[A-Za-z]", inner)
        )

    def _counted(self, at: int, end: int) -> None:
        """`i` of `\\sum_{i=1}`, `i` and `j` of `\\sum_{i, j \\le t}`: what stands on the left."""
        for token in self.tokens[at:end]:
            if token in ("=", "<", "\\le", "\\leq", "\\lt", "\\in"):
                break
            if token.isascii() and token.isalpha():
                self.counted.add(token)
