"""Where the tests find the repository, its notebooks and the real data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SCIENTIFIC = ROOT.parent / "shared" / "data" / "scientific-2018"
