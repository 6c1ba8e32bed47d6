"""What is printed must not depend on who runs the tests: side by side they are told 80 columns."""

import os

for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
