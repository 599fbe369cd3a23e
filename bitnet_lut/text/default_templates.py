"""Chat templates for models whose file has none, the first that suits a model before others."""

from dataclasses import dataclass

__all__ = ["DEFAULTS", "DefaultTemplate"]


@dataclass(frozen=True)
class DefaultTemplate:
    """A template for models whose file has none.

    needs: the control tokens it writes. architectures: those it is meant for; any if empty.
    stop: strings that end an answer where no control token does.
    """

    name: str
    source: str
    needs: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


DEFAULTS = (
    DefaultTemplate(
        "BitNet b1.58",
        "{% for message in messages %}{{ message['role'] | capitalize + ': ' + "
        "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}",
        needs=("<|eot_id|>",),
        architectures=("bitnet", "bitnet-b1.58", "bitnet-25"),
    ),
    DefaultTemplate(
        "Llama 3",
        "{{ bos_token }}{% for message in messages %}"
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{% endif %}",
        needs=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    DefaultTemplate(
        "ChatML",
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}",
        needs=("<|im_start|>", "<|im_end|>"),
    ),
    DefaultTemplate(
        "Falcon3",
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %}<|endoftext|>{% endif %}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n' }}<|assistant|>{{ '\n' }}{% endif %}",
        needs=("<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
    ),
    DefaultTemplate(
        "plain text",
        "{% for message in messages %}{{ message['role'] | capitalize }}: "
        "{{ message['content'] | trim }}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}",
        stop=("\nUser:", "\nSystem:"),
    ),
)
