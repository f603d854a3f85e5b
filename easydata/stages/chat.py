"""Chat templates: a conversation as one text, as the tokenizer's own template writes it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from easydata._optional import require
from easydata.errors import TokenizerError, UsageError
from easydata.fingerprint import fingerprint_json
from easydata.stages.declared import Declared, declared_beside, declared_by

__all__ = ["ChatTemplate", "ConversationError", "chat_template_from", "chat_template_of"]

_PURPOSE = "rendering conversations with the tokenizer's chat template"
_REASONING = ("reasoning_content", "thinking", "reasoning")
# They give another text each time.
_IMPURE_NAMES = frozenset({"strftime_now", "lipsum"})
_IMPURE_FILTERS = frozenset({"random"})


class ConversationError(TokenizerError, ValueError):
    """The chat template cannot render one conversation; it can render others.

    The message says why. A caller puts file and row before it.
    """


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template that turns messages into text: a pure function of them.

    Attributes:
        source: its text.
        variables: what it may name besides `messages`: "bos_token" and its like to the token.

    >>> template = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}")
    >>> template.render([{"role": "user", "content": "hi"}])
    'user: hi '
    """

    source: str = field(repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits; equal fingerprints give equal texts for every conversation."""
        return fingerprint_json(["chat template", self.source, dict(self.variables)])

    def check(self) -> None:
        """See that it can render, before there is a conversation.

        Raises:
            TokenizerError: it is no Jinja template, or uses what differs from call to call, so
                that nothing could be cached.
            MissingDependencyError: `jinja2` is not installed.
        """
        _compile(self.source)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The conversation as text, without the beginning of a next answer.

        As `transformers` does it, keys of a message whose value is None are left out, and its
        reasoning is found under each of the names in use.

        Args:
            messages: for example `[{"role": "user", "content": "Hello"}]`; they stay as they are.

        Raises:
            ConversationError: the messages are not such a list, or the template refuses them.
            TokenizerError, MissingDependencyError: as `check`.
        """
        template = _compile(self.source)
        if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
            raise ConversationError(
                f"a conversation must be a list of messages; this is a {type(messages).__name__}"
            )
        for position, message in enumerate(messages):
            if not isinstance(message, Mapping):
                raise ConversationError(
                    f"message {position} is a {type(message).__name__}; it must be an object "
                    'such as {"role": "user", "content": "..."}'
                )
        try:
            return template.render(
                messages=[_normal(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **self.variables,
            )
        except _RefusedError as error:
            raise ConversationError(
                f"the chat template refuses the conversation: {error}"
            ) from error
        except Exception as error:  # a template may do anything that its sandbox allows
            raise ConversationError(
                f"the chat template cannot render the conversation: {type(error).__name__}: {error}"
            ) from error


def chat_template_of(tokenizer: Any) -> ChatTemplate | None:
    """The chat template that a tokenizer comes with, or None.

    Args:
        tokenizer: what `load_tokenizer` returned; a `transformers` tokenizer; a folder, or a file
            with the tokenizer's companions beside it. Of several templates "default" is taken.

    Raises:
        UsageError: a text that is no path here, such as a HuggingFace name.
        TokenizerError: a companion cannot be read.
    """
    if isinstance(tokenizer, str | os.PathLike):
        path = Path(tokenizer).expanduser()
        if not path.exists():
            raise UsageError(
                f"there is no file or folder {os.fspath(tokenizer)!r} to take a chat template "
                "from. Pass load_tokenizer(...) of it"
            )
        return chat_template_from(declared_beside(path if path.is_dir() else path.parent))
    found = getattr(tokenizer, "chat_template", None)
    if found is None or isinstance(found, ChatTemplate):
        return found
    return chat_template_from(declared_by(tokenizer))


def chat_template_from(declared: Declared) -> ChatTemplate | None:
    """The declared template, with those of the declared tokens that it names."""
    if declared.template is None:
        return None
    source = re.sub("\r\n?", "\n", declared.template)  # as Jinja and files of text do
    return ChatTemplate(source, {k: v for k, v in declared.names.items() if k in source})


def _normal(message: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in message.items() if value is not None}
    reasoning = next((fields[name] for name in _REASONING if name in fields), None)
    if reasoning is None:
        return fields
    return {"thinking": reasoning, **fields, "reasoning_content": reasoning}


@lru_cache(maxsize=16)
def _compile(source: str) -> Any:
    """The template; raises as `ChatTemplate.check`."""
    jinja2: Any = require("jinja2", extra="chat", purpose=_PURPOSE)
    meta: Any = require("jinja2.meta", extra="chat", purpose=_PURPOSE)
    environment = _environment()
    try:
        tree = environment.parse(source)
        impure = _IMPURE_NAMES & meta.find_undeclared_variables(tree)
        template = environment.from_string(source)
    except jinja2.TemplateError as error:
        raise TokenizerError(
            f"the tokenizer's chat template is no Jinja template: {type(error).__name__}: {error}. "
            "Correct it in tokenizer_config.json or chat_template.jinja"
        ) from error
    impure |= _IMPURE_FILTERS & {node.name for node in tree.find_all(jinja2.nodes.Filter)}
    if impure:
        raise TokenizerError(
            f"the tokenizer's chat template uses {', '.join(sorted(impure))}, which gives another "
            "text each time (another day), so nothing made with it could be cached. Write a fixed "
            "text in its place in tokenizer_config.json or chat_template.jinja"
        )
    return template


def _environment() -> Any:
    """What chat templates are written for: the options and functions of `transformers`."""
    sandbox: Any = require("jinja2.sandbox", extra="chat", purpose=_PURPOSE)
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _generation_tag()],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    for name in _IMPURE_NAMES:
        environment.globals.pop(name, None)  # or it would count as known
    return environment


def _generation_tag() -> Any:
    """{% generation %}...{% endgeneration %}, which marks what an assistant says: its content."""
    nodes: Any = require("jinja2.nodes", extra="chat", purpose=_PURPOSE)
    ext: Any = require("jinja2.ext", extra="chat", purpose=_PURPOSE)

    class Generation(ext.Extension):  # type: ignore[misc]
        tags = {"generation"}  # noqa: RUF012 - as its base class has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return Generation


class _RefusedError(Exception):
    """A template called `raise_exception`."""


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
