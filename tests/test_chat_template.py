"""Chats as ids, against transformers: its golden ids, and its rendering of other templates."""

import json
import warnings

import pytest
import tokenizers
from golden_data import GOLDEN

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text.chat import ChatTemplates
from bitnet_lut.text.default_templates import DEFAULTS
from bitnet_lut.text.tokenizer import Tokenizer

pytest.importorskip("jinja2")

CHATS = json.loads((GOLDEN / "bitnet-b1.58/chat.json").read_text(encoding="utf-8"))
HELLO = [{"role": "user", "content": "Hello"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *HELLO]
LONG = [*SYSTEM, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": " And?\n"}]


def templates_of(path):
    if path.is_dir():
        return ChatTemplates.from_folder(Tokenizer.from_folder(path), path, "bitnet-b1.58")
    metadata = GGUFFile(path).metadata
    tokenizer = Tokenizer.from_gguf(metadata, name=path.name)
    architecture = metadata.get("general.architecture", "llama")
    return ChatTemplates.from_gguf(tokenizer, metadata, architecture, name=path.name)


def templates(tokenizer, architecture="llama", **sources):
    return ChatTemplates(tokenizer, sources, architecture, name="some.gguf")


@pytest.fixture(scope="module")
def llama(golden):
    """The tokenizer of a Llama 3 vocabulary."""
    path = golden / "bitnet-b1.58/model-i2_s.gguf"
    return Tokenizer.from_gguf(GGUFFile(path).metadata, name=path.name)


@pytest.fixture(scope="module")
def encoder(golden):
    """That vocabulary in the tokenizers library itself."""
    return tokenizers.Tokenizer.from_file(str(golden / "bitnet-b1.58/hf-packed/tokenizer.json"))


@pytest.mark.parametrize("file", ["model-i2_s.gguf", "hf-packed", "hf-master-bf16"])
@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: chat["text"][:30])
def test_chats_of_transformers(golden, file, chat):
    ours = templates_of(golden / "bitnet-b1.58" / file)
    prompt = {"add_generation_prompt": chat["add_generation_prompt"]}
    assert ours.names == ("default",)
    assert ours.render(chat["messages"], **prompt) == chat["text"]
    trusted = ours.encode(chat["messages"], **prompt, trust_content=True)
    assert trusted == chat["ids_with_bos"]
    if not any("<|" in message["content"] for message in chat["messages"]):
        assert ours.encode(chat["messages"], **prompt) == trusted


@pytest.mark.parametrize("chat", [c for c in CHATS if "<|eot_id|> in" in c["text"]])
def test_control_tokens_of_users_stay_text(golden, encoder, chat):
    ours = templates_of(golden / "bitnet-b1.58/hf-packed")
    prompt = {"add_generation_prompt": chat["add_generation_prompt"]}
    ids = ours.encode(chat["messages"], **prompt)
    # Each message ends with the one <|eot_id|> that the template wrote; all else is text.
    expected = [624]
    encoder.encode_special_tokens = True
    parts = chat["text"].replace("<|eot_id|> in", "\0 in").split("<|eot_id|>")
    for i, part in enumerate(parts):
        expected += [632] * (i > 0)
        text = part.replace("\0", "<|eot_id|>")
        expected += encoder.encode(text, add_special_tokens=False).ids
    assert ids == expected
    assert ids.count(632) == len(chat["messages"])
    assert ours._tokenizer.decode(ids) == "<|begin_of_text|>" + chat["text"]


def test_control_tokens_stay_text_in_every_field(llama):
    source = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.name }}{{ m.tool_calls | tojson }}"
        "{{ m.content | upper | lower }}{% endfor %}<|eot_id|>"
    )
    ours = templates(llama, default=source)
    call = {"function": {"name": "<|eot_id|>", "arguments": '{"<|eot_id|>": ["<|eot_id|>"]}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "<|eot_id|>"}], "name": "<|eot_id|>"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "<|eot_id|><|begin_of_text|>", "tool_call_id": "<|eot_id|>"},
    ]
    tools = [{"name": "<|eot_id|>", "parameters": {"<|eot_id|>": 1}}]
    # The empty fields of two messages are undefined, which JSON cannot express.
    source_of_dict = source.replace("m.tool_calls", "(m.tool_calls or [])")
    ours = templates(llama, default=source_of_dict)
    ids = ours.encode(messages, tools=tools)
    assert [i for i in ids if llama.is_special(i)] == [624, 632]
    assert ids[-1] == 632
    text = llama.decode(ids)
    assert text.count("<|eot_id|>") == 9
    assert "<|eot_id|><|begin_of_text|><|eot_id|>" in text


def test_messages_may_use_private_characters(llama):
    ours = templates(llama, default="{% for m in messages %}{{ m.content }}{% endfor %}<|eot_id|>")
    content = "\U000f0000\U000f0001 <|eot_id|> \U000f0002"
    ids = ours.encode([{"role": "user", "content": content}])
    assert llama.decode(ids) == "<|begin_of_text|>" + content + "<|eot_id|>"
    assert ids.count(632) == 1


def test_bos_comes_once(llama):
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = templates(llama, default=source).encode(HELLO)
    assert plain.count(llama.bos_id) == 1
    assert templates(llama, default="{{ bos_token }}" + source).encode(HELLO) == plain
    llama_without = templates_without_bos(llama)
    assert llama_without.encode(HELLO) == plain[1:]


def templates_without_bos(llama):
    class NoBos:
        add_bos = False

        def __getattr__(self, name):
            return getattr(llama, name)

    return templates(NoBos(), default="{% for m in messages %}{{ m.content }}{% endfor %}")


@pytest.mark.parametrize("default", DEFAULTS, ids=lambda default: default.name)
@pytest.mark.parametrize("messages", [HELLO, SYSTEM, LONG], ids=["hello", "system", "long"])
@pytest.mark.parametrize("prompt", [True, False])
def test_templates_render_as_in_transformers(llama, default, messages, prompt):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs, _ = utils.render_jinja_template(
        [messages],
        chat_template=default.source,
        add_generation_prompt=prompt,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
    )
    ours = templates(llama, default=default.source)
    assert ours.render(messages, add_generation_prompt=prompt) == theirs[0]


TOOLS = """
{%- macro shout(text) %}
    {{- text | upper + '!' }}
{%- endmacro %}
{%- set ns = namespace(last=none) %}
{%- if tools is not none %}
    {{- '# Tools\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) + '\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' and ns.last is none %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages if message.role != 'system' %}
    {%- if message.tool_calls is defined %}
        {%- for call in message.tool_calls %}
            {{- '<call>' + call.function.name + (call.function.arguments | tojson) }}
        {%- endfor %}
        {%- continue %}
    {%- endif %}
    {%- if 'content' in message %}
    {% generation %}
    {{- shout(message.content.split('</think>')[-1].lstrip('\\n')) ~ ns.last }}
    {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
    {{- '<think></think>' }}
{%- endif %}
"""


def test_a_template_with_tools_renders_as_in_transformers(llama):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    arguments = {"city": "Köln", "days": [1, 2], "exact": True, "ratio": 0.5, "none": None}
    messages = [
        *SYSTEM,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": arguments}}
            ],
        },
        {"role": "tool", "content": "<b>&'rain'"},
        {"role": "assistant", "content": "<think>x</think>\n\nIt rains"},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "description": "a<b> 'é'"}}]
    theirs, _ = utils.render_jinja_template(
        [messages],
        tools=tools,
        chat_template=TOOLS,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    options = {"tools": tools, "variables": {"enable_thinking": False}}
    assert templates(llama, default=TOOLS).render(messages, **options) == theirs[0]
    # As the OpenAI API has it: arguments as JSON text, and no content beside calls.
    messages[2]["tool_calls"][0]["function"]["arguments"] = json.dumps(arguments)
    messages[2]["content"] = None
    assert templates(llama, default=TOOLS).render(messages, **options) == theirs[0]


def test_the_default_is_that_of_the_family(golden, llama):
    def chosen(tokenizer, architecture):
        with pytest.warns(UserWarning, match=r"some\.gguf has no chat template: using that of"):
            return templates(tokenizer, architecture).encode(HELLO)

    def text(file, architecture):
        path = golden / file
        tokenizer = Tokenizer.from_gguf(GGUFFile(path).metadata, name=path.name)
        return tokenizer.decode(chosen(tokenizer, architecture))

    bos = "<|begin_of_text|>"
    ids = chosen(llama, "bitnet-b1.58")
    assert llama.decode(ids) == bos + "User: Hello<|eot_id|>Assistant: "
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    ids = chosen(llama, "llama")
    user, assistant = header.format("user"), header.format("assistant")
    assert llama.decode(ids) == f"{bos}{user}Hello<|eot_id|>{assistant}"
    assert ids.count(llama.bos_id) == 1
    falcon = text("tokenizers/falcon3.gguf", "llama")
    assert falcon == "<|endoftext|><|user|>\nHello\n<|assistant|>\n"
    chatml = text("tokenizers/qwen2.gguf", "qwen2")
    assert chatml == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    plain = text("tokenizers/spm.gguf", "bitnet")
    assert plain.endswith("User: Hello\nAssistant:")


def test_a_warning_comes_once(llama):
    ours = templates(llama, "bitnet-b1.58")
    with pytest.warns(UserWarning, match="no chat template"):
        ours.encode(HELLO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.encode(HELLO)
    assert ours.stop == ()
    assert "\nUser:" in templates(llama, "gpt").stop or ours.names == ()


def test_a_plain_chat_stops_at_the_next_speaker(golden):
    path = golden / "tokenizers/spm.gguf"
    tokenizer = Tokenizer.from_gguf(GGUFFile(path).metadata, name=path.name)
    assert templates(tokenizer, "bitnet").stop == ("\nUser:", "\nSystem:")
    assert templates(tokenizer, "bitnet", default="x").stop == ()


def test_named_templates_of_gguf(llama):
    metadata = {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools",
        "tokenizer.chat_template.rag": "rag",
        "tokenizer.chat_templates": ["tool_use", "rag"],
    }
    ours = ChatTemplates.from_gguf(llama, metadata, "llama", name="some.gguf")
    assert ours.names == ("default", "tool_use", "rag")
    assert ours.render(HELLO) == "plain"
    assert ours.render(HELLO, tools=[{"name": "f"}]) == "tools"
    assert ours.render(HELLO, template="rag") == "rag"
    with pytest.raises(ValueError, match="no chat template 'x': this model has default, tool_use"):
        ours.render(HELLO, template="x")
    with pytest.raises(FormatError, match=r"some\.gguf: tokenizer\.chat_template is 1"):
        ChatTemplates.from_gguf(llama, {"tokenizer.chat_template": 1}, "llama", name="some.gguf")


def test_templates_of_a_folder(tmp_path, llama):
    def read():
        ours = ChatTemplates.from_folder(llama, tmp_path, "llama")
        return {name: ours.render(HELLO, template=name) for name in ours.names}

    config = tmp_path / "tokenizer_config.json"
    assert read() == {}
    config.write_text(json.dumps({"chat_template": "a"}))
    assert read() == {"default": "a"}
    named = [{"name": "default", "template": "b"}, {"name": "tool_use", "template": "c"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert read() == {"default": "b", "tool_use": "c"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/rag.jinja").write_text("é", encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("d")
    assert read() == {"default": "d", "tool_use": "c", "rag": "é"}


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not valid JSON"),
        ("tokenizer_config.json", '{"chat_template": 1}', "chat_template is 1, not a text"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "a"}]}', "not a text or named ones"),
        ("chat_template.jinja", "x" * (2**20 + 1), "bytes, more than the 1048576 supported"),
        ("chat_template.jinja", b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_damaged_templates_of_a_folder(tmp_path, llama, file, content, match):
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError, match=match):
        ChatTemplates.from_folder(llama, tmp_path, "llama")


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ("Hello", "messages must be a list of messages such as"),
        ({"role": "user"}, "messages must be a list"),
        ([], "messages is empty"),
        (["Hello"], r"messages\[0\] is 'Hello'; it must be a mapping"),
        ([{"role": "bot", "content": ""}], r"messages\[0\]\.role is 'bot'; it must be one of sys"),
        ([{"content": ""}], r"messages\[0\]\.role is None"),
        ([{"role": "user"}], r"messages\[0\]\.content is missing"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content is 3; it must be a text"),
        ([{"role": "user", "content": {"type": "text"}}], r"messages\[0\]\.content is \{"),
        (
            [*HELLO, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            r"messages\[1\]\.content\[0\] is .*; only text parts",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": 1}]}],
            r"messages\[0\]\.content\[0\]\.text is 1",
        ),
        ([{"role": "user", "content": "", "contents": ""}], "has the unknown key 'contents'"),
        ([{"role": "user", "content": "", "name": 1}], r"messages\[0\]\.name is 1"),
        (
            [{"role": "user", "content": "", "tool_calls": []}],
            r"tool_calls belongs to the assistant, not to user",
        ),
        ([{"role": "assistant", "tool_calls": "f"}], r"tool_calls is 'f'; it must be a list"),
        ([{"role": "assistant", "tool_calls": [{}]}], r"tool_calls\[0\]\.function must have"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            r"function\.arguments is '\{', which is no JSON",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "1"}}]}],
            r"function\.arguments is 1; it must be an object",
        ),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"a": {1}}}}],
                }
            ],
            r"function\.arguments holds \{1\}, which is not JSON",
        ),
    ],
)
def test_what_is_no_chat_is_refused(llama, messages, match):
    with pytest.raises(ValueError, match=match):
        templates(llama, default="{{ messages }}").encode(messages)


def test_parts_and_newer_names(llama):
    ours = templates(
        llama, default="{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    assert ours.render(messages) == "system=x;user=a\nb;"


@pytest.mark.parametrize("file", ["model-i2_s.gguf", "hf-packed"])
def test_what_follows_an_answer(golden, file):
    ours = templates_of(golden / "bitnet-b1.58" / file)
    kept = ours._tokenizer.encode(" Hi\n there ", add_bos=False)
    for content in ("And?", "<|eot_id|> in\U000f0000 text"):
        more = [
            *SYSTEM,
            {"role": "assistant", "content": "?"},
            {"role": "user", "content": content},
        ]
        after = ours.encode_after(more, 2)
        assert ours._tokenizer.decode(after) == f"<|eot_id|>User: {content}<|eot_id|>Assistant: "
        assert after.count(632) == 2
        # An answer that the template would trim stays as it was written.
        whole = [*ours.encode(SYSTEM), *kept, *after]
        assert whole[-len(after) :] == after
        assert ours.encode(more)[-len(after) :] == after


@pytest.mark.parametrize("file", ["spm.gguf", "spm-noprefix.gguf", "qwen2.gguf"])
def test_no_space_comes_in_the_middle_of_a_chat(golden, file):
    path = golden / "tokenizers" / file
    tokenizer = Tokenizer.from_gguf(GGUFFile(path).metadata, name=path.name)
    source = "{% for m in messages %}{{ m.content }}\n\n{% endfor %}"
    ours = templates(tokenizer, "bitnet", default=source)
    messages = [*HELLO, {"role": "assistant", "content": "Hi."}, *HELLO]
    after = ours.encode_after(messages, 1)
    pieces = b"".join(map(tokenizer.piece, after)).decode()
    assert pieces == ours.render(messages).split("Hi.")[1]


def test_what_follows_an_answer_that_is_not_shown(llama):
    messages = [*HELLO, {"role": "assistant", "content": "x"}, *HELLO]
    hides = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    assert templates(llama, default=hides).encode_after(messages, 1) is None
    twice = "{% for m in messages %}{{ m.content * 2 }}{% endfor %}"
    assert templates(llama, default=twice).encode_after(messages, 1) is None


def test_a_template_may_refuse(llama):
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}ok"
    ours = templates(llama, default=source)
    assert ours.render(HELLO) == "ok"
    match = r"some\.gguf: chat template 'default': the template refuses these messages: no system"
    with pytest.raises(ValueError, match=match):
        ours.render(SYSTEM)
    with pytest.raises(ValueError, match="the template failed: 'foo' is undefined"):
        templates(llama, default="{{ foo.bar }}").render(HELLO)
    with pytest.raises(FormatError, match=r"some\.gguf: chat template 'default': .*endfor"):
        templates(llama, default="{% for m in messages %}").render(HELLO)
