"""AdamW with weight decay on matrices only, and a learning rate that is a function of the step (§3.2).

Warm-up is linear and starts above zero; then a cosine falls to a share of the peak, or (`wsd`) the peak is held and the
last steps fall on a line (MiniCPM, arXiv 2404.06395). The paper gives 3e-4, betas 0.9
and 0.95, 2,000 steps of warm-up and a cosine; decay 0.1 on matrices, clipping at 1.0 and an end at a tenth are LLaMA's.
"""

import math

import torch

from toto.config import RecipeConfig
from toto.train.models import LanguageModel


def make_optimizer(model: LanguageModel, recipe: RecipeConfig) -> torch.optim.AdamW:
    """AdamW over all parameters, matrices with decay (`LanguageModel.decays`); fused kernels where there are any."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in parameters if model.decays(name)], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in parameters if not model.decays(name)], "weight_decay": 0.0},
    ]
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=1e-8, fused=True)


def learning_rate(recipe: RecipeConfig, step: int) -> float:
    """The rate of step 0, 1, …; after the last step it stays where the schedule ends."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    end = recipe.min_learning_rate
    if recipe.schedule == "wsd":
        decay = max(1, round(recipe.decay_share * recipe.steps))
        left = min(1.0, max(0.0, (recipe.steps - step) / decay))
    else:
        progress = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
        left = 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate * (end + (1 - end) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
