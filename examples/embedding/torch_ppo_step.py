"""PPO on per-token tensors of any framework: shaped rewards, GAE and the clipped loss. Needs torch and NumPy alone."""

import torch

from rlsft_kernels import kl_shaped_gae, policy_value_loss

torch.manual_seed(0)
old_logprobs, ref_logprobs, old_values = (torch.randn(4, 12) for _ in range(3))
mask = torch.arange(12)[None] < torch.tensor([[12], [9], [5], [1]])  # answers of uneven length
scores = torch.tensor([1.0, -0.5, 0.3, 0.0])  # one reward an answer, paid on its last token

gae = kl_shaped_gae(scores, old_logprobs, ref_logprobs, old_values, mask, kl_coef=0.05, gamma=1.0, lam=0.95)
logprobs, values = old_logprobs.clone().requires_grad_(), old_values.clone().requires_grad_()
loss, stats = policy_value_loss(
    logprobs, old_logprobs, gae.advantages, values, old_values, gae.returns, mask, clip_high=0.28
)
loss.backward()
assert stats["ratio_mean"] == 1.0  # nothing has been updated yet
print(f"loss {loss.item():.3f}, kl {gae.stats['kl'].item():.3f}, value loss {stats['loss/value'].item():.3f}")
