"""Conversations by a model's template: ids and answers equal those of `transformers`."""

import io
import json
import shutil
import sys

import numpy as np
import pytest

from minigrad.storage import FileFormatError
from tests.tinyalpaca.llama_models import save_tiny_llama
from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca import cli
from tinyalpaca.chat import ChatError, ChatTemplate
from tinyalpaca.converting.huggingface import load_huggingface
from tinyalpaca.generation import Generator
from tinyalpaca.runs import load_model, save_model

jinja2 = pytest.importorskip("jinja2", reason="jinja2 is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of transformers

CHATML = (
    "{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if strftime_now is defined %}{% set year = strftime_now("%Y") | length %}{% endif %}
{%- set loop_messages = messages %}
{% for message in loop_messages %}
    {%- if loop.index0 == 0 and message['role'] == 'assistant' %}
        {{- raise_exception('An answer cannot come first') }}
    {%- endif %}
    {%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'
        + message['content'] | trim + '<|eot_id|>' %}
    {{- content }}
    {%- if message['role'] == 'tool' %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- else %}{{ year }}{{ eos_token }}{{ messages | tojson }}{% endif %}
"""
TEMPLATES = {"qwen2": CHATML, "llama": LLAMA3}
TALK = [
    {"role": "system", "content": "the hat"},
    {"role": "user", "content": "  naïve llamas? "},
    {"role": "assistant", "content": "and the bat; 12345"},
    {"role": "user", "content": "the <|im_end|> cat <|eot_id|>\n"},
]
ONE = [{"role": "user", "content": "the cat"}]


@pytest.fixture(scope="module", params=TEMPLATES)
def chatty(request, transformers, tmp_path_factory):
    """A folder with a model and a tokenizer with a template; also these two."""
    folder = tmp_path_factory.mktemp("theirs")
    model, tokenizer = save_tiny_llama(transformers, request.param, folder)
    tokenizer.chat_template = TEMPLATES[request.param]
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


@pytest.mark.parametrize("messages", [TALK, TALK[1:], ONE, [*ONE, TALK[2]]])
def test_ids_are_those_of_transformers(chatty, messages):
    folder, _, theirs = chatty
    generator = Generator(*load_huggingface(folder))
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert generator.model.chat_template.render(messages) == text
    whole = theirs.apply_chat_template(messages, tokenize=False)
    assert generator.model.chat_template.render(messages, answer=False) == whole
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert generator.chat_prompt(messages) == ids


def test_the_answer_is_the_models(chatty):
    import torch

    folder, model, tokenizer = chatty
    generator = Generator(*load_huggingface(folder))
    short = [{"role": "system", "content": "x"}, {"role": "user", "content": "the"}]
    ids = tokenizer.apply_chat_template(short, add_generation_prompt=True)["input_ids"]
    assert len(ids) + 5 <= 40  # the context
    expected = model.generate(
        torch.tensor([ids]),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
        suppress_tokens=list(range(len(tokenizer), len(tokenizer) + 3)),
    )[0, len(ids) :].tolist()
    settings = {"temperature": 0, "allow_all_tokens": True, "stop_at_end": False}
    answer = generator.chat(short, max_new_tokens=5, **settings)
    assert answer == generator.tokenizer.decode(expected)


def test_the_template_stays_with_the_model(chatty, tmp_path, capsys):
    folder, _, _ = chatty
    assert cli.main(["convert", str(folder), str(tmp_path / "out")]) == 0
    ours, again = load_huggingface(folder)[0], load_model(tmp_path / "out").model
    assert again.chat_template == ours.chat_template != None  # noqa: E711
    content = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    for wrong in ("text", {}, {"template": 3}, {"template": "a", "special_tokens": {"a": 1}}):
        (tmp_path / "out" / "config.json").write_text(json.dumps({**content, "chat": wrong}))
        (tmp_path / "out" / "SHA256SUMS").unlink(missing_ok=True)
        with pytest.raises(FileFormatError, match="chat:"):
            load_model(tmp_path / "out")


def test_where_templates_are(chatty, tmp_path):
    """A separate file is preferred; of several templates in the settings, the one named default."""
    folder = shutil.copytree(chatty[0], tmp_path / "theirs")
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    file.write_text("of the file {{ eos_token }}", encoding="utf-8")
    content = json.loads(settings.read_text(encoding="utf-8"))
    content |= {"chat_template": "of the settings", "eos_token": {"content": "END"}}
    settings.write_text(json.dumps(content), encoding="utf-8")

    def rendered():
        return load_huggingface(folder)[0].chat_template.render(ONE)

    assert rendered() == "of the file END"
    file.unlink()
    assert rendered() == "of the settings"
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    settings.write_text(json.dumps({"chat_template": named}), encoding="utf-8")
    assert rendered() == "b"
    settings.unlink()
    assert load_huggingface(folder)[0].chat_template is None


def with_template(template):
    generator = tiny_generator()
    generator.model.chat_template = template
    return generator


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "a conversation is a list of messages"),
        ("hello", "a conversation is a list of messages"),
        ({"role": "user", "content": "a"}, "a conversation is a list of messages"),
        ([*ONE, "hello"], "message 2 is 'hello'"),
        ([{"role": "user"}], "message 1 has no content"),
        ([{"content": "a"}], "message 1 has no role"),
        ([{"role": "user", "content": 3}], "message 1 has no content, or one that is not a text"),
        ([{"role": "robot", "content": "a"}], "message 1 has the role 'robot'; roles are system"),
        ([TALK[2], *ONE], "refuses these messages: An answer cannot come first"),
        ([{**ONE[0], "more": object()}], "messages are texts"),
    ],
)
def test_messages_that_are_none(messages, message):
    with pytest.raises(ChatError, match=message):
        ChatTemplate(LLAMA3).render(messages)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "the chat template is faulty"),
        ("{{ messages.__class__.__mro__ }}", "refuses these messages: .*unsafe"),
        ("{{ messages.append(1) }}", "refuses these messages: .*"),
        ("{{ messages[0].x.y }}", "refuses these messages: .*no attribute 'x'"),
        ("{{ 1 // 0 }}", "refuses these messages"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "refuses these messages: Range too big"),
        ("{% include 'a' %}", "refuses these messages"),
    ],
)
def test_templates_that_go_wrong(template, message):
    with pytest.raises(ChatError, match=message):
        ChatTemplate(template).render(ONE)


def test_marks_of_what_the_model_wrote_change_no_text():
    template = "a{% generation %}{{ messages[0].content }}{% endgeneration %}b"
    assert ChatTemplate(template).render(ONE) == "athe catb"


def test_without_a_template_or_jinja2(monkeypatch):
    generator = tiny_generator()
    with pytest.raises(ChatError, match="the model has no chat template"):
        generator.chat(ONE)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ChatError, match=r"chat templates need jinja2: pip install .*\[chat\]"):
        with_template(ChatTemplate("a template that nobody has compiled")).chat(ONE)
    assert generator.generate("the", 3, seed=1)  # needs neither a template nor jinja2


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with a template that uses ordinary letters only."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}me: "
    generator = with_template(ChatTemplate(template))
    generator.model.seen_tokens = np.ones(generator.tokenizer.vocab_size, bool)
    save_model(tmp_path, generator.model, generator.tokenizer)
    return tmp_path, generator


def answer_to(generator, *said):
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]
    return generator.chat(messages, max_new_tokens=6, seed=1)


def generate(folder, *flags):
    options = ["--checkpoint", str(folder), "--max-new-tokens", "6", "--seed", "1"]
    return cli.main(["generate", *options, "--chat", *flags])


def test_the_command_answers(folder, capsys):
    folder, generator = folder
    assert generate(folder, "--prompt", "the cat") == 0
    assert capsys.readouterr().out == answer_to(generator, "the cat") + "\n"
    told = [{"role": "system", "content": "sit"}, {"role": "user", "content": "the cat"}]
    assert generate(folder, "--prompt", "the cat", "--system", "sit") == 0
    assert capsys.readouterr().out == generator.chat(told, max_new_tokens=6, seed=1) + "\n"
    assert generate(folder, "--prompt", "the cat", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["prompt"] == "the cat"
    assert record["prompt_tokens"] == generator.chat_prompt(told[1:])
    assert record["samples"][0]["text"] == answer_to(generator, "the cat")


def test_the_command_remembers_what_was_said(folder, capsys, monkeypatch):
    folder, generator = folder
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\nthe mat\n"))
    assert generate(folder, "--interactive") == 0
    first = answer_to(generator, "the cat")
    second = answer_to(generator, "the cat", first, "the mat")
    assert capsys.readouterr().out == f"{first}\n{second}\n"
    assert second != answer_to(generator, "the mat")


def test_flags_that_do_not_go_together(folder, capsys):
    assert generate(folder[0], "--prompt-tokens", "1 2") == 1
    assert "--chat and --prompt-tokens do not go together" in capsys.readouterr().err
    options = ["--checkpoint", str(folder[0]), "--prompt", "a", "--system", "b"]
    assert cli.main(["generate", *options]) == 1
    assert "--system is for --chat" in capsys.readouterr().err


def test_a_model_without_a_template_says_so(tmp_path, capsys):
    generator = tiny_generator()
    save_model(tmp_path, generator.model, generator.tokenizer)
    assert generate(tmp_path, "--prompt", "a") == 1
    assert "the model has no chat template" in capsys.readouterr().err
