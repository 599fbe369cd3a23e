"""An HTTP server that OpenAI clients use: ``bitnet-lut serve``. Needs ``bitnet_lut[server]``."""

from bitnet_lut.server.app import create_app
from bitnet_lut.server.settings import Settings

__all__ = ["Settings", "create_app"]
