"""What users install."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_the_mark_of_a_typed_package_and_its_data(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "pipeline_runner").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "pipeline_runner/py.typed" in names
    assert package <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"pipeline_runner"}
