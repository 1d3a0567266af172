"""Which runs are meant: `val_loss<1.5 and arm=wave`, parsed by hand, in one line of errors.

    status=finished or (seed in [1,2] and not tag=slow)
    name~gpt and created>2026-11-01 and train.optimizer.lr<=1e-3

A comparison is a name, one of = != < <= > >= ~ !~ in, and a value; `~` asks whether a text holds
another, whatever the case, and `in` takes a list. They are joined by `and`, `or`, `not` and
parentheses. Names and values with spaces or signs in them stand in quotes. A name with several
values (tags) has a value when one of them is it.

What a run does not have never matches: neither `val_loss<1.5` nor `not val_loss<1.5` finds a run
without that number, and neither does a number compared with a text. The exception is a question
for just that: `val_loss=none` (or null) finds runs that have none, or for which it is null. NaN is
found by `val_loss=nan` only. A date is all of its day (or month, or minute) in UTC, so
`created>2026-11-01` begins on the second. Nothing here knows runs: `matches` asks for values by
their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cupel.errors import UsageError, did_you_mean
from cupel.record.comparing import contains, equals, in_time, ordered, span

TIMES = frozenset({"created"})  # names whose values are Unix seconds, compared with dates

Lookup = Callable[[str], object]  # a value by its name, None when there is none

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<sign>!=|!~|<=|>=|==|[=<>~()\[\],])
    |(?P<word>[^\s()\[\],=!<>~"']+)
    |(?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = ("=", "!=", "<", "<=", ">", ">=", "~", "!~", "in")
_WORDS = ("and", "or", "not", "in")
_OTHERS = {"&&": "and", "&": "and", "||": "or", "|": "or"}
_NOTHING = ("none", "null")
_DEEPEST = 100
_LONGEST = 10_000
_EXAMPLE = "for example: val_loss<1.5 and arm=wave"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One name, one sign and the values on its right, more than one only after `in`."""

    name: str
    sign: str
    values: tuple[str, ...]

    def holds(self, lookup: Lookup) -> bool | None:
        """Whether it is true; None when the run does not have what is asked for."""
        value = lookup(self.name)
        of_nothing = any(text.lower() in _NOTHING for text in self.values)
        if of_nothing and value in (None, [], ()) and self.sign in ("=", "!=", "in"):
            return self.sign != "!="
        if value is None:
            return None
        if self.name in TIMES:
            return in_time(value, self.sign, self.values)
        many = value if isinstance(value, list | tuple) else [value]
        if self.sign in ("<", "<=", ">", ">="):
            return ordered(many[0], self.sign, self.values[0]) if len(many) == 1 else None
        does = contains if self.sign.endswith("~") else equals
        found = any(does(one, text) for one in many for text in self.values)
        return found != self.sign.startswith("!")

    def __str__(self) -> str:
        shown = [_quoted(value) for value in self.values]
        if self.sign == "in":
            return f"{_quoted(self.name)} in [{', '.join(shown)}]"
        return f"{_quoted(self.name)} {self.sign} {shown[0]}"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a part."""

    part: Part

    def holds(self, lookup: Lookup) -> bool | None:
        """See `Comparison.holds`."""
        found = self.part.holds(lookup)
        return None if found is None else not found

    def __str__(self) -> str:
        return f"not {self.part}" if isinstance(self.part, Comparison) else f"not ({self.part})"


@dataclass(frozen=True, slots=True)
class Joined:
    """Two or more parts, of which all (`and`) or one (`or`) must be true."""

    word: str
    parts: tuple[Part, ...]

    def holds(self, lookup: Lookup) -> bool | None:
        """See `Comparison.holds`."""
        decides = self.word == "or"
        unknown = False
        for part in self.parts:
            found = part.holds(lookup)
            if found is decides:
                return decides
            unknown |= found is None
        return None if unknown else not decides

    def __str__(self) -> str:
        shown = (f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)
        return f" {self.word} ".join(shown)


Part = Comparison | Not | Joined


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; its text parses into an equal one."""

    part: Part

    def matches(self, lookup: Lookup) -> bool:
        """Whether a run is meant, whose values `lookup` gives."""
        return self.part.holds(lookup) is True

    def names(self) -> set[str]:
        """All names that are asked for."""
        return set(_names(self.part))

    def __str__(self) -> str:
        return str(self.part)


def parse(text: str) -> Filter:
    """The filter that a text says. Raises UsageError: what was found where, what was expected."""
    if len(text) > _LONGEST:
        raise UsageError(f"the filter has {len(text)} characters; at most {_LONGEST} are read")
    parser = _Parser(text)
    part = parser.joined("or")
    parser.take_end()
    return Filter(part)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # quoted, sign, word or end
    text: str
    position: int

    def is_(self, *texts: str) -> bool:
        return self.kind in ("sign", "word") and self.text.lower() in texts


class _Parser:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, text: str) -> None:
        self._text, self._depth = text, 0
        self._tokens = list(_tokens(text))
        self._at = 0

    def joined(self, word: str) -> Part:
        """One or more parts with this word between them."""
        parts = [self._inner(word)]
        while self._next.is_(word):
            self._take()
            parts.append(self._inner(word))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def take_end(self) -> None:
        """Nothing may follow."""
        if self._next.kind != "end":
            raise self._wrong("'and', 'or' or the end", ("and", "or"))

    def _inner(self, word: str) -> Part:
        return self.joined("and") if word == "or" else self._negated()

    def _negated(self) -> Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(f"no more than {_DEEPEST} parts within each other")
        if self._next.is_("not"):
            self._take()
            part: Part = Not(self._negated())
        elif self._next.is_("("):
            self._take()
            part = self.joined("or")
            if not self._next.is_(")"):
                raise self._wrong("'and', 'or' or ')'", ("and", "or"))
            self._take()
        else:
            part = self._comparison()
        self._depth -= 1
        return part

    def _comparison(self) -> Part:
        name = self._text_of("a name, 'not' or '('")
        sign = self._next.text.lower() if self._next.kind in ("sign", "word") else ""
        if sign not in (*_SIGNS, "==", "not"):
            raise self._wrong(f"one of {' '.join(_SIGNS)} after '{_short(name)}'", _SIGNS)
        self._take()
        if sign == "not":
            if not self._next.is_("in"):
                raise self._wrong("'in' after 'not'", ("in",))
            self._take()
            return Not(Comparison(name, "in", self._list(name)))
        if sign == "in":
            return Comparison(name, "in", self._list(name))
        return Comparison(name, "=" if sign == "==" else sign, (self._value(name),))

    def _list(self, name: str) -> tuple[str, ...]:
        if not self._next.is_("["):
            raise self._wrong("a list such as [1, 2]")
        self._take()
        values = [self._value(name)]
        while self._next.is_(","):
            self._take()
            values.append(self._value(name))
        if not self._next.is_("]"):
            raise self._wrong("',' or ']'")
        self._take()
        return tuple(values)

    def _value(self, name: str) -> str:
        expected, before = "a value", self._next
        if name in TIMES:
            expected = "a date such as 2026-11-01, or Unix seconds"
        value = self._text_of(expected)
        if name in TIMES and span(value) is None:
            raise self._wrong(expected, token=before)
        return value

    def _text_of(self, expected: str) -> str:
        token = self._next
        if token.kind == "word" and token.is_(*_WORDS):
            raise self._wrong(f"{expected}; to mean the word itself, put it in quotes")
        if token.kind not in ("word", "quoted"):
            raise self._wrong(expected)
        self._take()
        return token.text

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> None:
        self._at += 1

    def _wrong(
        self, expected: str, near: Sequence[str] = (), token: _Token | None = None
    ) -> UsageError:
        token = token or self._next
        found = "the end" if token.kind == "end" else f"'{_short(token.text)}'"
        hint = did_you_mean(_OTHERS.get(token.text.lower(), token.text.lower()), near)
        return _error(self._text, token.position, f"found {found}, expected {expected}{hint}")


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            what = "a quote that is not closed" if text[position] in "\"'" else text[position]
            raise _error(text, position, f"found {what}, expected a name, a sign or a value")
        kind = match.lastgroup or "end"
        found = match[kind]
        if kind == "quoted":
            found = re.sub(r"\\(.)", r"\1", found[1:-1], flags=re.DOTALL)
        tokens.append(_Token(kind, found, match.start(kind)))
        position = match.end()
    return tokens


def _error(text: str, position: int, told: str) -> UsageError:
    where = f"the filter '{_short(text)}' at position {position + 1}"
    return UsageError(f"cannot read {where}: {told}; {_EXAMPLE}")


def _short(text: str) -> str:
    """A text in one line, and not too long."""
    shown = repr(text[:40])[1:-1]
    return shown + ("…" if len(text) > 40 else "")


def _names(part: Part) -> list[str]:
    if isinstance(part, Comparison):
        return [part.name]
    parts = (part.part,) if isinstance(part, Not) else part.parts
    return [name for inner in parts for name in _names(inner)]


def _quoted(text: str) -> str:
    match = _TOKEN.match(text)
    bare = match and match["word"] == text and text.lower() not in _WORDS
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if bare else f'"{escaped}"'
