"""What flambeau-rl registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import ModelSpec, TaskSpec, TrainerSpec, hookimpl

CONTROL = "rl/control"


@hookimpl
def flambeau_register_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        id="rl/mlp_actor_critic",
        factory="flambeau_rl.models.actor_critic:MLPActorCritic",
        config="flambeau_rl.models.actor_critic:ActorCriticConfig",
        summary="Actor and critic of two layers each for vector observations and discrete actions.",
        task=CONTROL,
        parameters=9_155,
        tags=("control", "discrete"),
    )


@hookimpl
def flambeau_register_trainers() -> Iterator[TrainerSpec]:
    yield TrainerSpec(
        id="rl/ppo",
        factory="flambeau_rl.trainers.ppo:train",
        config="flambeau_rl.trainers.ppo:PPOOptions",
        summary="Proximal policy optimisation on a gymnasium environment (--data is its id).",
        needs_data=False,
    )


@hookimpl
def flambeau_register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        id=CONTROL,
        summary="Acting in a gymnasium environment: mean return over episodes, an episode as GIF.",
        trainer="rl/ppo",
        evaluate="flambeau_rl.tasks.control:evaluate",
        predict="flambeau_rl.tasks.control:predict",
        needs_data=False,
        aliases=("control",),
    )
