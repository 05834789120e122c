"""`requirements.py EXTRA[,EXTRA...]`: what pyproject.toml beside it asks for with them, a requirement a line.

Images install these before they copy the sources, so that a change of the sources installs nothing again.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))["project"]
wanted, told = sys.argv[1].split(","), list(project["dependencies"])
for extra in wanted:
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(
            project["name"] + r"\[([\w,-]+)\]", requirement
        )  # an extra of this project's own, which no index has
        if own is None:
            told.append(requirement)
        else:
            wanted += [name for name in own[1].split(",") if name not in wanted]
sys.stdout.write("\n".join([*told, ""]))
