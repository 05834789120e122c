"""`requirements.py EXTRA`: what pyproject.toml beside it asks for with that extra, a requirement a line.

Images install these before they copy the sources, so that a change of the sources installs nothing again.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))["project"]
sys.stdout.write("\n".join([*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], ""]))
