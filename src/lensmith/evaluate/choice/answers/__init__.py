"""The chosen option, read out of what a model wrote: thoughts left out, options marked, claims weighed."""

from lensmith.evaluate.choice.answers.decide import READING_VERSION, parse_answer

__all__ = ["READING_VERSION", "parse_answer"]
