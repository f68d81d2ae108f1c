"""A learned reward in verl, a little less for every word.

    reward.custom_reward_function.path=verl_reward.py  reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.reward_path=out/reward_model

Without the price of words, name `rlsft.integrations.verl_reward.__file__` itself. `extra_info` must hold the prompt.
"""

from rlsft.integrations.verl_reward import compute_score as learned


def compute_score(data_source, solution_str, ground_truth, extra_info=None, reward_path=None, **_):
    reward = learned(data_source, solution_str, ground_truth, extra_info, reward_path=reward_path)
    return {"score": reward - 0.01 * len(solution_str.split()), "learned_reward": reward}
