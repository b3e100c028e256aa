"""Every field with its default: the paper's settings (Section IV-B) at 256 x 256. The other configs change a few.

One thing differs: the paper squeezes photos into squares (data.resize=stretch), we cut squares out of them.

--config=configs/places2.py:sketch (and every other file) makes a model that is guided by sketches (Section IV-F): it
has a fifth input channel. Sketches of data sets come from `python -m inpaint_jax.sketching`, in the folders that
data.sketches and data.validation_sketches name; without these, training starts by making them in its workdir. In that,
too, one thing differs: some samples come without sketch, so that the model also fills holes that nobody drew in;
data.sketch_dropout=0 is the paper.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str | None = None, name: str = "default") -> ConfigDict:
    """The paper's settings, without data.

    Args:
        variant: what stands behind the colon in --config=configs/places2.py:sketch; "sketch" or nothing.
        name: of the config.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in (None, "", "sketch"):
        raise ValueError(f"There is no variant {variant!r}; leave it out, or take :sketch.")
    config = ConfigDict()
    config.name = f"{name}_{variant}" if variant else name  # names the default workdir, runs/<name>
    config.seed = 0  # of the initial parameters, the order of the data, crops, flips and masks
    config.dtype = "float32"  # of the networks' computation; "bfloat16" halves memory on GPUs that have it
    config.batch_size = 16  # over all devices together

    config.data = ConfigDict()
    config.data.train = placeholder(str)  # folder:PATH, tfds:NAME[/CONFIG]:SPLIT or skimage:train
    config.data.validation = placeholder(str)
    config.data.test = placeholder(str)
    config.data.masks = "freeform"  # or mixed (holes of all ratios), or folder:PATH
    config.data.image_size = 256
    config.data.resize = "shortest"  # side to image_size, then crop; "stretch" resizes both sides (as the paper)
    config.data.crop = "random"  # in training; "center" otherwise
    config.data.flip = 0.5
    # Training photos are resized to between 1 and this times image_size before the crop; smaller ones are enlarged.
    config.data.zoom = 1.0
    config.data.workers = 2  # processes that read and mask photos
    config.data.validation_limit = placeholder(int)  # images of the validation set to use; all by default
    # For model.sketch alone: folders of `python -m inpaint_jax.sketching`; made in the workdir by default.
    config.data.sketches = placeholder(str)  # of data.train
    config.data.validation_sketches = placeholder(str)
    # Share of the training samples that lose lines: half of these all, the others each connected line with 1/2.
    config.data.sketch_dropout = 0.3
    config.data.pidinet_weights = placeholder(str)  # a file, to make sketches; downloaded into the cache by default

    config.model = ConfigDict()
    config.model.sketch = variant == "sketch"  # a fifth input channel: guided by sketches
    config.model.width = 24  # w
    config.model.fill = "constant"  # what the hole holds at first; or tension_spline, a smooth continuation
    config.model.skips = False  # from encoders to decoders, as in a U-Net
    config.model.output = "image"  # of both stages; or residual, added to the fill inside the hole
    config.model.attention = "mhtma"  # or its siblings: single, contextual (CA), atma
    config.model.heads = 2  # K
    config.model.patch_size = 3  # s
    config.model.constant_temperature = placeholder(float)  # of all heads; learned by default (CA: 1/10)
    config.model.temperature_activation = placeholder(str)  # softplus by default, leaky_relu in atma
    config.model.discriminator_width = 64
    config.model.discriminator_features = 1024

    config.loss = ConfigDict()
    # "mean" over all pixels; "by_area" takes one mean over the hole and one over the known pixels; "relative" is the
    # share of the fill's error inside the hole that is left (with model.output=image nothing then trains known pixels).
    config.loss.l1 = "mean"
    config.loss.hole_weight = 6.0  # of the hole's mean, where the other's is 1; for "by_area" alone
    config.loss.coarse_weight = 1.2  # lambda_1
    config.loss.refined_weight = 1.0  # lambda_2
    # lambda_p, of activations scaled by features.vgg.PERCEPTUAL_SCALE; 0 needs no VGG weights
    config.loss.perceptual_weight = 0.004
    config.loss.adversarial_weight = (
        0.01  # lambda_adv^G; 0 trains without the discriminator: saves its time, not its memory
    )
    config.loss.adversarial = "hinge"  # with spectral norms; "wgan_gp" has a gradient penalty instead (Table II)
    config.loss.gradient_penalty_weight = 10.0  # lambda of WGAN-GP (Gulrajani et al. 2017); for "wgan_gp" alone
    config.loss.vgg_weights = placeholder(str)  # a file; downloaded into the cache by default

    config.optimizer = ConfigDict()
    config.optimizer.generator_learning_rate = 1e-4
    config.optimizer.discriminator_learning_rate = 1e-4
    config.optimizer.beta1 = 0.5
    config.optimizer.beta2 = 0.9
    config.optimizer.schedule = "constant"  # of both rates; "cosine" falls to 0 at train.max_steps
    config.optimizer.warmup_steps = 0  # in which both rates rise from 0
    config.optimizer.ema_decay = 0.0  # of the generator's moving average, which is then validated and used; 0: none

    config.train = ConfigDict()
    config.train.max_steps = placeholder(int)  # no limit by default: early stopping ends the run
    config.train.select_by = "loss"  # the best checkpoint, and early stopping; "hole_l1" looks into the hole alone
    config.train.patience_epochs = 30.0  # without a better one
    config.train.patience_steps = placeholder(int)  # the same in steps; whichever comes first
    config.train.validate_every_epochs = 1.0
    config.train.checkpoint_every_steps = 1000  # besides those after each validation
    config.train.log_every_steps = 50
    config.train.samples = 8  # rows of the sample sheets
    return config
