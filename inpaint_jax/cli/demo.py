"""A web page to fill holes on: inpaint-jax demo [--checkpoint=runs/places2], then open the address that it prints.

Choose a photo or an example, brush over what should go, draw lines into the hole if the model is guided by sketches,
and fill it. --checkpoint is a workdir, a file of inpaint-jax export, or a model that comes along. Only this machine
can open the page unless --host says otherwise; photos are neither stored nor sent anywhere else.
"""

from absl import flags

from inpaint_jax.cli import checkpoint
from inpaint_jax.errors import UserError

REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """The flags."""
    checkpoint.define(values)
    flags.DEFINE_string(
        "host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets the whole network in.", flag_values=values
    )
    flags.DEFINE_integer(
        "port", 7860, "Port to listen at; 0 for any free one.", lower_bound=0, upper_bound=65535, flag_values=values
    )
    flags.DEFINE_bool("open", False, "Open the page in the browser of this machine.", flag_values=values)
    flags.DEFINE_string(
        "pidinet_weights",
        None,
        "File of PiDiNet's weights, to suggest sketches; otherwise from the cache, if it is there.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "largest_side",
        2048,
        "Up to which longest side, in pixels, visitors may let the model work.",
        lower_bound=64,
        flag_values=values,
    )
    flags.DEFINE_float("max_megabytes", 30, "Larger uploads are refused.", lower_bound=0.1, flag_values=values)
    flags.DEFINE_float("max_megapixels", 60, "Photos of more pixels are refused.", lower_bound=0.1, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Hands over to `demo.serve.serve`."""
    try:
        from inpaint_jax.demo.serve import Limits, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("inpaint_jax"):
            raise
        raise UserError(f"The page needs {error.name}; install it by: pip install 'inpaint-jax[demo]'.") from error
    serve(
        values.checkpoint,
        step=values.step,
        host=values.host,
        port=values.port,
        open_page=values.open,
        pidinet_weights=values.pidinet_weights,
        limits=Limits(values.max_megabytes, values.max_megapixels, values.largest_side),
    )
