/** Chat templates for models whose file has none, as bitnet_lut/text/default_templates.py has them. */

/**
 * @typedef {object} DefaultTemplate
 * @property {string} source
 * @property {string[]} needs control tokens that it writes
 * @property {string[]} [architectures] that it is meant for; any if missing
 * @property {string[]} [stop] strings that end an answer where no control token does
 */

/** The first that suits a model comes before others. @type {DefaultTemplate[]} */
const DEFAULTS = [
  {
    needs: ["<|eot_id|>"],
    architectures: ["bitnet", "bitnet-b1.58", "bitnet-25"],
    source:
      "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}" +
      "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}",
  },
  {
    needs: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    source:
      "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n" +
      "{{ message['content'] | trim }}<|eot_id|>{% endfor %}" +
      "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
  },
  {
    needs: ["<|im_start|>", "<|im_end|>"],
    source:
      "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{{ '\n' }}" +
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}",
  },
  {
    needs: ["<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"],
    source:
      "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}" +
      "{% if message['role'] == 'assistant' %}<|endoftext|>{% endif %}{% if not loop.last %}{{ '\n' }}{% endif %}" +
      "{% endfor %}{% if add_generation_prompt %}{{ '\n' }}<|assistant|>{{ '\n' }}{% endif %}",
  },
  {
    needs: [],
    source:
      "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}{{ '\n' }}" +
      "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
    stop: ["\nUser:", "\nSystem:"],
  },
];

/**
 * What stands in for a missing template.
 * @param {string} architecture
 * @param {string[]} controls texts of the control tokens of the model
 * @returns {DefaultTemplate}
 */
export function defaultTemplate(architecture, controls) {
  return DEFAULTS.find(
    ({ needs, architectures }) =>
      needs.every((text) => controls.includes(text)) && (!architectures || architectures.includes(architecture)),
  );
}
