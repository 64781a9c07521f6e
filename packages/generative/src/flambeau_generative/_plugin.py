"""What flambeau-generative registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import DatasetSpec, ModelSpec, TaskSpec, TrainerSpec, hookimpl

AUTOENCODING, DIFFUSION = "generative/autoencoding", "generative/diffusion"


@hookimpl
def flambeau_register_models() -> Iterator[ModelSpec]:
    yield ModelSpec(
        id="generative/vae",
        factory="flambeau_generative.models.vae:VAE",
        config="flambeau_generative.models.vae:VAEConfig",
        summary="Convolutional variational autoencoder for small pictures (28x28, 32x32).",
        task=AUTOENCODING,
        parameters=1_688_289,
        tags=("autoencoder", "images"),
    )
    yield ModelSpec(
        id="generative/ddpm",
        factory="flambeau_generative.models.ddpm:DDPM",
        config="flambeau_generative.models.ddpm:DDPMConfig",
        summary="Denoising diffusion with a small U-Net that predicts the noise; DDIM sampler.",
        task=DIFFUSION,
        parameters=764_929,
        tags=("diffusion", "images"),
    )


@hookimpl
def flambeau_register_trainers() -> Iterator[TrainerSpec]:
    yield TrainerSpec(
        id="generative/elbo",
        factory="flambeau_generative.trainers.elbo:train",
        config="flambeau_generative.trainers.elbo:ELBOOptions",
        summary="Variational autoencoders: the evidence lower bound, with a weight beta of its KL term.",
    )
    yield TrainerSpec(
        id="generative/denoising",
        factory="flambeau_generative.trainers.denoising:train",
        config="flambeau_generative.trainers.denoising:DenoisingOptions",
        summary="Diffusion models: the noise in noised pictures is predicted; averaged weights.",
    )


@hookimpl
def flambeau_register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        id=AUTOENCODING,
        summary="Pictures from a latent code: negative ELBO on a data set, a grid of samples for a seed.",
        trainer="generative/elbo",
        evaluate="flambeau_generative.tasks.autoencoding:evaluate",
        predict="flambeau_generative.tasks.autoencoding:predict",
    )
    yield TaskSpec(
        id=DIFFUSION,
        summary="Pictures from noise: denoising loss on a data set, a grid of samples for a seed.",
        trainer="generative/denoising",
        evaluate="flambeau_generative.tasks.diffusion:evaluate",
        predict="flambeau_generative.tasks.diffusion:predict",
    )


@hookimpl
def flambeau_register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        id="generative/images",
        factory="flambeau_generative.data:read_images",
        summary="Small square pictures without labels: MNIST's idx files, a csv of pixels, or a folder of pictures.",
        splits=("train", "test"),
    )
