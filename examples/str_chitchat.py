"""STR on real human dialogues, whole, in Python: what `rlsft str --config examples/str_chitchat.yaml` does."""

from rlsft import STRConfig, STRTrainer
from rlsft.data import assets, chitchat

args = STRConfig(
    output_dir="runs/str_chitchat_py",
    dtype="bfloat16",
    attn_implementation="eager",
    use_peft=True,
    max_length=96,
    truncate_prompt=True,
    max_completion_length=32,
    system_prompt="Chat like a friendly person.",
    encoder="minilm",
    sft_max_examples=512,
    sft_learning_rate=4e-4,
    sample_prompts=160,
    samples_per_prompt=8,
    ppo_episodes=320,
    kl_coef=0.1,
)
train, held_out = chitchat.load("train").select(range(4000)), chitchat.load("test")
result = STRTrainer(assets.smollm2("bfloat16"), args, train_dataset=train, eval_dataset=held_out).train()
print(result.comparison.to_markdown())
