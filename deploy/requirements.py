"""`requirements.py EXTRA[,EXTRA...]`: print the requirements of pyproject.toml with these extras, one per line.

The images install them before the sources are copied, so that a change of the sources does not install them again.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))["project"]
wanted, requirements = sys.argv[1].split(","), list(project["dependencies"])
for extra in wanted:
    for requirement in project["optional-dependencies"][extra]:
        # An extra of this project, which no index has.
        own = re.fullmatch(project["name"] + r"\[([\w,-]+)\]", requirement)
        if own is None:
            requirements.append(requirement)
        else:
            wanted += [name for name in own[1].split(",") if name not in wanted]
sys.stdout.write("\n".join([*requirements, ""]))
