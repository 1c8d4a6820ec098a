"""Patterns of `tokenizer.json` files, which are Oniguruma's, for the package `regex`.

Hugging Face's `tokenizers` runs patterns with Oniguruma, in Ruby's dialect. Most of what tokenizers
use means the same in `regex`. Some of it means something else (in Oniguruma `^` is the beginning of
any line, `{1,3}+` is greedy, `[a&&b]` an intersection, `(?i:ss)` matches ß), and would silently
give other tokens. So a pattern is read here construct by construct: what is known to be the same is
kept, `\\w` is spelled out, and anything else is refused by name.

>>> translated(r"\\s+(?!\\S)|\\p{N}{1,3}")
'\\\\s+(?!\\\\S)|\\\\p{N}{1,3}'
>>> translated("^a")
Traceback (most recent call last):
    ...
ValueError: '^' (it is the beginning of every line to them, of the text to us)
"""

import regex

# Word characters to Oniguruma: without joiners, which `regex` has; and outside of classes, but not
# in them, with Latin-1's numbers.
_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_LONE_WORD = _WORD + "²³¹¼½¾"
_GROUP = regex.compile(r"\((?:\?(?::|i:|=|!|<=|<!|>))?")
_QUANTIFIER = regex.compile(r"(?:[?*+]|\{\d+(?:,\d*)?\})")
_PROPERTY = regex.compile(r"\\[pP]\{\^?[A-Za-z_]+\}")
_CODE = regex.compile(r"\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}")
_SAME_CLASSES = "sSdD"
_CONTROLS = "nrtfv"
# Letters whose case is folded together with another character or letter pair by one of the two.
_UNEQUAL_FOLDS = ("ss", "st", "ff", "fi", "fl", "i")


def translated(pattern: str) -> str:
    """The pattern for `regex` that matches what Oniguruma's matches.

    Raises:
        ValueError: it has something that is not known to mean the same; the message quotes it.
    """
    parts: list[str] = []
    place = 0
    ignoring: list[bool] = []  # of each open group: whether case is ignored in it
    folded = ""  # letters in a row where case is ignored
    quantified = True  # whether a quantifier would have nothing to repeat
    while place < len(pattern):
        character = pattern[place]
        if match := _QUANTIFIER.match(pattern, place):
            if quantified:
                raise ValueError(f"{match[0]!r} with nothing to repeat")
            text = match[0]
            place = match.end()
            if pattern[place : place + 1] in ("?", "+"):
                if text.startswith("{"):
                    raise ValueError(f"{text + pattern[place]!r} (it is not possessive or lazy)")
                text += pattern[place]
                place += 1
            parts.append(text)
            quantified = True
            continue
        quantified = character in "(|"
        if character == "[":
            text, place = _character_class(pattern, place, bool(ignoring and ignoring[-1]))
            parts.append(text)
            folded = ""
        elif match := _GROUP.match(pattern, place):
            if pattern.startswith("(?", place) and match[0] == "(":
                raise ValueError(f"{pattern[place : place + 4]!r}")
            inherited = bool(ignoring and ignoring[-1])
            ignoring.append(inherited or match[0] == "(?i:")
            parts.append(match[0])
            place, folded = match.end(), ""
        elif character == ")":
            if not ignoring:
                raise ValueError("')' without '('")
            ignoring.pop()
            parts.append(character)
            place, folded = place + 1, ""
        elif character == "\\":
            text, place = _escape(pattern, place, f"[{_LONE_WORD}]", f"[^{_LONE_WORD}]")
            parts.append(text)
            folded = ""
        elif character == "^" or character == "$":
            what = "beginning" if character == "^" else "end"
            raise ValueError(
                f"{character!r} (it is the {what} of every line to them, of the text to us)"
            )
        else:
            if ignoring and ignoring[-1]:
                folded += character.lower()
                _check_fold(folded)
            parts.append(character)
            folded = "" if character == "|" else folded
            place += 1
    if ignoring:
        raise ValueError("'(' without ')'")
    result = "".join(parts)
    try:
        regex.compile(result)
    except regex.error as error:
        raise ValueError(f"{pattern!r} ({error})") from None
    return result


def _check_fold(letters: str) -> None:
    if not letters.isascii():
        raise ValueError(f"{letters[-1]!r} where case is ignored")
    for pair in _UNEQUAL_FOLDS:
        if letters.endswith(pair):
            raise ValueError(f"{pair!r} where case is ignored (what it stands for differs)")


def _escape(pattern: str, place: int, word: str, no_word: str) -> tuple[str, int]:
    """A backslash and what follows, translated, and where it ends."""
    following = pattern[place + 1 : place + 2]
    for known in (_PROPERTY, _CODE):
        if match := known.match(pattern, place):
            return match[0], match.end()
    if following == "w":
        return word, place + 2
    if following == "W" and no_word:
        return no_word, place + 2
    punctuation = following.isascii() and not following.isalnum() and following
    if following and (following in _SAME_CLASSES + _CONTROLS or punctuation):
        return pattern[place : place + 2], place + 2
    raise ValueError(f"{pattern[place : place + 2]!r}")


def _character_class(pattern: str, place: int, ignoring: bool) -> tuple[str, int]:
    """A class in brackets, translated, and where it ends."""
    start = place
    place += 2 if pattern.startswith("[^", place) else 1
    parts = [pattern[start:place]]
    if pattern.startswith("]", place):
        raise ValueError(f"{pattern[start : place + 1]!r} (an empty class)")
    while place < len(pattern) and pattern[place] != "]":
        if pattern[place] == "[":
            raise ValueError("'[' in a class (a class within a class)")
        if pattern.startswith("&&", place):
            raise ValueError("'&&' in a class (an intersection)")
        if pattern[place] == "\\":
            text, place = _escape(pattern, place, _WORD, "")
        else:
            text, place = pattern[place], place + 1
        if ignoring and (text.isalpha() or text == "-"):
            raise ValueError(f"{text!r} in a class where case is ignored")
        parts.append(text)
    if place == len(pattern):
        raise ValueError("'[' without ']'")
    return "".join(parts) + "]", place + 1
