"""The vocabulary of the demonstration model: byte-level BPE, trained on its corpus."""

from collections.abc import Iterable
from itertools import islice

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bitnet_lut.text.vocabulary import PRE_TOKENIZERS
from training.demo.corpus import BOS, EOS, EOT, documents

__all__ = ["PRE", "train_vocabulary"]

# Cuts numbers into single digits.
PRE = "qwen2"
_SAMPLE = 40000


def train_vocabulary(size: int, seed: int) -> Tokenizer:
    """*size* tokens: three control tokens, the 256 bytes, and the commonest parts of words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(
                pre_tokenizers.Split(Regex(regex), "isolated")
                for regex in PRE_TOKENIZERS[PRE].passes
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def _texts(seed: int) -> Iterable[str]:
    for document in islice(documents(seed, -1), _SAMPLE):
        for piece in document:
            text = piece.text
            for special in (BOS, EOS, EOT):
                text = text.replace(special, "\n")
            yield text
