"""What a run minimizes. An objective has three methods:

    loss(model, batch)   the sum that is minimized, divided over the global batch by
    weight(batch)        supervised tokens, or preference pairs
    summary()            statistics since the last call, for the log; {} for none
"""
from data import IGNORE
from training import dpo


class LanguageModeling:
    """The next token: pretraining, and SFT, where the targets outside answers are IGNORE."""

    def loss(self, model, batch):
        """Minus the sum of the targets' log-probabilities."""
        return -model(batch.tokens, batch.targets, batch.starts).sum()

    def weight(self, batch):
        return int((batch.targets != IGNORE).sum())

    def summary(self):
        return {}


def make_objectives(c, world, model, schedule, held_out):
    """(objective of training, of validation, what to log at the start). Collective; the weights must be init's."""
    if c.loss == "dpo":
        return dpo.make_objectives(c, world, model, schedule, held_out)
    return LanguageModeling(), LanguageModeling(), {}
