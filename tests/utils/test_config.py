"""The configuration: what it accepts, what it refuses and with which words."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from utils.config import (
    ConfigError,
    TestConfig,
    TrainConfig,
    config_digest,
    load_config,
    run_folder,
    to_yaml,
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAIN = "train_data_path: list.txt\n"


def written(folder: Path, content: str | bytes) -> str:
    path = folder / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(folder: Path, content: str | bytes, kind=TrainConfig, overrides=()) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, content), kind, overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message.replace(str(folder) + "/", "")


def test_defaults_are_the_papers(tmp_path):
    config = load_config(written(tmp_path, TRAIN))
    assert (config.batch_size, config.lr, config.beta1, config.beta2) == (48, 1e-4, 0.5, 0.9)
    assert (config.n_critic, config.niter, config.wgan_gp_lambda) == (5, 100_000, 10)
    assert (config.image_shape, config.mask_shape) == ((256, 256, 3), (128, 128))
    assert (config.max_delta_shape, config.margin) == ((32, 32), (0, 0))
    assert (config.coarse_l1_alpha, config.l1_loss_alpha, config.ae_loss_alpha) == (1.2, 1.2, 1.2)
    assert (config.gan_loss_alpha, config.global_wgan_loss_alpha) == (0.001, 1)
    assert config.spatial_discounting_gamma == 0.99
    assert (config.netG.ngf, config.netD.ndf, config.dialect) == (32, 64, "tf1")
    assert not (config.gradient_clip or config.gan_with_mask or config.pretrain_coarse_network)


def test_config_yaml_writes_every_default_out():
    values = yaml.safe_load((CONFIGS / "config.yaml").read_text())
    assert set(values) == {f.name for f in dataclasses.fields(TrainConfig)}
    defaults = TrainConfig(train_data_path=values["train_data_path"], val_data_path=values["val_data_path"])
    assert load_config(str(CONFIGS / "config.yaml")) == defaults
    assert set(yaml.safe_load((CONFIGS / "test.yaml").read_text())) == {
        f.name for f in dataclasses.fields(TestConfig)
    }


@pytest.mark.parametrize("name", ["config.yaml", "demo.yaml"])
def test_a_training_file_serves_the_evaluation(name):
    train, test = (load_config(str(CONFIGS / name), kind) for kind in (TrainConfig, TestConfig))
    assert run_folder(train) == run_folder(test)
    for key in ("image_shape", "mask_shape", "max_delta_shape", "val_data_path"):
        assert getattr(train, key) == getattr(test, key)
    assert test.protocol == "center"


def test_test_yaml_has_no_random_shrinking():
    assert load_config(str(CONFIGS / "test.yaml"), TestConfig).max_delta_shape == (0, 0)


def test_values_and_overrides(tmp_path):
    path = written(tmp_path, TRAIN + "lr: 1e-4\nwgan_gp_lambda: 10\nnetG: {ngf: 16}\nval_data_path:\n")
    overrides = ["lr=2e-4", "netD.ndf=8", "mask_shape=[64, 48]", "data_root=", "expname=a=b", "lr=0.5"]
    config = load_config(path, overrides=overrides)
    assert config.lr == 0.5 and isinstance(config.wgan_gp_lambda, float)
    assert (config.netG.ngf, config.netG.input_dim, config.netD.ndf) == (16, 3, 8)
    assert config.mask_shape == (64, 48) and config.expname == "a=b"
    assert (config.val_data_path, config.data_root) == ("", "")
    assert load_config(path).lr == 1e-4
    assert load_config(path, overrides=["netG.ngf=8"]).netG.ngf == 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", "latest"), ("latest", "latest"), ("false", False), ("", False), ("a/b.npz", "a/b.npz")],
)
def test_resume(tmp_path, value, expected):
    assert load_config(written(tmp_path, TRAIN + f"resume: {value}\n")).resume == expected


def test_instances_are_frozen_and_always_checked():
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0
    with pytest.raises(ConfigError, match="^batch_size must be a whole number from 1 to 4096, not 0$"):
        dataclasses.replace(config, batch_size=0)
    assert TrainConfig(mask_shape=[64, 48]).mask_shape == (64, 48)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batchsize: 3", "unknown key 'batchsize': did you mean batch_size?"),
        ("netG: {nfg: 3}", "unknown key 'netG.nfg': did you mean ngf?"),
        ("qqqqqq: 3", "unknown key 'qqqqqq'"),
        ("GAN_LOSS_ALPHA: 1", "unknown key 'GAN_LOSS_ALPHA': did you mean gan_loss_alpha?"),
        ("IMG_SHAPES: [1]", "unknown key 'IMG_SHAPES': did you mean image_shape?"),
        ("lr: fast", "lr must be a number above 0 and at most 1, not 'fast'"),
        ("lr: true", "lr must be a number above 0 and at most 1, not True"),
        ("lr: .nan", "lr must be a number above 0 and at most 1, not nan"),
        ("lr: 0", "lr must be a number above 0 and at most 1, not 0"),
        ("gan_loss_alpha: .inf", "gan_loss_alpha must be a number at least 0 and at most 1e+06, not inf"),
        ("beta1: 1", "beta1 must be a number at least 0 and below 1, not 1"),
        ("lr:", "lr must be a number above 0 and at most 1, not None"),
        ("batch_size: 1.0", "batch_size must be a whole number from 1 to 4096, not 1.0"),
        ("batch_size: true", "batch_size must be a whole number from 1 to 4096, not True"),
        ("batch_size: 99999", "batch_size must be a whole number from 1 to 4096, not 99999"),
        ("print_iter: 0", "print_iter must be a whole number from 1 to 1000000000, not 0"),
        ("random_crop: 1", "random_crop must be true or false, not 1"),
        ("dialect: torch", "dialect must be one of tf1, pytorch, not 'torch'"),
        ("precision: half", "precision must be one of fp32, fp16, bf16, not 'half'"),
        ("mask_type: [1]", "mask_type must be one of hole, mosaic, not [1]"),
        ("expname: 2018", "expname must be text, not 2018: put it in quotes"),
        ("expname: ..", "expname must be a name usable for a folder, without slashes, not '..'"),
        ("dataset_name: a/b", "dataset_name must be a name usable for a folder, without slashes, not 'a/b'"),
        ("mask_shape: [128]", "mask_shape must be a list of 2 values, not [128]"),
        ("netG: 3", "netG must hold input_dim and ngf, not 3"),
        ("netG: {ngf: 3}", "netG.ngf must be even (the last layers have half as many channels), not 3"),
        ("netG: {input_dim: 1}", "netG.input_dim must be a whole number from 3 to 3, not 1"),
        ("gradient_clip_value: 0", "gradient_clip_value must be a number above 0 and at most 1e+06, not 0"),
        ("resume: 3", "resume must be false, true, latest or a path, not 3"),
        ("protocol: centre", "protocol must be one of center, random_box, mask_dir, mask_list, "
         "freeform-thin, freeform-medium, freeform-thick, not 'centre'"),
        ("lr: 1\nlr: 1", "line 3: key 'lr' is given twice"),
        ("netG: {ngf: 8, ngf: 8}", "line 2: key 'ngf' is given twice"),
    ],
)
def test_refused_values(tmp_path, line, message):
    assert refusal(tmp_path, TRAIN + line + "\n") == "c.yaml: " + message


def test_a_list_is_said_to_be_one(tmp_path):
    message = refusal(tmp_path, TRAIN + "mask_shape: [128, 0]\n")
    assert message.startswith("c.yaml: mask_shape must be a list of 2 values, each of which must be a whole")


@pytest.mark.parametrize("key", ["cuda: true", "gpu_ids: [0]", "data_with_subfolder: true"])
def test_gone_keys_say_what_replaces_them_and_how_iterations_count_now(tmp_path, key):
    message = refusal(tmp_path, TRAIN + key)
    assert key.split(":")[0] in message and "divide niter" in message
    assert ("--device" in message) == ("data_with" not in key)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("image_shape: [250, 256, 3]", "image_shape: height and width must be divisible by 8, not 250 x 256"),
        ("image_shape: [256, 256, 1]", "image_shape: the third value is the number of channels, 3, not 1"),
        (
            "mask_shape: [128, 264]",
            "mask_shape and margin do not fit into image_shape: width 264 + 2 x 0 is more than 256",
        ),
        (
            "margin: [65, 0]",
            "mask_shape and margin do not fit into image_shape: height 128 + 2 x 65 is more than 256",
        ),
        (
            "max_delta_shape: [32, 128]",
            "max_delta_shape must be smaller than mask_shape: width 128 leaves nothing of 128",
        ),
        (
            "mask_shape: [8, 64]\nmax_delta_shape: [0, 0]",
            "mask_shape: both sides must be at least 16 for the local critic",
        ),
        ("scale_range: [1, 0.5]", "scale_range: the first value must not be larger than the second"),
        (
            "gan_with_mask: true\npretrain_coarse_network: true",
            "gan_with_mask needs the critics, which pretrain_coarse_network leaves out",
        ),
        (
            "batch_size: 4096\nimage_shape: [4096, 4096, 3]",
            "batch_size and image_shape: 4096 x 4096 x 4096 is more than 2^30 pixels a batch",
        ),
    ],
)
def test_rules_across_keys_name_the_keys(tmp_path, lines, message):
    assert refusal(tmp_path, TRAIN + lines) == "c.yaml: " + message


def test_a_box_that_fills_the_image_is_allowed(tmp_path):
    assert load_config(written(tmp_path, TRAIN + "margin: [64, 64]")).margin == (64, 64)


def test_a_test_config_has_no_local_critic_to_mind(tmp_path):
    path = written(tmp_path, "val_data_path: v\nmask_shape: [8, 8]\n")
    assert load_config(path, TestConfig).mask_shape == (8, 8)


def test_lists_of_images_are_required(tmp_path):
    message = "c.yaml: train_data_path is missing: name a file list, a folder or a glob"
    assert refusal(tmp_path, "lr: 0.1") == message
    assert "val_data_path is missing" in refusal(tmp_path, TRAIN, TestConfig)
    assert "val_data_path is missing" in refusal(tmp_path, "val_data_path:\n", TestConfig)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "command line ('lr'): write key=value"),
        ("=3", "command line ('=3'): write key=value"),
        ("lrr=3", "command line ('lrr=3'): unknown key 'lrr': did you mean lr?"),
        ("netG.nfg=3", "command line ('netG.nfg=3'): unknown key 'netG.nfg': did you mean ngf?"),
        ("lr.x=3", "command line ('lr.x=3'): lr must be a number above 0 and at most 1, not {'x': 3}"),
        ("cuda=true", "command line ('cuda=true'): key cuda is not used here: choose the device"),
        ("lr=[", "command line ('lr=['): line 1: not valid YAML: "),
    ],
)
def test_refused_overrides_name_the_command_line(tmp_path, override, message):
    assert refusal(tmp_path, TRAIN, overrides=[override]).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "c.yaml: is empty: start from a copy of configs/config.yaml"),
        ("# nothing\n", "c.yaml: is empty: start from a copy of configs/config.yaml"),
        ("- a\n", "c.yaml: must hold lines of the form key: value, not ['a']"),
        ("a: 1\nb: [1\n", "c.yaml: line 3: not valid YAML: "),
        ("lr: 1\n\tx: 2\n", "c.yaml: line 2: not valid YAML: "),
        ("a: &x 1\nb: *x\n", "c.yaml: line 1: anchors, aliases (& and *) and tags (!) are not supported"),
        ("lr: !!python/object/apply:os.system ['touch p']", "c.yaml: line 1: anchors, aliases"),
        ("seed: !!int ''", "c.yaml: line 1: anchors, aliases"),
        ("<<: {lr: 1}", "c.yaml: unknown key '<<'"),
        ("? [a, b]\n: 1\n", "c.yaml: line 1: a key must be a word"),
        ("seed: 2001-13-45", "c.yaml: not valid YAML: month must be in 1..12"),
        ("seed: 0b_", "c.yaml: not valid YAML: "),
        ("lr: " + "9" * 3000, "c.yaml: line 1: a value is longer than 2048 characters"),
        ("lr: " + "[" * 10_000, "c.yaml: line 1: nested deeper than 16 levels"),
        ("#" * 70_000, "c.yaml: is larger than 64 KiB, which no configuration is"),
        (b"lr: \xff\xfe", "c.yaml: not valid YAML: "),
        (b"lr: 1\n\x00\n", "c.yaml: not valid YAML: "),
        ("lr: 1\n---\nlr: 2\n", "c.yaml: line 2: not valid YAML: "),
    ],
)
def test_files_that_are_no_configuration(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    assert refusal(tmp_path, content).startswith(message)
    assert not (tmp_path / "p").exists()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such configuration file$"):
        load_config(str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: not a file: name a YAML file")):
        load_config(str(tmp_path))


def test_500_mutated_files_are_accepted_or_refused_in_words(tmp_path):
    original = (CONFIGS / "demo.yaml").read_bytes()
    rng = np.random.default_rng(5)
    alphabet = np.frombuffer(b" \t\n:[]{}&*!|>%@#'\"-?,0123456789eE.~<=\x00\x80\xff", np.uint8)
    accepted = 0
    for _ in range(500):
        mutated = np.frombuffer(original, np.uint8).copy()
        places = rng.integers(0, len(mutated), rng.integers(1, 6))
        mutated[places] = rng.choice(alphabet, len(places))
        try:
            load_config(written(tmp_path, mutated.tobytes()))
            accepted += 1
        except ConfigError as error:
            assert "\n" not in str(error)
    assert 0 < accepted < 500


def test_yaml_round_trip(tmp_path):
    config = TrainConfig(
        train_data_path="/照片/a b: #c.txt",
        data_root="x" * 300,
        expname="1e-4",
        lr=1e-5,
        resume="x/y.npz",
        scale_range=(0.3, 1.0),
        netG={"ngf": 8},
    )
    assert load_config(written(tmp_path, to_yaml(config))) == config
    test = TestConfig(val_data_path="no", protocol="random_box")
    assert load_config(written(tmp_path, to_yaml(test)), TestConfig) == test


def test_digest():
    config = TrainConfig()
    assert re.fullmatch("[0-9a-f]{16}", config_digest(config))
    assert config_digest(config) == config_digest(TrainConfig())
    for change in ({"lr": 1e-3}, {"netG": {"ngf": 8}}, {"seed": 1}, {"dialect": "pytorch"}, {"precision": "fp16"}):
        assert config_digest(dataclasses.replace(config, **change)) != config_digest(config)
    same = dataclasses.replace(config, niter=7, resume=True, num_workers=0, print_iter=1, keep_checkpoints=9)
    assert config_digest(same) == config_digest(config)


def test_run_folder():
    config = TrainConfig(dataset_name="demo", mask_type="mosaic", expname="a b")
    assert run_folder(config) == "checkpoints/demo/mosaic_a b"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("lr_schedule: steps", "lr_schedule: steps needs lr_steps, the iterations at which lr falls"),
        ("lr_steps: [5]", "lr_schedule: steps needs lr_steps"),
        ("lr_steps: [7, 5]", "lr_steps must be a rising list of iterations such as [60000, 80000], not [7, 5]"),
        ("lr_min: 0.01", "lr_min must not be larger than lr: 0.01 is more than 0.0001"),
        ("val_iter: 5", "val_iter needs val_data_path"),
        ("hole:", "hole must be box, freeform, mixed or the path of a list or folder of masks"),
        ("ema_decay: 1", "ema_decay must be a number at least 0 and below 1, not 1"),
        ("amp: float16", "key amp is not used here: its name is precision: fp32, fp16 or bf16"),
        ("cache_megabytes: 5", "key cache_megabytes is not used here: its name is cache_mb"),
        ("keep_every_iter: 5", "key keep_every_iter is not used here: its name is keep_checkpoint_interval"),
        ("holes_per_image: 5", "key holes_per_image is not used here: its name is masks_per_image"),
        ("max_rollbacks: 0", "key max_rollbacks is not used here: a value that is not finite stops the run"),
    ],
)
def test_refused_training_features(tmp_path, lines, message):
    assert refusal(tmp_path, TRAIN + lines).startswith("c.yaml: " + message)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train_data_path=a #2", "train_data_path", "a #2"),
        ("train_data_path=*.jpg", "train_data_path", "*.jpg"),
        ("train_data_path=[a]: {b", "train_data_path", "[a]: {b"),
        ("data_root=null", "data_root", "null"),
        ("expname=001", "expname", "001"),
        ("expname=1e5", "expname", "1e5"),
        ("expname=true", "expname", "true"),
        ("hole=& masks", "hole", "& masks"),
        ("init_from='a'", "init_from", "'a'"),
        ("resume=a: b.npz", "resume", "a: b.npz"),
        ("resume=true", "resume", "latest"),
        ("resume=false", "resume", False),
    ],
)
def test_text_on_the_command_line_is_taken_as_it_is(tmp_path, override, key, value):
    assert getattr(load_config(written(tmp_path, TRAIN), overrides=[override]), key) == value
