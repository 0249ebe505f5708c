"""A pytest plugin: what asks for PySocks, gets `socksy.pysocks`."""

import socksy.pysocks

socksy.pysocks.install_as_socks()
