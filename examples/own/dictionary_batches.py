"""Dictionary batches and outputs, as Hugging Face has them: the model gives its own loss."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import ravine

generator = torch.Generator().manual_seed(0)
ids = torch.randint(1, 20, (1500, 12), generator=generator)
mask = (torch.arange(12) < torch.randint(4, 13, (1500, 1), generator=generator)).long()
labels = (((ids == 7) & (mask == 1)).sum(1) > 0).long()  # does the text hold token 7?
rows = [
    {"input_ids": i, "attention_mask": m, "labels": y}
    for i, m, y in zip(ids, mask, labels, strict=True)
]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        hidden = self.embed(input_ids).masked_fill(attention_mask[..., None] == 0, -1e4)
        logits = self.head(hidden.max(1).values)
        return {
            "loss": None if labels is None else F.cross_entropy(logits, labels),
            "logits": logits,
        }


AGAIN = {"model": Classifier, "data": DataLoader(rows, batch_size=64, shuffle=True)}


def main(out=None, quiet=False):
    return ravine.train(**AGAIN, lr=0.02, epochs=12, out=out, quiet=quiet)


def target(run):
    few = {"input_ids": ids[:5], "attention_mask": mask[:5]}
    plain = run.model(**few)["logits"].argmax(1)  # the module is the plain one
    same = (run.predict(few) == plain.numpy()).all()
    return run.result["test_accuracy"] > 0.95 and same


if __name__ == "__main__":
    print(target(main()))
