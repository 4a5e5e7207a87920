"""The queries of `files.list`: the terms that Holdfast uses, with `and`, `or`, `not`, brackets."""

import re

_WORD = re.compile(r"\s*('(?:[^'\\]|\\.)*'|!=|=|\(|\)|[A-Za-z]+)")


class Query:
    """
    A query that was read.

    Attributes:
        parents (list[str]): the folders that it names.
        judges (Callable[[File, bool], bool]): whether a file, trashed or not, is meant.

    Raises:
        ValueError: it is no query, or uses a term that this server does not know.
    """

    def __init__(self, text, root):
        self._root = root
        self._words = []
        self.parents = []
        at = 0
        while text[at:].strip():
            found = _WORD.match(text, at)
            if not found:
                raise ValueError(text[at:])
            self._words.append(found[1])
            at = found.end()
        self.judges = self._any() if self._words else lambda *_: True
        if self._words:
            raise ValueError(f"more than a query: {self._words}")

    def _any(self):
        judges = [self._all()]
        while self._words[:1] == ["or"]:
            self._words.pop(0)
            judges.append(self._all())
        return lambda file, trashed: any(judge(file, trashed) for judge in judges)

    def _all(self):
        judges = [self._one()]
        while self._words[:1] == ["and"]:
            self._words.pop(0)
            judges.append(self._one())
        return lambda file, trashed: all(judge(file, trashed) for judge in judges)

    def _one(self):
        first = self._next()
        if first == "(":
            judge = self._any()
            if self._next() != ")":
                raise ValueError("unbalanced")
            return judge
        if first == "not":
            denied = self._one()
            return lambda file, trashed: not denied(file, trashed)
        return self._term(first, self._next(), self._next())

    def _term(self, first, operator, second):
        if (operator, second) == ("in", "parents"):
            parent = _literal(first)
            parent = self._root if parent == "root" else parent
            self.parents.append(parent)
            return lambda file, _: file.parent == parent
        terms = {
            "trashed": lambda _, trashed: trashed == (second == "true"),
            "name": lambda file, _: file.name.lower() == _literal(second).lower(),
            "mimeType": lambda file, _: file.mime == _literal(second),
        }
        if first not in terms or operator not in ("=", "!="):
            raise ValueError(f"{first} {operator}")
        return lambda file, trashed: terms[first](file, trashed) == (operator == "=")

    def _next(self):
        if not self._words:
            raise ValueError("it breaks off")
        return self._words.pop(0)


def _literal(word):
    if not word.startswith("'"):
        raise ValueError(word)
    return re.sub(r"\\(.)", r"\1", word[1:-1])
