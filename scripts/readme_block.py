"""Print the n-th fenced ``sh`` block of the README: what CI runs is what the README says."""

import re
import sys
from pathlib import Path

readme = Path(__file__).parent.parent / "README.md"
blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
print(blocks[int(sys.argv[1]) - 1].strip())
