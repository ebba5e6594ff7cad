"""The settings of a trainer; names and meanings are those of `configs/config.yaml`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What the networks look like; it decides which checkpoints fit."""

    generator_channels: int = 32  # netG.ngf, the paper's c
    critic_channels: int = 64  # netD.ndf
    image_size: tuple[int, int] = (256, 256)  # what the global critic sees
    box_size: tuple[int, int] = (128, 128)  # what the local critic sees
    dialect: str = "tf1"
    critic_sees_mask: bool = False  # gan_with_mask: the mask as fourth channel of the global critic
    contextual_attention: bool = True  # False: the generator without that layer, for comparison


@dataclass(frozen=True)
class Objective:
    """What is minimised; names as in the configuration."""

    coarse_l1_alpha: float = 1.2
    l1_loss_alpha: float = 1.2
    ae_loss_alpha: float = 1.2
    gan_loss_alpha: float = 0.001  # 0 trains without critics
    global_wgan_loss_alpha: float = 1.0
    wgan_gp_lambda: float = 10.0
    discounted_mask: bool = True  # False weighs all pixels of the box alike
    spatial_discounting_gamma: float = 0.99
    pretrain_coarse_network: bool = False  # the coarse stage alone
    mask_type: str = "hole"
    mosaic_unit_size: int = 12

    @property
    def gamma(self) -> float:
        return self.spatial_discounting_gamma if self.discounted_mask else 1.0

    @property
    def adversarial(self) -> bool:
        return self.gan_loss_alpha > 0 and not self.pretrain_coarse_network


@dataclass(frozen=True)
class Optimization:
    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    gradient_clip: bool = False
    gradient_clip_value: float = 0.1  # largest average norm of a generator gradient (TF1: GRADIENT_CLIP_VALUE)
    precision: str = "fp32"  # or fp16, bf16: of the convolutions, on GPUs
    ema_decay: float = 0.0  # of the averaged generator; 0: there is none
    accumulate: int = 1  # parts that a batch is computed in, one after the other
