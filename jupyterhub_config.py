"""JupyterHub reads this file; everything it says is decided in ``hub.wiring``."""

from hub.settings import load_settings
from hub.wiring import configure

configure(get_config(), load_settings())  # type: ignore[name-defined]  # noqa: F821  (JupyterHub puts get_config here)
