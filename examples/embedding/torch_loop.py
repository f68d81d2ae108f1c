"""A training loop of your own: trunk, head, and a loss that makes no logits. Needs torch and NumPy alone."""

import torch
from torch import nn

from rlsft_kernels import linear_cross_entropy

torch.manual_seed(0)
trunk, head = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 64), nn.GELU()), nn.Linear(64, 1000)
optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], lr=1e-2)
tokens = torch.randint(0, 1000, (8, 33))
inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
targets[:, :4] = -100  # the prompt is not trained

losses = []
for _ in range(20):
    optimizer.zero_grad()
    loss, stats = linear_cross_entropy(trunk(inputs), head.weight, targets, bias=head.bias)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, accuracy {stats['accuracy']:.2f}, entropy {stats['entropy']:.2f}")
