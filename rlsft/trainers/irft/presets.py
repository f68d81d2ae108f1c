"""Settings of published runs, with what could not be taken over and why."""

from __future__ import annotations

from typing import Any


def spin_settings() -> dict[str, Any]:
    """SPIN's iteration (arXiv 2401.01335): IRFT with one round on all prompts."""
    return {"rounds": 1, "refresh": "full", "reference": "previous", "loss_type": "logistic", "beta": 0.1}


def released_code_settings() -> dict[str, Any]:
    """The code released with arXiv 2405.17888, for zephyr-7b-sft-full.

    Left out, because a setting should not name a plain error: attention 0 on end tokens inside the text, padding in the
    labels of the online variant, and an adapter on the output layer (its weight alone goes through the fused loss, so
    only the other layers are adapted). Each stage of that code merges its adapter and starts a new one; here one
    adapter goes on, and `optimizer_per_round="restart"` empties the optimizer as a new adapter would.
    """
    return {
        "rounds": 5,
        "refresh": "shards",  # one pass over the data in all
        "epochs_per_round": 1.0,
        "reference": "previous",
        "optimizer_per_round": "restart",  # with warm-up and decay in every stage
        "loss_type": "logistic",
        "beta": 0.1,
        "optim": "rmsprop",
        "learning_rate": 5e-7,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,  # below 1 it is a share of the steps
        "weight_decay": 0.0,
        "per_device_train_batch_size": 2,  # on 4 GPUs
        "max_length": 512,
        "truncate_prompt": True,
        "max_completion_length": 256,
        "temperature": 0.0,  # the generation call sets no sampling flag, so transformers decodes greedily
        "samples_per_prompt": 1,
        # the defect with a name: answers are drawn from another template than the one that is trained
        "generation_template": "### Instruction: {prompt}\n\n### Response: ",
        "use_peft": True,
        "lora_r": 64,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
