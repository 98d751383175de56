"""Rewards of generated text from integer tokens: ROUGE and BLEU of many pairs at once."""

from .text.rewards import Scores, bleu_sentence, rouge_l, rouge_lsum, rouge_n

__all__ = ["Scores", "bleu_sentence", "rouge_l", "rouge_lsum", "rouge_n"]
