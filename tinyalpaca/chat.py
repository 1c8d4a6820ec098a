"""Conversations as text, in the form in which a chat model was trained on them.

The form is given by a template in the model's folder, a program in Jinja's language. Since
strangers may have written it, it runs in jinja2's sandbox, where it can only read the messages and
make text of them. Beside Jinja itself a template may use what Hugging Face's `apply_chat_template`
offers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from minigrad.installing import install_line

ROLES = ("system", "user", "assistant", "tool")
FILE = "chat_template.jinja"
SETTINGS = "tokenizer_config.json"
OLDEST = (3, 1, 6)  # sandboxes of older versions have known ways out

Message = Mapping[str, str]


class ChatError(ValueError):
    """A conversation that cannot become a text. The message says why."""


class ChatTemplate(NamedTuple):
    """How a conversation is written.

    Attributes:
        template: in Jinja's language.
        special_tokens: the texts of tokens by the names that the template calls them by, such as
            "bos_token".
    """

    template: str
    special_tokens: dict[str, str] = {}  # noqa: RUF012  nobody writes into it

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The text of a conversation, special tokens spelled out.

        Args:
            messages: each {"role": ..., "content": ...}; see `ROLES`.
            answer: end with the beginning of an answer, for the model to continue.

        Raises:
            ChatError: a message is malformed or has an unknown role; the template refuses the
                messages or is faulty; jinja2 is not installed.
        """
        check_messages(messages)
        program = _compiled(self.template)
        try:  # plain data alone, whose methods the sandbox knows
            plain = json.loads(json.dumps([dict(message) for message in messages]))
        except (TypeError, ValueError) as error:
            raise ChatError(f"messages are texts, numbers, lists and such: {error}") from error
        try:
            return program.render(
                **self.special_tokens,
                **{"messages": plain, "tools": None, "documents": None},
                add_generation_prompt=answer,
            )
        except Exception as error:  # whatever a stranger's program does
            raise ChatError(f"the chat template refuses these messages: {error}") from error


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `ChatError` for what is no conversation; says which message is at fault."""
    if isinstance(messages, str | bytes | Mapping) or not messages:
        raise ChatError(
            'a conversation is a list of messages, such as [{"role": "user", "content": "Hello"}]'
        )
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise ChatError(f"message {number} is {message!r}, not a role and a content")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise ChatError(f"message {number} has no {key}, or one that is not a text")
        if message["role"] not in ROLES:
            raise ChatError(
                f"message {number} has the role {message['role']!r}; roles are {', '.join(ROLES)}"
            )


def template_in(folder: Path, settings: Mapping[str, Any]) -> ChatTemplate | None:
    """The template that a folder of Hugging Face's has, or None.

    A file of its own comes before the settings. Of several in the settings it is the one named
    "default".

    Args:
        settings: the content of its `SETTINGS`.
    """
    file = folder / FILE
    found: Any = file.read_text(encoding="utf-8") if file.is_file() else None
    if found is None:
        found = settings.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if entry}
        found = named.get("default")
    if not isinstance(found, str):
        return None
    tokens = {}
    for name, token in settings.items():
        text = token.get("content") if isinstance(token, Mapping) else token
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return ChatTemplate(found, tokens)


def from_json(content: Any) -> ChatTemplate:
    """What `ChatTemplate._asdict()` gave.

    Raises:
        ValueError: it is something else.
    """
    try:
        chat = ChatTemplate(**content)
        texts = [chat.template, *chat.special_tokens, *chat.special_tokens.values()]
        fits = all(isinstance(text, str) for text in texts)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"chat: {error}") from None
    if not fits:
        raise ValueError("chat: a template and the texts of tokens are needed")
    return chat


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    try:
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ChatError(f"chat templates need jinja2: {install_line('chat')}") from None
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdecimal()) < OLDEST:
        raise ChatError(f"jinja2 {jinja2.__version__} is too old: {install_line('chat')}")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise ChatError(f"the chat template is faulty: {error}") from error


def _generation() -> Any:
    """An extension of jinja2: {% generation %} marks what the model wrote, and changes no text."""
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012  as jinja2 wants it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would escape what means something in HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise ChatError(message)


def _now(form: str) -> str:
    """For templates that give the model the date."""
    return datetime.now().strftime(form)
