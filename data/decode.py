"""Old names, for rooms that are not yet moved to data/image_io.py."""

from data.image_io import MAX_PIXELS as MAX_PIXELS
from data.image_io import read_rgb as decode_image  # noqa: F401
from utils.cli import UserError as ImageError  # noqa: F401
