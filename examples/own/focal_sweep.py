"""A registered technique: the focal loss, of which each member of a population has its own gamma."""

import torch.nn.functional as F

import ravine
from ravine.catalogue import NonNegative, PerMember

AGAIN = {}
GAMMAS = (0.0, 1.0, 2.0, 4.0)


@ravine.technique("loss")
def focal(output, target, *, gamma: PerMember[NonNegative] = 2.0):
    """The focal loss, -(1 - p)^gamma log p (Lin et al., "Focal loss", 2017)."""
    log_p = F.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p


def main(out=None, quiet=False):
    recipe = ravine.Recipe(loss="own:focal", optimizer={"kind": "adam", "lr": 3e-3})
    recipes = [recipe.edit({"loss.gamma": gamma, "stop.after": "12ep"}) for gamma in GAMMAS]
    return ravine.train_many(recipes, out=out, quiet=quiet)


def target(runs):
    """All learn digits, as one population; a larger gamma weighs easy samples less."""
    losses = [run.result["train_loss"] for run in runs]
    together = len({run.directory for run in runs}) == 1
    learnt = all(run.result["test_accuracy"] > 0.9 for run in runs)
    return together and learnt and losses == sorted(losses, reverse=True)


if __name__ == "__main__":
    print(target(main()))
