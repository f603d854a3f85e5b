from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from easydata.errors import EasyDataError, MissingDependencyError, TokenizerError, UsageError
from easydata.stages import (
    ChatTemplate,
    ConversationError,
    chat_template_of,
    load_tokenizer,
)
from easydata.stages import chat as module
from tests.bpe import train_bpe

CHATML = """
{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

INSTRUCT = """
{% if messages[0]['role'] == 'system' %}
    {% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
    {% set turns = messages[1:] %}
{% else %}
    {% set system = '' %}
    {% set turns = messages %}
{% endif %}
{% for m in turns %}
    {% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if m['role'] == 'user' %}
        {{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}
    {% else %}
{% generation %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}
"""

TOOLS = """{{ bos_token }}
{%- set ns = namespace(calls=0, last=none) %}
{%- macro say(role, text) %}<{{ role }}>{{ text }}</{{ role }}>{% endmacro %}
{%- for m in messages %}
    {%- if m.role == 'tool' and m.content is none %}{% continue %}{% endif %}
    {%- if m.role == 'stop' %}{% break %}{% endif %}
    {%- if m.tool_calls is defined %}
        {%- for call in m.tool_calls %}
            {%- set ns.calls = ns.calls + 1 %}
{{ call.function | tojson }}
{{ call.function | tojson(indent=2, sort_keys=true) }}
        {%- endfor %}
    {%- elif m.reasoning_content %}
        {{- say('think', m.reasoning_content) + say(m.role, m.content or '') }}
    {%- else %}
        {{- say(m.role, m.content if 'content' in m else 'nothing') }}
    {%- endif %}
    {%- set ns.last = m.role %}
{%- endfor %}
{{ ns.calls }} calls, {{ tools is none }}, {{ documents }}, {{ dict(a=1) }}, {{ ns.last }}
{{- eos_token if not add_generation_prompt }}{{ nowhere }}
"""

PARTS = """
{%- for m in messages -%}
{{ m.role | upper }}:{% if m.content is string %}{{ m.content }}
{% else %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}
{% endfor %}{% endif %}
{%- endfor %}{{ pad_token }}{{ unk_token }}
"""

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi <b> & 'é 東京'"}, {"role": "assistant", "content": " Yes\n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "2", "tool_calls": None},
        {"role": "user", "content": "3?"},
    ],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
    [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"function": {"name": "<get>", "arguments": {"b": "é", "a": [1, None]}}}
            ],
        },
        {"role": "tool", "content": None},
        {"role": "assistant", "content": "sun", "reasoning": "look up"},
        {"role": "assistant", "content": "sun", "thinking": "up", "reasoning_content": None},
        {"role": "stop", "content": "no"},
        {"role": "user", "content": "never"},
    ],
]


def fast(template: Any = None, **tokens: str) -> PreTrainedTokenizerFast:
    core = train_bpe(special=("<|endoftext|>", "<start>", "<fill>"))
    names = {"eos_token": "<|endoftext|>", "bos_token": "<start>", "pad_token": "<fill>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=template, **{**names, **tokens}
    )


def store(tokenizer: Any, folder: Path) -> Path:
    folder.mkdir()
    for name, data in tokenizer.files().items():
        (folder / name).write_bytes(data)
    return folder


def attempt(render: Callable[[], str]) -> str:
    try:
        return render()
    except Exception:
        return "refused"


@pytest.mark.parametrize("source", [CHATML, INSTRUCT, TOOLS, PARTS, "{{ messages | length }}"])
def test_texts_are_those_of_transformers(source: str) -> None:
    theirs = fast(source)
    template = load_tokenizer(theirs).chat_template
    assert template is not None
    template.check()
    expected, found = [], []
    for messages in CONVERSATIONS:
        before = json.dumps(messages)
        expected.append(
            attempt(lambda m=messages: theirs.apply_chat_template(m, tokenize=False))  # type: ignore[misc]
        )
        found.append(attempt(lambda m=messages: template.render(m)))  # type: ignore[misc]
        assert json.dumps(messages) == before
    assert found == expected
    assert len(set(found) - {"refused"}) >= 2


def test_a_golden_text() -> None:
    template = load_tokenizer(fast(CHATML)).chat_template
    assert template is not None
    assert template.render(CONVERSATIONS[0]) == (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "<|im_start|>user\nHi <b> & 'é 東京'<|im_end|>\n"
        "<|im_start|>assistant\nYes<|im_end|>\n"
    )


def test_a_conversation_that_the_template_refuses() -> None:
    template = ChatTemplate(INSTRUCT, {"bos_token": "<s>", "eos_token": "</s>"})
    with pytest.raises(ConversationError, match=r"refuses the conversation: Roles must alternate"):
        template.render([{"role": "assistant", "content": "a"}])
    with pytest.raises(ConversationError, match=r"cannot render .*TypeError"):
        template.render([{"role": "user", "content": 3}])
    assert issubclass(ConversationError, ValueError)
    assert issubclass(ConversationError, EasyDataError)
    assert template.render([{"role": "user", "content": "a"}]).strip() == "<s>[INST] a [/INST]"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "a conversation must be a list of messages; this is a str"),
        ({"role": "user"}, "this is a dict"),
        (None, "this is a NoneType"),
        ([{"role": "user"}, "hello"], "message 1 is a str; it must be an object"),
    ],
)
def test_what_is_no_conversation(messages: Any, message: str) -> None:
    with pytest.raises(ConversationError, match=message):
        ChatTemplate("{{ messages }}").render(messages)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{{ strftime_now('%Y') }}", "strftime_now"),
        ("{% if strftime_now is defined %}{% set d = strftime_now('%d') %}{% endif %}", "strftime"),
        ("{{ ['a', 'b'] | random }}", "random"),
        ("{{ lipsum() }}", "lipsum"),
        ("{% macro f() %}{{ strftime_now('%d') }}{% endmacro %}{{ f() }}", "strftime_now"),
        ("{% for m in messages %}{% if m %}{{ lipsum(1) }}{% endif %}{% endfor %}", "lipsum"),
    ],
)
def test_what_cannot_be_cached_is_refused(source: str, what: str) -> None:
    template = load_tokenizer(fast(source)).chat_template  # plain text needs no template
    assert template is not None
    for call in (template.check, lambda: template.render([])):
        with pytest.raises(TokenizerError, match=rf"uses {what}.*could be cached.*fixed text"):
            call()


def test_a_name_of_the_templates_own_is_no_clock() -> None:
    source = "{% set strftime_now = 'noon' %}{{ strftime_now }} {{ 'random' }}"
    assert ChatTemplate(source).render([]) == "noon random"


def test_what_is_no_template() -> None:
    with pytest.raises(TokenizerError, match=r"no Jinja template: TemplateSyntaxError.*Correct it"):
        ChatTemplate("{% for %}").check()


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append({}) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_is_in_a_sandbox(source: str) -> None:
    messages: list[dict[str, str]] = []
    with pytest.raises(ConversationError):
        ChatTemplate(source).render(messages)
    assert messages == []


def test_jinja_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    module._compile.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install 'easydata\[chat\]'"):
        ChatTemplate("a").render([])


def test_importing_and_loading_need_no_jinja(
    tmp_path: Path, fresh_python: Callable[..., str]
) -> None:
    folder = store(load_tokenizer(fast(CHATML)), tmp_path / "t")
    program = (
        "import sys; from easydata.stages import load_tokenizer as load;"
        "t = load(sys.argv[1]).chat_template;"
        "print(len(t.source), [m for m in ('jinja2', 'transformers') if m in sys.modules])"
    )
    assert fresh_python(program, str(folder)) == f"{len(CHATML)} []\n"


def test_a_template_is_a_value() -> None:
    template = ChatTemplate("{{ bos_token }}", {"bos_token": "<s>"})
    again = pickle.loads(pickle.dumps(template))
    assert again == template
    assert hash(again) == hash(template)
    assert again.fingerprint == template.fingerprint == "2d9529367b47cac04a9180bb8910f7c5"
    others = [ChatTemplate("{{bos_token }}", template.variables), ChatTemplate(template.source)]
    assert len({template.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_only_tokens_that_the_template_names_count() -> None:
    templates = [
        load_tokenizer(fast("{{ eos_token }}", **more)).chat_template
        for more in ({}, {"pad_token": "<|endoftext|>"}, {"eos_token": "<fill>"})
    ]
    first, same, other = templates
    assert first == ChatTemplate("{{ eos_token }}", {"eos_token": "<|endoftext|>"})
    assert same == first
    assert other != first


def test_ids_do_not_depend_on_the_template() -> None:
    assert load_tokenizer(fast("a")).fingerprint == load_tokenizer(fast()).fingerprint
    slow = [load_tokenizer(ByT5Tokenizer(chat_template=text)) for text in ("a", None, {"x": "b"})]
    assert len({tokenizer.fingerprint for tokenizer in slow}) == 1
    assert [t.chat_template for t in slow] == [ChatTemplate("a"), None, None]


@pytest.mark.parametrize("which", ["jinja", "text", "list"])
def test_found_beside_the_file(which: str, tmp_path: Path) -> None:
    train_bpe().save(str(tmp_path / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    if which == "jinja":
        (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}\r\né\n", newline="")
        config["chat_template"] = "not this one"
    elif which == "text":
        config["chat_template"] = "{{ bos_token }}\r\né\n"
    else:
        other = {"name": "tool_use", "template": "not this one"}
        config["chat_template"] = [other, {"name": "default", "template": "{{ bos_token }}\né\n"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    expected = ChatTemplate("{{ bos_token }}\né\n", {"bos_token": "<s>"})
    for source in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert load_tokenizer(source).chat_template == expected
        assert chat_template_of(source) == expected
    assert chat_template_of(load_tokenizer(tmp_path)) == expected


def test_of_what_users_pass(bpe: Tokenizer, tmp_path: Path) -> None:
    assert chat_template_of(fast(CHATML)) == ChatTemplate(CHATML)
    named = fast([{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}])
    assert chat_template_of(named) == ChatTemplate("a")
    assert chat_template_of(fast([{"name": "rag", "template": "b"}])) is None
    for without in (fast(), bpe, load_tokenizer("bytes"), load_tokenizer(bpe), tmp_path):
        assert chat_template_of(without) is None
    with pytest.raises(UsageError, match=r"no file or folder 'some/name'.*load_tokenizer"):
        chat_template_of("some/name")


@pytest.mark.parametrize("given", [3, ["a"], [{"name": "default", "template": 3}], {"default": 1}])
def test_a_template_that_is_no_text(given: Any, tmp_path: Path) -> None:
    train_bpe().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
    with pytest.raises(TokenizerError, match=r"chat template of .*tokenizer_config.json is a "):
        load_tokenizer(tmp_path)


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    train_bpe().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"cannot read .*chat_template.jinja.*utf-8"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("make", [fast, ByT5Tokenizer])
def test_a_stored_tokenizer_keeps_it(make: Callable[..., Any], tmp_path: Path) -> None:
    source = TOOLS + "{{ unk_token }}"
    theirs = make(chat_template=source) if make is ByT5Tokenizer else make(source, unk_token="<u>")
    tokenizer = load_tokenizer(theirs)
    folder = store(tokenizer, tmp_path / "t")
    again = load_tokenizer(folder)
    assert tokenizer.chat_template is not None
    assert tokenizer.chat_template.variables["unk_token"] == theirs.unk_token
    assert again.chat_template == tokenizer.chat_template
    assert again.fingerprint == tokenizer.fingerprint
    assert again.files() == tokenizer.files()
    for copy in (pickle.loads(pickle.dumps(again.spec())).load(), load_tokenizer(again.spec())):
        assert copy.chat_template == tokenizer.chat_template
    hash(again.spec())
    opened = AutoTokenizer.from_pretrained(str(folder))
    expected = theirs.apply_chat_template(CONVERSATIONS[3], tokenize=False)
    assert opened.apply_chat_template(CONVERSATIONS[3], tokenize=False) == expected
