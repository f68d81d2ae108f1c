"""verl on our ops, as a Ray worker sees it; a run of verl needs two variables and names in its configuration:

VERL_USE_EXTERNAL_MODULES=rlsft.integrations.verl  RLSFT_VERL=1
actor_rollout_ref.model.use_fused_kernels=True  actor_rollout_ref.actor.policy_loss.loss_mode=rlsft_ppo
"""

import importlib.util

import torch

from rlsft.integrations import verl as bridge

rewards, values, mask = torch.randn(2, 6), torch.randn(2, 6), torch.ones(2, 6)
mask[0, 2:4] = 0  # a tool's answer in the middle
advantages, returns = bridge.gae_advantage_return(rewards, values, mask, gamma=1.0, lam=0.95)
print(f"advantages of {int(mask.sum())} tokens: mean {advantages.sum().item() / mask.sum():.4f}")
if importlib.util.find_spec("verl") is not None:
    with bridge.patched():
        print("verl's GAE, fused head, log-probabilities and the policy loss rlsft_ppo are ours in here")
